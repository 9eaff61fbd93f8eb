"""Warnings reach everybody: Python, the picture, the terminal, JSON and the provenance."""

import json

import pytest

from scans import change_scan, t1_of
from voxlate.base.files import read_json
from voxlate.synthesis.model import Ensemble
from voxlate.training.load import load


@pytest.fixture
def doubled(cohort, tmp_path):
    """A scan of twice the brightness, which the training's fixed window does not know."""
    path = tmp_path / "bright/t1.nii.gz"
    return change_scan(t1_of(cohort)["t1"], lambda values: values * 1.9, path)


def test_python_warns_of_a_strange_scan_once_and_repr_says_it(run, cohort, doubled):
    model = load(run)
    with pytest.warns(UserWarning, match="Do not trust the result") as said:
        made = model.synthesise({"t1": doubled}, anyway=True)
    graver = [one for one in made.warnings if one.grade != "note"]
    assert [str(one.message) for one in said] == [str(one) for one in graver]
    assert said[0].filename == __file__  # where it was called, not inside the package
    assert made.provenance["warnings"] == [one.table for one in made.warnings]
    assert all(one.text in repr(made) for one in made.warnings if one.grade == "do not trust")
    with pytest.warns(UserWarning, match="Do not use") as said:
        usual = model.synthesise(t1_of(cohort))
    assert len(said) == 1
    assert [one.code for one in usual.warnings] == ["worse-than-naive"]


def test_an_ensemble_warns_once_for_all_members(run, doubled):
    with pytest.warns(UserWarning, match="Do not trust the result") as said:
        made = Ensemble((load(run), load(run))).synthesise({"t1": doubled}, anyway=True)
    assert len(said) == len([one for one in made.warnings if one.grade != "note"]) == 2


def test_the_terminal_and_json_state_warnings_by_their_grade_also_of_images_that_are_kept(
    synth, run, doubled, out
):
    command = (run, f"t1={doubled}", "--anyway")
    assert "DO NOT TRUST: bright: " in synth(*command).said
    for _ in range(2):
        stated = json.loads(synth(*command, "--json").out)["warnings"]
        assert {one["grade"] for one in stated["bright"]} == {"caution", "do not trust"}
        assert stated["bright"] == read_json(out / "bright/provenance.json")["warnings"]


def test_of_ordinary_scans_json_lists_nothing_but_that_the_training_saw_them(synth, run, cohort):
    stated = json.loads(synth(run, cohort, "--json").out)["warnings"]
    codes = {case: [one["code"] for one in said] for case, said in stated.items()}
    for number in range(6):
        seen = ["trained-on"] * (number < 4)
        assert codes[f"case{number}"] == ["worse-than-naive", *seen]
