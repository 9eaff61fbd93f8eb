"""What a report shows of images that complete a case: what they were made from, on the scale that was scored."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from voxlate.base.files import read_json, write_json
from voxlate.evaluation.reports.pictures import read_case
from voxlate.evaluation.scoring.scores import read_scores


@pytest.fixture
def scored(voxlate, completing, cohort, tmp_path):
    """Each modality of the validation cases made from the other, with its spread, scored on 0 to 255."""
    command = ("evaluate", tmp_path / "o", "--truth", cohort, "--run", completing, "--split", "val")
    voxlate(*command, "--units", "network", "--samples", "2").done()
    return tmp_path / "o"


@pytest.mark.slow
def test_pictures_show_network_units_where_these_were_scored(scored, cohort):
    scores = read_scores(scored / "metrics.json")
    case = scores.rows[0].case
    for name, given, high in (("t1", "t2", 1200), ("t2", "t1", 1400)):
        images = read_case(scored, scores.header, case, name).images
        assert [image.name for image in images if image.role == "source"] == [given]
        shown = {image.role: image for image in images}
        assert {shown[role].scale.high for role in ("source", "synthesis", "truth")} == {255}
        raw = nib.load(cohort / case / f"{name}.nii.gz").get_fdata()
        depth = round(float(np.nonzero(raw)[2].mean()))
        expected = np.sort(np.clip(raw[:, :, depth] * 255 / high, 0, 255).ravel())
        assert_allclose(np.sort(shown["truth"].slices["axial"].ravel()), expected, atol=0.01)
        difference = shown["synthesis"].slices["axial"] - shown["truth"].slices["axial"]
        assert_allclose(shown["error"].slices["axial"], difference, atol=1e-3)
        path = scored / case / f"desc-synthetic_{name}_std_uncalibrated.nii.gz"
        spread = np.sort(nib.load(path).get_fdata()[:, :, depth].ravel()) * 255 / high
        assert_allclose(
            np.sort(shown["spread"].slices["axial"].ravel()), spread, rtol=1e-4, atol=1e-3
        )


@pytest.mark.slow
def test_scores_by_an_images_own_peak_say_that_they_cannot_see_its_brightness(scored):
    said = "Each image is divided by its own peak, so its overall brightness does not change its scores"
    scores = read_scores(scored / "metrics.json")
    assert said not in " ".join(scores.table().caption)
    scores.parts["t1"]["own_peak"] = True
    assert f"{said}; with --units network it does." in scores.table().caption


@pytest.mark.slow
def test_what_synth_warned_of_stands_with_the_pictures_of_that_case(
    voxlate, completing, cohort, out, tmp_path
):
    for case in ("case1", "case2"):
        shutil.copytree(cohort / case, tmp_path / "two" / case)
    voxlate("synth", completing, tmp_path / "two", "--missing", "t2", "--out", out).done()
    path = out / "case1" / "provenance.json"
    warning = {"code": "other-content", "grade": "do not trust", "text": "t1: another scanner?"}
    write_json(path, read_json(path) | {"warnings": [warning]})
    voxlate("report", out).done()
    page = (out / "report.html").read_text(encoding="utf-8")
    shown = page.split('<article class="case card">')
    said = '<p class="warning do-not-trust">t1: another scanner? Do not trust'
    assert [said in part for part in shown[1:]] == [True, False]
