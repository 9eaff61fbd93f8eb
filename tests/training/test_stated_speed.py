"""Plans at a stated speed: the same steps on every machine, whatever its clock says."""

import itertools
import time

import pytest

import voxlate
from refusals import refuses
from trainings import weights_of
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.planning.planner import plan_training
from voxlate.training.planning.probe import Probe
from voxlate.training.run import Run

SPEED = 0.5  # at which a minute holds some hundred steps of small scans


@pytest.fixture
def jumping_clock(monkeypatch):
    """The clocks of plans and trainings jump by an hour at each look."""
    for name in ("monotonic", "perf_counter"):
        hours = itertools.count(0, 3600.0)
        monkeypatch.setattr(time, name, lambda hours=hours: next(hours))


def test_a_plan_at_a_stated_speed_has_steps_and_no_seconds(prepared):
    planned = plan_training(prepared, minutes=1, speed=SPEED, mode="mean")
    assert planned.budgets == {}
    assert planned.recipe.train.precision == "float32"
    assert 0.9 * 0.96 * 60 < planned.seconds <= 0.96 * 60
    assert planned.recipe.train.steps > 8


def test_the_steps_of_a_stated_speed_grow_with_the_minutes_and_with_the_speed(prepared):
    fixed = {"net.width": "16"}
    cohort = open_cohort(prepared)
    recipe = plan_training(prepared, minutes=1, speed=SPEED, mode="mean", settings=fixed).recipe
    step = Probe(cohort, 1, "cpu", speed=SPEED).measure(recipe, 0)
    assert Probe(cohort, 9, "cpu", speed=2 * SPEED).measure(recipe, 0) == pytest.approx(step / 2)
    long, fast = Probe(cohort, 9, speed=SPEED), Probe(cohort, 1, speed=SPEED)
    assert long.seconds() == 9 * fast.seconds() == 9 * 60 * 0.96


def test_a_wider_network_and_a_larger_batch_take_longer(prepared):
    planned = plan_training(prepared, minutes=0.1, speed=SPEED, mode="mean")
    probe = Probe(open_cohort(prepared), 1, "cpu", speed=SPEED)

    def seconds(**changes):
        named = {key.replace("__", "."): value for key, value in changes.items()}
        return probe.measure(planned.change(named).recipe, 0)

    narrow = seconds(net__width="32")
    # the optimiser's products do not depend on the batch, and grow with the cube of the width
    assert 1.8 < seconds(net__width="32", train__batch="4") / narrow < 2
    # of a step, products have four times the number, and norms twice
    assert 3 < seconds(net__width="64") / narrow < 4


def test_the_same_command_gives_the_same_plan_under_any_load(prepared, jumping_clock):
    options = {"minutes": 1, "speed": SPEED}
    first = plan_training(prepared, **options)
    assert plan_training(prepared, **options).text == first.text


def test_a_race_at_a_stated_speed_takes_the_same_steps_and_its_time_is_that_of_the_training(
    install, prepared, jumping_clock
):
    install(stripped=True)
    options = {"minutes": 0.5, "speed": SPEED, "mode": "mean"}
    first = plan_training(prepared, **options)
    assert "after" in first.why["start_from"]
    assert plan_training(prepared, **options).text == first.text
    alone = plan_training(prepared, **options, from_scratch=True)
    assert first.seconds <= 0.96 * 30 + 1e-6
    if first.recipe.start_from is None:
        assert first.recipe.train.steps < alone.recipe.train.steps


def test_two_trainings_of_a_stated_speed_have_equal_weights(prepared, tmp_path):
    options = {"minutes": 0.02, "speed": SPEED, "mode": "mean", "progress": False}
    runs = [Run(tmp_path / name) for name in ("one", "two")]
    for run in runs:
        voxlate.train("auto", prepared, run.folder, **options)
        assert not run.clock.exists()
    one, two = map(weights_of, runs)
    assert all(bool((one[name] == two[name]).all()) for name in one)


def test_a_stated_speed_measures_no_memory_and_fits_no_recipe(prepared, tmp_path, tiny):
    with refuses("--speed: expected no --memory"):
        plan_training(prepared, speed=SPEED, memory=2**33)
    with refuses("--speed: expected auto"):
        voxlate.train(tiny, prepared, tmp_path / "run", speed=SPEED)
