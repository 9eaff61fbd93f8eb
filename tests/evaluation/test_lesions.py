"""What a stroke physician asks of a perfusion map: volume, overlap and mismatch, with answers by arithmetic."""

import math

import numpy as np
import pytest

from voxlate.base.errors import BadInput
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.regions import regions_from, shares_of_other_side

SPACING_MM = (2.0, 1.0, 5.0)  # x, y, z: a voxel is 0.01 ml
BOX = (slice(1, 5), slice(4, 24), slice(2, 22))  # the brain: 4 slices, 20 rows, 20 columns of 24


def volume(data, modality, unit):
    return Volume(np.asarray(data, np.float32)[None], np.diag([*SPACING_MM, 1.0]), unit, modality)


def late(columns) -> np.ndarray:
    """Tmax of 2 s in the brain, of 9 s in 10 rows and so many columns of its right half, in all 4 slices."""
    tmax = np.zeros((6, 28, 24))
    tmax[BOX] = 2
    tmax[1:5, 10:20, 21 - columns : 21] = 9
    return tmax


def flow(columns) -> np.ndarray:
    """CBF of 50 in the brain, of 40 in its left half, 12.5 (25 % of 50) in a part of each half, 0 in a ventricle."""
    cbf = np.zeros((6, 28, 24))
    cbf[BOX] = 50
    cbf[1:5, 4:24, 2:12] = 40
    cbf[1:5, 12:17, 21 - columns : 21] = (
        12.5  # over 40: 31 %, unless the left half's mean is above 41.7
    )
    cbf[1:5, 6:8, 11:13] = 0
    return cbf


@pytest.fixture
def folders(tmp_path):
    """Truth: 6 columns late, so 4 · 10 · 6 voxels = 2.4 ml; core of 0.6 ml in the labels. Synthesis: 4 columns late."""
    for number in range(2):
        truth, out = tmp_path / "truth" / f"p{number}", tmp_path / "out" / f"p{number}"
        core = np.zeros((6, 28, 24))
        core[1:5, 12:17, 18:21] = 1
        write_volume(truth / "tmax.nii.gz", volume(late(6), "tmax", "s"))
        write_volume(truth / "lesion.nii.gz", volume(core, "lesion", ""))
        write_volume(out / "tmax.nii.gz", volume(late(4), "tmax", "s"))
    return tmp_path / "out", tmp_path / "truth"


def test_a_late_region_has_a_volume_in_ml_an_overlap_and_an_error(folders):
    row = evaluate(*folders, regions={"lesion": "tmax>6"}).rows[0].scores
    assert row["lesion.truth_volume"] == pytest.approx(2.4)
    assert row["lesion.volume"] == pytest.approx(1.6)
    assert row["lesion.volume_error"] == pytest.approx(0.8)
    assert row["lesion.dice"] == pytest.approx(2 * 1.6 / (1.6 + 2.4))


def test_a_mismatch_ratio_divides_two_volumes_of_which_the_synthesis_shows_one(folders):
    regions = {"mismatch": "lesion/core", "lesion": "tmax>6", "core": "lesion=1"}
    row = evaluate(*folders, regions=regions).rows[0].scores
    assert row["core.truth_volume"] == pytest.approx(0.6)
    assert row["mismatch.truth_ratio"] == pytest.approx(2.4 / 0.6)
    assert row["mismatch.ratio"] == pytest.approx(1.6 / 0.6)
    assert row["mismatch.ratio_error"] == pytest.approx(0.8 / 0.6)
    assert "core.volume" not in row, "the synthesis is no label map"
    assert "mismatch.mae" not in row


def test_where_there_is_no_core_there_is_no_mismatch_ratio(folders):
    out, truth = folders
    write_volume(truth / "p1" / "lesion.nii.gz", volume(np.zeros((6, 28, 24)), "lesion", ""))
    row = evaluate(
        out, truth, regions={"lesion": "tmax>6", "core": "lesion=1", "mismatch": "lesion/core"}
    ).rows[1]
    assert row.scores["core.truth_volume"] == 0
    assert math.isnan(row.scores["mismatch.ratio"])


def test_a_perfused_part_is_compared_with_the_mean_of_the_other_half():
    frame = np.zeros((6, 28, 24), bool)
    frame[BOX] = True
    values = flow(3).astype(np.float32)
    shares = shares_of_other_side(values, frame)
    right = values[..., 12:][frame[..., 12:] & (values[..., 12:] > 0)]
    assert shares[1, 5, 5] == pytest.approx(40 / right.mean()), "a voxel of the left half"
    assert shares[1, 13, 20] == pytest.approx(12.5 / 40), "a voxel of the right half"
    assert shares[1, 6, 12] == 0, "fluid"


def test_a_core_below_a_share_of_the_other_hemisphere_is_found_without_fluid(tmp_path):
    """12.5 is 31.25 % of the left half's 40."""
    for folder, columns in (("truth", 3), ("out", 2)):
        write_volume(
            tmp_path / folder / "p0" / "cbf.nii.gz", volume(flow(columns), "cbf", "ml/100g/min")
        )
    mask = volume(flow(3) >= 0, "mask", "")
    mask.data[:] = 0
    mask.data[(slice(None), *BOX)] = 1
    write_volume(tmp_path / "brain.nii.gz", mask)
    options = {"mask": tmp_path / "brain.nii.gz"}
    scores = evaluate(tmp_path / "out", tmp_path / "truth", regions={"core": "cbf<32%"}, **options)
    assert scores.rows[0].scores["core.truth_volume"] == pytest.approx(4 * 5 * 3 * 0.01)
    assert scores.rows[0].scores["core.volume"] == pytest.approx(4 * 5 * 2 * 0.01)
    with pytest.raises(BadInput, match="cbf < 31 %"):
        evaluate(tmp_path / "out", tmp_path / "truth", regions={"core": "cbf<31%"}, **options)


def test_a_path_with_a_slash_is_a_mask_file_unless_both_sides_are_names_of_regions():
    regions = regions_from({"lesion": "tmax>6", "core": "masks/core", "mismatch": "lesion / core"})
    assert regions[1].path == "masks/core"
    assert regions[2].over == ("lesion", "core")
