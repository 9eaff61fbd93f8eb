"""Distances of feature sets against closed forms, scipy's matrix root, published reference numbers and their biases."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.linalg import sqrtm

from voxlate.base.files import read_json
from voxlate.evaluation.scoring.distances import (
    distances,
    frechet,
    frechet_limit,
    with_error,
)


def draws(count, dimensions=3, seed=0, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(count, dimensions))


def textbook(a, b):
    """The formula as it stands in Heusel et al., by scipy's root of a matrix that is not symmetric."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    gap = a.mean(0) - b.mean(0)
    return gap @ gap + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))


def test_sets_of_vectors_have_the_textbook_distance():
    a, b = draws(40, 6) @ draws(6, 6, 1), draws(55, 6, 2, shift=0.3)
    assert frechet(a, b) == pytest.approx(textbook(a, b), rel=1e-10)


def test_a_shift_is_its_squared_length_even_with_fewer_images_than_dimensions():
    a = draws(5, 768)
    assert frechet(a, a + 0.1) == pytest.approx(768 * 0.01, rel=1e-9)
    assert frechet(a, 3 * a - 2 * a.mean(0)) == pytest.approx(
        4 * np.trace(np.cov(a, rowvar=False)), rel=1e-9
    )


def test_the_reference_sets_have_the_published_distance(shared):
    folder = shared / "reference/xmodality/dev"
    sets = load_file(folder / "pipeline_io.safetensors")
    expected = read_json(folder / "pipeline.json")["fd"]
    assert frechet(sets["fd_features_a"], sets["fd_features_b"]) == pytest.approx(
        expected, abs=1e-9
    )


def test_few_images_raise_the_distance_and_its_limit_takes_that_back():
    """Two equal standard Gaussians: the truth is 0."""
    pairs = [(draws(120, 10, seed), draws(120, 10, 1000 + seed)) for seed in range(30)]
    plain = np.array([frechet(a, b) for a, b in pairs])
    limit = np.array([frechet_limit(a, b) for a, b in pairs])
    # the bias is no accident
    assert plain.mean() > 20 * plain.std() / math.sqrt(len(pairs))
    assert abs(limit.mean()) < 0.15 * plain.mean()


def test_the_limit_is_the_distance_of_the_gaussians_that_were_drawn_from():
    a, b = draws(4000, 5), draws(4000, 5, 1, shift=0.4, scale=1.5)
    truth = 5 * 0.4**2 + 5 * 0.5**2
    plain, limit = (
        with_error(distance, a, b, np.arange(4000)) for distance in (frechet, frechet_limit)
    )
    assert abs(limit.value - truth) < 3 * limit.error
    assert 0 < limit.error < 0.2 * truth
    assert plain.error < 1.5 * limit.error


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = draws(50, 1)[:, 0]
    found = with_error(lambda a, _: a.mean(), values[:10, None], values[:10, None], range(10))
    assert found.error == pytest.approx(values[:10].std(ddof=1) / math.sqrt(10), rel=1e-12)


def test_two_groups_are_too_few_for_an_error_and_one_vector_is_no_set():
    a, b, two = draws(6, 3), draws(6, 3, 1), [0, 0, 0, 1, 1, 1]
    assert math.isnan(with_error(frechet, a, b, two).error)
    with pytest.raises(ValueError, match="N of at least 2"):
        frechet(draws(1, 3), draws(5, 3))


def test_distances_are_given_of_each_patient_as_well_as_pooled():
    """Patients whose syntheses are shifted by 1 and by −1: pooled, the shifts cancel each other."""
    truth = {("a1", "a"): draws(40), ("b1", "b"): draws(40, seed=1), ("one", "c"): draws(1, seed=2)}
    shifts = {"a": 1.0, "b": -1.0, "c": 0.0}
    ours = {case: values + shifts[case[1]] for case, values in truth.items()}
    found = distances("fd", truth, ours, seed=0)
    assert found["fd_each"]["mean"] == pytest.approx(3, rel=1e-9)
    assert found["fd_each"]["se"] == pytest.approx(0, abs=1e-9)
    assert found["fd"]["mean"] < 0.5 * found["fd_each"]["mean"]
