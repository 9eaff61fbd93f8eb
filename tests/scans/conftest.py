"""Small made-up cohorts on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import made_volumes
from preparing import prepare
from voxlate.scans.cases.prepared import Cohort

Save = Callable[..., Path]
SHAPE = (4, 6, 8)  # D, H, W


def write_scan(
    path: Path,
    values: np.ndarray,
    spacing_mm: tuple[float, float, float] = (1, 1, 1),
    origin_mm: tuple[float, float, float] = (0, 0, 0),
    affine: np.ndarray | None = None,
) -> Path:
    """Write an image file; values: [D, H, W]; spacing_mm: (D, H, W); origin_mm: (x, y, z)."""
    if affine is None:
        affine = np.diag([*spacing_mm[::-1], 1.0])
        affine[:3, 3] = origin_mm
    made_volumes.save(path, values, "", "a.u.", affine)
    return path


def write_patients(root: Path) -> Path:
    """Six patients with t1, t2 (integers) and a mask each; the first also has a seg."""
    for k in range(6):
        rng = np.random.default_rng(k)
        folder = root / f"case{k}"
        write_scan(folder / "t1.nii.gz", rng.integers(0, 1000, SHAPE))
        write_scan(folder / "t2.nii.gz", rng.integers(0, 500, SHAPE))
        mask = np.zeros(SHAPE)
        mask[1:, 2:5, 1:7] = 1
        write_scan(folder / "mask.nii.gz", mask)
    write_scan(root / "case0" / "seg.nii.gz", np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5)
    return root


@pytest.fixture(scope="session")
def save() -> Save:
    """The function that writes an image file."""
    return write_scan


@pytest.fixture
def cohort_folder(tmp_path) -> Path:
    """The six patients, which a test may change."""
    return write_patients(tmp_path / "cohort")


@pytest.fixture(scope="session")
def patients(tmp_path_factory) -> Path:
    """The six patients, which no test changes."""
    return write_patients(tmp_path_factory.mktemp("patients"))


@pytest.fixture(scope="session")
def six(patients) -> Cohort:
    """The six patients prepared, which no test changes: four to train on, and one of each other split."""
    return prepare(
        patients, patients.parent / "six_prepared", workers=1, audit=False, shares=(4, 1, 1)
    )
