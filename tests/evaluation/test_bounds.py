"""The mean error that intervals of several levels let expect."""

import numpy as np
import pytest

from voxlate.synthesis.calibration import mean_error

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def test_the_mean_error_is_that_of_the_distribution_whose_quantiles_the_intervals_are():
    quantiles = {level: -np.log(1 - level) for level in LEVELS}  # exponential: its mean is 1
    width = quantiles[0.9]
    found = mean_error({level: value / width for level, value in quantiles.items()})
    assert found * width == pytest.approx(1, abs=0.03)


def test_one_level_does_not_tell_the_mean_error():
    assert mean_error({0.9: 1.0}) == 0
