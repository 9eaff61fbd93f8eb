"""Levels of fluid and both tissues in brains that are made of known ones, and the map from some levels to others."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from brains import brain, tissues
from refusals import refuses
from rows import every_row
from voxlate.scans.images.curve import Curve
from voxlate.scans.images.tissue_levels import TissueLevels, find_levels, mean_levels

T1, T2 = (150, 500, 700), (1000, 550, 350)  # fluid, grey, white
SPACING = (4.0, 4.0, 4.0)


def levels_of(values: np.ndarray, labels: np.ndarray | None = None) -> TissueLevels | None:
    return find_levels(values, (tissues() if labels is None else labels) > 0, SPACING)


@every_row("levels, bright", [(T1, False), (T2, True)])
def test_levels_of_three_tissues_are_found_in_noise(levels, bright):
    found = levels_of(brain(*levels, noise=20).data[0])
    assert astuple(found)[:3] == pytest.approx(levels, abs=5)
    assert found.fluid_is_bright == bright
    exact = levels_of(brain(*levels, noise=0).data[0])
    assert astuple(exact) == (*levels, max(levels), max(levels))


def test_levels_depend_neither_on_the_orientation_nor_on_the_gain():
    values, labels = brain(*T2).data[0], tissues()
    found = levels_of(values)
    turned = [np.flip(array, axis=(0, 2)).transpose(0, 2, 1) for array in (values, labels)]
    assert levels_of(*turned) == found
    assert astuple(levels_of(4 * values)) == pytest.approx(4 * np.array(astuple(found)), rel=1e-5)


@every_row("ventricle, least, most", [(0.0, 0.17, 0.18), (0.55, 0.32, 0.35)])
def test_little_and_much_fluid_have_the_levels_of_their_tissues(ventricle, least, most):
    labels = tissues(ventricle)
    assert least < (labels == 1).sum() / (labels > 0).sum() < most
    found = levels_of(brain(*T2, ventricle=ventricle).data[0], labels)
    assert astuple(found)[:3] == pytest.approx(T2, abs=20)


def test_images_without_three_levels_have_none():
    labels = tissues()
    inside = labels > 0
    noise = np.random.default_rng(0).normal(0, 1, labels.shape).astype(np.float32)
    for values in (inside * 5.0, (labels == 3) * 1.0, inside * noise, 0.0 * labels):
        assert find_levels(values.astype(np.float32), inside, SPACING) is None
    assert find_levels(brain(*T2).data[0], np.zeros(labels.shape, bool), SPACING) is None
    slab = np.zeros(labels.shape, bool)
    slab[18, 20:22, 10:30] = True  # too small to be deep
    assert find_levels(brain(*T2).data[0], slab, SPACING) is None


def test_the_map_moves_levels_to_their_goals_and_grows_everywhere():
    found = TissueLevels(fluid=1000, middle=500, far=300, bright=1100, top=1200)
    goal = TissueLevels(fluid=90, middle=60, far=50, bright=93, top=120)
    curve = found.curve_to(goal)
    values = np.array([0, 150, 300, 400, 500, 1000, 1100, 1200, 1400, -30])
    assert_allclose(curve.map(values), [0, 25, 50, 55, 60, 90, 93, 120, 140, -5], atol=1e-9)
    many = np.linspace(-500, 5000, 2001)
    assert (np.diff(curve.map(many)) > 0).all()
    assert_allclose(goal.curve_to(found).map(curve.map(many)), many, atol=1e-6)


def test_levels_that_coincide_are_one_knot():
    found = TissueLevels(fluid=-1, middle=50, far=60, bright=60, top=60)
    goal = TissueLevels(fluid=5, middle=25, far=30, bright=35, top=40)
    assert_allclose(found.curve_to(goal).map(np.array([25.0, 50, 60])), [12.5, 25, 30])


def test_a_spread_grows_by_the_slope_at_its_value():
    curve = Curve((0, 10, 20), (0, 5, 35))
    assert_allclose(curve.map(np.array([-2.0, 4, 10, 15, 30])), [-1, 2, 5, 20, 65])
    sd = curve.map_sd(np.full(5, 2.0, np.float32), np.array([-2.0, 4, 10, 15, 30]))
    assert_allclose(sd, [1, 1, 1, 6, 6])


def test_the_mean_of_levels_weights_each_scan_alike_whatever_its_gain():
    one = TissueLevels(fluid=900, middle=500, far=400, bright=950, top=1000)
    two = TissueLevels(fluid=1100, middle=400, far=300, bright=1250, top=1300)
    plain = mean_levels([one, two])
    assert astuple(plain) == pytest.approx((1000, 450, 350, 1100, 1150))
    louder = replace(two, **{name: 10 * value for name, value in vars(two).items()})
    mean = mean_levels([one, louder])
    assert np.array(astuple(mean)) / mean.middle == pytest.approx(np.array(astuple(plain)) / 450)
    assert mean_levels([one]) == one


def test_levels_in_no_order_are_refused():
    with refuses():
        TissueLevels(fluid=100, middle=700, far=600, bright=750, top=800)
