"""Whether a scan is of poor quality: heavy noise, ghosts, a region without signal inside the body, or broken slices.

The first three are measured on some slices. Limits are in limits.toml; a training with worse scans raises them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.linalg import norm
from numpy.typing import NDArray
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.base.messages import Message
from voxlate.checks.check_table import ask
from voxlate.checks.intensity_checks import tissue_of_ct
from voxlate.checks.scan_numbers import soft_and_background
from voxlate.checks.thumbnail import coarse, thumbnails
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.frame import BodyFrame
from voxlate.scans.images.grid import Volume, canonical_view, same_grid
from voxlate.scans.images.mask import background_value, components_of, foreground
from voxlate.scans.images.units import SHOW_ANATOMY

ORDER = ("order", "slices")  # the groups of rows that are asked of `slice_numbers`
SLICES = 8
MIDDLE = (0.2, 0.8)  # of the slices with a body, from which they are taken: ends are small
CURVATURE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
# Of this kernel, and of a median of absolute values (Immerkaer 1996, eq. 4).
CURVATURE_NORM = 6.0 * 0.6745
AWAY_MM = 20.0  # shift beyond which the edges of a head are not similar to themselves
DARK = 0.25  # of the median of the body: air and bone
PIXEL_MM = 1.0  # of slices that are compared with each other; with wider ones, vessels of an MRA are missed
MOST_PIXELS = 256  # along a side, or up to twice as many: a bound of the memory
FEWEST_SLICES = 8
TINY = 1e-9
DIM = 0.1  # of the largest deviation of a slice, from which it is compared with its neighbours; noise of air has 0.03
ENDS = 10  # one in so many slices at either end is not, because bodies end steeply
# Share of the slices at either end, where differences count as much: a crown changes steeply.
CROWN, AT_CROWN = 0.05, 0.6
AROUND, EVEN = 5, 8  # slices on either side
SAME = 1e-6
ODD = 1.6
SAMPLES = 100_000
POINT = 0.3  # of the range, by which a single point is brighter than its neighbours
WHOLE = 0.95  # of the range: a step between neighbours, as where values overflow; from air to bone of a CT 0.9
MOST_ASKED = 40  # slices in which points are looked for
EQUAL = 0.9999  # correlation of slices
# of 9 to 14 slices of a head, 70 % can be most similar to one that is not beside them
FEWEST_ORDERED = 16
SHOWN = 0.2  # of the largest deviation of a slice: ends of the body, and air beyond them, have less
EMPTY = 0.05  # of the median deviation; slices of an MRA with few vessels have 0.37
TISSUE = 0.3  # of the mean over the least value: air is below
FILLED = 0.5  # of the area that a tenth of the planes have, from which planes are compared
SPARSE = 0.05  # of the voxels, below which tissue is not compared, as of vessels alone
MOST_POINTS = 96  # along a side of a plane whose brightness is compared
BESIDE, BESIDE_MM = 3, 8.0  # planes beside a step, at least; the fissure of a brain is narrower
LEAST_ML = 0.2  # of voxels in blocks: less is not measured, and limits.toml asks for 0.4
SURROUNDED = 2.3  # times as many bright voxels as dark ones beside a block; 1.3 beside cavities of a uint8 scan
ALONE = 5  # times as large as the next block; 2.1 in scans of 64 grey levels or after a median filter, balls 25 or more
AIR_HU = -900.0  # clipped values below are air
FEW_LEVELS = 256  # of 8 bits
STEP_MM = 3.0  # within which it is made, because resampled scans have no sharp one
AROUND_WAVE = 9  # frequencies along an axis
WAVES = (1 / 16, 1 / 3)  # per mm
LAG_MM = 3.0  # over which values change, of scans that may be blurred


def quality_numbers(scan: Volume) -> dict[str, float]:
    """Numbers of slices in the middle of a canonical scan: see `quality` in limits.toml; the first alone where its body is dark."""
    chosen = _middle_slices(scan)
    image = chosen.data[0]
    body = foreground(chosen)
    if not body.any():
        return {}
    curvature = np.abs(ndimage.convolve(image, CURVATURE[None]))[body]
    noise = float(np.median(curvature)) / CURVATURE_NORM
    background = background_value(chosen)
    median = float(np.median(image[body])) - background
    numbers = {"noise_alone": noise / max(float(image[body].std()), TINY)}
    if median <= 0:
        return numbers
    dark = image < background + DARK * median
    pixel_mm = chosen.grid.spacing_mm[1:]
    bright = ~dark & body
    # discs of dark pixels with bright ones on both sides along an axis
    radius_mm = max(
        float(ndimage.distance_transform_edt(np.pad(plane, 1), pixel_mm).max())
        for plane in dark & (_enclosed(bright, 1) | _enclosed(bright, 2))
    )
    return numbers | {
        "noise": min(noise / median, 1e4),
        "ghosts": _ghosts(image, pixel_mm),
        "dark_mm": radius_mm,
    }


@dataclass(frozen=True, eq=False)
class WholeScan:
    """A whole scan, before its body is looked for; its numbers are measured where rows are asked of them.

    frame: the box of a head in it, beside which another one may be.
    """

    volume: Volume
    frame: BodyFrame | None = None

    @cached_property
    def scan(self) -> Volume:
        """Its canonical view."""
        return canonical_view(self.volume)

    @cached_property
    def content(self) -> dict[str, float]:
        """See `array` in limits.toml."""
        values = self.scan.data[0]
        few, (step, *_) = coarse(values)
        air = np.percentile(few[:, [0, -1]], 25)
        bends = np.diff(values[::step].astype(np.float32), 2, axis=1)
        most = np.abs(bends).mean() if bends.size else 0  # edges of the body outweigh nothing
        return {
            **self.quality,
            "levels": len(np.unique(few)),
            "air": float((air - few.min()) / max(np.ptp(few), TINY)),
            "twin": symmetry(bends.clip(-most, most)),
        }

    @cached_property
    def quality(self) -> dict[str, float]:
        """See `tissue` in limits.toml for a CT, `quality` for others."""
        if self.scan.unit == "HU":
            return tissue_of_ct(self.scan)
        return quality_numbers(self.scan)

    @cached_property
    def stack(self) -> dict[str, float]:
        """See `order` and `slices` in limits.toml."""
        axes = self.scan.affine[:3, :3] / self.scan.grid.spacing_mm[::-1]
        numbers = slice_numbers(self.scan) | {"straight": float(abs(np.linalg.det(axes)))}
        if self.frame is not None and same_grid(self.volume.grid, self.frame.grid):
            numbers["elsewhere"] = self.frame.beside(self.volume)
        if self.scan.unit == "HU":
            shown = thumbnails({"ct": self.scan.data[0]}, "ct", self.scan.grid.spacing_mm)
            for thumbnail in shown.values():
                numbers |= {"ct": 1.0, **soft_and_background(thumbnail)}
        return numbers


def check_alone(scan: WholeScan) -> list[Message]:
    """Messages on a scan without a model: the order of its slices, and the offset and window of a CT; a label map has no further ones."""
    few, _ = coarse(scan.scan.data[0])
    said = ask("array", {"levels": len(np.unique(few))}) + ask(ORDER, scan.stack)
    if scan.scan.unit == "HU":
        said += ask("tissue", scan.quality)
    return [one for one in said if one.code == "label-values"][:1] or said


def check_whole(scan: WholeScan, trained: Mapping[str, float], name: str) -> list[Message]:
    """Messages where a scan is worse than ordinary ones and those of the training, or a CT was clipped; trained: numbers of the worst."""
    numbers = scan.quality | scan.stack
    times = {
        f"{key}_times": value / max(trained.get(key, 0.0), TINY) for key, value in numbers.items()
    }
    return ask(("tissue", "quality", "slices"), {**numbers, **times}, name)


def symmetry(away: Float32) -> float:
    """The correlation of values [D, H, W] with those of their mirror image from left to right, at the best place of it."""
    # a product of spectra is a convolution: the correlation with the mirror image at each shift
    spectrum = np.fft.rfft(away, 2 * away.shape[2], axis=2)
    correlations = np.fft.irfft((spectrum**2).sum((0, 1)))
    return float(correlations.max() / max(float((away**2).sum()), TINY))


def check_stacks(headers: Sequence[CaseHeader]) -> Iterator[Message]:
    """Messages from headers: slices in a wrong order, empty or alternately dark, bodies that are flat or of another contrast, and masks that are scans."""
    for header in headers:
        for name in header.stacks:
            yield from (said.on(header.case) for said in check_stack(header, name))


def check_stack(header: CaseHeader, name: str) -> list[Message]:
    """The messages of check_stacks on one scan, or the mask, of a case."""
    return ask(("mask", *ORDER, "body_in_case"), header.stacks.get(name, {}), name)


def mask_numbers(mask: Volume, inside: Bool, bodies: Iterable[Bool]) -> dict[str, float]:
    """Numbers of a mask as whole numbers, and of its voxels on the grid of a case with the bodies in its scans: see `mask` in limits.toml.

    A body that fills the image is none.
    """
    labels = np.rint(mask.data[0])
    steps = np.diff(labels)[np.minimum(labels[..., 1:], labels[..., :-1]) > 0]
    numbers = {"uneven": np.count_nonzero(steps) / max(1, steps.size)}
    if held := [float(inside[body].mean()) for body in bodies if body.any() and not body.all()]:
        numbers["held"] = max(held)
    return numbers


def slice_numbers(scan: Volume) -> dict[str, float]:
    """Numbers of the slices of a canonical scan: see `order` and `slices` in limits.toml; none of a few slices."""
    sides = zip(scan.data.shape[2:], scan.grid.spacing_mm[1:])
    rows, columns = (max(1, round(PIXEL_MM / mm), length // MOST_PIXELS) for length, mm in sides)
    image = scan.data[0][:, ::rows, ::columns].astype(np.float32)
    planes, deviations = _planes(image, 0)
    shown = _shown(deviations)
    if len(shown) < FEWEST_SLICES:
        return {}
    misplaced = 0.0
    if len(shown) >= FEWEST_ORDERED:
        normalised = planes[shown] / deviations[shown, None]
        alike = normalised @ normalised.T
        np.fill_diagonal(alike, -np.inf)
        away = np.abs(alike.argmax(1) - np.arange(len(shown)))
        # a slice of a body of two equal halves is that of the other half, too
        misplaced = ((away > 1) & (alike.max(1) < EQUAL)).mean()
    peaks = image.max((1, 2))
    at_peak = (image == peaks[:, None, None]).sum((1, 2))
    steps_mm = np.multiply(scan.grid.spacing_mm, (1, rows, columns))
    voxel_ml = np.prod(steps_mm) / 1000
    numbers = {
        "misplaced": misplaced,
        "empty": 0,
        "slice_mm": scan.grid.spacing_mm[0],
        "pixel_mm": max(scan.grid.spacing_mm[1:]),
        "same_peak": (peaks[shown] == np.median(peaks[shown])).mean(),
        "at_peak": np.median(at_peak[shown]),
        **_points(image[:: max(1, len(image) // MOST_ASKED)], scan.unit),
        "block_ml": _block_voxels(image, scan.unit, LEAST_ML / voxel_ml) * voxel_ml,
        **_blur(image, steps_mm, scan.unit),
        **_steps(scan),
        "wave": _wave(image[shown[:: len(shown) // SLICES]], steps_mm[1:]),
    }
    for axis, step in enumerate((1, rows, columns)):
        if axis:
            planes, deviations = _planes(image, axis)
        empty = _empty(deviations) * step
        # a window shows nothing between a head and its holder
        if len(empty) > numbers["empty"] and (axis == 0 or scan.unit != "grey"):
            numbers |= {
                "empty": len(empty),
                "empty_axis": axis,
                "before": empty[0] - step,
                "behind": empty[-1] + step,
            }
        along = _continuity(planes, deviations)
        # planes behind a head show the table of a CT; vessels alone leave planes that are one
        is_asked = scan.unit != "HU" and along.get("copied", 1) < 1
        if axis == 0:
            numbers |= along
        elif is_asked and along["jump"] > numbers.get("jump", 0):
            at = along["jump_at"] * step
            numbers |= {"jump": along["jump"], "jump_axis": axis, "jump_at": at}
    return {name: float(number) for name, number in numbers.items()}


def _wave(image: Float32, pixel_mm: NDArray[Any]) -> float:
    """By how many times one wave in slices [S, H, W] is stronger than those of almost its length and direction."""
    sides = image.shape[1:]
    spectrum = np.abs(np.fft.fft2(image * np.outer(*map(np.hanning, sides)))).mean(0)
    per_mm = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, sides, pixel_mm), indexing="ij"))
    usual = ndimage.median_filter(spectrum, AROUND_WAVE, mode="wrap") + TINY * spectrum.max()
    asked = (per_mm > WAVES[0]) & (per_mm < WAVES[1]) & (min(sides) > 4 * AROUND_WAVE)
    return (spectrum / usual)[asked].max(initial=0)


def _planes(image: Float32, axis: int) -> tuple[Float32, Float32]:
    """The planes [N, P] of an image along an axis, without their means, and their lengths."""
    planes = np.moveaxis(image, axis, 0).reshape(image.shape[axis], -1)
    planes = planes - planes.mean(1, keepdims=True)
    return planes, norm(planes, axis=1)


def _continuity(slices: Float32, deviations: Float32) -> dict[str, float]:
    """How the slices [N, P] of a scan, without their means, continue each other.

    copied, copied_share, copied_at: number, share and first of the slices that are exact copies of the next one; jump: the
    largest difference of two neighbours, times those around it, less at either end; pace: how much these differences change from one place on;
    odd: how much a slice differs from the mean of its neighbours, in units of half their difference, and times those around
    it.
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
    jumps = apart / np.maximum(_around(apart), TINY)
    near_end = np.arange(len(jumps)) < CROWN * len(jumps)
    jumps[near_end | near_end[::-1]] *= AT_CROWN
    middle = (s[:-2] + s[2:]) / 2
    odd = norm(s[1:-1] - middle, axis=1) / np.maximum(norm(s[2:] - s[:-2], axis=1) / 2, TINY)
    both = np.minimum(odd, odd / np.maximum(_around(odd), TINY))
    is_copy = apart < SAME
    numbers = {}
    if len(apart) > 2 * EVEN:
        _, paces = _changes(np.log(np.maximum(apart, SAME)), EVEN)
        numbers = {"pace": np.exp(paces.max()), "pace_at": first + paces.argmax() + EVEN}
    return numbers | {
        "copied": is_copy.sum(),
        "copied_share": is_copy.mean(),
        "copied_at": first + is_copy.argmax(),
        "jump": jumps.max(),
        "jump_at": first + jumps.argmax(),
        "jump_axis": 0,
        "odd": both.max(),
        "odd_at": first + 1 + both.argmax(),
        "odd_share": (both > ODD).mean(),
    }


def _blur(image: Float32, sides_mm: AnyArray, unit: str) -> dict[str, float]:
    """The growth of squared changes of an image [D, H, W] with distance, as an exponent: 0 of noise, 1 of edges, 2 of slopes.

    blur: the least along an axis whose voxels are not long, of images that show anatomy; smear: of MR the largest, with its axis, and how much larger
    it is than along the next one.
    """
    if unit not in SHOW_ANATOMY:
        return {}
    growth = {}
    mean = image.mean()
    for axis, side_mm in enumerate(sides_mm):
        lag = max(1, round(LAG_MM / side_mm))
        values = np.moveaxis(image, axis, 0)[:, ::2, ::2]
        tissue = values > mean
        if side_mm > LAG_MM or len(values) < FEWEST_SLICES * lag or not tissue.any():
            continue
        near, far = (
            np.square(values[step:] - values[:-step])[tissue[step:] | tissue[:-step]].mean()
            for step in (lag, 2 * lag)
        )
        growth[axis] = float(np.log2(far / near)) if near > 0 else 0.0
    if len(growth) < 2:
        return {}
    *_, second, most = sorted(growth, key=growth.__getitem__)
    numbers = {"blur": min(growth.values())}
    if unit == "a.u.":
        more = growth[most] - growth[second]
        numbers |= {"smear": growth[most], "smear_more": more, "smear_axis": most}
    return numbers


def _steps(scan: Volume) -> dict[str, Any]:
    """How the brightness of planes changes along the axes of a scan.

    step: the largest lasting change between two planes, as a ratio, with its axis and the plane before it; darker: by how
    much every second plane is darker; level: the largest ratio of a slice to both of its neighbours, in z alone; ramp: the largest
    of the brightness at both ends of an axis. Those of maps, which change with the disease, are not measured.
    """
    numbers: dict[str, Any] = {"step": 1.0, "darker": 0.0, "ramp": 1.0}
    if scan.unit not in SHOW_ANATOMY:
        return numbers | {"level": 1.0}
    background = background_value(scan)
    for axis in range(1 if scan.unit == "HU" else 3):  # planes behind a head show the table of a CT
        first, levels = _levels(np.moveaxis(scan.data[0], axis, 0), background)
        mm = scan.grid.spacing_mm[axis]
        beside = max(BESIDE, round(BESIDE_MM / mm))
        within = max(1, round(STEP_MM / mm))
        if len(levels) < max(FEWEST_SLICES, 2 * beside):
            continue
        sides, changes = _changes(levels, beside, within)
        step = np.exp(changes.max())
        if step > numbers["step"]:
            at = first + changes.argmax() + beside - 1
            numbers |= {"step": step, "step_axis": axis, "step_at": at}
        ramp = np.exp(abs(sides[-1] - sides[0]))
        if ramp > numbers["ramp"]:
            numbers |= {"ramp": ramp, "ramp_axis": axis}
        bends = levels[1:-1] - (levels[:-2] + levels[2:]) / 2
        if axis == 0:
            most = np.abs(bends).argmax()
            numbers |= {
                "level": np.exp(abs(bends[most])),
                "level_at": first + 1 + most,
            }
        bends[1::2] *= -1
        numbers["darker"] = max(numbers["darker"], 1 - np.exp(-abs(np.median(bends))))
    return numbers


def _changes(levels: AnyArray, beside: int, within: int = 1) -> tuple[AnyArray, AnyArray]:
    """The medians of so many levels, and how much these change from each place on: at once (within so many), and lastingly."""
    sides = np.median(sliding_window_view(levels, beside), axis=1)
    lasting = np.abs(sides[beside:] - sides[:-beside])
    sudden = np.abs(levels[within:] - levels[:-within])[beside - 1 - (within - 1) // 2 :]
    return sides, np.minimum(lasting, sudden[: len(lasting)])


def _levels(planes: Float32, background: float) -> tuple[int, Float64]:
    """The first plane [N, h, w] that is compared, and the logarithms of the brightness from there on.

    They are sums of the median ratios between neighbours, which do not depend on what a plane shows. Ends are left out,
    where surfaces may be flat.
    """
    rows, columns = (max(1, length // MOST_POINTS) for length in planes.shape[1:])
    values = np.maximum(planes[:, ::rows, ::columns].astype(np.float32) - background, 0)
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


def _points(image: Float32, unit: str) -> dict[str, float]:
    """The share of single bright points in bright slices [D, H, W], and those of voxels like their neighbours or far from them."""
    bright = image > image.mean()
    some = image[bright][:: max(1, int(bright.sum()) // SAMPLES)]
    least, most = np.percentile(some, [2, 98])
    beside = np.maximum.reduce(
        [np.roll(image, shift, axis) for axis in (1, 2) for shift in (1, -1)]
    )
    salt = (image - beside > POINT * (most - image.min()))[bright].mean()
    steps = np.abs(np.diff(image))
    # all bone of a window is white
    varied = (bright & (image < image.max()) if unit == "grey" else bright)[..., 1:]
    flat = ((steps == 0) & varied).sum() / max(1, varied.sum())
    inside = _enclosed(bright, 2)
    least_far = WHOLE * np.ptp(image)
    far = (steps > least_far) & inside[..., :-1] & inside[..., 1:]
    clipped = 2 * (image == image.max()).sum() > (image - image.min() > least_far).sum()
    wrapped = 0.0 if clipped else far.sum() / bright.sum()
    return {"salt": salt, "flat": flat, "wrapped": wrapped} if most > least else {}


def _block_voxels(image: Float32, unit: str, least: float) -> float:
    """The voxels of the largest block of one value, but air of a CT and a clipped peak, that tissue surrounds, in an image [D, H, W].

    0 of maps, where others are nearly as large, as in coarse grey levels, and where fewer voxels than `least` can be in
    blocks. The least value of few levels is that of all that is darker.
    """
    if unit not in SHOW_ANATOMY:
        return 0.0
    bright = image > image.mean()
    same = (image < image.max()) & ((unit != "HU") | (image > AIR_HU))
    if len(np.unique(coarse(image)[0])) <= FEW_LEVELS:
        same &= image > image.min()
    for axis in range(3):
        here, values = (np.moveaxis(array, axis, 0) for array in (same, image))
        here[:-1] &= values[:-1] == values[1:]
        here[-1] = False
    for axis in range(3):
        if same.sum() < least:  # most scans need no labels
            return 0.0
        same &= _enclosed(bright, axis)
    blocks = components_of(same)
    sizes = blocks.sizes()
    if not (sizes >= least).any():
        return 0.0
    rims = np.zeros(2 * blocks.count + 2)  # dark and bright voxels beside each block
    for axis, way in product(range(3), (1, -1)):
        labels, tissue = (np.moveaxis(array, axis, 0)[::way] for array in (blocks.labels, bright))
        # where its last voxel may be, which has no next one
        at_end = (labels[:-2] > 0) & (labels[1:-1] == 0)
        rims += np.bincount((2 * labels[:-2] + tissue[2:])[at_end], minlength=len(rims))
    sizes *= rims[1::2] > SURROUNDED * rims[::2]
    second, largest = np.sort(np.append(sizes, 0))[-2:]
    return float(largest * (largest > ALONE * second))


def _around(values: Float32) -> Float32:
    """The median of the values around each, without itself."""
    near = [np.roll(values, shift) for shift in range(-AROUND, AROUND + 1) if shift]
    return np.median(near, 0)


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
        alike = np.fft.irfft(power.sum((0, 3 - axis)), length)
        away = round(AWAY_MM / side)
        if length > 2 * away and alike[0] > 0:
            largest = max(largest, float((alike[away : length - away] / alike[0]).max()))
    return largest


def _enclosed(shown: Bool, axis: int) -> Bool:
    """Which voxels have ones that are shown at or beyond them on both sides along an axis."""
    before = np.logical_or.accumulate(shown, axis)
    behind = np.flip(np.logical_or.accumulate(np.flip(shown, axis), axis), axis)
    return before & behind
