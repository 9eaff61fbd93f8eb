"""Features of a voxel that predict, without the truth, how large the error of an image is there."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.ndimage as ndimage

from voxlate.system.arrays import Float32
from voxlate.system.slabs import slabs

Array = Float32

NARROW, WIDE = 1.0, 3.0  # standard deviation of blurs, in pixels
FAR = 12.0  # pixels from the background, beyond which the distance no longer matters
LEAST_SD = 1e-3  # of the network's range of 2: smaller standard deviations count as this one
BACKGROUND_BELOW = -0.98  # network units


def voxel_features(
    image: Array,
    sources: Sequence[Array],
    sd: Array | None = None,
) -> Array:
    """Features [D, H, W, F] of an image, of its sources, and of its samples' standard deviation, in network units.

    All but one are computed within a slice, because slices are thicker than pixels, and there may be only one.
    """
    features = _image_features(image)
    features.append(_difference_to_neighbours(image))
    features.append(_distance_to_background(image))
    for source in sources:
        features += _image_features(source)
    if sd is not None:
        for smoothed in (sd, blur(sd, NARROW), blur(sd, WIDE)):
            features.append(np.log(np.maximum(smoothed, LEAST_SD)))
    return np.stack(features, axis=-1).astype(np.float32, copy=False)


def features_in_slabs(
    image: Array,
    sources: Sequence[Array],
    sd: Array | None = None,
) -> Iterator[tuple[slice, Array]]:
    """The same features a few slices at a time, because those of a whole volume are larger than all its images."""
    count = number_of_features(len(sources), sd is not None)
    for planes in slabs((*image.shape, count)):
        first = max(planes.start - 1, 0)
        around = slice(first, planes.stop + 1)
        features = voxel_features(
            image[around],
            [source[around] for source in sources],
            None if sd is None else sd[around],
        )
        yield planes, features[planes.start - first : planes.stop - first]


def number_of_features(sources: int, has_spread: bool) -> int:
    """The number of features of `voxel_features`; has_spread: whether the image has a standard deviation."""
    image = np.zeros((1, 2, 2), np.float32)
    sd = image if has_spread else None
    return voxel_features(image, [image] * sources, sd).shape[-1]


def _image_features(image: Array) -> list[Array]:
    """Value, blurs, gradients at two scales, and the range of the neighbourhood."""
    narrow = blur(image, NARROW)
    wide = blur(image, WIDE)
    neighbourhood = (1, 3, 3)
    span = ndimage.maximum_filter(image, neighbourhood) - ndimage.minimum_filter(
        image, neighbourhood
    )
    return [image, narrow, wide, gradient(narrow), gradient(wide), span]


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


def _difference_to_neighbours(image: Array) -> Array:
    """The mean absolute difference between a slice and those below and above; 0 for a single slice."""
    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)), mode="edge")
    above = np.abs(padded[2:] - image)
    below = np.abs(padded[:-2] - image)
    return (above + below) / 2


def _distance_to_background(image: Array) -> Array:
    """The distance to the nearest pixel of background within the slice, at most FAR, divided by FAR."""
    planes = []
    for shown in image > BACKGROUND_BELOW:
        distances = ndimage.distance_transform_edt(np.pad(shown, 1))
        planes.append(distances[1:-1, 1:-1])
    return (np.minimum(np.stack(planes), FAR) / FAR).astype(np.float32)
