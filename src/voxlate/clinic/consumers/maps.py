"""Maps on the grid of a CT."""

import numpy as np

from voxlate.scans.images.grid import Grid, Volume, resample


def with_data(volume: Volume, data: np.ndarray, unit: str, name: str) -> Volume:
    """A map [D, H, W] on the grid of a volume."""
    return Volume(np.asarray(data, np.float32)[None], volume.affine, unit, name, codes=volume.codes)


def within(volume: Volume, grid: Grid) -> np.ndarray:
    """The voxels of a grid, bool [D, H, W], that lie within a volume."""
    ones = with_data(volume, np.ones(volume.grid.shape), "1", "mask")
    return resample(ones, grid, order=0, fill=0.0).data[0] > 0
