"""Volumes as images of SimpleITK, whose positions are LPS millimetres."""

from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from voxlate.base.optional import Package
from voxlate.scans.images.grid import LPS_TO_RAS, Grid

itk = Package(
    "SimpleITK",
    "registration",
    "registration",
    "SimpleITK",
    ", or register the scans by another tool and prepare them with --resample",
)


def to_image(data: np.ndarray, grid: Grid) -> Any:
    """A SimpleITK image of [D, H, W] at the place that the grid states."""
    image = itk.GetImageFromArray(data)
    lps = LPS_TO_RAS @ grid.affine
    spacing = voxel_sizes(lps)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image
