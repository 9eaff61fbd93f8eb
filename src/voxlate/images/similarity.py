"""How similar two images are: structurally, by mutual information, and the overlap of two masks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RADIUS, SIGMA = 5, 1.5  # Wang et al. 2004, section III.B: an 11 x 11 Gaussian window of 1.5 pixels
K1, K2 = 0.01, 0.03
NARROWEST = 1e-30  # the range of a constant image is 0


def ssim_map(a: Any, b: Any, data_range: float, window_mean: Callable[[Any], Any]) -> Any:
    """The similarity at each place of two images that are measured from the low end of `data_range`.

    window_mean: the Gaussian-weighted mean around each place (RADIUS, SIGMA), of an image. Source: eq. 13.
    """
    a, b = a / data_range, b / data_range  # float32 then holds the squares to 1e-7 of the constants' scale
    mean_a, mean_b = window_mean(a), window_mean(b)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = window_mean(a * b) - product
    variances = window_mean(a * a + b * b) - squares
    c1, c2 = K1**2, K2**2
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def mutual_information(
    a: NDArray[Any], b: NDArray[Any], range_a: tuple[float, float], range_b: tuple[float, float], bins: int
) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b): 1 independent, 2 each determines the other.

    a, b: paired values. The histogram has `bins` equal bins over each range; values outside count in the first and last
    bin. NaN where both are constant. Source: Studholme et al. 1999, eq. 6.
    """
    joint = np.bincount(_bin(a, *range_a, bins) * bins + _bin(b, *range_b, bins), minlength=bins * bins)
    joint = joint.reshape(bins, bins)
    both = _entropy(joint)
    return (_entropy(joint.sum(1)) + _entropy(joint.sum(0))) / both if both > 0 else float("nan")


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap of two masks, twice the intersection over the sum of both; NaN where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def _bin(image: NDArray[Any], low: float, high: float, bins: int) -> NDArray[np.int64]:
    scaled = (image.ravel().astype(np.float64) - low) * (bins / max(high - low, NARROWEST))
    return np.clip(scaled, 0, bins - 1).astype(np.int64)


def _entropy(counts: NDArray[Any]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-np.sum(share * np.log(share)))
