"""Intervals of patients whose errors are known."""

from dataclasses import replace

import numpy as np
import pytest

from refusals import refuses
from rows import slow
from voxlate.evaluation.intervals.conformal import shifted_error
from voxlate.evaluation.intervals.fit import CalibrationVoxels, Guarantee, fit
from voxlate.synthesis.calibration import (
    Calibration,
    Header,
    group_factors,
    interval,
)

COVERAGE = 0.9


@pytest.fixture(autouse=True)
def _short(shorten_widths):
    shorten_widths(30, 256)


def fitted(patients, *, bound="none", rules=None, **more):
    return fit(patients, rules or {}, Guarantee(COVERAGE, 0.9, bound), 0, **more)


def changed(patients, **parts):
    """The patients with parts that are made of their own: name=function of a patient."""
    return [replace(one, **{name: make(one) for name, make in parts.items()}) for one in patients]


def patient(number: int) -> CalibrationVoxels:
    """Errors of deviation 0.02 to 0.1, which a feature shows."""
    draw = np.random.default_rng(number)
    x = draw.uniform(size=3000).astype(np.float32)
    deviation = (0.02 + 0.08 * x) * draw.uniform(0.9, 1.1)
    error = (draw.normal(size=3000) * deviation).astype(np.float32)
    image, inside = np.zeros(3000, np.float32), np.ones(3000, bool)
    features = np.stack([x, draw.normal(size=3000).astype(np.float32)], 1)
    parts = {"body": inside, "bright": x > 0.8}
    return CalibrationVoxels(f"p{number}", features, image, image + error, parts, inside)


PATIENTS = [patient(number) for number in range(20)]


@slow
def test_learned_intervals_hold_new_patients(shorten_widths):
    shorten_widths(100, 1024)
    target, learned = fitted(PATIENTS, bound="normal", rules={"bright": "ct>0.8"})
    assert target.method == "learned"
    assert target.compared["learned"].width < 0.21  # 0.22 the same everywhere
    of_ct = ({"ct": target}, {"ct": "HU"}, {"ct": 1.0})
    header = Header("w", {}, COVERAGE, 0.9, "normal", 20, {}, "val", 0, *of_ct)
    calibration = Calibration(header, {"ct": learned})
    shares, held = [], []
    for one in map(patient, range(100, 140)):
        below, above = target.scales[COVERAGE] * learned.predict(one.features)
        shares.append(np.mean((one.truth >= -below) & (one.truth <= above)))
        low, high, body = (values.reshape(1, 50, 60) for values in (-below, above, one.shown))
        held.append(np.abs(one.truth).mean() <= calibration.mae_bound("ct", low, high, body))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)
    assert np.mean(held) >= 0.8


def test_what_an_end_cuts_off_is_added_to_the_other_side_and_so_wide_an_interval_is_found():
    draw = np.random.default_rng(0)
    image, truth = draw.uniform(-1, 1, (2, 5000))
    distances = np.broadcast_to(draw.uniform(0.01, 1.1, 5000), (2, 5000))
    low, high = interval(image, distances, (-1, 1), shifted=True)
    np.testing.assert_allclose(high - low, np.minimum(2 * distances[0], 2), atol=1e-9)
    inside = (truth >= low) & (truth <= high)
    needed = np.abs(shifted_error(truth - image, image, (-1, 1)))
    np.testing.assert_array_equal(inside, needed <= distances[0])


def windowed(number: int) -> CalibrationVoxels:
    """Grey values of a window [-1, 1] with errors of deviation 0.1 to 0.5, which a feature shows; a fifth is no body.

    There the image shows a bright body in error.
    """
    draw = np.random.default_rng(number)
    x = draw.uniform(size=6000).astype(np.float32)
    image = draw.choice(np.array([-0.2, 0.9], np.float32), 6000)
    error = draw.normal(size=6000) * (0.1 + 0.4 * x) * draw.uniform(0.9, 1.1)
    truth = np.clip(image + error, -1, 1).astype(np.float32)
    body = np.arange(6000) < 0.8 * 6000
    truth[~body], image[~body] = -1, 0.9
    features = np.stack([x, image], 1)
    everywhere = np.ones(6000, bool)
    return CalibrationVoxels(f"p{number}", features, image, truth, {"body": body}, everywhere)


@slow
def test_intervals_of_three_patients_follow_errors_that_a_feature_shows_in_each_group(
    shorten_widths,
):
    shorten_widths(200, 1024)
    target, network = fitted([windowed(k) for k in range(3)])
    assert (target.method, target.shifted) == ("difficulty", True)
    found = []
    for one in map(windowed, range(100, 120)):
        body, easy = one.parts["body"], one.features[:, 0] < 0.5
        scaled = target.scales[COVERAGE] * network.predict(one.features)
        low, high = interval(one.image, scaled, target.ends, target.shifted)
        size, inside = np.abs(one.truth - one.image), (one.truth >= low) & (one.truth <= high)
        correlation = np.corrcoef((high - low)[body], size[body])[0, 1]
        found.append((correlation, inside[body & easy].mean(), inside[body & ~easy].mean()))
    correlation, small, large = np.mean(found, axis=0)
    assert correlation > 0.36
    assert (small + large) / 2 == pytest.approx(0.9, abs=0.03)
    assert (small, large) == pytest.approx((0.9, 0.9), abs=0.08)


def test_truths_without_a_body_teach_nothing():
    none = changed(PATIENTS[:8], parts=lambda one: {"body": one.truth > 9})
    with refuses("none in 8"):
        fitted(none)


def test_five_patients_teach_no_quantiles_and_bound_no_error():
    target, _ = fitted(PATIENTS[:5], bound="normal")
    assert target.method == "difficulty"
    assert target.bounds == {"mae": np.inf}


def of_two_tissues(number: int) -> CalibrationVoxels:
    """Nine of ten voxels at -0.5 with errors of deviation 0.02, the others at 0.5 with errors of 0.2."""
    rare = np.arange(3000) < 300
    image = rare.astype(np.float32) - np.float32(0.5)
    error = np.random.default_rng(1000 + number).normal(size=3000) * np.where(rare, 0.2, 0.02)
    return replace(patient(number), image=image, truth=image + error.astype(np.float32))


@slow
@pytest.mark.parametrize(
    ("options", "common", "rare"),
    [
        ({}, (0.9, 1.0), (0.0, 0.6)),
        ({"borders": [0.0]}, (0.88, 0.92), (0.88, 0.92)),
        ({"borders": [0.0], "synthetic": True}, (0.9, 1.0), (0.88, 0.92)),
    ],
)
def test_each_group_of_predicted_values_holds_the_coverage_that_one_scale_holds_in_one_alone(
    options, common, rare
):
    target, network = fitted([of_two_tissues(k) for k in range(20)], **options)
    for is_rare, (least, most) in ((False, common), (True, rare)):
        held = []
        for one in map(of_two_tissues, range(100, 120)):
            factors = group_factors(one.image, target.borders, target.factors)
            below, above = target.scales[COVERAGE] * factors * network.predict(one.features)
            error = one.truth - one.image
            inside = (one.image > 0) == is_rare
            held.append(((error >= -below) & (error <= above))[inside].mean())
        assert least <= np.mean(held) <= most
