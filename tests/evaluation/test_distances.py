"""Distances of feature sets against closed forms, scipy's matrix root, published reference numbers and their biases."""

import itertools

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from refusals import refuses
from rows import every_row, slow
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.distances import (
    TEXTURE,
    distances,
    features_for,
    frechet,
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


def test_the_reference_sets_have_the_published_distance(shared):
    folder = shared / "reference/xmodality/dev"
    sets = load_file(folder / "pipeline_io.safetensors")
    expected = read_json(folder / "pipeline.json")["fd"]
    assert frechet(sets["fd_features_a"], sets["fd_features_b"]) == pytest.approx(
        expected, abs=1e-9
    )


def test_one_vector_is_no_set():
    with pytest.raises(ValueError, match="N of at least 2"):
        frechet(draws(1, 3), draws(5, 3))


def test_distances_are_given_of_each_patient_as_well_as_pooled():
    """Patients whose syntheses are shifted by 1 and by −1: pooled, the shifts cancel each other."""
    truth = {("a1", "a"): draws(40), ("b1", "b"): draws(40, seed=1), ("one", "c"): draws(1, seed=2)}
    shifts = {"a": 1.0, "b": -1.0, "c": 0.0}
    ours = {case: values + shifts[case[1]] for case, values in truth.items()}
    found = distances("fd", truth, ours)
    assert found["fd_each"]["mean"] == pytest.approx(3, rel=1e-9)
    assert found["fd"]["mean"] < 0.5 * found["fd_each"]["mean"]


# the built-in features


def scenes(seed, count=40, size=48):
    """Made-up slices: an ellipse with sharp-edged organs, and a little noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    found = []
    for _ in range(count):
        image = np.where((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1, 0.35, 0.0)
        for _ in range(8):
            at, width = draw.uniform(-0.6, 0.6, 2), draw.uniform(0.05, 0.3, 2)
            inside = ((x - at[0]) / width[0]) ** 2 + ((y - at[1]) / width[1]) ** 2 < 1
            image = np.where(inside, image + draw.uniform(-0.2, 0.35), image)
        found.append(gaussian_filter(image, 0.7) + draw.normal(0, 0.01, image.shape))
    return np.clip(found, 0, 1).astype(np.float32)


NOISE = np.random.default_rng(2).normal(size=(40, 48, 48))
OTHERS = scenes(1)  # not the truth's own scenes: a distance between sets knows no pairs


@slow
@every_row(
    ("change", "amounts"),
    [
        (lambda width: gaussian_filter(OTHERS, (0, width, width)), (0, 1, 2, 4)),
        (lambda level: OTHERS + level * NOISE, (0, 0.04, 0.08, 0.16)),
        (lambda gain: OTHERS * gain, (1, 0.8, 0.6, 0.4)),
        (lambda gain: OTHERS * gain, (1, 1.15, 1.3, 1.5)),
        (lambda offset: OTHERS + offset, (0, 0.05, 0.1, 0.2)),
    ],
)
def test_the_more_a_picture_is_spoilt_the_larger_is_the_texture_distance(change, amounts):
    truth = TEXTURE(scenes(0))
    spoilt = [np.clip(change(amount), 0, 1).astype(np.float32) for amount in amounts]
    values = [frechet(truth, TEXTURE(pictures)) for pictures in spoilt]
    assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(values)), values


def test_texture_features_are_the_same_numbers_everywhere():
    """Golden: a change of any filter, scale or statistic must change the features' name, too."""
    y, x = np.mgrid[0:16, 0:12]
    (vector,) = TEXTURE(((x * y) % 7 / 6).astype(np.float32)[None])
    assert len(vector) == TEXTURE.dimensions == 44
    golden = [0.5683, 0.3090, 3.0252, 3.0500, 3.6182, 3.1980, 2.6550]
    assert vector[[0, 3, 8, 9, 16, 25, 43]] == pytest.approx(golden, abs=1e-4)


def test_features_of_another_name_are_refused():
    assert features_for("texture") is TEXTURE
    with refuses(r"expected texture, found vit"):
        features_for("vit")
