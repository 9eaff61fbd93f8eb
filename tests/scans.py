"""Files of made-up cohorts, and changed copies of their scans."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from voxlate.scans.images.grid import Grid

# An affine of no rotation, as registration may write it.
SHEARED = np.array([[-0.7, 0.1, 0, 90], [0.1, 0.7, 0.2, -126], [0, -0.1, 3, -72], [0, 0, 0, 1]])


def change_scan(
    path: Path, change: Callable[[np.ndarray], np.ndarray], to: Path | None = None
) -> Path:
    """Replace the voxels of a scan by change(voxels), in its own file or in a new one."""
    image, to = nib.load(path), to or path
    to.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(change(image.get_fdata()), np.float32)
    nib.save(nib.Nifti1Image(values, image.affine), to)
    return to


def touch(root: Path, *paths: str) -> Path:
    """Write empty files below a folder; in a path, {a,b} stands for two paths."""
    for path in [one for words in paths for one in spread(words)]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def spread(path: str) -> list[str]:
    """The paths that a path with {a,b} stands for."""
    head, brace, rest = path.partition("{")
    if not brace:
        return [path]
    choices, _, tail = rest.partition("}")
    return [head + one + more for one in choices.split(",") for more in spread(tail)]


def hold_out_the_last(cohort: Path) -> None:
    """Put the last of six cases into the validation split, and all others into the training."""
    rows = [f"case{k},{'val' if k == 5 else 'train'}" for k in range(6)]
    (cohort / "cases.csv").write_text("\n".join(["case,split", *rows, ""]))


def t1_of(cohort: Path) -> dict[str, Path]:
    """The scans that a model of t1 takes of the first case."""
    return {"t1": cohort / "case0" / "t1.nii.gz"}


def contents_of(folder: Path) -> dict[Path, bytes]:
    """The bytes of each file in a folder and below it."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def keep_cases(cohort: Path, *names: str) -> Path:
    """Remove all cases but the named ones, where a test needs no more."""
    for case in cohort.iterdir():
        if case.name not in names:
            shutil.rmtree(case)
    return cohort


def indices(grid: Grid) -> np.ndarray:
    """The homogeneous (x, y, z, 1) of every voxel: [4, D, H, W]."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return np.stack([x, y, z, np.ones_like(x)])


def turn_about_z(degrees: float) -> np.ndarray:
    """The rotation [3, 3] by an angle in the plane of x and y."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
