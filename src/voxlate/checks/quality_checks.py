"""Whether a scan is of poor quality: heavy noise, ghosts, a region without signal inside the body, or broken slices.

The first three are measured on some slices. Limits are in limits.toml; a training with worse scans raises them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np

from voxlate.base.arrays import Bool, Float32
from voxlate.base.messages import Message
from voxlate.base.schema import Field
from voxlate.checks.table import Numbers, ask
from voxlate.scans.images.filters import ndimage
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import background_value, foreground

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
# of 9 to 14 slices of a head, 70 % can be most similar to one that is not beside them
FEWEST_ORDERED = 16
SHOWN = 0.2  # of the largest deviation of a slice: ends of the body, and air beyond them, have less
EMPTY = 0.05  # of the median deviation; slices of an MRA with few vessels have 0.37

Value = Annotated[float, Field(ge=0, le=1e4)]


@dataclass(frozen=True)
class Quality:
    """Noise as a share of the body's median, the largest correlation of edges with shifted ones, dark radius in mm."""

    noise: Value
    ghosts: Value
    dark_mm: Value


def quality_of(scan: Volume) -> Quality:
    """The quality of a canonical scan, from slices in its middle."""
    chosen = _middle_slices(scan)
    image = chosen.data[0]
    body = foreground(chosen)
    background = background_value(chosen)
    median = float(np.median(image[body])) - background if body.any() else 0.0
    if median <= 0:
        return Quality(0.0, 0.0, 0.0)
    noise = _noise(image, body) / median
    dark = image < background + DARK * median
    pixel_mm = chosen.grid.spacing_mm[1:]
    radius_mm = _dark_radius_mm(dark, ~dark & body, pixel_mm)
    return Quality(min(noise, 1e4), _ghosts(image, pixel_mm), radius_mm)


def _noise(image: Float32, body: Bool) -> float:
    """The standard deviation of the noise in a body."""
    curvature = np.abs(ndimage.convolve(image, CURVATURE[None]))[body]
    return float(np.median(curvature)) / CURVATURE_NORM


def check_noise(scan: Volume) -> list[Message]:
    """A message where the body of a canonical scan holds noise alone, whatever its outline is."""
    chosen = _middle_slices(scan)
    image = chosen.data[0]
    body = foreground(chosen)
    variation = float(image[body].std()) if body.any() else 0.0
    share = _noise(image, body) / variation if variation > 0 else 0.0
    return ask("noise", {"noise": share}, scan.modality)


def worst_quality(scans: Sequence[Quality]) -> Quality:
    """The worst of each value over scans."""
    values = [list(asdict(scan).values()) for scan in scans]
    return Quality(*np.max(values, axis=0).tolist())


def check_quality(name: str, found: Quality, trained: Quality | None) -> list[Message]:
    """Messages where a scan is worse than ordinary scans and than those of the training."""
    numbers, worst = asdict(found), asdict(trained or Quality(0.0, 0.0, 0.0))
    times = {f"{key}_times": value / max(worst[key], TINY) for key, value in numbers.items()}
    return ask("quality", numbers | times, name)


def check_slices(scan: Volume) -> list[Message]:
    """Messages where slices of a canonical scan are in a wrong order, empty or alternately dark."""
    return ask("slices", slice_numbers(scan), scan.modality)


def slice_numbers(scan: Volume) -> Numbers:
    """Numbers of the slices of a canonical scan: see `slices` in limits.toml; none of a few slices."""
    sides = zip(scan.data.shape[2:], scan.grid.spacing_mm[1:])
    rows, columns = (max(1, round(PIXEL_MM / mm), length // MOST_PIXELS) for length, mm in sides)
    image = scan.data[0][:, ::rows, ::columns].astype(np.float32)
    slices = image.reshape(len(image), -1)
    slices -= slices.mean(axis=1, keepdims=True)
    deviations = np.linalg.norm(slices, axis=1)
    shown = np.flatnonzero(deviations > SHOWN * deviations.max())
    if len(shown) < FEWEST_SLICES:
        return {}
    within = slice(shown[0], shown[-1] + 1)
    empty = shown[0] + np.flatnonzero(deviations[within] < EMPTY * np.median(deviations[shown]))
    misplaced = 0.0
    if len(shown) >= FEWEST_ORDERED:
        normalised = slices[shown] / deviations[shown, None]
        alike = normalised @ normalised.T
        np.fill_diagonal(alike, -np.inf)
        away = np.abs(alike.argmax(axis=1) - np.arange(len(shown)))
        misplaced = float((away > 1).mean())
    numbers: dict[str, float | str] = {
        "misplaced": misplaced,
        "empty": len(empty),
        "darker": 1 - np.exp(-_alternation(deviations[within])),
    }
    if len(empty):
        numbers |= {"before": f"{empty[0] - 1}", "behind": f"{empty[-1] + 1}"}
    return numbers


def _alternation(levels: Float32) -> float:
    """By how much the logarithm of every second level is below those of its neighbours, median."""
    logs = np.log(np.maximum(levels, 1e-6 * levels.max()))
    bends = logs[1:-1] - (logs[:-2] + logs[2:]) / 2
    bends[1::2] *= -1
    return float(abs(np.median(bends)))


def _middle_slices(scan: Volume) -> Volume:
    depth = scan.data.shape[1]
    first, last = (round(share * (depth - 1)) for share in MIDDLE)
    planes = np.unique(np.linspace(first, last, SLICES).round().astype(int))
    data = np.ascontiguousarray(scan.data[:, planes], np.float32)
    apart = max(1.0, (last - first) / SLICES)
    affine = scan.affine.copy()
    affine[:3, 2] *= apart
    return Volume(data, affine, scan.unit, scan.modality)


def _ghosts(image: Float32, pixel_mm: Sequence[float]) -> float:
    """The largest correlation of the edges of slices [D, H, W] with themselves, shifted by AWAY_MM or more."""
    edges = image - ndimage.uniform_filter(image, (1, 5, 5))
    largest = 0.0
    for axis, side in ((1, pixel_mm[0]), (2, pixel_mm[1])):
        length = image.shape[axis]
        power = np.abs(np.fft.rfft(edges, axis=axis)) ** 2
        alike = np.fft.irfft(power.sum(axis=(0, 3 - axis)), length)
        away = round(AWAY_MM / side)
        if length > 2 * away and alike[0] > 0:
            largest = max(largest, float((alike[away : length - away] / alike[0]).max()))
    return largest


def _dark_radius_mm(dark: Bool, bright: Bool, pixel_mm: Sequence[float]) -> float:
    """The radius of the largest disc of dark pixels [D, H, W] with bright ones on both sides along an axis."""
    largest = 0.0
    for plane, lit in zip(dark, bright):
        enclosed = np.zeros(plane.shape, bool)
        for axis in (0, 1):
            before = np.logical_or.accumulate(lit, axis)
            after = np.flip(np.logical_or.accumulate(np.flip(lit, axis), axis), axis)
            enclosed |= before & after
        inside = np.pad(plane & enclosed, 1)
        largest = max(
            largest, float(ndimage.distance_transform_edt(inside, sampling=pixel_mm).max())
        )
    return largest
