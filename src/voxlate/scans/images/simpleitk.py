"""SimpleITK's images and transforms of volumes, whose positions are LPS millimetres."""

import math
import re
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
FARTHEST_MM = 1e5  # of any number of a transform: no scanner's frame is wider than some metres
# numbers of a transform, and fixed ones: the centre
SIZES: dict[str, tuple[tuple[float, int], ...]] = {
    "Euler3DTransform": ((6, 3), (6, 4)),
    "AffineTransform": ((12, 3),),
    "TranslationTransform": ((3, 0),),
}
SPLINE_FIXED = 18  # of a spline: knots, origin, spacing and direction
COMPOSITE = "Transform: CompositeTransform_double_3_3\n"
# ITK reads no other spelling
NUMBERS = r"((?: [-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)*) ?\n"
TRANSFORM = re.compile(
    rf"Transform: (\w+)_double_3_3\nParameters:{NUMBERS}FixedParameters:{NUMBERS}", re.ASCII
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


def write_transform(path: Path, transform: Transform) -> None:
    """Write an ITK transform as text (.tfm)."""
    with whole_file(path) as temporary:
        itk.WriteTransform(transform, str(temporary))


def read_transform(path: Path) -> Transform:
    """A transform that `write_transform` wrote; raises BadInput where it is damaged, or none of two scans."""
    again = "Remove the prepared case and prepare again."
    record = Record(path, "a transform between two scans", again)
    _check_text(record, path.read_text(encoding="utf-8", errors="replace"))
    try:
        transform = itk.ReadTransform(str(path))
    except RuntimeError as error:
        raise record.wrong("a file that ITK cannot read") from error
    numbers = np.array([*transform.GetParameters(), *transform.GetFixedParameters()])
    record.check(bool((np.abs(numbers) <= FARTHEST_MM).all()), "numbers that are far too large")
    if transform.IsLinear():
        points = np.array([transform.TransformPoint(point) for point in np.eye(4, 3, -1).tolist()])
        volume = float(np.linalg.det(points[1:] - points[0]))
        record.check(
            LEAST_VOLUME <= volume <= 1 / LEAST_VOLUME, f"one that changes volumes by {volume:g}"
        )
    return transform


def _check_text(record: Record, text: str) -> None:
    """Raise BadInput unless each transform has as many numbers as its kind: ITK reads beyond its memory for fewer."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    text = "".join(f"{line}\n" for line in lines).removeprefix(COMPOSITE)
    found = TRANSFORM.findall(text)
    record.check(bool(found) and not TRANSFORM.sub("", text), "a text of another form")
    for kind, own, fixed in found:
        sizes = SIZES.get(kind, ())
        if kind == "BSplineTransform":
            knots = math.prod(map(float, fixed.split()[:3]))
            sizes = ((3 * knots, SPLINE_FIXED),)
        size = len(own.split()), len(fixed.split())
        record.check(size in sizes, f"{size[0]} and {size[1]} numbers of a {kind:.80}")
