"""Distances of feature sets against closed forms, scipy's matrix root, published reference numbers and their biases."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from voxlate.evaluation.scoring.distances import frechet, textures


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


# the built-in features


def test_texture_features_are_the_same_numbers_everywhere():
    """Golden: a change of any filter, scale or statistic must change the features' name, too."""
    y, x = np.mgrid[0:16, 0:12]
    (vector,) = textures(((x * y) % 7 / 6).astype(np.float32)[None])
    assert len(vector) == 44
    golden = [0.5683, 0.3090, 3.0252, 3.0500, 3.6182, 3.1980, 2.6550]
    assert vector[[0, 3, 8, 9, 16, 25, 43]] == pytest.approx(golden, abs=1e-4)
