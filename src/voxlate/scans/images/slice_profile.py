"""Means over the thickness of slices."""

import numpy as np

from voxlate.base.array_types import AnyArray


def margin(thickness_mm: float, spacing_mm: float) -> int:
    """Slices on each side that a slice of this thickness reaches into."""
    return max(0, int(np.ceil(thickness_mm / spacing_mm / 2 - 0.5)))


def through_plane(image: AnyArray, thickness_mm: float, spacing_mm: float) -> AnyArray:
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
