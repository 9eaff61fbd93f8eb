"""Similarity of two images (structural, mutual information), and the overlap of two masks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.base.array_types import AnyArray, Bool, Float64

Counts = NDArray[np.int64]

RADIUS, SIGMA = 5, 1.5  # Wang et al. 2004, section III.B: an 11 x 11 Gaussian window of 1.5 pixels
K1, K2 = 0.01, 0.03
# fat to bone: air below and metal above would take most of a histogram's bins
RANGE_HU = (-150.0, 600.0)
PERCENTILES = (0.5, 99.5)  # the range of other units
NARROWEST = 1e-30  # the range of a constant image is 0


def ssim_map(a: Any, b: Any, data_range: float, window_mean: Callable[[Any], Any]) -> Any:
    """The similarity at each place of two images that are measured from the low end of `data_range`.

    window_mean: the Gaussian-weighted mean around each place (RADIUS, SIGMA), of an image. Source: eq. 13.
    """
    # divided, so that float32 holds the squares to 1e-7 of the constants' scale
    a = a / data_range
    b = b / data_range
    mean_a = window_mean(a)
    mean_b = window_mean(b)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = window_mean(a * b) - product
    variances = window_mean(a * a + b * b) - squares
    c1 = K1**2
    c2 = K2**2
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def mutual_information(
    a: AnyArray,
    b: AnyArray,
    range_a: tuple[float, float],
    range_b: tuple[float, float],
    bins: int,
) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b): 1 independent, 2 each determines the other.

    a, b: paired values. The histogram has `bins` equal bins over each range; values outside count in the first and last
    bin. NaN where both are constant. Source: Studholme et al. 1999, eq. 6.
    """
    pairs = _bin(a, *range_a, bins) * bins + _bin(b, *range_b, bins)
    joint = np.bincount(pairs, minlength=bins * bins).reshape(bins, bins)
    of_a = _entropy(joint.sum(1))
    of_b = _entropy(joint.sum(0))
    both = _entropy(joint.ravel())
    return float((of_a + of_b) / both) if both > 0 else float("nan")


def bin_range(values: AnyArray, unit: str) -> tuple[float, float]:
    """The ends of a histogram's bins for values of a unit; both are equal where all values are."""
    if unit == "HU":
        return RANGE_HU
    low, high = np.nanpercentile(values, PERCENTILES).tolist()
    return (low, high) if low < high else (float(np.nanmin(values)), float(np.nanmax(values)))


def dice(a: Bool, b: Bool) -> float:
    """Overlap of two masks, twice the intersection over the sum of both; NaN where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def _bin(image: AnyArray, low: float, high: float, bins: int) -> Counts:
    scaled = (image.ravel().astype(np.float64) - low) * (bins / max(high - low, NARROWEST))
    return np.clip(scaled, 0, bins - 1).astype(np.int64)


def _entropy(counts: Counts) -> Float64:
    """Entropy in nats along the last axis of counts; 0 where all are 0."""
    shares = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
    logarithms = np.log(np.maximum(shares, NARROWEST))
    return np.asarray(-(shares * logarithms).sum(-1), np.float64)
