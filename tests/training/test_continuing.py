"""A finished run that is trained further ends as one that was asked for all of its steps at once."""

import shutil

import pytest
import torch

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from scans import t1_of
from trainings import log_lines, same_weights, stop_at
from voxlate.base.errors import Stopped
from voxlate.base.files import read_json, write_json
from voxlate.training import recipe
from voxlate.training.continuing import train_further
from voxlate.training.learner import load_state
from voxlate.training.load import load
from voxlate.training.recipe.training_settings import Optimiser, Training
from voxlate.training.run import Run
from voxlate.training.weights import read_header


def steps_in(run):
    """The stage and number of each step in the log of a run."""
    return [(line["stage"], line["step"]) for line in log_lines(run, "loss")]


def test_each_part_of_a_training_has_a_rate_of_its_own():
    rate = Optimiser(lr=2.0, warm_up=10, decay="linear")
    options = Training(steps=100, more=(50,), optimiser=rate)
    assert options.length == 150
    parts = [options.part(step) for step in (0, 99, 100, 149)]
    assert parts == [(0, 100), (99, 100), (0, 50), (49, 50)]
    rates = [options.rate(step) for step in (0, 9, 10, 55, 100, 109, 110, 130)]
    assert rates == pytest.approx([0.2, 2, 2, 1, 0.2, 2, 2, 1])
    progress = [options.progress(step) for step in (0, 50, 120)]
    assert progress == [0, 0.5, 1]  # curricula do not begin again


@slow
def test_a_continued_run_is_the_run_of_a_recipe_that_asks_for_more(read_two, fit, two_staged):
    run, whole = two_staged, fit(read_two(more="[4, 2]"), "whole")
    assert not same_weights(whole, run)
    for steps in (4, 2):
        train_further(run.folder, steps=steps, device="cpu")
    assert same_weights(whole, run)
    assert read_header(run.weights())["steps"] == 8 + 4 + 2
    assert steps_in(run) == steps_in(whole)
    assert recipe.read(str(run.recipe)).train.more is None, "it is the recipe as it began"
    stated = read_json(run.provenance)
    assert stated["recipe"]["train"]["more"] == [4, 2]
    continued = [(one["asked"], one["from_step"], one["steps"]) for one in stated["continuations"]]
    assert continued == [("--steps +4", 8, 4), ("--steps +2", 12, 2)]


@slow
@pytest.mark.parametrize("again", [{}, {"steps": 4}])
def test_a_stopped_continuation_resumes_and_the_weights_of_before_serve_until_then(
    cohort, read_two, fit, two_staged, again
):
    whole, run = fit(read_two(more="[4]"), "whole"), two_staged

    def image():
        return load(run.folder, "cpu").synthesise(t1_of(cohort)).volume.data

    weights, before = run.weights().read_bytes(), image()
    with pytest.raises(Stopped, match="11 of 12"):
        train_further(run.folder, steps=4, device="cpu", progress=stop_at(2))
    assert run.weights().read_bytes() == weights
    assert (image() == before).all()
    refusal = r"expected a finished run for --steps \+7, found one that stopped"
    with refuses(refusal):
        train_further(run.folder, steps=7, device="cpu")
    train_further(run.folder, device="cpu", **again)  # the same command, or the run alone
    assert same_weights(whole, run)
    assert len(steps_in(run)) == len(set(steps_in(run))) == 5 + 12


@slow
def test_a_first_training_that_was_stopped_resumes_by_its_folder_alone(
    voxlate, fit, read_two, two_staged_once, tmp_path
):
    run = Run(tmp_path / "stopped")
    with pytest.raises(Stopped):
        fit(read_two(), "stopped", progress=stop_at(7))
    stated = read_json(run.provenance)
    huge = {**stated["recipe"], "train": {**stated["recipe"]["train"], "steps": 10**9}}
    write_json(run.provenance, {**stated, "recipe": huge})
    refusal = r"recipe\.toml: expected the recipe that this run began with"
    with refuses(refusal):
        train_further(run.folder, device="cpu")
    write_json(run.provenance, stated)
    assert "weights.safetensors" in voxlate("train", run.folder, "--device", "cpu").done().out
    assert same_weights(two_staged_once, run)


def test_a_finished_run_without_further_steps_is_left_as_it_is(voxlate, run):
    run = Run(run)
    before = run.weights().stat().st_mtime_ns, run.provenance.read_text()
    said = voxlate("train", run.folder, "--device", "cpu").done().said
    assert "is finished, with 6 steps; --steps +6 continues it" in said
    assert (run.weights().stat().st_mtime_ns, run.provenance.read_text()) == before


@slow
def test_minutes_are_steps_at_the_speed_of_the_run(voxlate, run):
    run = Run(run)
    wanted = max(1, round(0.6 / (read_header(run.weights())["seconds"] / 6)))
    said = voxlate("train", run.folder, "--minutes", "+0.01", "--device", "cpu").done().said
    assert f"0.01 minutes are about {wanted} steps of" in said
    assert read_json(run.provenance)["recipe"]["train"]["more"] == [wanted]


@slow
def test_a_cohort_that_moved_is_given_and_another_one_is_refused(
    prepared, run, cohort, small_head, tmp_path
):
    moved, provenance = tmp_path / "elsewhere", Run(run).provenance
    shutil.move(prepared, moved)
    with refuses(r"expected its prepared cohort in .*prepared, found none"):
        train_further(run, steps=2, device="cpu")
    small_head(cohort / "case6", 6)
    other = prepare(cohort, tmp_path / "other", workers=0, audit=False).folder
    with refuses("found other scans or another cohort"):
        train_further(run, steps=2, data=other, device="cpu")
    assert "more" not in read_json(provenance)["recipe"]["train"]
    train_further(run, steps=2, data=moved, device="cpu")
    assert read_json(provenance)["prepared"] == "../elsewhere"


def test_a_state_is_read_onto_the_cpu_and_without_it_a_run_is_not_trained_further(run):
    path = Run(run).state
    state = load_state(path)
    assert state["step"] == 6
    assert {one.device for one in state["method"].values()} == {torch.device("cpu")}
    path.unlink()
    with refuses(r"expected the state of this run's last stage.*found none"):
        train_further(run, steps=2, device="cpu")
    assert "more" not in read_json(Run(run).provenance)["recipe"]["train"]


@every_row(
    "arguments, words",
    [
        ("RUN --steps +0", "--steps: expected it to be at least 1"),
        ("RUN --steps +2 --minutes +1", "expected --steps or --minutes, found both"),
        ("RUN --steps +2 --set train.batch=4", "--set: expected a recipe with it, found the run"),
        ("FOLDER --steps +2", "expected a run to continue, found no provenance.json"),
        ("RECIPE --data P --out O --steps 2000", "--set train.steps=2000"),
        ("RECIPE --out O", "--data: expected a prepared cohort"),
        ("RECIPE --data P --out O --folds 2 --fold 1", "--folds: expected no --fold with it"),
        ("RECIPE --data P", "--out: expected a folder for the run"),
        ("RECIPE --data P --out O --mode mean", "--mode"),
    ],
)
def test_an_invalid_number_of_steps_is_refused_in_one_sentence(
    voxlate, run, tiny, tmp_path, arguments, words
):
    (tmp_path / "folder").mkdir()
    places = {"RUN": run, "FOLDER": tmp_path / "folder", "RECIPE": tiny}
    answer = voxlate("train", *(places.get(one, one) for one in arguments.split()))
    assert words in answer.sentence


def test_a_run_that_ends_by_its_losses_is_not_trained_further(read_tiny):
    with refuses(r"expected train\.more or train\.stop"):
        read_tiny({"train.stop.after_epochs": "2"}, more="[3]")
