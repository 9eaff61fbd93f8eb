"""The range of values that scores refer to (by the unit, the recipe, or each image's own peak), and which values are black and white."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxlate.base.array_types import AnyArray, Bool, Float32
from voxlate.base.errors import BadInput
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import BRAIN_HU, body_box_mm, foreground

PEAK_PERCENTILE = 99.5
FLOOR_PERCENTILE = 0.5
HU = (-1024.0, 3071.0)  # SynthRAD 2023 and 2025: the range of their PSNR and SSIM
# CBF, CBV, Tmax: a lesion is still visible
PERFUSION = {"ml/100g/min": 200.0, "ml/100g": 20.0, "s": 30.0}
WHOLE_MASK = "whole"  # the mask of all voxels
IN_BODY = ("HU", *PERFUSION)  # units of images whose air is no result
# These usual windows replace wider scored ranges: of trunks (width 400, level 40), and of heads (width 250, level 75), in
# which the ventricles are darker than the brain, and the skull stands apart from the scalp.
SOFT_TISSUE_HU, HEAD_HU = (-160.0, 240.0), (-50.0, 200.0)
WIDEST_HEAD_MM = 230.0  # from left to right; two trunks have 366 and 400 mm
# Width of a body over its depth from front to back; heads have 0.7 to 1, trunks 1.3 to 1.7. It needs no voxel size.
WIDEST_HEAD = 1.15
# Windows of the brain and its vessels by the beginning of a modality's name.
WINDOWS_HU = {"ncct": (0.0, 80.0), "cta": (0.0, 200.0)}
# The rest are edges of the skin, which a shift of half a voxel makes uncertain.
TOP_PERCENTILE = 95.0
TINY = 1e-6
Ends = tuple[float, float]  # of a window: the values that are black and white
WHITE = 255.0  # the largest grey value, which a window gives to all that it has cut


@dataclass(frozen=True)
class Range:
    """Lowest and highest value that are scored, their unit, and the rule that they come from.

    own: the unit is arbitrary, so that each image is first divided by its own peak (see `normalise`).
    """

    low: float
    high: float
    unit: str
    rule: str
    own: bool = False

    def __post_init__(self) -> None:
        if not (self.high > self.low and math.isfinite(self.high - self.low)):
            raise BadInput(
                f"score range: expected finite low < high, found {self.low:g} to {self.high:g}. Give the range as low, high."
            )

    @property
    def width(self) -> float:
        """The difference between the ends."""
        return self.high - self.low

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} {self.unit} ({self.rule})"

    def normalise(
        self,
        values: AnyArray,
        inside: Bool | None,
        main: AnyArray | None = None,
    ) -> Float32:
        """Values ready to be scored: clipped to the range, or divided by the image's own peak inside `inside`.

        values: [D, H, W]; inside: [D, H, W], the foreground, needed where the unit is arbitrary; main: the image of which
        values are a map, with whose floor and peak it is normalised.
        """
        if not self.own:
            return np.clip(values, self.low, self.high).astype(np.float32)
        floor, peak = floor_and_peak(values if main is None else main, inside)
        return ((values - floor) / (peak - floor)).astype(np.float32)

    def gain(self, values: AnyArray, inside: Bool | None) -> float:
        """By how much `normalise` divides differences of values (and so standard deviations)."""
        if not self.own:
            return 1.0
        floor, peak = floor_and_peak(values, inside)
        return peak - floor


def mask_for(unit: str) -> str:
    """The voxels that count by default in images of a unit."""
    return "body" if unit in IN_BODY else WHOLE_MASK


def floor_and_peak(
    values: AnyArray,
    inside: Bool | None,
) -> tuple[float, float]:
    """The values that stand for 0 and 1 in an image of arbitrary unit.

    0 stays 0, unless the background is negative (z-scored files): then it is the image's own 0.5 percentile.
    1 is the 99.5 percentile of the foreground.
    """
    floor = min(0.0, float(np.percentile(values, FLOOR_PERCENTILE)))
    foreground = values if inside is None or not inside.any() else values[inside]
    peak = float(np.percentile(foreground, PEAK_PERCENTILE))
    return floor, peak if peak > floor else floor + 1.0


def range_for(
    unit: str,
    largest: float = 255.0,
    given: Sequence[float] | None = None,
    source: str = "given",
) -> Range:
    """The range of a unit, or the one that the user or the recipe's window states.

    largest: the largest value of the cohort, which separates 8 from 16 bit pictures.
    """
    if given is not None:
        low, high = map(float, given)
        return Range(low, high, unit, f"{source}; values outside are clipped")
    if unit == "HU":
        return Range(*HU, unit, "SynthRAD's range; values outside are clipped")
    if unit == "grey":
        bits = 8 if largest <= 255 else 16
        return Range(0.0, 2.0**bits - 1, unit, f"{bits} bit pictures")
    if unit in PERFUSION:
        return Range(0.0, PERFUSION[unit], unit, "usual display range; values outside are clipped")
    rule = "arbitrary unit: each image divided by its own 99.5 percentile inside the truth's foreground, nothing clipped"
    return Range(0.0, 1.0, "× peak", rule, own=True)


# Network outputs and targets on the range 0 to 255, as some papers score them.
NETWORK_RANGE = Range(
    0.0,
    255.0,
    "of 255",
    "network units: the truth by its own statistics, the image by the training's typical scale; clipped",
)


def shown_range(scale: Range, image: Volume) -> tuple[float, float]:
    """The window of an image of a range: of a CT that of its modality or of the width of its body, else the range."""
    if scale.unit != "HU" or scale.width <= 1000:
        return scale.low, scale.high
    return _ct_window(image.modality, _shows_head(image))


def _shows_head(image: Volume) -> bool:
    """Whether the body of an image with a voxel size is as narrow as a head."""
    least, most = body_box_mm(image)
    return float((most - least)[0]) < WIDEST_HEAD_MM


def _ct_window(modality: str, is_head: bool) -> Ends:
    """The window in which a CT is shown."""
    for name, window in WINDOWS_HU.items():
        if modality.startswith(name):
            return window
    return HEAD_HU if is_head else SOFT_TISSUE_HU


def window_of(volume: Volume) -> tuple[float, float]:
    """The window of an image: floor and peak where its unit is arbitrary."""
    scale = range_for(volume.unit, float(volume.data.max()))
    if scale.own:
        return floor_and_peak(volume.data[0], foreground(volume))
    return shown_range(scale, volume)


def assumed_window(modality: str, is_head: bool) -> Ends:
    """The window in HU that a picture of a CT is assumed to show where nobody states it: of a head that of the brain."""
    window = _ct_window(modality, is_head)
    return BRAIN_HU if window == HEAD_HU else window


def picture_window(volume: Volume) -> Ends:
    """The window of an image in HU that a picture of it is assumed to show; grey values stay as they are."""
    if volume.unit == "grey":
        return 0.0, WHITE
    return assumed_window(volume.modality, _shows_head(volume))


def window_sentence(modality: str, window: Ends, stated: bool = False) -> str:
    """A clause on what pictures of a CT show, and, unless it is stated, how to state it."""
    low, high = window
    hint = "as prepare --window states" if stated else "prepare --window LOW HIGH states another"
    return f"pictures of {modality} show {low:g} to {high:g} HU from black to white ({hint})"


def as_grey(
    volume: Volume, window: tuple[float, float], black: float = 0.0, white: float = WHITE
) -> Volume:
    """A volume, clipped to a window in its unit, as grey values; black, white: those of the window's ends."""
    low, high = window
    gain = np.float32((white - black) / max(high - low, TINY))
    values = (np.clip(volume.data, low, high) - low) * gain + black
    return replace(volume, data=values.astype(np.float32), unit="grey")


def top_of(uncertainty: Volume, image: Volume) -> float:
    """The value of a map that has the brightest colour: a round number that a few voxels of the image's body exceed.

    The window of the image would not do: it has the width of soft tissue, while the intervals of bone are far wider.
    """
    inside = uncertainty.data[0][foreground(image)]
    return nice(float(np.percentile(inside, TOP_PERCENTILE)))


def nice(value: float) -> float:
    """The next round number, at most half as much again, for the end of a colour bar."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    ends = [step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)]
    return next(end for end in ends if end >= value * (1 - 1e-9))
