"""Small made-up cohorts on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voxlate.formats.io import write_volume
from voxlate.images.grid import Volume

Save = Callable[..., Path]
SHAPE = (4, 6, 8)  # D, H, W


@pytest.fixture
def save() -> Save:
    """save(path, values [D, H, W], spacing_mm=(D, H, W), origin_mm=(x, y, z), affine=None) writes an image file."""

    def write(
        path: Path,
        values: np.ndarray,
        spacing_mm: tuple[float, float, float] = (1, 1, 1),
        origin_mm: tuple[float, float, float] = (0, 0, 0),
        affine: np.ndarray | None = None,
    ) -> Path:
        if affine is None:
            affine = np.diag([*spacing_mm[::-1], 1.0])
            affine[:3, 3] = origin_mm
        write_volume(path, Volume(values.astype(np.float32)[None], affine, "a.u.", "", str(path)))
        return path

    return write


@pytest.fixture
def cohort_folder(tmp_path: Path, save: Save) -> Path:
    """Six patients with t1, t2 (integers) and a mask each; the first also has a seg."""
    root = tmp_path / "cohort"
    for k in range(6):
        rng = np.random.default_rng(k)
        folder = root / f"case{k}"
        save(folder / "t1.nii.gz", rng.integers(0, 1000, SHAPE))
        save(folder / "t2.nii.gz", rng.integers(0, 500, SHAPE))
        mask = np.zeros(SHAPE)
        mask[1:, 2:5, 1:7] = 1
        save(folder / "mask.nii.gz", mask)
    save(root / "case0" / "seg.nii.gz", np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5)
    return root
