"""Volumes that are made by hand, and their files."""

import numpy as np
from scipy.ndimage import gaussian_filter

from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume


def head(seed, shape=(12, 24, 20), contrast=100):
    """A made-up head in HU: air, and an ellipsoid of soft tissue with some texture."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    texture = gaussian_filter(np.random.default_rng(seed).normal(0, 1, shape), 1)
    inside = z**2 + y**2 + x**2 < 0.8
    return np.where(inside, 40 + contrast * texture, -1000).astype(np.float32)


def made_volume(data, modality="ct", unit="HU", affine=None):
    """Voxels [D, H, W] as a volume, at 1 mm unless an affine says otherwise."""
    affine = np.eye(4) if affine is None else affine
    return Volume(np.asarray(data, np.float32)[None], affine, unit, modality)


def save(path, data, *what, **more):
    """Write voxels [D, H, W] as the volume that made_volume gives."""
    write_volume(path, made_volume(data, *what, **more))


def save_pair(folder, truth, image, *what, case="p0", **more):
    """Write the truth of a case and its synthesis; the folders of syntheses and of truths."""
    name = f"{case}/{what[0] if what else 'ct'}.nii.gz"
    save(folder / "cohort" / name, truth, *what, **more)
    save(folder / "out" / name, image, *what, **more)
    return folder / "out", folder / "cohort"
