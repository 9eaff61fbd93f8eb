"""Mutual information and the overlap of masks against closed forms; SSIM is tested with the metrics."""

import math

import numpy as np
import pytest

from voxlate.base.similarity import dice, mutual_information


def test_mutual_information_is_two_for_a_function_and_one_for_independent_values():
    values = np.random.default_rng(0).uniform(0, 1, 200_000)
    others = np.random.default_rng(1).uniform(0, 1, 200_000)
    unit = (0.0, 1.0)
    assert mutual_information(values, 1 - values, unit, unit, 32) == pytest.approx(2, abs=1e-9)
    assert mutual_information(values, others, unit, unit, 32) == pytest.approx(1, abs=1e-3)
    # one bit of five is shared: H(a) = H(b) = 5 bits, H(a, b) = 9
    half = np.where(values < 0.5, others / 2, 0.5 + others / 2)
    assert mutual_information(values, half, unit, unit, 32) == pytest.approx(10 / 9, abs=1e-3)
    assert math.isnan(mutual_information(values * 0, values * 0, unit, unit, 32))


def test_dice_of_masks():
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert dice(a, b) == pytest.approx(2 / 3)
    assert math.isnan(dice(~a & a, a & ~a))
