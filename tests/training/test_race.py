"""A race of a plan: candidates train for the same seconds, and held-out patients decide."""

import math

import pytest

from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.planning import probe
from voxlate.training.planning.cohort_facts import cohort_facts, roles_of
from voxlate.training.planning.rules import Size, first_stage
from voxlate.training.recipe import from_dict

FEWEST = 4


@pytest.fixture
def error_of(prepared, monkeypatch):
    """error_of(rate): the error of random weights that learned at a rate; high: the end of the target's window."""
    monkeypatch.setattr(probe, "FEWEST_STEPS", FEWEST)
    cohort = open_cohort(prepared)
    facts = cohort_facts(cohort)

    def error(rate, high=2000.0):
        tables = first_stage(facts, roles_of(facts), Size(8, 1), 2 * FEWEST).tables
        tables["net"] |= {"groups": 4, "head_width": 8}
        tables["train"]["optimiser"] |= {"lr": rate, "warm_up": 1}
        tables["intensity"]["t2"] = {"kind": "window", "low": -high, "high": high}
        trial = probe.Probe(cohort, 1, "cpu").trial(from_dict(tables, "the plan"), 0.0)
        assert [steps for steps, _ in (trial.middle, trial.end)] == [FEWEST // 2, FEWEST]
        return trial.end[1]

    return error


def test_who_learns_has_less_error_and_who_diverges_has_none(error_of):
    assert error_of(5e-3) < error_of(1e-12)
    assert math.isnan(error_of(1e14))


def test_an_error_is_a_share_of_the_truths_deviation_whatever_the_scale_of_the_target(error_of):
    """Weights that do not move give zeros. Twice the range of the target halves both the error and the deviation."""
    assert error_of(1e-12) == pytest.approx(error_of(1e-12, high=4000.0), rel=1e-4)


LATE = 50.0


def test_an_error_that_falls_slower_than_the_law_is_extrapolated_by_its_decay():
    def slow(steps):
        return 0.3 + 0.5 * steps**-probe.DECAY

    trial = probe.Trial((20, slow(20)), (40, slow(40)))
    assert trial.error_after(900, LATE) == pytest.approx(slow(900))
    assert trial.error_after(40, LATE) == slow(40)


def test_random_weights_whose_first_steps_fall_fast_fall_as_the_law_from_then_on():
    """Two points alone would predict an error below zero."""
    trial = probe.Trial((11, 2.855), (22, 0.751))
    ratio = (1 + (LATE / 385) ** probe.DECAY) / (1 + (LATE / 22) ** probe.DECAY)
    assert trial.error_after(385, LATE) == pytest.approx(0.751 * ratio)


def test_an_error_that_does_not_fall_stays_as_it_is():
    for before, after in ((0.2, 0.25), (0.2, 0.2)):
        assert probe.Trial((20, before), (40, after)).error_after(900, LATE) == after
    assert math.isnan(probe.Trial((20, 0.2), (40, math.nan)).error_after(900, LATE))


def test_random_weights_that_learn_faster_are_predicted_to_overtake():
    """A starter leads after a tenth of the steps, and random weights end below it."""
    starter, random = probe.Trial((50, 0.335), (100, 0.331)), probe.Trial((70, 0.52), (140, 0.415))
    assert starter.end[1] < random.end[1]
    assert random.error_after(1400, LATE) < starter.error_after(900, LATE)
