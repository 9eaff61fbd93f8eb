"""Scalps that are drawn when an item is read, along a line from the air through the skull."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.testing import assert_allclose, assert_array_equal

from voxlate.anatomy import scalp
from voxlate.anatomy.contrast import Protocol, magnitude
from voxlate.anatomy.signal import MAPS
from voxlate.anatomy.tissue import Label

AIR, SKULL = 40, 58  # where skin and skull begin on the line, in half millimetres
ENDS = {Label.SKIN: 44, Label.FAT: 56, Label.MUSCLE: SKULL, Label.BONE: 62, Label.GREY: 100}
T1_WEIGHTED = Protocol("mprage", 2200, 3, 900, 9)
# Of a whole head at 1 mm, medians over twenty places of the vault, relative to white matter: skin, the darkest millimetre
# below it, fat, and the darkest millimetre below that.
MEASURED = (1.0, 0.66, 0.93, 0.13)


@pytest.fixture(scope="module")
def line():
    place = np.arange(100, dtype=np.float32)[None, None]
    labels = np.select([place < AIR, *(place < end for end in ENDS.values())], [0, *ENDS])
    return labels.astype(np.uint8), (place - AIR + 0.5) / 2, np.maximum(SKULL - place, 0) / 2


def _signal(line, drawn) -> np.ndarray:
    """The signal of a scalp on grey matter, and none in the skull; relative to grey matter."""
    labels, depth, vault = line
    grey = {"pd_map": 0.8, "t1_map": 1331, "t2_map": 110, "t2star_map": 47}
    maps = {name: np.float32(grey.get(name, 0)) * (labels == Label.GREY) for name in MAPS}
    signal = magnitude(T1_WEIGHTED, scalp.layers(drawn, labels, depth, vault).maps(maps))[0, 0]
    return signal / signal[-1]


def test_drawn_scalps_have_the_bright_and_dark_layers_of_a_real_head(line):
    layers = []
    for seed in range(20):
        own = replace(scalp.draw(default_rng(seed)), grown_mm=0.0)
        signal = _signal(line, own)
        septum = round(AIR + 2 * own.skin_mm)
        fat = round(septum + 2 * own.septum_mm)
        above = signal[septum - 1 : fat + 2].min()
        layers.append((signal[:septum].max(), above, signal[fat:54].max(), signal[54:60].min()))
    found = np.argsort(np.median(layers, axis=0))
    assert found[:2].tolist() == np.argsort(MEASURED)[:2].tolist()
    assert np.ptp([fat for *_, fat, _ in layers]) > 0.3  # of any brightness


def test_a_grown_scalp_moves_the_surface_of_mr_and_ct_by_the_same_millimetres(line):
    grown = replace(scalp.draw(default_rng(1)), grown_mm=4.0)
    ct = np.where(line[0] == Label.AIR, -1000.0, 1300.0).astype(np.float32)
    hounsfield = scalp.layers(grown, *line).hounsfield(ct)[0, 0]
    assert np.flatnonzero(hounsfield > -500)[0] == AIR - 8
    assert np.flatnonzero(_signal(line, grown) > 0)[0] in (AIR - 8, AIR - 9)
    assert_array_equal(hounsfield[SKULL:], ct[0, 0, SKULL:])


def test_distances_are_those_of_the_surfaces_of_skin_and_skull():
    radius = np.linalg.norm(np.mgrid[-30:31, -30:31, -30:31], axis=0)
    tissues = (Label.GREY, Label.BONE, Label.FAT)
    labels = np.select([radius < end for end in (15, 20, 25)], tissues).astype(np.uint8)
    skin, vault = (own(labels, (1, 1, 1))[30, 30] for own in (scalp.skin_map, scalp.vault_map))
    along = radius[30, 30]
    assert_allclose(skin[48:], 25 - along[48:], atol=0.8)
    assert_allclose(vault[52:], along[52:] - 20, atol=0.8)
    assert vault[40] == 0
