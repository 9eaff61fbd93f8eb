"""A training that is stopped, killed or restarted ends with the very weights of one that was not."""

import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainings import log_lines, same_tensors, same_weights, stop_at, weights_of
from voxlate.base.errors import BadInput, Stopped
from voxlate.training import log, recipe
from voxlate.training.batches.batches import Batches
from voxlate.training.learner import Epochs, Learner
from voxlate.training.log_file import lines_of
from voxlate.training.recipe.optimiser import Optimiser
from voxlate.training.run import Run
from voxlate.training.state_file import load_state
from voxlate.training.train import train
from voxlate.training.weights import load_method, save_weights, weights_checksum


# a stop in the last stage: test_a_first_training_that_was_stopped_resumes_by_its_folder_alone
@pytest.mark.parametrize(
    "call", [3, *(pytest.param(call, marks=pytest.mark.slow) for call in (9, 10))]
)
def test_a_stopped_training_resumes_to_the_same_weights(
    prepared, read_two, two_staged_once, tmp_path, call
):
    parts = tmp_path / "parts"
    with pytest.raises(Stopped):
        train(read_two(), prepared, parts, device="cpu", progress=stop_at(call))
    assert not Run(parts).weights().exists()
    train(read_two(), prepared, parts, device="cpu")
    assert same_weights(two_staged_once, parts)


@pytest.mark.slow
def test_a_training_goes_on_to_the_same_weights_wherever_its_state_was_saved(
    prepared, read_two, two_staged_once, tmp_path
):
    parts = tmp_path / "parts"

    def copy_at(stage, step, *_):
        if (stage, step) == ("final", 6):
            shutil.copytree(parts, tmp_path / "killed")
            raise Stopped("killed")

    made = read_two(save_every=0)
    with pytest.raises(Stopped):
        train(made, prepared, parts, device="cpu", progress=copy_at)
    killed = Run(tmp_path / "killed")
    # The progress is reported before the state of its step is saved.
    assert load_state(killed.state)["step"] == 5
    train(made, prepared, killed.folder, device="cpu")
    assert same_weights(two_staged_once, killed)


@pytest.mark.slow
def test_a_saved_state_is_at_most_two_minutes_old(prepared, tiny, tmp_path, monkeypatch):
    """Steps of 35 s: after three of them one more would make the state 140 s old."""
    seconds, saved, run = 0, [], Run(tmp_path / "run")
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: seconds))

    def pass_time(*_):
        nonlocal seconds
        seconds += 35
        saved.append(load_state(run.state)["step"] if run.state.exists() else 0)

    made = recipe.read(str(tiny), {"train.steps": "9", "train.validate_every": "0"})
    train(made, prepared, run.folder, device="cpu", progress=pass_time)
    assert saved == [0, 0, 0, 0, 4, 4, 4, 4, 8]


@pytest.mark.slow
def test_a_training_killed_at_a_random_moment_resumes_to_the_same_weights(
    prepared, two_stages, tmp_path
):
    line = ["train", two_stages, "--data", prepared, "--device", "cpu"]
    for change in ("train.steps=60", "train.save_every=0", "stages.0.train.save_every=0"):
        line += ["--set", change]
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def start(to):
        command = [sys.executable, "-m", "voxlate", *map(str, line), "--out", str(to)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, **quiet)

    assert start(whole).wait() == 0
    running = start(parts)
    while not (parts / "log.jsonl").exists() and running.poll() is None:
        time.sleep(0.02)
    time.sleep(int.from_bytes(os.urandom(1), "big") / 256)
    running.kill()
    running.wait()
    assert not list(parts.glob("weights.safetensors"))
    assert start(parts).wait() == 0
    assert same_weights(whole, parts)
    steps = [(line["stage"], line["step"]) for line in log_lines(parts, "loss")]
    assert len(steps) == len(set(steps)) == 5 + 60  # every step once, in spite of the kill


@pytest.mark.slow
def test_the_number_of_readers_does_not_change_the_weights(
    prepared, two_stages, two_staged_once, tmp_path
):
    changed, run = recipe.read(str(two_stages), {"train.workers": "2"}), tmp_path / "run"
    train(changed, prepared, run, reuse=[two_staged_once.folder], device="cpu")
    assert same_weights(two_staged_once, run)


def test_accumulated_parts_of_a_batch_count_as_the_whole(prepared, tiny, tmp_path):
    for parts in (1, 2):
        chosen = recipe.read(str(tiny), {"train.accumulate": str(parts), "train.steps": "2"})
        train(chosen, prepared, tmp_path / f"run{parts}", device="cpu")
    a, b = (weights_of(tmp_path / f"run{parts}") for parts in (1, 2))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def test_a_training_learns_what_can_be_learned(prepared, tiny, tmp_path):
    keys = {"steps": "50", "batch": "3", "validate_every": "0"}
    keys["optimiser"] = '{ lr = 6e-3, warm_up = 5, decay = "linear" }'
    chosen = recipe.read(str(tiny), {f"train.{key}": value for key, value in keys.items()})
    run = train(chosen, prepared, tmp_path / "run", device="cpu")
    losses = [line["loss"]["total"] for line in log_lines(run, "loss")]
    assert losses[-1] < 0.2 * losses[0]  # the target is a straight line of the source
    (line,) = log_lines(run, "validation")
    assert line["validation"]["mae"] < 0.12


def test_the_learning_rate_warms_up_holds_and_falls_to_its_last_share():
    plan = Optimiser(warm_up=10, hold=0.5, decay="linear", last=0.1)
    rates = [plan.factor(step, 100) for step in (0, 9, 49, 75, 100)]
    assert rates == pytest.approx([0.1, 1, 1, 0.55, 0.1])


@pytest.fixture
def average() -> Learner:
    """A training whose weight is 1, and whose averaged weight is 0."""
    model, mean = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, 1.0)
    torch.nn.init.constant_(mean.weight, 0.0)
    return Learner(model, mean, {}, Epochs(0))


def test_the_running_average_forgets_its_start_and_then_decays(average):
    average.move_average(0.999, 0)
    mean = average.averaged.weight
    assert mean.item() == pytest.approx(0.9)  # 1 − 1/10
    for step in range(1, 4):
        average.move_average(0.999, step)
    assert 1 - mean.item() == pytest.approx(0.1 * (2 / 11) * (3 / 12) * (4 / 13), rel=1e-4)


def test_an_error_of_nan_is_larger_than_every_other(average):
    for error in (np.nan, 2.0):
        average.compare(error)
    assert average.best.error == 2.0


def test_a_first_stage_trained_alone_ends_with_the_same_weights(
    prepared, read_two, two_staged_once, tmp_path
):
    alone = recipe.stage_recipe(read_two(), "predictor")
    train(alone, prepared, tmp_path / "alone", device="cpu")
    assert same_tensors(weights_of(two_staged_once, "predictor"), weights_of(tmp_path / "alone"))


@pytest.mark.slow
def test_two_processes_train_what_one_does(prepared, tiny, tmp_path):
    """The batch is split between processes, so their number changes speed and rounding only."""
    line = ["-m", "voxlate", "train", str(tiny), "--data", str(prepared), "--device", "cpu"]
    several = "--cpu --num_processes 2 --num_cpu_threads_per_process 1"
    launch = ["-m", "accelerate.commands.launch", *several.split()]
    for name, words in (("one", line), ("two", launch + line)):
        command = [sys.executable, *words, "--out", str(tmp_path / name)]
        subprocess.run(command, check=True)
    a, b = (weights_of(tmp_path / name) for name in ("one", "two"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_stage_of_another_run_is_taken_over_only_where_it_is_the_same(
    prepared, two_stages, two_staged_once, tmp_path
):
    first, stages = two_staged_once.folder, []
    few = {"train.steps": "2", "train.validate_every": "0"}
    changed = recipe.read(str(two_stages), {**few, "net.width": "12", "net.groups": "4"})
    options = {"device": "cpu", "progress": lambda stage, *_: stages.append(stage)}
    same = train(changed, prepared, tmp_path / "same", reuse=[first], **options)
    assert set(stages) == {"final"}
    assert same_weights(same, first, "predictor")
    reseeded = recipe.read(str(two_stages), {**few, "stages.0.train.seed": "1"})
    other = train(reseeded, prepared, tmp_path / "other", reuse=[first], device="cpu")
    assert not same_weights(other, first, "predictor")


def test_a_flipped_bit_in_a_weights_file_is_refused(run):
    path, draw = Run(run).weights(), np.random.default_rng(0)
    whole = path.read_bytes()
    for place in draw.integers(8, len(whole), 30):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << draw.integers(8)
        path.write_bytes(spoiled)
        with pytest.raises(BadInput):
            load_method(path)


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(run, tmp_path):
    method, _, header = load_method(run)
    next(method.parameters()).data[0] = float("nan")
    with pytest.raises(BadInput, match="expected finite weights, found"):
        save_weights(tmp_path / "w.safetensors", method, header)
    tensors = {name: tensor.contiguous() for name, tensor in method.state_dict().items()}
    whole = {**header, "sha256": weights_checksum(header, tensors)}
    save_file(tensors, tmp_path / "spoiled.safetensors", {"voxlate": json.dumps(whole)})
    with pytest.raises(BadInput, match="the training diverged"):
        load_method(tmp_path / "spoiled.safetensors")


@pytest.mark.slow
def test_a_training_says_once_how_long_it_waited_for_data(prepared, tiny, tmp_path, monkeypatch):
    read, said = Batches.__getitem__, []
    slow = lambda self, step: time.sleep(0.05) or read(self, step)  # noqa: E731
    monkeypatch.setattr(Batches, "__getitem__", slow)
    chosen = recipe.read(str(tiny))
    run = train(chosen, prepared, tmp_path / "run", device="cpu", say=said.append)
    (seconds,) = [line["time"] for _, line in lines_of(run.log) if "time" in line]
    assert 6 * 0.05 <= seconds["data"] < seconds["all"]
    assert sum("waiting for data" in note.text for note in said) == 1
