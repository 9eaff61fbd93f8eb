"""Errors of a synthesised CT in mm and percent, for images whose errors are known."""

from dataclasses import replace

import numpy as np
import pytest

from made_volumes import made_volume, save
from refusals import refuses
from rows import every_row, slow
from voxlate import evaluate
from voxlate.base.files import write_json
from voxlate.clinic.consumers.errors import attenuation_errors, range_errors, skull_errors
from voxlate.clinic.consumers.tissues import default_table
from voxlate.evaluation.scoring.captions import caption
from voxlate.scans.formats.io import write_volume

TABLE = default_table("rsp")
GRID = np.diag([2.0, 2.0, 2.0, 1.0])


def head(tissue=0.0, bone=1000.0, thickness=6.0):
    """A ball of water, radius 50 mm, around it a shell of bone and 8 mm of skin, in air: 2 mm voxels."""
    axis = (np.arange(80) - 39.5) * 2.0
    radius = np.linalg.norm(np.meshgrid(axis, axis, axis), axis=0)
    ends = [radius < 50, radius < 50 + thickness, radius < 50 + thickness + 8]
    return made_volume(np.select(ends, [tissue, bone, tissue], -1000), affine=GRID)


def shifted(volume, hu):
    """The CT with all tissue brighter by some HU."""
    return replace(volume, data=np.where(volume.data > -900, volume.data + hu, volume.data))


def check_bias(found):
    """The error of a uniform 20 HU is the share of the range by which the stopping power differs."""
    share = float(TABLE(np.full((1, 1, 1), 20.0))[0, 0, 0]) - 1
    assert found["bias_share"] == found["error_share"] == pytest.approx(share, rel=1e-4)
    assert found["bias"] == pytest.approx(share * found["range"], rel=1e-4)


def test_an_error_of_stopping_power_becomes_its_share_of_the_range():
    truth = head(bone=0.0)
    wrong = shifted(truth, 20)
    found = range_errors(truth, wrong, TABLE, {})
    check_bias(found)
    assert found["error"] == pytest.approx(found["bias"])
    assert "coverage" not in found


def test_intervals_cover_a_range_where_they_hold_the_truth_and_not_elsewhere():
    truth = head()
    for low, coverage in ((-30, 1), (10, 0)):
        ends = {"low": shifted(truth, low), "high": shifted(truth, 30)}
        assert range_errors(truth, shifted(truth, 20), TABLE, ends)["coverage"] == coverage


def test_attenuation_errors_are_shares_by_the_tissue_of_the_truth():
    truth, wrong = head(tissue=0.0, bone=1000.0), head(tissue=20.0, bone=900.0)
    found = attenuation_errors(truth, wrong, {})
    assert found["soft_bias"] == pytest.approx(0.02, abs=1e-4)  # (HU + 1000) / 1000
    assert found["bone_bias"] == pytest.approx(-5.1e-3 / 0.1491, rel=1e-3)
    assert "air_bias" not in found
    ends = {"low": head(0.0, 800.0), "high": head(0.0, 950.0)}
    assert attenuation_errors(truth, wrong, ends)["bone_coverage"] == 0


def test_a_thicker_skull_has_its_error_in_mm():
    found = skull_errors(head(thickness=6.0), head(thickness=10.0), aperture_mm=12)
    for side in ("left", "right", "front", "back", "vertex"):
        assert found[f"bias_{side}"] == pytest.approx(4, abs=0.5)
        assert found[f"true_thickness_{side}"] == pytest.approx(6, abs=1)
    assert found["thickness"] == pytest.approx(4, abs=0.5)


@slow
def test_voxels_that_do_not_count_change_no_error():
    truth, wrong = head(bone=0.0), shifted(head(bone=0.0), 20)
    half = np.zeros(truth.grid.shape, bool)
    half[:, :, :40] = True
    mixed = replace(wrong, data=np.where(half, wrong.data, -1000))  # covers one half
    check_bias(range_errors(truth, mixed, TABLE, {}, half))
    assert range_errors(truth, mixed, TABLE, {})["bias"] < -10
    assert attenuation_errors(truth, mixed, {}, half)["soft_error"] == pytest.approx(0.02, abs=1e-4)


def test_a_crop_within_the_head_has_no_skull():
    # its corner is in air, its other sides in the brain
    crop = made_volume(head().data[0, 10:40, 10:40, 10:40], affine=GRID)
    sides = {name.rpartition("_")[2] for name in skull_errors(crop, crop)}
    assert sides.isdisjoint({"right", "front", "vertex"})  # where the crop ends in the brain


@pytest.fixture
def scored(tmp_path):
    """A synthesised head with 20 HU too much in all tissue, its interval of 30 HU on each side, and the cohort of the truth."""
    truth = head()
    image = shifted(truth, 20)
    ends = {"ct_low": shifted(image, -30), "ct_high": shifted(image, 30)}
    write_volume(tmp_path / "COHORT/ann/ct.nii.gz", truth)
    for name, volume in {"ct": image, **ends}.items():
        write_volume(tmp_path / f"OUT/ann/{name}.nii.gz", volume)
    return tmp_path / "OUT", tmp_path / "COHORT", image


@slow
def test_evaluate_scores_a_ct_in_the_units_of_its_users_without_an_interval_of_unstated_coverage(
    scored,
):
    out, cohort, image = scored
    scores = evaluate(out, cohort, consumers="proton,pet,ultrasound", mask="body")
    row = scores.rows[0].scores
    expected = range_errors(head(), image, TABLE, {})
    assert row["proton.error"] == pytest.approx(expected["error"], rel=1e-4)
    assert row["pet.soft_error"] == pytest.approx(0.02, abs=1e-3)
    assert row["ultrasound.thickness"] == pytest.approx(0, abs=0.3)
    assert row["mae"] == pytest.approx(20, abs=1)
    assert "proton.coverage" not in row
    (warning,) = scores.document()["scan_warnings"]["ann"]
    assert warning["code"] == "unstated-interval"


@every_row("consumers", ["carbon", "proton,dose"])
def test_other_users_are_refused_by_name(consumers, scored):
    with refuses("consumer"):
        evaluate(*scored[:2], consumers=consumers)


def test_images_of_another_unit_have_no_errors_of_these_users(tmp_path):
    folders = tmp_path / "OUT", tmp_path / "COHORT"
    for folder in folders:
        scan = np.random.default_rng(0).uniform(0, 900, (12, 16, 16))
        save(folder / "ann/t1.nii.gz", scan, "t1", "a.u.")
    with refuses("consumers pet"):
        evaluate(*folders, consumers="pet", any_truth=True)


@slow
def test_tissues_whose_intervals_hold_less_than_stated_are_named_below_the_table(scored):
    out, cohort, image = scored
    calibration = {"patients": 9, "coverage": 0.9, "confidence": 0.9, "bound": "none"}
    write_json(out / "ann/provenance.json", {"calibration": calibration})
    for half_width, missed in ((30, False), (5, True)):  # around an error of 20 HU
        for end, shift in (("low", -half_width), ("high", half_width)):
            write_volume(out / f"ann/ct_{end}.nii.gz", shifted(image, shift))
        said = " ".join(caption(evaluate(out, cohort, consumers="pet")))
        assert ("µ coverage, soft tissue (0%)" in said) is missed
