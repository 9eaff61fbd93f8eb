"""Blur and gradient within slices, because slices are thicker than pixels, and there may be only one."""

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
    """The size of the gradient within slices of [D, H, W]; 0 where they are one pixel wide."""
    if min(image.shape[1:]) < 2:
        return np.zeros_like(image)
    down, across = np.gradient(image, *pixel, axis=(1, 2))
    return np.hypot(down, across)
