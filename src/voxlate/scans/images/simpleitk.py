"""SimpleITK's images and transforms of volumes, whose positions are LPS millimetres."""

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from voxlate.base.files import whole_file
from voxlate.base.optional import Package
from voxlate.base.records import Record
from voxlate.scans.images.grid import LPS_TO_RAS, Grid

itk = Package(
    "SimpleITK",
    "registration",
    "registration",
    "SimpleITK",
    ", or register the scans by another tool and prepare them with --resample",
)

Transform = Any  # takes points of the fixed scan to points of the moving one

LEAST_VOLUME = 0.1  # of a voxel, after a transform; less is a fold
LAST_LINE = "FixedParameters"  # of an ITK transform as text
FARTHEST_MM = 1e5  # of any number of a transform: no scanner's frame is wider than some metres


def to_image(data: np.ndarray, grid: Grid) -> Any:
    """A SimpleITK image of [D, H, W] at the place that the grid states."""
    image = itk.GetImageFromArray(data)
    lps = LPS_TO_RAS @ grid.affine
    spacing = voxel_sizes(lps)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_transform(path: Path, transform: Transform) -> None:
    """Write an ITK transform as text (.tfm)."""
    with whole_file(path) as temporary:
        itk.WriteTransform(transform, str(temporary))


def read_transform(path: Path) -> Transform:
    """A transform that `write_transform` wrote; raises BadInput where it is cut short or damaged, or none of two scans."""
    again = "Remove the prepared case and prepare again."
    record = Record(path, "a transform between two scans", again)
    try:
        text = path.read_text("latin-1")
        # ITK takes the numbers that a file lacks for those of no motion
        is_whole = text.endswith("\n") and text.splitlines()[-1].startswith(LAST_LINE)
        record.check(
            is_whole,
            f"one that is cut short after {len(text)} bytes (no whole {LAST_LINE} at its end)",
        )
        transform = itk.ReadTransform(str(path))
    except (OSError, RuntimeError) as error:
        raise record.wrong("a file that ITK cannot read") from error
    numbers = np.array([*transform.GetParameters(), *transform.GetFixedParameters()])
    is_sound = transform.GetDimension() == 3 and bool((np.abs(numbers) <= FARTHEST_MM).all())
    record.check(is_sound, "numbers that are far too large, or of a plane")
    record.check(not folds(transform), "one that folds space or changes volumes tenfold")
    return transform


def folds(transform: Transform) -> bool:
    """Whether a transform turns space inside out, or changes volumes more than tenfold, as splines within bounds do nowhere."""
    points = np.array([transform.TransformPoint(point) for point in np.eye(4, 3, -1).tolist()])
    volume = float(np.linalg.det(points[1:] - points[0]))
    return not LEAST_VOLUME <= volume <= 1 / LEAST_VOLUME
