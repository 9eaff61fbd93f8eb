"""A training that is stopped, killed or restarted ends with the very weights of one that was not."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refusals import refuses
from rows import every_row, slow
from trainings import log_lines, same_tensors, same_weights, stop_at, weights_of
from voxlate.base.errors import Stopped
from voxlate.training import learner, recipe
from voxlate.training.learner import Learner, load_state
from voxlate.training.recipe.training_settings import Optimiser
from voxlate.training.run import Run
from voxlate.training.weights import load_method, save_weights


@pytest.mark.parametrize("calls", [3, 7], ids=["the first stage", "the last stage"])
def test_a_stopped_training_resumes_to_the_same_weights(read_two, fit, two_staged_once, out, calls):
    with pytest.raises(Stopped):
        fit(read_two(), "out", progress=stop_at(calls))
    run = Run(out)
    assert not run.weights().exists()
    text = run.recipe.read_text()
    run.recipe.write_text(text.replace("batch = 2", "batch = 3"))
    with refuses(r"recipe\.toml: expected the recipe that this run began with, found an edited"):
        fit(read_two(), "out")
    run.recipe.write_text(text)
    assert same_weights(two_staged_once, fit(read_two(), "out"))


@every_row(
    "arguments, words",
    [
        ("--data P --out O --minutes 5", "--set train.steps=2000"),
        ("--data P --out O --folds 2 --fold 1", "--folds: expected no --fold with it"),
        ("--data P --out O --mode mean", "--mode"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_sentence(voxlate, tiny, arguments, words):
    assert words in voxlate("train", tiny, *arguments.split()).sentence


@pytest.mark.parametrize("damage", ["a byte", "another seed", "another split", "no network"])
def test_a_damaged_or_foreign_state_is_refused_in_one_sentence(read_tiny, fit, tmp_path, damage):
    run = Run(tmp_path / "run")
    with pytest.raises(Stopped):
        fit(read_tiny(), progress=stop_at(3))
    state = torch.load(run.state, weights_only=True)
    assert (state["step"], state["stage"]) == (4, "final")
    if damage == "a byte":
        spoiled = bytearray(run.state.read_bytes())
        spoiled[len(spoiled) // 2] ^= 1
        run.state.write_bytes(spoiled)
    elif damage == "no network":
        torch.save({**state, "method": {}}, run.state)
    else:
        options = {"fold": 1} if damage == "another split" else {}
        changes = {"seed": 1} if damage == "another seed" else {}
        with pytest.raises(Stopped):
            fit(read_tiny(**changes), "other", progress=stop_at(3), **options)
        Run(tmp_path / "other").state.replace(run.state)
    with refuses(r"state\.pt: expected .*found .*Delete it to start again"):
        fit(read_tiny())


@slow
def test_a_saved_state_is_at_most_two_minutes_old(read_tiny, fit, tmp_path, monkeypatch):
    """Steps of 35 s: after three of them one more would make the state 140 s old."""
    saved, run = [], Run(tmp_path / "run")
    monkeypatch.setattr(learner, "time", SimpleNamespace(monotonic=lambda: 35 * len(saved)))

    def pass_time(*_):
        saved.append(load_state(run.state)["step"] if run.state.exists() else 0)

    fit(read_tiny(steps=9, validate_every=0), progress=pass_time)
    assert saved == [0, 0, 0, 0, 4, 4, 4, 4, 8]


@slow
def test_a_training_killed_at_a_random_moment_resumes_to_the_same_weights(
    prepared, two_stages, tmp_path
):
    line = ["-m", "voxlate", "train", two_stages, "--data", prepared, "--device", "cpu"]
    for change in ("train.steps=60", "train.save_every=0", "stages.predictor.train.save_every=0"):
        line += ["--set", change]
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")

    def start(run):
        command = [sys.executable, *map(str, line), "--out", str(run.folder)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, **quiet)

    assert start(whole).wait() == 0
    running = start(parts)
    while not parts.log.exists() and running.poll() is None:
        time.sleep(0.02)
    time.sleep(int.from_bytes(os.urandom(1), "big") / 256)
    running.kill()
    running.wait()
    assert not parts.weights().exists()
    assert start(parts).wait() == 0
    assert same_weights(whole, parts)
    steps = [(line["stage"], line["step"]) for line in log_lines(parts, "loss")]
    assert len(steps) == len(set(steps)) == 5 + 60  # every step once, in spite of the kill


@slow
def test_the_number_of_readers_does_not_change_the_weights(read_two, fit, two_staged_once):
    run = fit(read_two(workers=2), reuse=[two_staged_once.folder])
    assert same_weights(two_staged_once, run)


def test_a_training_learns_what_can_be_learned(read_tiny, fit):
    optimiser = '{ lr = 6e-3, warm_up = 5, decay = "linear" }'
    run = fit(read_tiny(steps=50, batch=3, validate_every=0, optimiser=optimiser))
    losses = [line["loss"]["total"] for line in log_lines(run, "loss")]
    assert losses[-1] < 0.2 * losses[0]  # the target is a straight line of the source
    (line,) = log_lines(run, "validation")
    assert line["validation"]["mae"] < 0.12


def test_the_learning_rate_warms_up_holds_and_falls_to_its_last_share():
    plan = Optimiser(warm_up=10, hold=0.5, decay="linear", last=0.1)
    rates = [plan.factor(step, 100) for step in (0, 9, 9.9, 49, 75, 100)]
    assert rates == pytest.approx([0.1, 1, 1, 1, 0.55, 0.1])


@pytest.fixture
def average():
    """A training whose weight is 1, and whose averaged weight is 0."""
    model, mean = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.zeros_(mean.weight)
    return Learner(model, mean)


def test_the_running_average_forgets_its_start_and_then_decays(average):
    average.move_average(0.999, 0)
    mean = average.averaged.weight
    assert mean.item() == pytest.approx(0.9)  # 1 − 1/10
    for step in range(1, 4):
        average.move_average(0.999, step)
    assert 1 - mean.item() == pytest.approx(0.1 * (2 / 11) * (3 / 12) * (4 / 13), rel=1e-4)


def test_a_first_stage_trained_alone_ends_with_the_same_weights(read_two, fit, two_staged_once):
    alone = fit(recipe.stage_recipe(read_two(), "predictor"))
    assert same_tensors(weights_of(two_staged_once, "predictor"), weights_of(alone))


@slow
def test_two_processes_train_what_one_does(prepared, tiny, tmp_path):
    """The batch is split between processes, so their number changes speed and rounding only."""
    line = ["-m", "voxlate", "train", str(tiny), "--data", str(prepared), "--device", "cpu"]
    several = "--cpu --num_processes 2 --num_cpu_threads_per_process 1"
    launch = ["-m", "accelerate.commands.launch", *several.split()]
    for name, words in (("one", line), ("two", launch + line)):
        command = [sys.executable, *words, "--out", str(tmp_path / name)]
        subprocess.run(command, check=True)
    a, b = (weights_of(tmp_path / name) for name in ("one", "two"))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    # one process writes for both
    assert [line["step"] for line in log_lines(tmp_path / "two", "loss")] == [1, 2, 3, 4, 5, 6]


def test_a_flipped_bit_in_a_weights_file_is_refused(run):
    path, draw = Run(run).weights(), np.random.default_rng(0)
    whole = path.read_bytes()
    for place in draw.integers(8, len(whole), 30):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << draw.integers(8)
        path.write_bytes(spoiled)
        with refuses():
            load_method(path)


def test_weights_that_are_not_finite_are_not_saved(run, tmp_path):
    method, _, header = load_method(run)
    next(method.parameters()).data[0] = float("nan")
    with refuses("expected finite weights, found"):
        save_weights(tmp_path / "w.safetensors", method, header)
