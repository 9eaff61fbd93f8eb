"""A planned stage follows the share of its seconds that has passed; its recorded steps repeat bit for bit."""

import os
import shutil
import signal
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from rows import slow
from trainings import recipe_of_text, same_weights
from voxlate.base.errors import Stopped
from voxlate.base.files import read_json
from voxlate.training import recipe
from voxlate.training.job import MOST_SHARE, Budget, Clock
from voxlate.training.planning.rules import HELD
from voxlate.training.recipe.training_settings import Training
from voxlate.training.run import Run
from voxlate.training.train import Beginning, train
from voxlate.training.weights import read_header

STEPS = 20
OF_STAGE = 'train = {{ steps = {0}, batch = 2, precision = "float32", workers = 0, ema = 0.5, '
OF_STAGE += "validate_every = 0, log_every = 5, optimiser = {{ warm_up = 2, hold = {1} }} }}"
TWO = f"""
title = "two stages, as a plan has them"
task = {{ kind = "residual", predictor = "regression" }}
data = {{ source = ["t1"], target = ["t2"], patch = [1, 24, 20] }}
intensity = {{ t1 = {{ kind = "window", low = 0, high = 1200 }}, t2 = {{ kind = "window", low = 0, high = 1400 }} }}
method = {{ kind = "diffusion" }}
net = {{ kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }}
{OF_STAGE.format(STEPS, HELD)}
synth = {{ sampler = "ddim", steps = 2 }}

[[stages]]
name = "regression"
method = {{ kind = "regression" }}
net = {{ kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }}
{OF_STAGE.format(STEPS, HELD)}
"""
BUDGET = Budget(seconds=float(STEPS), most_steps=30)  # a second a step
BUDGETS = dict.fromkeys(("regression", "final"), BUDGET)


@pytest.fixture
def seconds(monkeypatch):
    """The seconds of a clock, in a list of one number that tests change."""
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("voxlate.training.job.time", clock)
    return now


@pytest.fixture
def begin(tmp_path):
    """begin(options): the clock of a planned stage that begins, or goes on by its record."""
    record = tmp_path / "clock.txt"

    def begin(options, budget=BUDGET):
        stage = SimpleNamespace(name="final", train=options)
        budgets = {} if budget is None else {"final": budget}
        run = SimpleNamespace(clock=record)
        job = SimpleNamespace(
            stage=stage, budgets=budgets, run=run, accelerator=Accelerator(cpu=True), is_main=True
        )
        return Clock(job)

    return begin


def test_without_a_plan_the_place_of_a_step_is_its_number(begin):
    options = Training(steps=100)
    clock = begin(options, None)
    assert [clock.place(step) for step in (0, 7, 99)] == [0, 7, 99]
    assert clock.steps(7) == 100
    assert options.decay(clock.steps(7)) == options.ema


@pytest.mark.parametrize(
    ("times", "steps"),
    [
        ([1.0] * 40, 20),  # as planned
        ([0.75] * 40, 27),
        ([0.5] * 40, 30),  # the most steps that are useful
        ([2.0] * 40, 10),
        ([9.0] * 40, 5),  # a step moves on by the place of four planned ones at most
        ([0.5] * 4 + [0.75] * 40, 28),
    ],
)
def test_a_planned_stage_ends_when_its_seconds_have_passed(seconds, begin, times, steps):
    options = Training(steps=STEPS)
    clock = begin(options)
    for step, each in enumerate(times):
        if clock.place(step) >= options.steps:
            break
        seconds[0] += each
        clock.move_on(step + 1)
    assert step == steps
    assert clock.place(step) == options.steps
    assert clock.steps(step) == pytest.approx(steps)


def test_the_rate_follows_elapsed_over_planned_seconds(seconds, begin):
    options = Training(steps=1000, ema=0.99)
    optimiser = options.optimiser
    clock = begin(options, Budget(seconds=100.0, most_steps=10_000))
    rates, times = [], (2.0, 5.0, 9.0, 9.0, 13.0)
    for step, passed in enumerate(times, start=1):
        seconds[0] = 100.0 + passed
        clock.move_on(step)
        rates.append(options.rate(clock.place(step)))
    assert rates == [optimiser.lr * optimiser.factor(10 * passed, 1000) for passed in times]
    assert options.progress(clock.place(5)) == pytest.approx(0.13)
    seconds[0] = 190.0
    clock.move_on(6)
    assert options.progress(clock.place(6)) == pytest.approx(0.13 + MOST_SHARE), "after a pause"
    # five steps in 13 of 100 seconds: 38.5 in all, and the average covers the same share of them
    assert clock.steps(5) == pytest.approx(5 / 0.13)
    assert options.decay(clock.steps(5)) == pytest.approx(1 - 0.01 * 130 / 5)
    assert Training(ema=0).decay(1.0) == 0


def test_recorded_steps_repeat_and_the_clock_goes_on_after_them(seconds, begin, tmp_path):
    options = Training(steps=100)
    budget = Budget(seconds=100.0, most_steps=1000)
    clock = begin(options, budget)
    for step in (1, 2, 3):
        seconds[0] += 2.5
        clock.move_on(step)
    record = tmp_path / "clock.txt"
    record.write_text(record.read_text() + "final 12.3")  # a kill cut it short
    seconds[0] += 500.0
    again = begin(options, budget)
    for step in (1, 2, 3):
        seconds[0] += 4.0
        again.move_on(step)
    assert again.places == clock.places == [0.0, 2.5, 5.0, 7.5]
    seconds[0] += 3.0
    again.move_on(4)
    assert again.places[4] == pytest.approx(10.5)
    while not again.has_ended:
        seconds[0] += 5.0
        again.move_on(len(again.places))
    end = len(again.places) - 1
    assert again.place(end) == 100
    again.move_on(end + 1)
    assert begin(options, budget).places == again.places


@pytest.fixture(scope="module")
def planned():
    return recipe_of_text(TWO)


@pytest.fixture
def fit_planned(planned, prepared, seconds):
    """fit_planned(out): trains both stages, whose steps take 0.7 s, from the fourth on 0.9 s."""
    steps = []

    def fit(out, also=lambda *_: None, budgets=BUDGETS, say=lambda _: None):
        def take_time(*step):
            steps.append(step)
            seconds[0] += 0.7 if len(steps) < 4 else 0.9
            also(*step[:2])

        seconds[0] += 1000.0  # between two starts
        beginning = Beginning(budgets=budgets)
        options = {"device": "cpu", "progress": take_time, "say": say, "beginning": beginning}
        return train(planned, prepared, out, **options)

    fit.steps = steps
    return fit


@slow
def test_a_planned_training_ends_in_its_seconds_and_repeats_bit_for_bit(
    planned, fit_planned, seconds, tmp_path
):
    states, out = tmp_path / "states", tmp_path / "run"
    states.mkdir()

    def stop(stage, step):
        if (stage, step) in (("regression", 6), ("final", 3)):
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(Stopped):
            fit_planned(out, stop)
        shutil.copy(out / "state.pt", states / f"{len(fit_planned.steps)}.pt")
    run = fit_planned(out)
    taken = [read_header(run.weights(stage))["steps"] for stage in BUDGETS]
    assert sum(taken) == len(fit_planned.steps)
    assert all(22 < steps < 27 for steps in taken)
    assert recipe.read(str(run.recipe)) == planned, "a recipe is not rewritten"
    places = run.clock.read_text()
    assert read_json(run.provenance)["budgets"]["final"]["seconds"] == STEPS

    first, second = sorted(states.glob("*.pt"))
    for name, stage, state in (
        ("a", "regression", None),
        ("b", "regression", first),
        ("c", "final", second),
    ):
        other = shutil.copytree(out, tmp_path / name)
        stale = [other / "state.pt", other / "weights.safetensors"]
        if stage == "regression":
            stale.append(other / "weights.regression.safetensors")
        for path in stale:
            path.unlink()
        if state is not None:
            shutil.copy(state, other / "state.pt")
        fit_planned(other)
        assert same_weights(run, other)
        assert same_weights(run, other, "regression")
        assert Run(other).clock.read_text() == places
