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


@every_row(
    "levels, noise, ventricle, error",
    [(T1, 20, 0.2, 5), (T2, 20, 0.2, 5), (T1, 0, 0.2, 0), (T2, 0, 0.2, 0)]
    + [(T2, 10, ventricle, 20) for ventricle in (0.0, 0.55)],  # 17 % and a third of it is fluid
)
def test_levels_of_three_tissues_are_found_in_noise_and_much_or_little_fluid(
    levels, noise, ventricle, error
):
    scan = brain(*levels, noise=noise, ventricle=ventricle)
    assert levels_of(scan.data[0], tissues(ventricle)) == pytest.approx(levels[:2], abs=error)


def test_levels_depend_neither_on_the_orientation_nor_on_the_gain():
    values, labels = brain(*T2).data[0], tissues()
    found = levels_of(values)
    turned = [np.flip(array, axis=(0, 2)).transpose(0, 2, 1) for array in (values, labels)]
    assert levels_of(*turned) == found
    assert levels_of(4 * values) == pytest.approx(4 * np.array(found), rel=1e-5)


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
