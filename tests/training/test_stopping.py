"""The rule that ends a training: on losses by hand, and through a training that is stopped and goes on."""

import math

import pytest

from refusals import refuses
from rows import every_row, slow
from trainings import log_lines, same_weights, stop_at
from voxlate.base.errors import Stopped
from voxlate.science.methods import regression
from voxlate.training.learner import load_state
from voxlate.training.recipe.training_settings import Stop
from voxlate.training.run import Run
from voxlate.training.weights import read_header

PAPER, SHORT = Stop(), Stop(after_epochs=1, window=3)


@every_row(
    "rule, losses, end",
    [
        # with a factor q an epoch, loss / mean of the 20 before is 20 q²⁰ (1 - q) / (1 - q²⁰): 0.95 for q = 0.995
        (PAPER, [0.995**n for n in range(1000)], None),
        (PAPER, [0.9995**n for n in range(1000)], 100),
        (PAPER, [1.0] * 200, 100),
        # one per cent below the window is the border
        *((PAPER, [5.0] * 79 + [1.0] * 20 + [last], None) for last in (0.98, 0.9899)),
        *((PAPER, [5.0] * 79 + [1.0] * 20 + [last], 100) for last in (0.9901, 2.0)),
        # the window must be full, and no number ends nothing
        (SHORT, [1.0] * 9, 4),
        (SHORT, [math.nan] * 9, None),
    ],
)
def test_a_training_ends_after_the_first_epoch_whose_loss_is_not_below_the_window(
    rule, losses, end
):
    met = [number for number in range(1, len(losses) + 1) if rule.is_met(losses[:number])]
    assert next(iter(met), None) == end


@slow
def test_a_training_that_learns_nothing_ends_early_also_when_it_was_stopped_or_killed(
    read_tiny, fit
):
    """Four training cases of six slices, eight a step: three steps an epoch, so the second one ends at step 6."""
    stop = "{ after_epochs = 2, window = 1 }"
    rate = {"train.optimiser.lr": "1e-12"}
    chosen = read_tiny(rate, steps=40, batch=8, validate_every=0, stop=stop)
    run = fit(chosen, "whole")
    assert read_header(run.weights())["steps"] == 6
    losses = [line["loss"]["total"] for line in log_lines(run, "loss")]
    assert len(losses) == 6
    assert len(log_lines(run, "validation")) == 1

    stop = stop_at(2, 4)  # within the first epoch, and, taken up again, within the second
    for _ in range(2):
        with pytest.raises(Stopped):
            fit(chosen, "parts", progress=stop)
    parts = fit(chosen, "parts")
    assert same_weights(parts, run)
    parts.weights().unlink()  # as a kill between the last state and the weights leaves it
    assert same_weights(fit(chosen, "parts"), run)


@pytest.mark.parametrize("by", ["rate", "loss"])
def test_a_training_that_diverges_stops_with_the_step_and_keeps_the_last_good_state(
    read_tiny, fit, tmp_path, monkeypatch, by
):
    changes = {"steps": 40, "clip_norm": 0, "ema": 0, "validate_every": 0}
    if by == "rate":
        changes["optimiser"] = "{ lr = 1e14, warm_up = 5 }"
    else:
        steps = iter(range(1000))
        bad = lambda image, truth: (image - truth).abs() * (float("inf") if next(steps) >= 7 else 1)  # noqa: E731
        monkeypatch.setitem(regression.LOSSES, "l1", bad)
    with refuses(r"the training diverged.*at step |at step .*diverged"):
        fit(read_tiny(**changes))
    run = Run(tmp_path / "run")
    assert not run.weights().exists()
    if run.state.exists():
        state = load_state(run.state)
        assert all(one.isfinite().all() for one in state["method"].values())
        assert state["step"] in range(2, 9, 2)
