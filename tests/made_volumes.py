"""Volumes that are made by hand, and their files."""

import numpy as np

from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume


def made_volume(data, modality="ct", unit="HU", affine=None):
    """Voxels [D, H, W] as a volume, at 1 mm unless an affine says otherwise."""
    affine = np.eye(4) if affine is None else affine
    return Volume(np.asarray(data, np.float32)[None], affine, unit, modality)


def save(path, data, *what, **more):
    """Write voxels [D, H, W] as the volume that made_volume gives."""
    write_volume(path, made_volume(data, *what, **more))
