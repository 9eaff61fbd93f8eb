"""What patients prove: against counted orders, and against shares whose mean is known."""

import numpy as np
import pytest
from scipy import stats

from rows import slow
from voxlate.evaluation.intervals.conformal import (
    conformal_quantile,
    least_scale,
    mean_interval,
    shares_outside,
    upper_bound,
)


def test_nine_patients_are_enough_for_a_bound_of_ninety_per_cent_and_eight_are_not():
    scores = [np.array([float(k)]) for k in range(9)]
    assert conformal_quantile(scores, 0.9) == 8  # the largest
    assert conformal_quantile(scores[:8], 0.9) == np.inf
    assert conformal_quantile(scores, 0.5) == 4  # the fifth of nine: 5 / 10


def test_the_cases_of_a_patient_share_his_weight():
    """Three patients weigh a quarter each: 0.5 is reached by the first and half of the second's two cases, and …"""
    scores = [np.array([1.0]), np.array([2.0, 3.0]), np.array([10.0])]
    assert conformal_quantile(scores, 0.375) == 2
    assert conformal_quantile(scores, 0.5) == 3
    assert conformal_quantile(scores, 0.75) == 10


@slow
def test_a_bound_of_normal_shares_fails_as_seldom_as_it_says():
    shares, draw = stats.norm(0.1, 0.03), np.random.default_rng(0)
    drawn = [shares.rvs(20, random_state=draw) for _ in range(2000)]
    below = [upper_bound(one, 0.9, "normal") < 0.1 for one in drawn]
    assert np.mean(below) == pytest.approx(0.1, abs=0.02)
    assert upper_bound(np.array([0.2, 0.4]), 0.9, "none") == pytest.approx(0.3)
    assert upper_bound(np.array([0.3]), 0.9, "normal") == np.inf


def test_normal_errors_need_intervals_of_1_645_standard_deviations():
    draw = np.random.default_rng(1)
    scores = [np.sort(np.abs(draw.normal(size=20_000))) for _ in range(10)]
    scale = least_scale(scores, 0.1, 0.9, "none")
    assert scale == pytest.approx(1.645, abs=0.01)
    assert shares_outside(scores, scale).mean() == pytest.approx(0.1, abs=1e-3)
    assert scale < least_scale(scores, 0.1, 0.9, "normal")


def test_an_interval_of_a_mean_is_students():
    values = np.array([0.8, 0.9, 1.0])
    low, high = mean_interval(values)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, 0.9, 0.1 / np.sqrt(3)))
    assert mean_interval([0.9]) == (-np.inf, np.inf)
