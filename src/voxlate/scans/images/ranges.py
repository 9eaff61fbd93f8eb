"""The range of values that scores refer to: by the unit, the recipe, or each image's own peak."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlate.base.array_types import AnyArray, Bool, Float32
from voxlate.base.errors import BadInput
from voxlate.scans.images.volume_statistics import Statistics

PEAK_PERCENTILE = 99.5
FLOOR_PERCENTILE = 0.5
HU = (-1024.0, 3071.0)  # SynthRAD 2023 and 2025: the range of their PSNR and SSIM
# CBF, CBV, Tmax: a lesion is still visible
PERFUSION = {"ml/100g/min": 200.0, "ml/100g": 20.0, "s": 30.0}
WHOLE_MASK = "whole"  # the mask of all voxels
IN_BODY = ("HU", *PERFUSION)  # units of images whose air is no result


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


def normalise_by(statistics: Statistics, values: AnyArray) -> Float32:
    """Values of a part of an image of arbitrary unit, divided by its peak as `Range.normalise` does with the whole image."""
    floor = min(0.0, statistics.all.at(FLOOR_PERCENTILE))
    peak = statistics.foreground.at(PEAK_PERCENTILE)
    return ((values - floor) / (peak - floor if peak > floor else 1.0)).astype(np.float32)


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
