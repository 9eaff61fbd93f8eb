"""Levels of fluid and of both tissues, grey and white matter, in MR images of stripped brains.

A level is the median of the tissue's share of the brain, in the order of brightness: fluid is at the dark or at the bright
end, grey matter in the middle and white matter at the other end. In FLAIR these two are exchanged, so that they are called
middle and far. Otsu's classes alone are not of the same tissue in two images, and fixed shares are wrong where ventricles
are wide, so that the share of fluid is half way between both. On eight phantoms of real label maps, whose fluid is 14 to
41 % of the brain, the levels of one image are moved to those of another with an error of 1.3 (T2), 2.2 (T1, FLAIR) and
0.9 % (T1c) of the 99.5th percentile; with fixed shares it is 2.6, 3.1, 2.7 and 1.3 %.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from typing import Annotated

import numpy as np

from voxlate.base.arrays import Bool
from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.scans.images.curve import Curve
from voxlate.scans.images.mask import Spacing, erode

FLUID, MIDDLE, FAR = (0.05, 0.35), (0.25, 0.6), (0.2, 0.55)  # least and largest share of a brain
USUAL_FLUID = 0.15
MIDDLE_SHARE = 0.55  # of both tissues; grey matter is 0.49 to 0.60 in the label maps
ENDS = (0.5, 99.5)  # percentiles between which values are compared
BRIGHT, TOP = 97.0, 99.5  # percentiles above the tissue, which keep its brightest part in place
TAILS = (7.5, 50, 92.5)  # percentiles of dark fluid, tissue and bright fluid
RIM_MM, DEEP_MM = 4.0, 12.0  # from the surface: with furrows, and below them
SOFT = 0.01  # of the range, added to both tails
# Of the logarithm of the tails' ratio plus OUTWARD times the rise from deep to rim, as a share of the range. Real, drawn
# and synthesised brains: 1.13 or more in 16 T2, at most 0.64 in 78 T1, T1c, FLAIR and PD.
OUTWARD, FLUID_BRIGHT = 5.0, 0.9
LEAST_STEP = 0.02  # of the range, between levels
MOST_BELOW_0 = 0.1  # of the bright end: interpolation overshoots less, z-scored brains more
BINS = 256


@settings
class TissueLevels:
    """Values of an image in which tissues lie, and two percentiles of its brain, in the image's unit."""

    fluid: Annotated[float, setting("level of cerebrospinal fluid")]
    middle: Annotated[
        float, setting("level of the tissue next to fluid: grey matter, in FLAIR white matter")
    ]
    far: Annotated[float, setting("level of the other tissue")]
    bright: Annotated[float, setting("97th percentile of the brain")]
    top: Annotated[float, setting("99.5th percentile of the brain")]

    def __post_init__(self) -> None:
        least, most = sorted((self.fluid, self.far))
        if not (least < self.middle < most <= self.top and self.top > 0):
            raise BadInput(
                f"synth.contrast: expected middle between fluid and far, and a top above them and 0, found {self}. Change them."
            )

    @property
    def fluid_is_bright(self) -> bool:
        """Whether fluid is brighter than tissue, as in T2."""
        return self.fluid > self.far

    @property
    def order(self) -> str:
        """Which end of the tissues fluid is, in words."""
        return "brighter than tissue" if self.fluid_is_bright else "darker than tissue"

    def curve_to(self, goal: "TissueLevels") -> Curve:
        """The map that moves 0, these levels and the percentiles to others of the same order.

        Levels that coincide with the one below them are left out; above the last one, values keep their ratio to it.
        """
        starts, goals = [0.0], [0.0]
        for start, end in zip(sorted(astuple(self)), sorted(astuple(goal))):
            if start > starts[-1] and end > goals[-1]:
                starts.append(start)
                goals.append(end)
        return Curve((*starts, 2 * starts[-1]), (*goals, 2 * goals[-1]))


def find_levels(image: np.ndarray, inside: np.ndarray, spacing_mm: Spacing) -> TissueLevels | None:
    """The levels of an image [D, H, W] in a brain; None where no three levels stand apart.

    inside: bool [D, H, W], the brain.
    """
    values = image[inside]
    if not values.size:
        return None
    low, high = np.percentile(values, ENDS)
    bright = _fluid_is_bright(image, inside, spacing_mm)
    if bright is None or low < -MOST_BELOW_0 * high:
        return None
    sign = -1 if bright else 1
    from_fluid = sign * values
    share = _fluid_share(from_fluid)
    if share is None:
        return None
    fluid = (share + USUAL_FLUID) / 2
    tissue = 1 - fluid
    middles = (fluid / 2, fluid + tissue * MIDDLE_SHARE / 2, 1 - tissue * (1 - MIDDLE_SHARE) / 2)
    levels = np.percentile(from_fluid, [100 * middle for middle in middles])
    if np.diff(levels).min() < LEAST_STEP * (high - low):
        return None
    return _rounded([*(sign * levels), *np.percentile(values, (BRIGHT, TOP))])


def _rounded(values: Iterable[float]) -> TissueLevels:
    """Levels and percentiles in the order of their fields, with six digits."""
    names = [field.name for field in fields(TissueLevels)]
    return TissueLevels(**{name: float(f"{value:.6g}") for name, value in zip(names, values)})


def _fluid_is_bright(image: np.ndarray, inside: Bool, spacing_mm: Spacing) -> bool | None:
    """Whether fluid, a tail of the values that lies at the surface, is at the bright end; None where nothing is deep."""
    low, high = np.percentile(image[inside], ENDS)
    dark, middle, bright = np.percentile(image[inside], TAILS)
    rim = inside & ~erode(inside, RIM_MM, spacing_mm)
    deep = erode(inside, DEEP_MM, spacing_mm)
    width = high - low
    if not (width > 0 and rim.any() and deep.any()):
        return None
    soft = SOFT * width
    tails = math.log((bright - middle + soft) / (middle - dark + soft))
    outward = (np.median(image[rim]) - np.median(image[deep])) / width
    return bool(tails + OUTWARD * outward > FLUID_BRIGHT)


def _fluid_share(values: np.ndarray) -> float | None:
    """The share of the lowest of three classes of least variance within, whose shares are those that tissues may have.

    None where no classes have such shares. Source: Otsu 1979, extension to several thresholds.
    """
    low, high = np.percentile(values, ENDS)
    counts, edges = np.histogram(values.clip(low, high), bins=BINS)
    ends = np.concatenate([[0], counts.cumsum()])
    sums = np.concatenate([[0], (counts * (edges[:-1] + edges[1:]) / 2).cumsum()])
    shares = ends / ends[-1]
    first, second = np.meshgrid(np.arange(BINS), np.arange(BINS), indexing="ij")
    allowed = np.ones(first.shape, bool)
    between = np.zeros(first.shape)
    last = np.full(first.shape, BINS)
    for begin, end, (least, most) in (
        (0 * first, first, FLUID),
        (first, second, MIDDLE),
        (second, last, FAR),
    ):
        share = shares[end] - shares[begin]
        allowed &= (share >= least) & (share <= most)
        between += (sums[end] - sums[begin]) ** 2 / np.maximum(ends[end] - ends[begin], 1)
    if not allowed.any():
        return None
    best = np.where(allowed, between, -np.inf).argmax()
    return float(shares[first.flat[best]])


def mean_levels(several: Sequence[TissueLevels]) -> TissueLevels:
    """The mean of levels, each relative to its own mean level, so that the gain of a scan does not weight it."""
    values = np.array([astuple(levels) for levels in several])
    gains = values[:, :3].mean(axis=1, keepdims=True)
    return _rounded((values / gains).mean(axis=0) * gains.mean())
