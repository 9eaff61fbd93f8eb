"""A network of quantiles, on errors whose quantiles are known."""

import numpy as np
import pytest
import torch

from rows import slow
from voxlate.evaluation.intervals import width_training as widths_module
from voxlate.evaluation.intervals.width_training import fit_widths
from voxlate.synthesis.calibration import NARROWEST


@pytest.fixture(autouse=True)
def _short(shorten_widths):
    shorten_widths(700, 1024)


def errors_of(x, draw):
    """Normal below 0 with deviation 0.05 + 0.2 x, twice as far above it."""
    error = draw.normal(size=len(x)) * (0.05 + 0.2 * x)
    return np.where(error > 0, 2 * error, error).astype(np.float32)


def fitted(method, features, errors, regions=None, **more):
    """Widths of errors [N]: by default all voxels are one region."""
    weights = np.ones(len(errors), np.float32)
    regions = np.ones((len(errors), 1), bool) if regions is None else regions
    return fit_widths(method, features, errors, weights, regions, alpha=0.1, **more)


def test_the_quantiles_of_known_errors_are_found_on_each_side():
    draw = np.random.default_rng(0)
    x = draw.uniform(size=60_000).astype(np.float32)
    features = np.stack([x, draw.normal(size=len(x)).astype(np.float32)], axis=1)
    at = np.array([[0.2, 0.0], [0.5, 0.0], [0.9, 0.0]], np.float32)
    below, above = fitted("learned", features, errors_of(x, draw)).predict(at)
    right = 1.645 * (0.05 + 0.2 * at[:, 0])
    np.testing.assert_allclose(below, right, rtol=0.12)
    np.testing.assert_allclose(above, 2 * right, rtol=0.12)


def rare_errors(draw):
    """One voxel in twenty has errors that are ten times as large: which ones, and all errors."""
    rare = draw.uniform(size=40_000) < 0.05
    return rare, (draw.normal(size=len(rare)) * np.where(rare, 0.5, 0.05)).astype(np.float32)


@slow
def test_a_rare_region_is_covered_although_no_feature_shows_it():
    draw = np.random.default_rng(1)
    rare, error = rare_errors(draw)
    features = draw.normal(size=(len(rare), 1)).astype(np.float32)
    quantile = 1.645 * 0.5  # of the rare errors, on both sides
    for regions, expected, most in (
        (None, 0.09, 0.02),
        (np.stack([rare, ~rare], axis=1), quantile, 0.08),
    ):
        _, above = fitted("learned", features, error, regions).predict(features)
        assert above.mean() == pytest.approx(expected, abs=most)


def test_numpy_predicts_the_widths_of_torch_and_the_random_state_stays(quick_widths):
    features = np.random.default_rng(2).normal(size=(2000, 3)).astype(np.float32)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    widths = fitted("learned", features, features[:, 0] / 10, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    network = widths_module._Network("learned", 3)
    network.load_state_dict({name: torch.tensor(array) for name, array in widths.arrays.items()})
    with torch.inference_mode():
        expected = network(torch.from_numpy(features)).T.numpy()
    for one, other in zip(widths.predict(features), expected):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert (one >= NARROWEST).all()
    assert widths.predict(features.reshape(20, 10, 10, 3))[0].shape == (20, 10, 10)
