"""`synth --pseudonymise`: no name, id or path of the scans is in the output folder, and the images are the same."""

import json
import shutil

import pytest

from rows import slow
from voxlate.base.files import read_json
from voxlate.scans.cohorts.pseudonyms import read_key
from voxlate.synthesis import cohort as cohorts

NAMES = {"case0": "Anna_Meier", "case1": "Ben_Huber", "case2": "Carla_Roth", "case3": "Dora_Klee"}


@pytest.fixture
def key(voxlate, tmp_path):
    voxlate("pseudonym-key", tmp_path / "key").done()
    return tmp_path / "key"


@pytest.fixture
def people(cohort):
    """The cohort with the names of people, of two of whom the model takes no scan."""
    for case, name in NAMES.items():
        (cohort / case).rename(cohort / name)
    (cohort / "Carla_Roth/t1.nii.gz").unlink()
    (cohort / "Dora_Klee/t1.nii.gz").write_bytes(b"damaged")
    return cohort


def texts_below(folder):
    """The names of all files, and the content of those that are text."""
    files = [one for one in folder.rglob("*") if one.is_file()]
    contents = [one.read_text() for one in files if not one.name.endswith((".gz", ".png"))]
    return "\n".join([*map(str, (one.relative_to(folder) for one in files)), *contents])


def test_nothing_in_the_output_folder_or_on_the_terminal_names_a_person(
    synth, run, people, key, out, tmp_path
):
    # two cases are left out, each with a sentence
    said = synth(run, people, "--bids", "--pseudonymise", key).refusal
    found = texts_below(out) + said.replace(str(out), "")
    for word in (*" ".join(NAMES.values()).replace("_", " ").split(), str(tmp_path)):
        assert word not in found, word
    own = read_key(key)
    assert (out / own.case("Anna_Meier") / "t2.nii.gz").is_file()
    subject = own.case("Ben_Huber")
    derived = out / "derivatives/voxlate" / subject / "anat"
    assert (derived / f"{subject}_desc-synthetic_T2w.nii.gz").is_file()
    stated = read_json(out / "provenance.json")
    assert own.case("Carla_Roth") in said
    assert set(stated["failed"]) == {own.case("Dora_Klee")}
    assert "run" not in stated


@slow
def test_pseudonyms_change_no_voxel_and_keep_the_split(synth, run, cohort, key, out, tmp_path):
    case = read_json(run / "provenance.json")["data"]["splits"]["train"][0]
    synth(run, cohort / case).done()
    plain = (out / case / "t2.nii.gz").read_bytes()
    shutil.rmtree(out)
    synth(run, cohort / case, "--pseudonymise", key).done()
    folder = out / read_key(key).case(case)
    assert (folder / "t2.nii.gz").read_bytes() == plain
    assert read_json(folder / "provenance.json")["split"] == "train"


@slow
def test_a_synthesis_under_pseudonyms_is_resumed_and_reported(
    voxlate, run, cohort, key, out, tmp_path
):
    command = ("synth", run, cohort / "case0", "--out", out, "--pseudonymise", key)
    voxlate(*command).done()
    assert "1 of 1 cases were synthesised before and are kept" in voxlate(*command, "-v").err
    voxlate("report", out).done()
    page = next(out.glob("*.html")).read_text()
    assert "case0" not in page
    assert str(tmp_path) not in page


def test_the_pseudonym_of_a_patient_can_be_asked_for(voxlate, key):
    said = voxlate("pseudonym-key", key, "--of", "Anna_Meier")
    assert said.out.split() == ["Anna_Meier", read_key(key).case("Anna_Meier")]


def test_a_missing_key_or_one_in_the_output_folder_is_refused(synth, run, cohort, key, out):
    refusal = synth(run, cohort, "--pseudonymise", key.with_name("no")).refusal
    assert f"Make one: voxlate pseudonym-key {key.with_name('no')}" in refusal
    out.mkdir(exist_ok=True)
    key.rename(out / "key")
    refusal = synth(run, cohort, "--pseudonymise", out / "key").refusal
    assert "expected the key outside" in refusal


@slow
def test_a_whole_head_under_a_pseudonym_gives_a_warning(
    voxlate, run, key, tmp_path, monkeypatch, cohort
):
    command = ("synth", run, cohort / "case0", "--pseudonymise", key, "--json", "--out")
    assert "face" not in voxlate(*command, tmp_path / "thin").out, "it is 18 mm thick"
    monkeypatch.setattr(cohorts, "may_show_face", lambda volume: True)
    said = json.loads(voxlate(*command, tmp_path / "thick").out)
    (warnings,) = said["warnings"].values()
    faces = [one for one in warnings if "whose face may be recognised" in one["text"]]
    assert [one["grade"] for one in faces] == ["caution"]
