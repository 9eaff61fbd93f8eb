"""A finished run that is trained further ends as one that was asked for all of its steps at once."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from two_stages import TWO_STAGES

from rows import every_row
from voxlate import recipe
from voxlate.recipe.optimiser import Optimiser
from voxlate.recipe.training import Training
from voxlate.synthesis.model import load
from voxlate.system.errors import BadInput, Stopped
from voxlate.system.files import read_json, write_json
from voxlate.training.continuing import train_further
from voxlate.training.run import Run
from voxlate.training.state_file import load_state
from voxlate.training.train import train
from voxlate.training.weights import read_header

SHORT = {"train.steps": "8", "train.ema": "0.9", "stages.predictor.train.steps": "3"}


def read_two(tmp_path, **changes):
    (tmp_path / "two.toml").write_text(TWO_STAGES)
    return recipe.read(
        str(tmp_path / "two.toml"),
        SHORT | {f"train.{key}": value for key, value in changes.items()},
    )


def same_weights(one, other) -> bool:
    a, b = load_file(Run(one).weights()), load_file(Run(other).weights())
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_after(steps):
    calls = []

    def progress(*_):
        calls.append(1)
        if len(calls) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def steps_in(log):
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    return [(line["stage"], line["step"]) for line in lines if "loss" in line]


def test_each_part_of_a_training_has_a_rate_of_its_own():
    options = Training(
        steps=100, more=(50,), optimiser=Optimiser(lr=2.0, warm_up=10, decay="linear")
    )
    assert options.length == 150
    assert [options.part(step) for step in (0, 99, 100, 149)] == [
        (0, 100),
        (99, 100),
        (0, 50),
        (49, 50),
    ]
    assert [options.rate(step) for step in (0, 9, 10)] == [0.2, 2.0, 2.0]
    assert options.rate(55) == pytest.approx(1.0)
    assert [options.rate(step) for step in (100, 109, 110)] == [0.2, 2.0, 2.0]
    assert options.rate(130) == pytest.approx(1.0)
    assert [options.progress(step) for step in (0, 50, 120)] == [
        0,
        0.5,
        1,
    ]  # curricula do not begin again


def test_a_continued_run_is_the_run_of_a_recipe_that_asks_for_more(prepared, tmp_path):
    train(read_two(tmp_path, more="[5, 3]"), prepared, tmp_path / "whole", device="cpu")
    parts = train(read_two(tmp_path), prepared, tmp_path / "parts", device="cpu")
    assert not same_weights(tmp_path / "whole", tmp_path / "parts")
    for steps in (5, 3):
        train_further(parts.folder, steps=steps, device="cpu")
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert read_header(parts.weights())["steps"] == 8 + 5 + 3
    assert steps_in(parts.log) == steps_in(Run(tmp_path / "whole").log)
    saved, stated = recipe.read(str(parts.recipe)), read_json(parts.provenance)
    assert saved.train.more == (5, 3)
    assert stated["recipe"]["train"]["more"] == [5, 3]
    assert [(one["asked"], one["from_step"], one["steps"]) for one in stated["continuations"]] == [
        ("--steps +5", 8, 5),
        ("--steps +3", 13, 3),
    ]


@pytest.mark.parametrize("again", [{}, pytest.param({"steps": 6}, marks=pytest.mark.slow)])
def test_a_stopped_continuation_resumes_and_the_weights_of_before_serve_until_then(
    prepared, cohort, tmp_path, again
):
    train(read_two(tmp_path, more="[6]"), prepared, tmp_path / "whole", device="cpu")
    run = train(read_two(tmp_path), prepared, tmp_path / "run", device="cpu")
    scan = {"t1": cohort / "case0" / "t1.nii.gz"}
    before, image = run.weights().read_bytes(), load(run.folder, "cpu").synthesise(scan).volume.data
    with pytest.raises(Stopped, match="stopped at step 12 of 14"):
        train_further(run.folder, steps=6, device="cpu", progress=stop_after(3))
    assert run.weights().read_bytes() == before
    assert (load(run.folder, "cpu").synthesise(scan).volume.data == image).all()
    with pytest.raises(
        BadInput, match=r"expected a finished run for --steps \+7, found one that stopped"
    ):
        train_further(run.folder, steps=7, device="cpu")
    train_further(run.folder, device="cpu", **again)  # the same command, or the run alone
    assert same_weights(tmp_path / "whole", run.folder)
    assert len(steps_in(run.log)) == len(set(steps_in(run.log))) == 3 + 14


def test_a_first_training_that_was_stopped_resumes_by_its_folder_alone(voxlate, prepared, tmp_path):
    train(read_two(tmp_path), prepared, tmp_path / "whole", device="cpu")
    with pytest.raises(Stopped):
        train(read_two(tmp_path), prepared, tmp_path / "run", device="cpu", progress=stop_after(5))
    answer = voxlate("train", tmp_path / "run", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "Next:  voxlate synth" in answer.out
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_provenance_that_asks_for_other_steps_than_the_recipe_of_its_run_is_refused(
    prepared, tmp_path
):
    with pytest.raises(Stopped):
        train(read_two(tmp_path), prepared, tmp_path / "run", device="cpu", progress=stop_after(2))
    provenance = tmp_path / "run" / "provenance.json"
    stated = read_json(provenance)
    huge = {**stated["recipe"], "train": {**stated["recipe"]["train"], "steps": 10**9}}
    for paced in ({}, {"paced": {"final": {"step": 1, "seconds": 1.0, "steps_before": 4}}}):
        write_json(provenance, {**stated, "recipe": huge, **paced})
        with pytest.raises(
            BadInput, match=r"recipe\.toml: expected the recipe that this run began with"
        ):
            train_further(tmp_path / "run", device="cpu")


def test_a_finished_run_without_further_steps_is_left_as_it_is(voxlate, run):
    before = Run(run).weights().stat().st_mtime_ns, Run(run).provenance.read_text()
    answer = voxlate("train", run, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "is finished, with 6 steps; --steps +6 continues it" in answer.err.replace("\n", " ")
    assert (Run(run).weights().stat().st_mtime_ns, Run(run).provenance.read_text()) == before


def test_minutes_are_steps_at_the_speed_of_the_run(voxlate, run):
    each = read_header(Run(run).weights())["seconds"] / 6
    wanted = max(1, round(0.6 / each))
    answer = voxlate("train", run, "--minutes", "+0.01", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert f"0.01 minutes are about {wanted} steps of" in answer.err.replace("\n", " ")
    assert recipe.read(str(Run(run).recipe)).train.more == (wanted,)


def test_a_cohort_that_moved_is_given_and_another_one_is_refused(
    prepared, run, cohort, small_head, tmp_path
):
    from voxlate.cases.prepare import prepare

    moved = tmp_path / "elsewhere"
    shutil.move(prepared, moved)
    with pytest.raises(BadInput, match=r"expected its prepared cohort in .*prepared, found none"):
        train_further(run, steps=2, device="cpu")
    small_head(cohort / "case6", 6)
    prepare(cohort, tmp_path / "other", workers=0)
    with pytest.raises(BadInput, match="found other scans or another cohort"):
        train_further(run, steps=2, data=tmp_path / "other", device="cpu")
    assert "more" not in read_json(Run(run).provenance)["recipe"]["train"]
    train_further(run, steps=2, data=moved, device="cpu")
    assert read_json(Run(run).provenance)["prepared"] == "../elsewhere"


def test_without_its_state_a_run_is_not_trained_further(run):
    Run(run).state.unlink()
    with pytest.raises(BadInput, match=r"expected the state of this run's last step.*found none"):
        train_further(run, steps=2, device="cpu")
    assert recipe.read(str(Run(run).recipe)).train.more is None


def test_images_of_the_weights_of_before_are_made_again(voxlate, run, cohort, tmp_path):
    out = tmp_path / "out"
    assert voxlate("synth", run, cohort, "--out", out).code == 0
    train_further(run, steps=4, device="cpu")
    refused = voxlate("synth", run, cohort / "case0", "--out", out)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "to differ in model: weights" in refused.err
    answer = voxlate("synth", run, cohort, "--out", out)
    assert answer.code == 0, answer.err
    assert "6 images" in answer.err
    assert "made in another way" in answer.err


@every_row(
    ("arguments", "words"),
    [
        (["RUN", "--steps", "2000"], "--steps: expected a number above 0 after a +"),
        (["RUN", "--steps", "+0"], "found +0"),
        (["RUN", "--steps", "+2", "--minutes", "+1"], "expected --steps or --minutes, found both"),
        (
            ["RUN", "--steps", "+2", "--set", "train.batch=4"],
            "--set: expected a recipe with it, found the run",
        ),
        (["FOLDER", "--steps", "+2"], "expected a run to continue, found no provenance.json"),
        (["RECIPE", "--data", "P", "--out", "O", "--steps", "2000"], "--set train.steps=2000"),
        (["RECIPE", "--out", "O"], "--data: expected a prepared cohort"),
        (["RECIPE", "--data", "P"], "--out: expected a folder for the run"),
    ],
)
def test_an_invalid_number_of_steps_is_refused_in_one_sentence(
    voxlate, run, tiny, tmp_path, arguments, words
):
    (tmp_path / "folder").mkdir()
    places = {"RUN": run, "FOLDER": tmp_path / "folder", "RECIPE": tiny}
    answer = voxlate("train", *(places.get(one, one) for one in arguments))
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert words in answer.err


def test_a_run_that_ends_by_its_losses_is_not_trained_further(tiny):
    with pytest.raises(BadInput, match=r"expected train\.more or train\.stop"):
        recipe.read(str(tiny), {"train.more": "[3]", "train.stop.after_epochs": "2"})


def test_a_state_is_read_onto_the_cpu(run):
    state = load_state(Run(run).state)
    assert state["step"] == 6
    assert {one.device for one in state["method"].values()} == {torch.device("cpu")}
