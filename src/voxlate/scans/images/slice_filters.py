"""Blur and gradient within slices, because slices are thicker than pixels, and there may be only one; means over their thickness."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import Float32

Array = Float32


def blur(
    image: Array,
    width: float,
    pixel: Sequence[float] = (1.0, 1.0),
) -> Array:
    """Each slice of [D, H, W] blurred; width: standard deviation, in the unit of a pixel's sides (H, W)."""
    widths = (0, *(width / side for side in pixel))
    return ndimage.gaussian_filter(image, widths, truncate=3, mode="nearest")


def gradient(image: Array, pixel: Sequence[float] = (1.0, 1.0)) -> Array:
    """The size of the gradient within slices of [D, H, W]."""
    down, across = np.gradient(image, *pixel, axis=(1, 2))
    return np.hypot(down, across)


def margin(thickness_mm: float, spacing_mm: float) -> int:
    """Slices on each side that a slice of this thickness reaches into."""
    return max(0, int(np.ceil(thickness_mm / spacing_mm / 2 - 0.5)))


def through_plane(image: Array, thickness_mm: float, spacing_mm: float) -> Array:
    """Means over a rectangular slice profile, [D, ...]; the image has `margin` more slices on each side."""
    reach = margin(thickness_mm, spacing_mm)
    if reach == 0:
        return image
    half = thickness_mm / spacing_mm / 2
    steps = np.arange(-reach, reach + 1)
    weights = np.clip(np.minimum(steps + 0.5, half) - np.maximum(steps - 0.5, -half), 0, 1)
    weights = (weights / weights.sum()).astype(np.float32)
    depth = len(image) - 2 * reach
    out = np.zeros((depth, *image.shape[1:]), np.float32)
    for k, weight in enumerate(weights):
        out += weight * image[k : k + depth]
    return out
