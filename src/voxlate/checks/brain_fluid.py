"""Brightness of fluid and of the tissue next to it, in MR images of stripped brains.

Each is the median of its share of the brain, in the order of brightness: fluid is at the dark or at the bright end, and
next to it grey matter, in FLAIR white matter. Otsu's classes alone are not of the same tissue in two images, and fixed
shares are wrong where ventricles are wide, so that the share of fluid is half way between both.
"""

import math

import numpy as np

from voxlate.base.array_types import Bool
from voxlate.scans.images.mask import Spacing, erode

FLUID, MIDDLE, FAR = (0.05, 0.35), (0.25, 0.6), (0.2, 0.55)  # least and largest share of a brain
USUAL_FLUID = 0.15
MIDDLE_SHARE = 0.55  # of both tissues; grey matter is 0.49 to 0.60 in the label maps
ENDS = (0.5, 99.5)  # percentiles between which values are compared
TAILS = (7.5, 50, 92.5)  # percentiles of dark fluid, tissue and bright fluid
RIM_MM, DEEP_MM = 4.0, 12.0  # from the surface: with furrows, and below them
SOFT = 0.01  # of the range, added to both tails
# Of the logarithm of the tails' ratio plus OUTWARD times the rise from deep to rim, as a share of the range. Real, drawn
# and synthesised brains: 1.13 or more in 16 T2, at most 0.64 in 78 T1, T1c, FLAIR and PD.
OUTWARD, FLUID_BRIGHT = 5.0, 0.9
LEAST_STEP = 0.02  # of the range, between levels
MOST_BELOW_0 = 0.1  # of the bright end: interpolation overshoots less, z-scored brains more
BINS = 256


def fluid_and_tissue(
    image: np.ndarray, inside: np.ndarray, spacing_mm: Spacing
) -> tuple[float, float] | None:
    """The level of fluid and that of the tissue next to it in a brain; None where no three levels stand apart.

    image: [D, H, W]; inside: bool [D, H, W], the brain.
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
    return sign * float(levels[0]), sign * float(levels[1])


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
