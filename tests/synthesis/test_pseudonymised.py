"""`synth --pseudonymise`: no name, id or path of the scans is in the output folder, and the images are the same."""

import json
from pathlib import Path

import pytest

from voxlate.base.files import read_json
from voxlate.scans.cohorts.pseudonyms import read_key
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.mask import may_show_face

NAMES = {"case0": "Anna_Meier", "case1": "Ben_Huber"}


@pytest.fixture
def key(voxlate, tmp_path) -> Path:
    voxlate("pseudonym-key", tmp_path / "key").done()
    return tmp_path / "key"


@pytest.fixture
def people(cohort):
    """The cohort with the names of people, one of whom has no scan that the model takes."""
    for case, name in NAMES.items():
        (cohort / case).rename(cohort / name)
    (cohort / "case2").rename(cohort / "Carla_Roth")
    (cohort / "Carla_Roth" / "t1.nii.gz").unlink()
    (cohort / "case3").rename(cohort / "Dora_Klee")
    (cohort / "Dora_Klee" / "t1.nii.gz").write_bytes(b"damaged")
    return cohort


def texts_below(folder: Path) -> str:
    """The names of all files, and the content of those that are text."""
    files = [one for one in folder.rglob("*") if one.is_file()]
    contents = [one.read_text() for one in files if not one.name.endswith((".gz", ".png"))]
    return "\n".join([*map(str, (one.relative_to(folder) for one in files)), *contents])


def test_nothing_in_the_output_folder_or_on_the_terminal_names_a_person(
    voxlate, run, people, key, out, tmp_path
):
    said = voxlate(
        "synth", run, people, "--out", out, "--bids", "--pseudonymise", key
    ).refusal  # two cases are left out, each with a sentence
    found = texts_below(out)
    for word in ("Anna", "Meier", "Ben", "Huber", "Carla", "Roth", "Dora", "Klee", str(tmp_path)):
        assert word not in found, word
        assert word not in said.replace(str(out), ""), word
    own = read_key(key)
    assert (out / own.case("Anna_Meier") / "t2.nii.gz").is_file()
    subject = own.case("Ben_Huber")
    derived = out / "derivatives" / "voxlate" / subject / "anat"
    assert (derived / f"{subject}_desc-synthetic_T2w.nii.gz").is_file()
    stated = read_json(out / "provenance.json")
    assert own.case("Carla_Roth") in said
    assert set(stated["failed"]) == {own.case("Dora_Klee")}
    assert "run" not in stated


@pytest.mark.slow
def test_pseudonyms_change_no_voxel_and_keep_the_split(voxlate, run, cohort, key, tmp_path):
    case = read_json(run / "provenance.json")["data"]["splits"]["train"][0]
    plain, hidden = tmp_path / "plain", tmp_path / "hidden"
    voxlate("synth", run, cohort / case, "--out", plain).done()
    voxlate("synth", run, cohort / case, "--out", hidden, "--pseudonymise", key).done()
    folder = hidden / read_key(key).case(case)
    image = "t2.nii.gz"
    assert (folder / image).read_bytes() == (plain / case / image).read_bytes()
    assert read_json(folder / "provenance.json")["split"] == "train"


@pytest.mark.slow
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


def test_a_missing_key_is_refused_with_the_command_that_makes_it(
    voxlate, run, cohort, out, tmp_path
):
    refused = voxlate("synth", run, cohort, "--out", out, "--pseudonymise", tmp_path / "no").refusal
    assert f"Make one: voxlate pseudonym-key {tmp_path / 'no'}" in refused


def test_a_key_in_the_output_folder_is_refused(voxlate, run, cohort, key, out):
    out.mkdir()
    key.rename(out / "key")
    refused = voxlate("synth", run, cohort, "--out", out, "--pseudonymise", out / "key").refusal
    assert "expected the key outside" in refused


@pytest.mark.slow
def test_a_whole_head_under_a_pseudonym_gives_a_warning(
    voxlate, run, key, tmp_path, monkeypatch, cohort
):
    from voxlate.synthesis import cohort as cohorts

    whole = may_show_face(read_volume(cohort / "case0" / "t1.nii.gz", "t1"))
    assert not whole  # it is 18 mm thick
    command = ("synth", run, cohort / "case0", "--pseudonymise", key, "--json", "--out")
    assert "face" not in voxlate(*command, tmp_path / "thin").out
    monkeypatch.setattr(cohorts, "may_show_face", lambda volume: True)
    said = json.loads(voxlate(*command, tmp_path / "thick").out)
    (warnings,) = said["warnings"].values()
    faces = [one for one in warnings if "whose face may be recognised" in one["text"]]
    assert [one["grade"] for one in faces] == ["caution"]
