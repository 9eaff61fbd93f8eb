"""`synth --format`: the images are in another format, on the same grid and with the same voxels."""

import json

import numpy as np
import pytest

from rows import every_row
from voxlate.formats.io import is_synthetic, read_volume
from voxlate.synthesis.result import ENDINGS
from voxlate.system.files import read_json


@pytest.fixture
def nifti(voxlate, run, cohort, tmp_path):
    """The image of a case as .nii.gz."""
    assert voxlate("synth", run, cohort / "case0", "--out", tmp_path / "nifti").code == 0
    return read_volume(tmp_path / "nifti" / "case0" / "t2.nii.gz", "t2")


@every_row("ending", ENDINGS)
def test_every_format_holds_the_same_image(voxlate, run, cohort, tmp_path, nifti, ending):
    out = tmp_path / f"out{ending}"
    said = voxlate("synth", run, cohort / "case0", "--out", out, "--format", ending[1:])
    assert said.code == 0, said.err
    image = read_volume(out / "case0" / f"t2{ending}", "t2")
    np.testing.assert_array_equal(image.data, nifti.data)
    np.testing.assert_allclose(image.affine, nifti.affine, atol=1e-5)
    assert [*read_json(out / "case0" / "provenance.json")["images"]] == [f"t2{ending}"]
    assert is_synthetic(out / "case0" / f"t2{ending}")
    facts = json.loads(voxlate("info", out, "--json").out)
    assert facts["images"] == ["t2"]


def test_another_format_replaces_the_first_and_the_same_one_is_kept(voxlate, run, cohort, tmp_path):
    out = tmp_path / "out"
    command = ("synth", run, cohort / "case0", "--out", out)
    assert voxlate(*command).code == 0
    again = voxlate(*command, "--format", "nrrd")
    assert "in another format (case0)" in again.err
    assert sorted(one.name for one in (out / "case0").iterdir()) == ["provenance.json", "t2.nrrd"]
    assert (
        "1 of 1 cases were synthesised before and are kept"
        in voxlate(*command, "--format", "nrrd", "-v").err
    )


def test_images_in_another_format_are_scored(voxlate, run, cohort, tmp_path):
    out = tmp_path / "out"
    assert (
        voxlate("synth", run, cohort, "--split", "val", "--out", out, "--format", "mha").code == 0
    )
    scored = voxlate("evaluate", out, "--truth", cohort)
    assert scored.code == 0, scored.err


def test_a_scan_with_the_name_of_an_image_is_not_replaced(voxlate, run, cohort, tmp_path):
    out = tmp_path / "out"
    (out / "case0").mkdir(parents=True)
    (out / "case0" / "t2.nrrd").write_bytes(b"a scan")
    refused = voxlate("synth", run, cohort / "case0", "--out", out, "--format", "nrrd")
    assert refused.code == 2
    assert "expected no file of this name that voxlate did not write" in refused.err
    assert (out / "case0" / "t2.nrrd").read_bytes() == b"a scan"


def test_an_unknown_format_is_refused(voxlate, run, cohort, tmp_path):
    refused = voxlate("synth", run, cohort / "case0", "--out", tmp_path / "out", "--format", "jpg")
    assert refused.code == 2
    expected = "'nii.gz', 'nii', 'nrrd', 'mha', 'mgz'"
    assert f"voxlate: --format: expected {expected}, found 'jpg'" in refused.err
