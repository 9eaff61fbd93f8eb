"""A race of a plan: candidates train for the same seconds, and held-out patients decide."""

import math
from dataclasses import replace

import pytest
import torch

from voxlate.scans.cases.prepared import open_cohort
from voxlate.science.batch import Batch
from voxlate.training.loop import chosen_share, errors_by_share
from voxlate.training.planning import probe
from voxlate.training.planning.cohort_facts import cohort_facts, roles_of
from voxlate.training.planning.rules import Size, first_stage
from voxlate.training.recipe import from_dict
from voxlate.training.validate import counted_voxels

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
        found, steps = probe.Probe(cohort, 1, "cpu").trial(from_dict(tables, "the plan"), 0.0)
        assert steps == FEWEST
        return found

    return error


def test_who_learns_has_less_error_and_who_diverges_has_none(error_of):
    assert error_of(5e-3) < error_of(1e-12)
    assert math.isnan(error_of(1e14))


def test_an_error_is_a_share_of_the_truths_deviation_whatever_the_scale_of_the_target(error_of):
    """Weights that do not move give zeros. Twice the range of the target halves both the error and the deviation."""
    assert error_of(1e-12) == pytest.approx(error_of(1e-12, high=4000.0), rel=0.01)


def test_errors_by_share_are_those_of_the_mixtures_and_leave_the_weights_as_they_are():
    weights, first = [torch.tensor([4.0])], [torch.tensor([0.0])]

    def error():
        """The least at a quarter of the first weights."""
        return abs(float(weights[0]) - 3)

    errors = errors_by_share(weights, first, error)
    assert errors == {1.0: 3.0, 0.5: 1.0, 0.25: 0.0, 0.125: 0.5, 0.0: 1.0}
    assert float(weights[0]) == 4


def test_the_planned_share_is_kept_unless_another_one_has_clearly_less_error():
    near = {1.0: 0.40, 0.5: 0.35, 0.25: 0.33, 0.125: 0.32, 0.0: 0.30}
    assert chosen_share(near, planned=0.25) == 0.25
    assert chosen_share(near, planned=0.2) == 0.125
    # more is kept only where it has less error
    assert chosen_share(near | {0.5: 0.29}, planned=0.2) == 0.5
    assert chosen_share(near | {1.0: 0.29}, planned=0.2) == 1
    assert chosen_share(near | {0.125: 0.34, 0.25: 0.35}, planned=0.25) == 0


def test_trained_weights_that_are_no_numbers_keep_the_first_ones_alone():
    assert chosen_share({1.0: 0.3, 0.5: math.nan, 0.0: math.nan}, planned=0.5) == 1


def test_only_voxels_near_the_mask_of_targets_that_exist_count():
    target = torch.zeros(2, 2, 1, 10, 4)
    mask = torch.zeros(2, 1, 1, 10, 4)
    mask[..., :2, :] = 1
    present = torch.tensor([[True, False], [True, True]])
    batch = Batch(target, mask, present, torch.arange(2), target=target, target_present=present)
    assert counted_voxels(batch).flatten(2).sum(2).tolist() == [[28, 0], [28, 28]]
    everywhere = replace(batch, mask=torch.zeros_like(mask))
    assert counted_voxels(everywhere).flatten(2).sum(2).tolist() == [[40, 0], [40, 40]]
