"""What a report shows of images that complete a case: what they were made from, on the scale that was scored."""

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rows import slow
from scans import keep_cases
from voxlate.base.files import read_json, write_json
from voxlate.evaluation.reports.pictures import read_case
from voxlate.evaluation.scoring.scores import read_scores


@pytest.fixture
def scored(voxlate, completing, cohort, out):
    """Each modality of the validation cases made from the other, with its spread, scored on 0 to 255."""
    command = ("evaluate", out, "--truth", cohort, "--run", completing, "--split", "val")
    voxlate(*command, "--units", "network", "--samples", "2").done()
    return out


@slow
def test_pictures_show_network_units_where_these_were_scored(scored, cohort):
    scores = read_scores(scored / "metrics.json")
    case = scores.rows[0].case
    for name, given, high in (("t1", "t2", 1200), ("t2", "t1", 1400)):
        images = read_case(scored, scores.header, case, name).images
        assert [image.name for image in images if image.role == "source"] == [given]
        scales = {image.role: image.scale for image in images}
        assert {scales[role].high for role in ("source", "synthesis", "truth")} == {255}
        shown = {image.role: image.slices["axial"] for image in images}
        raw = nib.load(cohort / case / f"{name}.nii.gz").get_fdata()
        depth = round(float(np.nonzero(raw)[2].mean()))
        expected = np.sort(np.clip(raw[:, :, depth] * 255 / high, 0, 255).ravel())
        assert_allclose(np.sort(shown["truth"].ravel()), expected, atol=0.01)
        assert_allclose(shown["error"], shown["synthesis"] - shown["truth"], atol=1e-3)
        path = scored / case / f"desc-synthetic_{name}_std_uncalibrated.nii.gz"
        spread = np.sort(nib.load(path).get_fdata()[:, :, depth].ravel()) * 255 / high
        assert_allclose(np.sort(shown["spread"].ravel()), spread, rtol=1e-4, atol=1e-3)


@slow
def test_scores_by_an_images_own_peak_say_that_they_cannot_see_its_brightness(scored):
    said = "Each image is divided by its own peak, so its overall brightness does not change its scores"
    scores = read_scores(scored / "metrics.json")
    assert said not in " ".join(scores.table().caption)
    scores.parts["t1"]["own_peak"] = True
    assert f"{said}; with --units network it does." in scores.table().caption


@slow
def test_what_synth_warned_of_stands_with_the_pictures_of_that_case(
    synth, voxlate, completing, cohort, out
):
    synth(completing, keep_cases(cohort, "case1", "case2"), "--missing", "t2").done()
    path = out / "case1/provenance.json"
    warning = {"code": "other-content", "grade": "do not trust", "text": "t1: another scanner?"}
    write_json(path, read_json(path) | {"warnings": [warning]})
    voxlate("report", out).done()
    page = (out / "report.html").read_text(encoding="utf-8")
    said = '<p class="warning do-not-trust">t1: another scanner? Do not trust'
    shown = page.split('<article class="case card">')[1:]
    assert [said in part for part in shown] == [True, False]
