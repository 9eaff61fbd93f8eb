"""Between volumes and SimpleITK: images, transforms of space, and moving a volume by one."""

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from voxlate.errors import BadInput
from voxlate.files import whole_file
from voxlate.images.grid import Grid
from voxlate.images.volume import Volume

Transform = Any  # a SimpleITK transform: takes points of the fixed scan (LPS, mm) to points of the moving one
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's patient axes in terms of RAS, and back


def simpleitk() -> ModuleType:
    """SimpleITK; raises BadInput where it is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise BadInput(
            "registration: expected SimpleITK, found it not installed. Run pip install 'voxlate[registration]', "
            "or register the scans by another tool and prepare them with --resample."
        ) from error
    return SimpleITK


def to_image(data: np.ndarray, grid: Grid) -> Any:
    """A SimpleITK image of [D, H, W] at the place that the grid says."""
    image = simpleitk().GetImageFromArray(data)
    lps = LPS @ grid.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def centre_mm(grid: Grid, mask: np.ndarray | None = None) -> np.ndarray:
    """The middle of a grid, or of the voxels of a mask [D, H, W], in LPS millimetres."""
    if mask is None or not mask.any():
        index = (np.array(grid.shape) - 1) / 2
    else:
        index = np.array([np.average(np.arange(n), weights=_profile(mask, k)) for k, n in enumerate(grid.shape)])
    point: np.ndarray = LPS @ grid.affine @ np.array([*index[::-1], 1.0])
    return point[:3]


def _profile(mask: np.ndarray, axis: int) -> np.ndarray:
    return mask.sum(axis=tuple({0, 1, 2} - {axis}))


def move(
    volume: Volume, grid: Grid, transform: Transform, order: Literal[0, 1, 3] = 1, fill: float | None = None
) -> Volume:
    """The volume brought to `grid` through a transform, by splines of order 0 (labels), 1 or 3.

    What the volume does not cover gets `fill` (default: its lowest value).
    """
    itk = simpleitk()
    how = {0: itk.sitkNearestNeighbor, 1: itk.sitkLinear, 3: itk.sitkBSpline}[order]
    lowest = float(volume.data.min()) if fill is None else fill
    place = to_image(np.zeros((1, 1, 1), np.uint8), grid)
    size = [int(n) for n in reversed(grid.shape)]
    geometry = (place.GetOrigin(), place.GetSpacing(), place.GetDirection())
    moved = [
        itk.GetArrayFromImage(
            itk.Resample(to_image(one, volume.grid), size, transform, how, *geometry, lowest, itk.sitkFloat32)
        )
        for one in volume.data
    ]
    return dataclasses.replace(volume, data=np.stack(moved), affine=grid.affine)


def covered(moving: Grid, fixed: Grid, transform: Transform) -> np.ndarray:
    """Which voxels of the fixed grid a transform takes into the moving grid's box: bool [D, H, W]."""
    box = Volume(np.ones((1, *moving.shape), np.float32), moving.affine, "", "")
    inside: np.ndarray = move(box, fixed, transform, order=0, fill=0.0).data[0] > 0
    return inside


def write_transform(path: Path, transform: Transform) -> None:
    """Write an ITK transform by the suffix of the path: .tfm (text) or .h5."""
    with whole_file(path) as temporary:
        simpleitk().WriteTransform(transform, str(temporary))
