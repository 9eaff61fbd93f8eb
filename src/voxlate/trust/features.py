"""What can be seen at a voxel, without truth, of how wrong an image may be there."""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage as ndimage
from numpy.typing import NDArray

Array = NDArray[np.float32]

NARROW, WIDE = 1.0, 3.0  # pixels, standard deviation of blurs
FAR = 12.0  # pixels from the border of what is shown, beyond which it no longer matters
DARKEST = 1e-3  # of the network's range of 2: a spread below it counts as none


def voxel_features(made: Array, sources: Sequence[Array], spread: Array | None = None) -> Array:
    """Features [D, H, W, F] of a made image, in network units, of its sources and of its samples' standard deviation.

    All of the plane of a slice, but for one: slices are thicker than pixels, and a slice may be alone.
    """
    found = [*_of_image(made), _between_slices(made), _depth_inside(made)]
    for source in sources:
        found += _of_image(source)
    if spread is not None:
        found += [np.log(np.maximum(one, DARKEST)) for one in (spread, blur(spread, NARROW), blur(spread, WIDE))]
    return np.stack(found, axis=-1).astype(np.float32, copy=False)


def number_of_features(sources: int, sampled: bool) -> int:
    """How many `voxel_features` gives; sampled: of samples with a standard deviation."""
    image = np.zeros((1, 2, 2), np.float32)
    return voxel_features(image, [image] * sources, image if sampled else None).shape[-1]


def _of_image(image: Array) -> list[Array]:
    """Value, blurs, gradients at two scales, and how far neighbours differ."""
    narrow, wide = blur(image, NARROW), blur(image, WIDE)
    spans = ndimage.maximum_filter(image, (1, 3, 3)) - ndimage.minimum_filter(image, (1, 3, 3))
    return [image, narrow, wide, gradient(narrow), gradient(wide), spans]


def blur(image: Array, width: float, pixel: Sequence[float] = (1.0, 1.0)) -> Array:
    """Slices [D, H, W] blurred each by itself; width: standard deviation, in the unit of a pixel's sides (H, W)."""
    return ndimage.gaussian_filter(image, (0, *(width / side for side in pixel)), truncate=3, mode="nearest")


def gradient(image: Array, pixel: Sequence[float] = (1.0, 1.0)) -> Array:
    """How steep slices [D, H, W] are within their plane; 0 where they are one pixel wide."""
    if min(image.shape[1:]) < 2:
        return np.zeros_like(image)
    down, across = np.gradient(image, *pixel, axis=(1, 2))
    return np.hypot(down, across)


def _between_slices(image: Array) -> Array:
    """How far a slice differs from those below and above, on average; 0 for one alone."""
    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return (np.abs(padded[2:] - image) + np.abs(padded[:-2] - image)) / 2


def _depth_inside(image: Array) -> Array:
    """Pixels to the nearest one of background, as far as it matters, over FAR."""
    shown = image > -0.98
    planes = [ndimage.distance_transform_edt(np.pad(one, 1))[1:-1, 1:-1] for one in shown]
    return (np.minimum(np.stack(planes), FAR) / FAR).astype(np.float32)
