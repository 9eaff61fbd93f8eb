"""Scalps that are drawn when an item is read, along a line from the air through the skull."""

from dataclasses import replace

import numpy as np
import pytest

from voxlate.anatomy import scalp
from voxlate.anatomy.contrast import Protocol, magnitude
from voxlate.anatomy.maps import MAPS
from voxlate.anatomy.tissue import Label

# Half millimetres of each tissue, from outside: the first 40 are air.
LINE = {
    Label.AIR: 40,
    Label.SKIN: 4,
    Label.FAT: 12,
    Label.MUSCLE: 2,
    Label.BONE: 4,
    Label.DIPLOE: 6,
    Label.GREY: 80,
}
T1_WEIGHTED = Protocol("mprage", 2200, 3, 900, 9)
# Of a whole head at 1 mm, medians over twenty places of the vault, relative to white matter: skin, the darkest millimetre
# between skin and fat, fat, and the darkest millimetre between fat and diploe.
MEASURED = (1.0, 0.66, 0.93, 0.13)


@pytest.fixture(scope="module")
def line():
    labels = np.repeat(list(map(int, LINE)), list(LINE.values())).astype(np.uint8)[None, None]
    depth = (np.arange(labels.size, dtype=np.float32)[None, None] - 39.5) / 2
    vault = np.maximum(58 - np.arange(labels.size, dtype=np.float32), 0)[None, None] / 2
    return labels, depth, vault


def _signal(line, drawn) -> np.ndarray:
    labels, depth, vault = line
    maps = {name: np.zeros(labels.shape, np.float32) for name in MAPS}
    for label, pd, t1, t2 in ((Label.BONE, 0.05, 500, 1), (Label.DIPLOE, 0.45, 450, 30), (Label.GREY, 0.7, 832, 80)):  # fmt: skip
        for name, value in zip(("pd_map", "t1_map", "t2_map", "t2star_map"), (pd, t1, t2, t2)):
            maps[name][labels == label] = value
    drawn_maps = scalp.layers(drawn, labels, depth, vault).maps(maps)
    signal = magnitude(T1_WEIGHTED, drawn_maps)[0, 0]
    return signal / signal[-1]


def test_drawn_scalps_have_the_bright_and_dark_layers_of_a_real_head(line):
    drawn = [scalp.draw(np.random.default_rng(seed)) for seed in range(20)]
    layers = []
    for own in (replace(one, grown_mm=0.0) for one in drawn):
        signal = _signal(line, own)
        septum = 40 + 2 * own.skin_mm
        fat = septum + 2 * own.septum_mm
        ends = (40, septum, fat, 62)
        skin, bright = (signal[int(a) : int(b)].max() for a, b in ((ends[0], ends[1] + 1), (ends[2], 58)))  # fmt: skip
        between = signal[int(septum) - 1 : int(fat) + 2].min()
        layers.append((skin, between, bright, signal[54:62].min()))
    skin, between, bright, dark = np.median(layers, axis=0)
    order = np.argsort(np.argsort((skin, between, bright, dark)))
    assert order[3] == np.argsort(np.argsort(MEASURED))[3] == 0
    assert between < min(skin, bright)
    assert MEASURED[1] < min(MEASURED[0], MEASURED[2])
    assert np.ptp([bright for _, _, bright, _ in layers]) > 0.3  # fat has any brightness


def test_a_grown_scalp_moves_the_surface_of_mr_and_ct_by_the_same_millimetres(line):
    labels, depth, vault = line
    grown = replace(scalp.draw(np.random.default_rng(1)), grown_mm=4.0)
    layers = scalp.layers(grown, labels, depth, vault)
    ct = np.where(labels == Label.AIR, -1000.0, 1300.0).astype(np.float32)
    hounsfield = layers.hounsfield(ct)[0, 0]
    assert np.flatnonzero(hounsfield > -500)[0] == 40 - 8
    assert np.flatnonzero(_signal(line, grown) > 0)[0] in (40 - 8, 40 - 9)
    np.testing.assert_array_equal(hounsfield[58:], ct[0, 0, 58:])


def test_thick_muscle_keeps_its_place_below_the_layers(line):
    labels, depth, vault = line
    thick = np.where(labels == Label.FAT, np.uint8(Label.MUSCLE), labels)
    drawn = replace(scalp.draw(np.random.default_rng(2)), grown_mm=0.0, galea_mm=1.0)
    named = scalp.layers(drawn, thick, depth, vault).labels(thick)[0, 0]
    first = 40 + int(np.ceil(2 * (drawn.skin_mm + drawn.septum_mm))) + 1
    assert set(named[first:55]) == {Label.MUSCLE}
    assert named[57] == scalp.GALEA


def test_distances_are_those_of_the_surfaces_of_skin_and_skull():
    z, y, x = np.ogrid[-30:31, -30:31, -30:31]
    radius = np.sqrt(z**2 + y**2 + x**2)
    labels = np.select(
        [radius < 15, radius < 20, radius < 25], [Label.GREY, Label.BONE, Label.FAT], Label.AIR
    ).astype(np.uint8)
    at = (30, 30, slice(30, None))
    skin, vault = (own(labels, (1, 1, 1))[at] for own in (scalp.skin_map, scalp.vault_map))
    np.testing.assert_allclose(skin[18:30], 25 - np.arange(18, 30), atol=0.8)
    np.testing.assert_allclose(vault[22:30], np.arange(22, 30) - 20, atol=0.8)
    assert vault[10] == 0
