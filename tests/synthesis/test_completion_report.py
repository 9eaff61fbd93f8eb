"""What a report shows of images that complete a case: what they were made from, on the scale that was scored."""

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose

from rows import slow
from voxlate.evaluation.reports.case_pictures import read_case
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
