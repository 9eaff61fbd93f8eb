"""The verdict on scans comes before the work: no door synthesises a case that is graded "do not trust", unless anyway."""

import json

import pytest

import voxlate as package
from rows import every_row, slow
from scans import change_scan, contents_of, keep_cases, t1_of
from voxlate.base.errors import DoNotTrust
from voxlate.base.files import read_json
from voxlate.base.messages import worst_grade
from voxlate.evaluation.calibrate import calibrate
from voxlate.scans.cohorts.find import find_cohort
from voxlate.synthesis.model import Ensemble
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.load import load


@pytest.fixture
def mixed(cohort):
    """Three cases, of which the t1 of case1 has the values of a CT."""
    change_scan(cohort / "case1/t1.nii.gz", lambda values: values - 1000)
    return keep_cases(cohort, "case0", "case1", "case2")


def test_check_says_what_each_scan_is_taken_for_and_what_is_wrong(voxlate, run, mixed):
    answer = voxlate("check", run, mixed, "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["verdicts"]) == (3, {"fits": 2, "do not trust": 1})
    (of_case,) = (case for case in found["cases"] if case["case"] == "case1")
    scan = of_case["scans"]["t1"]
    assert (scan["file"], scan["unit"]) == (str(mixed / "case1/t1.nii.gz"), "a.u.")
    assert of_case["targets"] == ["t2"]
    graded = {(said["code"], said["grade"]) for said in of_case["messages"]}
    assert "do not trust" in {grade for _, grade in graded}
    assert voxlate("check", run, mixed / "case0").done().out.startswith("1 fits")
    assert voxlate("check", run, mixed / "nothing").refusal
    (of_python,) = package.check(load(run), t1_of(mixed)).cases
    assert of_python.verdict == "fits"
    assert {path.name for path in mixed.iterdir()} == {"case0", "case1", "case2"}


def test_check_says_once_what_holds_for_every_case(voxlate, run, mixed):
    (run / "anatomy.safetensors").unlink()
    answer = voxlate("check", run, mixed)
    assert (answer.out.count("are not checked"), answer.err.count("are not checked")) == (1, 0)
    found = package.check(run, mixed, progress=False)
    assert all("unchecked" in {said.code for said in case.messages} for case in found.cases)


def test_other_cases_of_a_cohort_are_synthesised_and_a_repeated_command_asks_again(
    synth, run, mixed, out
):
    for _ in range(2):
        answer = synth(run, mixed, "--json")
        done = json.loads(answer.out)
        assert (answer.code, [*done["left_out"]]) == (3, ["case1"])
        assert done["cases"] == ["case0", "case2"]
        assert not (out / "case1").exists()
        assert "case1" in read_json(out / "provenance.json")["failed"]
    assert synth(run, mixed).code == 3
    before = contents_of(out / "case0")
    assert json.loads(synth(run, mixed, "--json", "--anyway").out)["left_out"] == {}
    assert contents_of(out / "case0") == before
    assert read_json(out / "case1/provenance.json")["anyway"] is True
    assert "anyway" not in before[out / "case0/provenance.json"].decode()
    assert synth(run, mixed).code == 3, "the image is kept, and is not to be trusted"


def by_command(run, scans, out, anyway):
    return package.synthesise(run, scans, out, anyway=anyway, progress=False)


def in_memory(run, scans, out, anyway, load=load):
    return load(run).synthesise(scans / "t1.nii.gz", warn=print, anyway=anyway)


def by_ensemble(*given):
    return in_memory(*given, load=lambda run: Ensemble((load(run), load(run))))


def of_the_archive(run, scans, out, anyway):
    # not at the top: test_leaves.py collects this file without that wing
    from voxlate.clinic.listen import answer_by

    return answer_by(load(run), SynthOptions(anyway=anyway), print)(scans / "t1.nii.gz", out)


@every_row("door", [by_command, in_memory, by_ensemble, of_the_archive])
def test_a_single_case_is_an_error_at_every_door(door, run, mixed, tmp_path, monkeypatch):
    monkeypatch.setattr("voxlate.clinic.listen.export_anew", lambda *_: [])
    with pytest.raises(DoNotTrust):
        door(run, mixed / "case1", tmp_path / "out", False)
    assert not [*tmp_path.rglob("*.nii.gz")]
    made = door(run, mixed / "case1", tmp_path / "out", True)
    if door in (in_memory, by_ensemble):
        assert made.provenance["anyway"]
        assert worst_grade(made.warnings) == "do not trust"


@slow
def test_a_calibration_lists_the_case_that_it_leaves_out(run, small_head, quick_widths, tmp_path):
    heads, said = tmp_path / "heads", []
    for number in range(6):
        small_head(heads / f"new{number}", 100 + number)
    change_scan(heads / "new1/t1.nii.gz", lambda values: 1500 - values)
    cases = find_cohort(heads).cases
    found = calibrate(load(run), cases, warn=said.append)
    assert found.entry["patients"] == 5
    assert [one.case for one in said if one.code == "case-left-out"] == ["new1"]
