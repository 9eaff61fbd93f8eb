"""prepare --through: scans are registered to a synthesised image of their own modality."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage

from voxlate.data.align import Preparation
from voxlate.data.audit import misalignments
from voxlate.data.case import prepare_case
from voxlate.data.prepared import open_cohort
from voxlate.files import read_json
from voxlate.images.grid import Volume
from voxlate.phantoms import image, make_head


@pytest.fixture
def two(cohort):
    """A cohort of two cases, because a registration takes half a second."""
    for case in sorted(cohort.iterdir())[2:]:
        shutil.rmtree(case)
    return cohort


def test_a_scan_is_registered_to_its_stand_in_and_not_to_the_fixed_scan():
    head = make_head(5, 0, (200, 240, 9))
    ct = Volume(image(head, "ct")[None, 4:5], head.affine, "HU", "ct", "ct")
    noise = np.random.default_rng(0).normal(500, 50, ct.data.shape).astype(np.float32)
    mr = replace(ct, data=noise, unit="a.u.", modality="mr", origin="mr")
    moved = scipy.ndimage.shift(ct.data[0], (0, 3, -4), order=1, mode="nearest")[None]
    scans = {"mr": mr, "ct": replace(ct, data=moved)}
    preparation = Preparation(register="smooth", fixed="mr")
    alone = prepare_case("a", scans, preparation, masked=False)
    through = prepare_case("a", scans, preparation, masked=False, stand_ins={"ct": ct})
    assert alone.header.registered["ct"].kept == "none"
    assert through.header.registered["ct"].kept == "smooth"
    errors = [np.abs(case.volume("ct").data - ct.data).mean() for case in (alone, through)]
    assert errors[1] < 0.2 * errors[0]


def test_the_audit_measures_a_shift_on_the_stand_in_and_not_on_the_fixed_scan():
    head = make_head(5, 0, (200, 240, 9))
    ct = Volume(image(head, "ct")[None, 4:5], head.affine, "HU", "ct", "ct")
    noise = np.random.default_rng(0).normal(500, 50, ct.data.shape).astype(np.float32)
    mr = replace(ct, data=noise, unit="a.u.", modality="mr", origin="mr")
    moved = scipy.ndimage.shift(ct.data[0], (0, 3, -4), order=1, mode="nearest")[None]
    scans = {"mr": mr, "ct": replace(ct, data=moved)}
    case = prepare_case("a", scans, Preparation(fixed="mr"))
    alone = misalignments(case, "mr")["ct"]
    through = misalignments(case, "mr", stand_ins={"ct": ct})["ct"]
    assert alone.median_mm is None
    shift_mm = np.hypot(3, 4) * case.header.spacing_mm[1]
    assert through.median_mm is not None
    assert abs(through.median_mm - shift_mm) < 0.3
    assert through.to == "mr"


def test_without_registration_the_stand_ins_serve_the_audit_alone(voxlate, run, cohort, tmp_path):
    out = tmp_path / "p"
    answer = voxlate("prepare", cohort, "--out", out, "--through", run)
    assert answer.code == 0, answer.err
    assert "from t1 (measured on the t2 that was synthesised from it)" in _one_line(answer)
    plain = tmp_path / "plain"
    assert voxlate("prepare", cohort, "--out", plain, "--fixed", "t1").code == 0
    for name in ("t1", "t2"):
        ours, theirs = (open_cohort(one).case("case0").volume(name).data for one in (out, plain))
        assert np.array_equal(ours, theirs), name
    answer = voxlate("prepare", cohort, "--out", tmp_path / "q", "--through", run, "--no-audit")
    assert answer.code == 2
    assert "--through: expected a registration or an audit" in answer.err


def _one_line(answer):
    return " ".join((answer.out + answer.err).split())


def test_prepare_synthesises_stand_ins_and_says_so(voxlate, run, two, tmp_path):
    command = ("prepare", two, "--out", tmp_path / "p", "--register", "rigid", "--through", run)
    answer = voxlate(*command)
    assert answer.code == 0, answer.err
    assert (tmp_path / "p" / "through" / "case0" / "t2.nii.gz").is_file()
    made = read_json(tmp_path / "p" / "cohort.json")["made"]
    assert (made["through"], made["fixed"]) == (str(run), "t1")
    assert voxlate(*command).code == 0, "the same command resumes"


def test_with_another_fixed_scan_it_is_refused(voxlate, run, cohort, tmp_path):
    command = ("prepare", cohort, "--out", tmp_path / "p", "--through", run)
    answer = voxlate(*command, "--register", "rigid", "--fixed", "t2")
    assert "--through: expected --fixed t1" in answer.err
    assert not (tmp_path / "p").exists()


def test_a_run_of_another_target_or_another_run_changes_nothing(voxlate, run, two, tmp_path):
    out = tmp_path / "p"
    command = ("prepare", two, "--out", out, "--register", "rigid", "--through", run)
    answer = voxlate(*command, "--modality", "t1")
    assert "--through: expected scans of t2" in answer.err
    assert voxlate(*command).code == 0
    before = {path: path.read_bytes() for path in (out / "through").rglob("*.nii.gz")}
    other = tmp_path / "other"
    shutil.copytree(run, other)
    answer = voxlate(*command[:-1], other)
    assert "prepared --through" in answer.err
    assert {path: path.read_bytes() for path in (out / "through").rglob("*.nii.gz")} == before
