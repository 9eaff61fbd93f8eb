"""Structural similarity of arrays or tensors: metric and loss differ only in how they average over a window."""

from collections.abc import Callable
from typing import Any

RADIUS, SIGMA = 5, 1.5  # Wang et al. 2004, section III.B: an 11 x 11 Gaussian window of 1.5 pixels
K1, K2 = 0.01, 0.03


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
