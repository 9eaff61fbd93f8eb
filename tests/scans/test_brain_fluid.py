"""Levels of fluid and of the tissue next to it, in brains that are made of known ones."""

import numpy as np
import pytest

from brains import brain, tissues
from rows import every_row
from voxlate.checks.brain_fluid import fluid_and_tissue

T1, T2 = (150, 500, 700), (1000, 550, 350)  # fluid, grey, white
SPACING = (4.0, 4.0, 4.0)


def levels_of(values: np.ndarray, labels: np.ndarray | None = None) -> tuple[float, float] | None:
    return fluid_and_tissue(values, (tissues() if labels is None else labels) > 0, SPACING)


@every_row("levels", [T1, T2])
def test_levels_of_three_tissues_are_found_in_noise(levels):
    assert levels_of(brain(*levels, noise=20).data[0]) == pytest.approx(levels[:2], abs=5)
    assert levels_of(brain(*levels, noise=0).data[0]) == levels[:2]


def test_levels_depend_neither_on_the_orientation_nor_on_the_gain():
    values, labels = brain(*T2).data[0], tissues()
    found = levels_of(values)
    turned = [np.flip(array, axis=(0, 2)).transpose(0, 2, 1) for array in (values, labels)]
    assert levels_of(*turned) == found
    assert levels_of(4 * values) == pytest.approx(4 * np.array(found), rel=1e-5)


@every_row("ventricle, least, most", [(0.0, 0.17, 0.18), (0.55, 0.32, 0.35)])
def test_little_and_much_fluid_have_the_levels_of_their_tissues(ventricle, least, most):
    labels = tissues(ventricle)
    assert least < (labels == 1).sum() / (labels > 0).sum() < most
    found = levels_of(brain(*T2, ventricle=ventricle).data[0], labels)
    assert found == pytest.approx(T2[:2], abs=20)


def test_images_without_three_levels_have_none():
    labels = tissues()
    inside = labels > 0
    noise = np.random.default_rng(0).normal(0, 1, labels.shape).astype(np.float32)
    for values in (inside * 5.0, (labels == 3) * 1.0, inside * noise, 0.0 * labels):
        assert fluid_and_tissue(values.astype(np.float32), inside, SPACING) is None
    assert fluid_and_tissue(brain(*T2).data[0], np.zeros(labels.shape, bool), SPACING) is None
    slab = np.zeros(labels.shape, bool)
    slab[18, 20:22, 10:30] = True  # too small to be deep
    assert fluid_and_tissue(brain(*T2).data[0], slab, SPACING) is None
