"""The features of voxels from which the widths of intervals are predicted."""

import numpy as np
from scipy import ndimage

from voxlate.synthesis import calibration as features
from voxlate.synthesis.calibration import voxel_features

SPAN, DISTANCE = 5, 7  # places among the features


def image_of(seed: int) -> np.ndarray:
    """Slices of noise in a background, of which some are nothing but one of them."""
    image = np.full((6, 61, 47), -1, np.float32)
    image[1:5, 9:58, 4:40] = np.random.default_rng(seed).uniform(-0.9, 1, (4, 49, 36))
    image[4] = 0.5
    image[2, 30, 20] = -1  # a hole
    return image


def test_ranges_and_distances_to_the_background_are_scipys():
    image = image_of(0)
    found = voxel_features(image, [image])
    size = (1, 3, 3)
    span = ndimage.maximum_filter(image, size) - ndimage.minimum_filter(image, size)
    np.testing.assert_array_equal(found[..., SPAN], span)
    shown = np.pad(image > features.BACKGROUND_BELOW, ((0, 0), (1, 1), (1, 1)))
    distances = np.stack([ndimage.distance_transform_edt(plane) for plane in shown])
    near = np.minimum(distances[:, 1:-1, 1:-1], features.FAR) / features.FAR
    np.testing.assert_array_equal(found[..., DISTANCE], near.astype(np.float32))
    assert len(np.unique(near)) > 20
