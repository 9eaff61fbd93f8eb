"""A stopped run goes on by its folder alone, and a finished one is left as it is."""

import shutil

import pytest
import torch

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from trainings import same_weights, stop_at
from voxlate.base.errors import Stopped
from voxlate.base.files import read_json, write_json
from voxlate.training.continuing import resume_run
from voxlate.training.learner import load_state
from voxlate.training.run import Run


@slow
def test_a_first_training_that_was_stopped_resumes_by_its_folder_alone(
    fit, read_two, two_staged_once, tmp_path
):
    run = Run(tmp_path / "stopped")
    with pytest.raises(Stopped):
        fit(read_two(), "stopped", progress=stop_at(7))
    stated = read_json(run.provenance)
    huge = {**stated["recipe"], "train": {**stated["recipe"]["train"], "steps": 10**9}}
    write_json(run.provenance, {**stated, "recipe": huge})
    refusal = r"recipe\.toml: expected the recipe that this run began with"
    with refuses(refusal):
        resume_run(run.folder, device="cpu")
    write_json(run.provenance, stated)
    resume_run(run.folder, device="cpu")
    assert same_weights(two_staged_once, run)


def test_a_finished_run_is_left_as_it_is(run):
    run = Run(run)
    before = run.weights().stat().st_mtime_ns, run.provenance.read_text()
    said = []
    resume_run(run.folder, device="cpu", say=said.append)
    assert said[0].code == "finished"
    assert (run.weights().stat().st_mtime_ns, run.provenance.read_text()) == before


@slow
def test_a_cohort_that_moved_is_given_and_another_one_is_refused(
    prepared, run, cohort, small_head, tmp_path
):
    moved, provenance = tmp_path / "elsewhere", Run(run).provenance
    shutil.move(prepared, moved)
    with refuses(r"expected its prepared cohort in .*prepared, found none"):
        resume_run(run, device="cpu")
    small_head(cohort / "case6", 6)
    other = prepare(cohort, tmp_path / "other", workers=0, audit=False).folder
    with refuses("found other scans or another cohort"):
        resume_run(run, data=other, device="cpu")
    resume_run(run, data=moved, device="cpu")
    assert read_json(provenance)["prepared"] == "../elsewhere"


def test_a_state_is_read_onto_the_cpu_and_without_it_a_run_from_other_weights_does_not_resume(run):
    run = Run(run)
    state = load_state(run.state)
    assert state["step"] == 6
    assert {one.device for one in state["method"].values()} == {torch.device("cpu")}
    run.state.unlink()
    run.weights().unlink()
    stated = read_json(run.provenance)
    write_json(run.provenance, stated | {"data": {**stated["data"], "start": "0" * 16}})
    with refuses(r"expected the state of this run's last stage.*found none"):
        resume_run(run.folder, device="cpu")


@every_row(
    "arguments, words",
    [
        ("RECIPE --data P --out O --minutes 5", "--set train.steps=2000"),
        ("RECIPE --data P --out O --folds 2 --fold 1", "--folds: expected no --fold with it"),
        ("RECIPE --data P --out O --mode mean", "--mode"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_sentence(voxlate, tiny, arguments, words):
    answer = voxlate("train", *(tiny if one == "RECIPE" else one for one in arguments.split()))
    assert words in answer.sentence
