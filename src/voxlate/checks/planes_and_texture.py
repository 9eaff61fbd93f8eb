"""Order and brightness of the planes of a scan, its noise, ghosts, points, waves and sharpness, as numbers of a fingerprint."""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.linalg import norm
from numpy.typing import NDArray
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Float32, Float64
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import background_value, find_air, foreground

PIXEL_MM = 1.5  # of slices that are compared with each other; with wider ones, vessels of an MRA are missed
FEWEST_SLICES = 8
FEWEST_ORDERED = 16  # of fewer slices, 70 % can be most similar to one that is not beside them
SHOWN = 0.2  # of the largest deviation of a slice: ends of the body, and air beyond them, have less
DIM = 0.1  # the same, from which neighbours are compared; noise of air has 0.03
EMPTY = 0.05  # of the median deviation; slices of an MRA with few vessels have 0.37
EQUAL = 0.9999  # correlation of slices
SAME = 1e-6
ENDS = 10  # one in so many slices at either end is not compared, because bodies end steeply
CROWN, AT_CROWN = 0.05, 0.6  # share of the slices at either end, where differences count as much
MOST_JUMP = 20.0  # times; beside copies it is any number
AROUND = 5  # slices on either side
TISSUE = 0.3  # of the mean over the least value: air is below
FILLED = 0.5  # of the area that a tenth of the planes have, from which planes are compared
SPARSE = 0.05  # of the voxels, below which tissue is not compared, as of vessels alone
MOST_POINTS = 96  # along a side of a plane whose brightness is compared
BESIDE, BESIDE_MM = 3, 8.0  # planes beside a step, at least; the fissure of a brain is narrower
STEP_MM = 3.0  # within which it is made, because resampled scans have no sharp one
TINY = 1e-9


def plane_numbers(scan: Volume) -> dict[str, float]:
    """Numbers of the planes of a canonical scan: see numbers.toml; none of a few slices."""
    sides = zip(scan.data.shape[2:], scan.grid.spacing_mm[1:])
    rows, columns = (max(1, round(PIXEL_MM / mm)) for _, mm in sides)
    image = scan.data[0][:, ::rows, ::columns].astype(np.float32)
    planes, deviations = _planes(image, 0)
    shown = _shown(deviations)
    if len(shown) < FEWEST_SLICES:
        return {}
    peaks = scan.data[0].max((1, 2))
    at_peak = [np.count_nonzero(plane == peak) for plane, peak in zip(scan.data[0], peaks)]
    numbers = {
        "misplaced": _misplaced(planes[shown], deviations[shown]),
        "empty": 0.0,
        "same_peak": float((peaks[shown] == np.median(peaks[shown])).mean()),
        "at_peak": float(np.median(np.array(at_peak)[shown])),
        **_continuity(planes, deviations),
        **_brightness(scan),
    }
    for axis, step in enumerate((1, rows, columns)):
        if axis:
            planes, deviations = _planes(image, axis)
        empty = _empty(deviations) * step
        if len(empty) > numbers["empty"]:
            places = {"before": empty[0] - step, "behind": empty[-1] + step}
            numbers |= {"empty": len(empty), "empty_axis": axis, **places}
        # planes behind a head show the table of a CT
        if axis and scan.unit != "HU":
            along = _continuity(planes, deviations)
            numbers["jump_in_plane"] = max(numbers.get("jump_in_plane", 0), along.get("jump", 0))
    return numbers


def _planes(image: Float32, axis: int) -> tuple[Float32, Float32]:
    """The planes [N, P] of an image along an axis, without their means, and their lengths."""
    planes = np.moveaxis(image, axis, 0).reshape(image.shape[axis], -1)
    planes = planes - planes.mean(1, keepdims=True)
    return planes, norm(planes, axis=1)


def _shown(deviations: Float32) -> NDArray[np.intp]:
    """The places of planes that show something."""
    return np.flatnonzero(deviations > SHOWN * deviations.max())


def _empty(deviations: Float32) -> NDArray[np.intp]:
    """The places of planes that show nothing between others that do."""
    shown = _shown(deviations)
    if not len(shown):
        return shown
    within = deviations[shown[0] : shown[-1] + 1]
    return shown[0] + np.flatnonzero(within < EMPTY * np.median(deviations[shown]))


def _misplaced(planes: Float32, deviations: Float32) -> float:
    """The share of planes that are most similar to one that is not beside them."""
    if len(planes) < FEWEST_ORDERED:
        return 0.0
    normalised = planes / deviations[:, None]
    similar = normalised @ normalised.T
    np.fill_diagonal(similar, -np.inf)
    away = np.abs(similar.argmax(1) - np.arange(len(planes)))
    # a slice of a body of two equal halves is that of the other half, too
    return float(((away > 1) & (similar.max(1) < EQUAL)).mean())


def _continuity(slices: Float32, deviations: Float32) -> dict[str, float]:
    """How planes [N, P] without their means continue each other.

    copied, copied_share, copied_at: number, share and first of the planes that are exact copies of the next one; jump, jump_at:
    the largest difference of two neighbours, times those around it; odd, odd_at: how much a plane differs from the mean of its
    neighbours, in units of half their difference, and times those around it.
    """
    shown = np.flatnonzero(deviations > DIM * deviations.max())
    if not shown.size:
        return {}
    first = shown[0] + len(shown) // ENDS
    last = shown[-1] - len(shown) // ENDS
    if last - first < FEWEST_SLICES:
        return {}
    s = slices[first : last + 1]
    deviations = np.maximum(deviations[first : last + 1], TINY)
    apart = norm(np.diff(s, axis=0), axis=1) / np.maximum(deviations[1:], deviations[:-1])
    jumps = apart / np.maximum(around(apart), TINY)
    near_end = np.arange(len(jumps)) < CROWN * len(jumps)
    jumps[near_end | near_end[::-1]] *= AT_CROWN
    middle = (s[:-2] + s[2:]) / 2
    odd = norm(s[1:-1] - middle, axis=1) / np.maximum(norm(s[2:] - s[:-2], axis=1) / 2, TINY)
    both = np.minimum(odd, odd / np.maximum(around(odd), TINY))
    is_copy = apart < SAME
    return {
        "copied": float(is_copy.sum()),
        "copied_share": float(is_copy.mean()),
        "copied_at": float(first + is_copy.argmax()),
        "jump": float(np.log(jumps.max().clip(TINY, MOST_JUMP))),
        "jump_at": float(first + jumps.argmax()),
        "odd": float(both.max()),
        "odd_at": float(first + 1 + both.argmax()),
    }


def around(values: AnyArray) -> Float64:
    """The median of the values around each, without itself."""
    near = [np.roll(values, shift) for shift in range(-AROUND, AROUND + 1) if shift]
    return np.median(near, 0)


def _brightness(scan: Volume) -> dict[str, float]:
    """How the brightness of planes changes along the axes of a scan, as logarithms.

    step: the largest lasting change between two planes; level: of a slice to both of its neighbours; slope_z, slope_y, slope_x: of
    the brightness at the last end over the first.
    """
    numbers = {"step": 0.0}
    background = background_value(scan)
    for axis in range(1 if scan.unit == "HU" else 3):  # planes behind a head show the table of a CT
        first, levels = _levels(np.moveaxis(scan.data[0], axis, 0), background)
        mm = scan.grid.spacing_mm[axis]
        beside = max(BESIDE, round(BESIDE_MM / mm))
        within = max(1, round(STEP_MM / mm))
        if len(levels) < max(FEWEST_SLICES, 2 * beside):
            continue
        sides = np.median(sliding_window_view(levels, beside), axis=1)
        lasting = np.abs(sides[beside:] - sides[:-beside])
        sudden = np.abs(levels[within:] - levels[:-within])[beside - 1 - (within - 1) // 2 :]
        changes = np.minimum(lasting, sudden[: len(lasting)])
        if changes.max() > numbers["step"]:
            at = float(first + changes.argmax() + beside - 1)
            numbers |= {"step": float(changes.max()), "step_axis": axis, "step_at": at}
        numbers[f"slope_{'zyx'[axis]}"] = float(sides[-1] - sides[0])
        if axis == 0:
            bends = np.abs(levels[1:-1] - (levels[:-2] + levels[2:]) / 2)
            numbers |= {"level": float(bends.max()), "level_at": float(first + 1 + bends.argmax())}
    return numbers


def _levels(planes: AnyArray, background: float) -> tuple[int, Float64]:
    """The first plane [N, h, w] that is compared, and the logarithms of the brightness from there on.

    They are sums of the median ratios between neighbours, which do not depend on what a plane shows. Ends are left out,
    where surfaces may be flat.
    """
    rows, columns = (max(1, length // MOST_POINTS) for length in planes.shape[1:])
    few = planes[:, ::rows, ::columns].astype(np.float32, order="C")
    values = np.maximum(few - background, 0)
    least = TISSUE * float(values.mean())
    tissue = values > least
    logs = np.log(np.maximum(values, least or 1))
    areas = tissue.sum((1, 2))
    filled = np.flatnonzero(areas > FILLED * np.percentile(areas, 90))
    if tissue.mean() < SPARSE or not len(filled):
        return 0, np.zeros(0)
    margin = len(filled) // ENDS
    first = filled[0] + margin
    last = filled[-1] - margin
    changes = [0.0]
    for plane in range(first, last):
        either = tissue[plane] | tissue[plane + 1]
        some = either if either.any() else ~either
        changes.append(np.median((logs[plane + 1] - logs[plane])[some]))
    return int(first), np.cumsum(changes)


SLICES = 8
MIDDLE = (0.2, 0.8)  # of the slices, from which they are taken: ends are small
CURVATURE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
# Of this kernel (Immerkaer 1996, eq. 4), and of the share of absolute values, by percent, that anatomy in wide voxels does not reach.
CURVATURE_NORM, SMOOTH = 6.0 * 0.1891, 15
AWAY_MM = 20.0  # shift beyond which the edges of a head are not similar to themselves
SAMPLES = 100_000
# Of the range: by which a single point is brighter than all its neighbours, and darker than two.
POINT, PIT = 0.3, 0.6
AROUND_WAVE = 9  # frequencies along an axis
WAVES_PER_MM = (1 / 16, 1 / 3)
LAG_MM = 3.0  # over which values change; in voxels of more than half of it, each is a mean
FEWEST = 8  # lags along an axis
MOST = 160  # voxels along an axis, whose changes are compared


def texture_numbers(scan: Volume) -> dict[str, float]:
    """Numbers of a canonical scan: see numbers.toml."""
    chosen = _middle_slices(scan)
    image = chosen.data[0]
    air = find_air(chosen)
    body = foreground(chosen, air)
    if not body.any() or min(image.shape[1:]) < 4:
        return {}
    pixel_mm = chosen.grid.spacing_mm[1:]
    curvature = np.abs(ndimage.convolve(image, CURVATURE[None]))[body]
    noise = float(np.percentile(curvature, SMOOTH)) / CURVATURE_NORM
    numbers = {
        "noise_alone": noise / max(float(image[body].std()), TINY),
        "wave": np.log(_wave(image, pixel_mm)),
        **_points(image),
        **_growth(scan),
    }
    median = float(np.median(image[body])) - background_value(chosen, air)
    if scan.unit != "HU" and median > 0:
        numbers |= {"noise": min(noise / median, 1e4), "ghosts": _ghosts(image, pixel_mm)}
    return numbers


def _middle_slices(scan: Volume) -> Volume:
    first, last = (round(share * (scan.data.shape[1] - 1)) for share in MIDDLE)
    apart = 1 + (last - first) // SLICES
    data = np.ascontiguousarray(scan.data[:, first : last + 1 : apart], np.float32)
    affine = scan.affine @ np.diag([1.0, 1.0, apart, 1.0])
    return Volume(data, affine, scan.unit, scan.modality)


def _ghosts(image: Float32, pixel_mm: Sequence[float]) -> float:
    """The largest correlation of the edges of slices [D, H, W] with themselves, shifted by AWAY_MM or more."""
    edges = image - ndimage.uniform_filter(image, (1, 5, 5))
    largest = 0.0
    for axis, side in enumerate(pixel_mm, 1):
        length = image.shape[axis]
        power = np.abs(np.fft.rfft(edges, axis=axis)) ** 2
        similar = np.fft.irfft(power.sum((0, 3 - axis)), length)
        away = round(AWAY_MM / side)
        if length > 2 * away and similar[0] > 0:
            largest = max(largest, float((similar[away : length - away] / similar[0]).max()))
    return largest


def _wave(image: Float32, pixel_mm: Sequence[float]) -> float:
    """By how many times one wave in slices [S, H, W] is stronger than those of almost its length and direction."""
    sides = image.shape[1:]
    if min(sides) <= 4 * AROUND_WAVE:
        return 1.0
    spectrum = np.abs(np.fft.fft2(image * np.outer(*map(np.hanning, sides)))).mean(0)
    per_mm = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, sides, pixel_mm), indexing="ij"))
    asked = (per_mm > WAVES_PER_MM[0]) & (per_mm < WAVES_PER_MM[1])
    asked[sides[0] // 2 + 1 :] = False  # the other half of the plane is the same
    around = np.pad(spectrum, AROUND_WAVE // 2, mode="wrap")
    windows = sliding_window_view(around, (AROUND_WAVE, AROUND_WAVE))[asked]
    usual = np.median(windows.reshape(-1, AROUND_WAVE**2), axis=1) + TINY * spectrum.max()
    return float((spectrum[asked] / np.maximum(usual, TINY)).max(initial=1.0))


def _points(image: Float32) -> dict[str, float]:
    """The share of single bright points among bright voxels (salt), and of dark ones between two bright ones as a share of these (wrapped)."""
    bright = image > image.mean()
    if not bright.any():
        return {}
    some = image[bright][:: max(1, int(bright.sum()) // SAMPLES)]
    most = float(np.percentile(some, 98))
    beside = np.maximum.reduce(
        [np.roll(image, shift, axis) for axis in (1, 2) for shift in (1, -1)]
    )
    span = most - image.min()
    salt = float((image - beside > POINT * span)[bright].mean())
    between = np.maximum.reduce(
        [np.minimum(np.roll(image, 1, axis), np.roll(image, -1, axis)) for axis in (1, 2)]
    )
    wrapped = float((between - image > PIT * span).sum() / bright.sum())
    return {"salt": salt, "wrapped": wrapped}


def _growth(scan: Volume) -> dict[str, float]:
    """The growth of squared changes with distance along each axis, as an exponent: 0 of noise, 1 of edges, 2 of slopes."""
    numbers = {}
    image: AnyArray = scan.data[0]
    steps = [max(1, length // MOST) for length in image.shape]
    mean = float(image[:: steps[0], :: steps[1], :: steps[2]].mean())
    for axis, side_mm in enumerate(scan.grid.spacing_mm):
        lag = max(1, round(LAG_MM / side_mm))
        apart = [1 if other == axis else 2 * step for other, step in enumerate(steps)]
        few = image[:: apart[0], :: apart[1], :: apart[2]]
        values = np.moveaxis(few, axis, 0).astype(np.float32)
        if side_mm > LAG_MM / 2 or len(values) < FEWEST * lag:
            continue
        tissue = values > mean
        if not tissue.any():
            continue
        near, far = (
            np.square(values[step:] - values[:-step])[tissue[step:] | tissue[:-step]].mean()
            for step in (lag, 2 * lag)
        )
        if near > 0:
            numbers[f"blur_{'zyx'[axis]}"] = float(np.log2(far / near))
    return numbers
