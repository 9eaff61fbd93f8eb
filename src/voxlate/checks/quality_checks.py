"""Whether a scan is of poor quality: heavy noise, ghosts, a region without signal inside the body, or broken slices.

The first three are measured on some slices. Ordinary scans (three of two real heads, 16 images of four real brains, 23
single slices of seven heads, five phantoms) have noise of at most 0.063, ghosts of 0.081 and dark regions of 17 mm; a
training with worse scans raises the limits.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np

from voxlate.base.arrays import Bool, Float32
from voxlate.base.codes import Grade
from voxlate.base.messages import Message, message
from voxlate.base.schema import Field
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
WORSE = 1.2  # times the worst scan of the training
PIXEL_MM = 1.0  # of slices that are compared with each other; with wider ones, vessels of an MRA are missed
MOST_PIXELS = 256  # along a side, or up to twice as many: a bound of the memory
FEWEST_SLICES = 8
# of 9 to 14 slices of a head, 70 % can be most similar to one that is not beside them
FEWEST_ORDERED = 16
SHOWN = 0.2  # of the largest deviation of a slice: ends of the body, and air beyond them, have less
EMPTY = 0.05  # of the median deviation; slices of an MRA with few vessels have 0.37
MISPLACED = 0.35  # share of slices; ordinary scans: at most 0.24
SHUFFLED = 0.7  # share from which nothing of the order is left
NOISE_ALONE = 0.8  # standard deviation of the noise over that of the body's values: 1 in white noise of any strength
ALTERNATION = 0.15  # logarithm of deviations; ordinary scans: at most 0.06

Value = Annotated[float, Field(ge=0, le=1e4)]


@dataclass(frozen=True)
class Quality:
    """Noise as a share of the body's median, the largest correlation of edges with shifted ones, dark radius in mm."""

    noise: Value
    ghosts: Value
    dark_mm: Value


LIMITS = Quality(noise=0.15, ghosts=0.2, dark_mm=19.0)
WORDS = {
    "noise": "noise of {found:.0%} of its median signal, where {limit:.0%} is usual at most",
    "ghosts": "ghosts: shifted edges correlate by {found:.2f} with its own, where {limit:.2f} is usual at most",
    "dark_mm": "a region without signal of {found:.0f} mm radius inside the body, where {limit:.0f} mm is usual at most (metal?)",
}


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
    if share < NOISE_ALONE:
        return []
    text = f"{scan.modality}: the noise inside its body is {share:.0%} as strong as all variation there: it shows no anatomy."
    return [message("other-content", text, noise=share)]


def worst_quality(scans: Sequence[Quality]) -> Quality:
    """The worst of each value over scans."""
    values = [list(asdict(scan).values()) for scan in scans]
    return Quality(*np.max(values, axis=0).tolist())


def check_quality(name: str, found: Quality, trained: Quality | None) -> list[Message]:
    """A message where a scan is worse than ordinary scans and than those of the training."""
    worst = asdict(trained) if trained else dict.fromkeys(WORDS, 0.0)
    limits = {key: max(limit, WORSE * worst[key]) for key, limit in asdict(LIMITS).items()}
    parts = [
        WORDS[key].format(found=value, limit=limits[key])
        for key, value in asdict(found).items()
        if value > limits[key]
    ]
    text = f"{name}: it has {' and '.join(parts)}."
    if not parts:
        return []
    return [message("quality", text, noise=found.noise, ghosts=found.ghosts, dark_mm=found.dark_mm)]


def check_slices(scan: Volume) -> list[Message]:
    """A message where slices of a canonical scan are in a wrong order, empty or alternately dark."""
    sides = zip(scan.data.shape[2:], scan.grid.spacing_mm[1:])
    rows, columns = (max(1, round(PIXEL_MM / mm), length // MOST_PIXELS) for length, mm in sides)
    image = scan.data[0][:, ::rows, ::columns].astype(np.float32)
    slices = image.reshape(len(image), -1)
    slices -= slices.mean(axis=1, keepdims=True)
    deviations = np.linalg.norm(slices, axis=1)
    shown = np.flatnonzero(deviations > SHOWN * deviations.max())
    if len(shown) < FEWEST_SLICES:
        return []
    within = slice(shown[0], shown[-1] + 1)
    empty = shown[0] + np.flatnonzero(deviations[within] < EMPTY * np.median(deviations[shown]))
    misplaced = 0.0
    if len(shown) >= FEWEST_ORDERED:
        normalised = slices[shown] / deviations[shown, None]
        alike = normalised @ normalised.T
        np.fill_diagonal(alike, -np.inf)
        away = np.abs(alike.argmax(axis=1) - np.arange(len(shown)))
        misplaced = float((away > 1).mean())
    alternation = _alternation(deviations[within])
    parts = []
    if misplaced > MISPLACED:
        parts.append(
            f"are in a wrong order ({misplaced:.0%} of them are most similar to one that is not beside them)"
        )
    elif len(empty):
        parts.append(
            f"include {len(empty)} empty ones (between slices {empty[0] - 1} and {empty[-1] + 1}, counted from 0 at the lowest)"
        )
    if alternation > ALTERNATION:
        parts.append(f"are alternately darker by {1 - np.exp(-alternation):.0%}")
    text = f"{scan.modality}: its slices {' and '.join(parts)}."
    if not parts:
        return []
    grade: Grade = "do not trust" if misplaced > SHUFFLED else "caution"
    return [
        message(
            "slices",
            text,
            grade=grade,
            misplaced=misplaced,
            empty=len(empty),
            alternation=alternation,
        )
    ]


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
