"""Noise, ghosts, points, waves and sharpness of a scan, as numbers that a fingerprint holds."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Float32
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import background_value, find_air, foreground

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
TINY = 1e-9


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
    spectrum = np.abs(np.fft.fft2(image * np.outer(*map(np.hanning, sides)))).mean(0)
    per_mm = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, sides, pixel_mm), indexing="ij"))
    usual = ndimage.median_filter(spectrum, AROUND_WAVE, mode="wrap") + TINY * spectrum.max()
    asked = (per_mm > WAVES_PER_MM[0]) & (per_mm < WAVES_PER_MM[1])
    if min(sides) <= 4 * AROUND_WAVE:
        return 1.0
    return float((spectrum / np.maximum(usual, TINY))[asked].max(initial=1.0))


def _points(image: Float32) -> dict[str, float]:
    """Shares of bright voxels: single bright points (salt), those that equal the next one (flat); and of dark ones between two bright
    ones as a share of these (wrapped)."""
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
    steps = np.abs(np.diff(image))
    varied = (bright & (image < image.max()))[..., 1:]
    flat = float(((steps == 0) & varied).sum() / max(1, varied.sum()))
    return {"salt": salt, "flat": flat, "wrapped": wrapped}


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
