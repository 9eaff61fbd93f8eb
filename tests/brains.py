"""A brain without skull, made of three tissues, whose levels are known; a head whose two sides are the same."""

import numpy as np

from voxlate.anatomy import signal
from voxlate.scans.images.grid import Volume

SHAPE = (36, 44, 36)  # D, H, W
VOXEL_MM = 4.0


def tissues(ventricle=0.2):
    """0 around the brain, 1 in fluid (furrows and a ventricle), 2 in grey and 3 in white matter: [D, H, W].

    ventricle: its radius, as a share of the brain's.
    """
    z, y, x = (np.arange(size) - (size - 1) / 2 for size in SHAPE)
    radius = np.sqrt((z[:, None, None] / 16) ** 2 + (y[:, None] / 20) ** 2 + (x / 16) ** 2)
    labels = np.select(
        [radius < ventricle, radius < 0.7, radius < 0.95, radius < 1], [1, 3, 2, 1], 0
    )
    furrows = (np.indices(SHAPE).sum(axis=0) % 7 == 0) & (radius > 0.85) & (radius < 1)
    labels[furrows] = 1
    return labels


def brain(fluid, grey, white, *, noise=10.0, name="t2", ventricle=0.2):
    """The brain with its tissues at these levels, on average, in air of 0; noise: standard deviation."""
    labels = tissues(ventricle)
    values = np.array([0, fluid, grey, white], np.float32)[labels]
    values += (labels > 0) * np.random.default_rng(0).normal(0, noise, SHAPE).astype(np.float32)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    return Volume(values[None].astype(np.float32), affine, "a.u.", name)


def symmetric(made):
    """The CT of a head whose left and right mirror each other exactly."""
    ct = signal.image(made, "ncct")
    right = ct[..., ct.shape[-1] // 2 :]
    both = np.concatenate([right[..., ::-1], right], axis=-1)
    return Volume(both[None], made.affine, "HU", "ncct")
