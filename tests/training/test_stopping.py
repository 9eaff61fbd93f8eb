"""The rule that ends a training: on losses by hand, and through a training that is stopped and goes on."""

import json
import math
import os
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rows import every_row
from voxlate import recipe
from voxlate.recipe.training import Stop
from voxlate.system.errors import Stopped
from voxlate.training.learner import Epochs
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import read_header

PAPER = Stop()


def first_end(rule, losses):
    """The number of the epoch after which the rule ends the training."""
    return next((n for n in range(1, len(losses) + 1) if rule.is_met(losses[:n])), None)


def test_a_constant_loss_ends_at_the_hundredth_epoch():
    assert first_end(PAPER, [1.0] * 200) == 100


def test_a_loss_that_falls_fast_enough_never_ends():
    """With a factor q an epoch, loss / mean of the 20 before is 20·q²⁰·(1 − q) / (1 − q²⁰): 0.95 for q = 0.995."""
    assert first_end(PAPER, [0.995**n for n in range(1000)]) is None
    assert first_end(PAPER, [0.9995**n for n in range(1000)]) == 100, "this one is 0.995 of it"


def test_it_ends_where_a_falling_loss_comes_to_rest():
    """1 − 0.002·n until epoch 150, then constant: by hand, 0.99 of the mean of the 20 before first lies below."""
    losses = [1 - 0.002 * min(n, 150) for n in range(1, 300)]
    before = [sum(losses[n - 21 : n - 1]) / 20 for n in range(21, 300)]
    by_hand = next(n for n in range(100, 300) if losses[n - 1] > 0.99 * before[n - 21])
    assert first_end(PAPER, losses) == by_hand
    assert 150 < by_hand < 170


@every_row(("last", "ends"), [(0.98, False), (0.9899, False), (0.9901, True), (2.0, True)])
def test_one_per_cent_below_the_window_is_the_border(last, ends):
    assert PAPER.is_met([5.0] * 79 + [1.0] * 20 + [last]) is ends


def test_the_window_must_be_full_and_no_number_ends_nothing():
    assert first_end(Stop(after_epochs=1, window=3), [1.0] * 9) == 4
    assert first_end(Stop(after_epochs=1, window=3), [math.nan] * 9) is None


@given(
    st.lists(st.floats(0, 10, width=32), min_size=1, max_size=40),
    st.integers(1, 7),
    st.integers(0, 40),
)
def test_epochs_are_means_of_their_steps_wherever_they_go_on(losses, steps, cut):
    epochs = Epochs(steps)
    for number, loss in enumerate(losses):
        if number == cut:
            again = Epochs(steps)
            again.load_state(epochs.state())
            epochs = again
        epochs.add(torch.tensor(loss))
    whole = len(losses) // steps
    assert epochs.losses == pytest.approx(
        [sum(losses[n * steps : (n + 1) * steps]) / steps for n in range(whole)]
    )


CHANGES = {
    "train.steps": "40",
    "train.batch": "8",
    "train.validate_every": "0",
    "train.optimiser.lr": "1e-12",
    "train.stop": "{ after_epochs = 2, window = 1 }",
}


def test_a_training_that_learns_nothing_ends_early_and_says_why(prepared, tiny, tmp_path):
    """Four training cases of six slices, eight a step: three steps an epoch, so the second one ends at step 6."""
    chosen = recipe.read(str(tiny), CHANGES)
    run = train(chosen, prepared, tmp_path / "run", device="cpu")
    assert read_header(run.weights())["steps"] == 6
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    losses = [line["loss"]["total"] for line in lines if "loss" in line]
    (said,) = [line for line in lines if "ended" in line]
    assert len(losses) == said["step"] == 6
    assert f"the loss of epoch 2, {sum(losses[3:]) / 3:.4g}" in said["ended"]
    assert (
        f"is not 1 % below the loss of the epoch before, {sum(losses[:3]) / 3:.4g}" in said["ended"]
    )
    assert sum("validation" in line for line in lines) == 1


def test_stopped_or_killed_it_ends_at_the_same_epoch_with_the_same_weights(
    prepared, tiny, tmp_path
):
    chosen = recipe.read(str(tiny), CHANGES)
    whole = train(chosen, prepared, tmp_path / "whole", device="cpu")
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) in (2, 4):  # within the first epoch, and, taken up again, within the second
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(Stopped):
            train(chosen, prepared, tmp_path / "parts", device="cpu", progress=stop)
    parts = train(chosen, prepared, tmp_path / "parts", device="cpu")
    assert tensors(parts) == tensors(whole)
    ends = [
        [line for line in run.log.read_text().splitlines() if "ended" in line]
        for run in (whole, parts)
    ]
    assert ends[0] == ends[1] != []
    log = parts.log.read_text()
    parts.weights().unlink()  # as a kill between the last state and the weights leaves it
    assert tensors(train(chosen, prepared, tmp_path / "parts", device="cpu")) == tensors(whole)
    assert parts.log.read_text() == log


def tensors(run: Run) -> dict:
    return {name: tensor.tolist() for name, tensor in load_file(run.weights()).items()}


@pytest.mark.parametrize("by", ["rate", "loss"])
def test_a_training_that_diverges_stops_with_the_step_and_keeps_the_last_good_state(
    voxlate, prepared, tiny, tmp_path, monkeypatch, by
):
    out, options = (
        tmp_path / "r",
        ["--set", "train.steps=40", "--set", "train.clip_norm=0", "--set", "train.ema=0"],
    )
    if by == "rate":
        options += ["--set", "train.optimiser.lr=1e30", "--set", "train.optimiser.warm_up=5"]
    else:
        from voxlate.methods import regression

        steps = iter(range(1000))
        bad = lambda image, truth: (image - truth).abs() * (float("inf") if next(steps) >= 7 else 1)  # noqa: E731
        monkeypatch.setitem(regression.LOSSES, "l1", bad)
    answer = voxlate(
        "train", tiny, "--data", prepared, "--out", out, *options, "--set", "train.validate_every=0"
    )
    assert answer.code == 2, answer
    assert "the training diverged" in answer.err
    assert "at step " in answer.err
    assert not (out / "weights.safetensors").exists()
    if (out / "state.pt").exists():
        state = torch.load(out / "state.pt", weights_only=True)
        assert all(one.isfinite().all() for one in state["method"].values())
        assert state["step"] in range(2, 9, 2)
