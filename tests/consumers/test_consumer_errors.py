"""Errors of a synthesised CT in mm and percent, for images whose errors are known."""

import numpy as np
import pytest

from voxlate.consumers.errors import DESCRIBE, attenuation_errors, range_errors, skull_errors
from voxlate.consumers.tissues import default_table
from voxlate.images.grid import Volume

TABLE = default_table("rsp")


def head(tissue=0.0, bone=1000.0, thickness=6.0):
    """A ball of water, radius 50 mm, around it a shell of bone and 8 mm of skin, in air: 2 mm voxels."""
    axis = (np.arange(80) - 39.5) * 2.0
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, indexing="ij")))
    hu = np.full(radius.shape, -1000.0, np.float32)
    hu[radius < 50 + thickness + 8] = tissue
    hu[radius < 50 + thickness] = bone
    hu[radius < 50] = tissue
    return Volume(hu[None], np.diag([2.0, 2.0, 2.0, 1.0]), "HU", "ct")


def shifted(volume, hu):
    """The CT with all tissue brighter by some HU."""
    data = np.where(volume.data > -900, volume.data + np.float32(hu), volume.data)
    return Volume(data, volume.affine, "HU", "ct")


def test_a_ct_has_no_error_against_itself():
    ct = head()
    found = range_errors(ct, ct, TABLE, {"low": ct, "high": ct})
    assert found["mean_error_mm"] == found["p95_error_mm"] == found["interval_width_mm"] == 0
    assert found["coverage"] == 1
    assert found["beams"] > 1000
    assert attenuation_errors(ct, ct)["soft"]["mean_absolute_percent"] == 0
    assert all(
        side["thickness_error_mm"] == side["ratio_error"] == 0
        for side in skull_errors(ct, ct).values()
    )


def test_an_error_of_stopping_power_becomes_its_share_of_the_range():
    truth = head(bone=0.0)
    wrong = shifted(truth, 20)
    share = float(TABLE(np.full((1, 1, 1), 20.0))[0, 0, 0]) - 1
    found = range_errors(truth, wrong, TABLE)
    assert found["bias_mm"] == pytest.approx(share * found["mean_range_mm"], rel=1e-4)
    assert found["mean_error_mm"] == pytest.approx(found["bias_mm"])
    assert "coverage" not in found


def test_intervals_cover_a_range_where_they_hold_the_truth_and_not_elsewhere():
    truth = head()
    near = {"low": shifted(truth, -30), "high": shifted(truth, 30)}
    assert range_errors(truth, shifted(truth, 20), TABLE, near)["coverage"] == 1
    above = {"low": shifted(truth, 10), "high": shifted(truth, 30)}
    assert range_errors(truth, shifted(truth, 20), TABLE, above)["coverage"] == 0


def test_attenuation_errors_are_in_percent_by_the_tissue_of_the_truth():
    truth, wrong = head(tissue=0.0, bone=1000.0), head(tissue=20.0, bone=900.0)
    found = attenuation_errors(truth, wrong)
    assert found["soft"]["mean_percent"] == pytest.approx(2, abs=0.01)  # (HU + 1000) / 1000
    assert found["bone"]["mean_percent"] == pytest.approx(-100 * 5.1e-3 / 0.1491, rel=1e-3)
    assert "air" not in found
    ends = {"low": head(0.0, 800.0), "high": head(0.0, 950.0)}
    bone = attenuation_errors(truth, wrong, ends=ends)["bone"]
    assert bone["coverage"] == 0
    assert "mu of bone: mean error -3.4 %" in DESCRIBE["pet"]({"bone": bone})[0]


def test_a_thicker_skull_has_its_error_in_mm():
    found = skull_errors(head(thickness=6.0), head(thickness=10.0), aperture_mm=12)
    for side in ("left", "right", "front", "back", "vertex"):
        assert found[side]["thickness_bias_mm"] == pytest.approx(4, abs=0.5)
        assert found[side]["true_thickness_mm"] == pytest.approx(6, abs=1)
