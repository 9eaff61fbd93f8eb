"""What a stroke physician asks of a perfusion map: volume and overlap, with answers by arithmetic."""

import numpy as np
import pytest

from made_volumes import save, save_pair
from voxlate.evaluation.scoring.evaluate import evaluate

AFFINE = np.diag([2.0, 1.0, 5.0, 1.0])  # x, y, z: a voxel is 0.01 ml
BOX = (slice(1, 5), slice(4, 24), slice(2, 22))  # the brain: 4 slices, 20 rows, 20 columns of 24


def brain() -> np.ndarray:
    inside = np.zeros((6, 28, 24), bool)
    inside[BOX] = True
    return inside


def late(columns) -> np.ndarray:
    """Tmax of 2 s in the brain, of 9 s in 10 rows and so many columns of its right half, in all 4 slices."""
    tmax = 2.0 * brain()
    tmax[1:5, 10:20, 21 - columns : 21] = 9
    return tmax


@pytest.fixture
def folders(tmp_path):
    """Truth: 6 columns late, so 4 · 10 · 6 voxels = 2.4 ml; core of 0.6 ml in the labels of p0. Synthesis: 4 columns late."""
    core = np.zeros((6, 28, 24))
    core[1:5, 12:17, 18:21] = 1
    for case, labels in (("p0", core), ("p1", 0 * core)):
        folders = save_pair(tmp_path, late(6), late(4), "tmax", "s", AFFINE, case=case)
        save(tmp_path / "cohort" / case / "lesion.nii.gz", labels, "lesion", "", AFFINE)
    return folders


def test_a_late_region_has_volumes_and_an_overlap_and_a_label_map_the_truths_volume(folders):
    regions = {"lesion": "tmax>6", "core": "lesion=1"}
    row, without = (row.scores for row in evaluate(*folders, regions=regions).rows)
    assert row["lesion.truth_volume"] == pytest.approx(2.4)
    assert row["lesion.volume"] == pytest.approx(1.6)
    assert row["lesion.dice"] == pytest.approx(2 * 1.6 / (1.6 + 2.4))
    assert row["core.truth_volume"] == pytest.approx(0.6)
    # the synthesis is no label map
    assert "core.volume" not in row
    assert without["core.truth_volume"] == 0
