"""Starters: weights of the package that are used in place of a run, and refused where they are not its own."""

import json
import shutil
from pathlib import Path

import numpy as np

from rows import every_row
from scans import keep_cases, t1_of
from starter_pack import with_measured
from trainings import same_weights
from voxlate.synthesis.inputs import by_accepted_names
from voxlate.training.load import load
from voxlate.training.run import Run
from voxlate.training.starters import names
from voxlate.training.starters.card import Measured, read_card


def test_without_any_starter_the_list_and_a_name_say_so(voxlate, out):
    assert "No starter is installed" in voxlate("starters").out
    assert json.loads(voxlate("starters", "--json").out) == []
    answer = voxlate("synth", "starter:head-mr-to-ct", "x.nii", "--out", out)
    assert "an installed starter" in answer.refusal
    assert not out.exists()


def test_a_starter_synthesises_what_its_run_does_up_to_float16(starter, run, cohort):
    ours, theirs = (load(one, "cpu").synthesise(t1_of(cohort)) for one in ("starter:tiny", run))
    a, b = ours.volumes["t2"].data, theirs.volumes["t2"].data
    assert np.abs(a - b).max() < 0.01 * np.ptp(b)
    assert not np.array_equal(a, b)
    assert Run(starter).weights().stat().st_size < 0.7 * Run(run).weights().stat().st_size
    said = " ".join(map(str, ours.warnings))
    assert "starter:tiny" in said
    assert said.count("research") == said.count("voxlate calibrate") == 1


def test_the_card_is_shown(starter, voxlate):
    with_measured(starter, [Measured("134 slices", "MAE", 0.08, 0.146)])
    answer = voxlate("starters").done()
    assert "starter:tiny" in answer.out
    assert "Measured on" not in answer.out
    answer = voxlate("starters", "starter:tiny").done()
    assert "Measured on 134 slices: MAE 0.08 (best naive baseline 0.146)." in answer.out
    assert read_card(starter).bytes == Run(starter).weights().stat().st_size
    assert "A scan called t1, t1w, pd is taken as t1." in answer.out


def test_a_scan_of_an_accepted_name_is_taken_and_said(starter, voxlate, cohort, out):
    keep_cases(cohort, "case0")
    (cohort / "case0/t1.nii.gz").rename(cohort / "case0/pd.nii.gz")
    (cohort / "case0/t2.nii.gz").unlink()
    assert "taken as" not in voxlate("synth", "starter:tiny", cohort, "--out", out).done().err
    assert (out / "case0/t2.nii.gz").is_file()


@every_row("names, taken", [("pd t1w", "t1w"), ("t1 pd", "t1")])
def test_a_choice_among_several_accepted_scans_is_a_note(names, taken):
    files = {name: Path(name) for name in names.split()}
    own, [said] = by_accepted_names(files, {"t1": ["t1", "t1w", "pd"]})
    assert (own["t1"].name, said.grade, said.code) == (taken, "note", "chosen-scan")


@every_row(
    "names, taken",
    [
        ("t1_gewichtet ct_schädel", "t1_gewichtet"),
        ("t1 t1_gewichtet", "t1"),
        ("t1_minus_t2 t1_seg synth_t1 pd_t1", None),
        ("t1_target_contrast", None),
        ("t1_sharp", None),  # the target
    ],
)
def test_a_scan_is_taken_by_a_name_with_other_words_where_none_is_plain(names, taken):
    files = {name: Path(name) for name in names.split()}
    own, said = by_accepted_names(files, {"t1": ["t1", "t1w"]}, ["t1_sharp"])
    assert own.get("t1") == files.get(taken)
    assert said == []


def test_a_training_initialised_from_a_starter_begins_with_its_weights(starter, read_tiny, fit):
    made = read_tiny({"start_from": "starter:tiny"}, steps=0, best="{ patience = 1 }")
    run = fit(made, "from")
    assert same_weights(run, names.run_folder("starter:tiny"))
    # It is a model of its own: another machine needs no starter to load it.
    assert names.starter_names() == ["starter:tiny"]
    shutil.rmtree(starter)
    assert load(run.folder, "cpu").network.recipe.start_from == "starter:tiny"
