"""Table and head holder: where they are, and what MR shows of them."""

import numpy as np
import pytest
from scipy import ndimage

from voxlate.anatomy import furniture
from voxlate.anatomy.canvas import Canvas, blank
from voxlate.anatomy.contrast import Protocol, magnitude, maps_for
from voxlate.anatomy.furniture import Couch, Furniture, Holder
from voxlate.anatomy.maps import tissue_map
from voxlate.anatomy.shipped_heads import make_head
from voxlate.anatomy.tissue import FURNITURE, Label

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head():
    return make_head(5, 6, (50, 60, 24))


def _painted(drawn: Furniture) -> Canvas:
    axis = np.arange(-140.0, 140.0, 2.0, dtype=np.float32)
    z, y, x = np.meshgrid(np.zeros(1, np.float32), axis, axis, indexing="ij")
    canvas = blank(x.shape, 2.0)
    furniture.paint(canvas, drawn, (x, y, z))
    return canvas


def test_a_flat_board_is_a_slab_with_skins_around_foam():
    table = Couch(top_mm=-100, radius_mm=np.inf, half_width_mm=120, thick_mm=20, skin_mm=4)
    column = _painted(Furniture(None, table)).label[0, :, 70]
    height_mm = np.arange(-140, 140, 2)
    assert set(column[(height_mm > -116) & (height_mm < -104)]) == {Label.FOAM}
    assert set(column[(height_mm < -121) | (height_mm > -99)]) == {Label.AIR}
    assert {column[height_mm == -118][0], column[height_mm == -102][0]} == {Label.TABLE}


def test_a_couch_rises_to_the_sides_as_its_circle_does():
    table = Couch(top_mm=-110, radius_mm=200, half_width_mm=130, thick_mm=20, skin_mm=3)
    canvas = _painted(Furniture(None, table))
    top_mm = [-140 + 2 * np.flatnonzero(canvas.label[0, :, column])[-1] for column in (70, 120)]
    assert top_mm[0] == pytest.approx(-110, abs=2)
    assert top_mm[1] == pytest.approx(-110 + 200 - np.sqrt(200**2 - 100**2), abs=2)


def test_a_holder_surrounds_the_head_below_its_top_only():
    holder = Holder((0.0, -6.0), (100.0, 120.0), 0.0, -40.0, 4.0, 0.0)
    canvas = _painted(Furniture(holder, None))
    rows, columns = np.nonzero(canvas.label[0])
    x, y = -140 + 2 * columns, -140 + 2 * rows
    assert y.max() <= -38
    assert np.hypot(x / 102, (y + 6) / 122) == pytest.approx(1, abs=0.04)
    assert x.min() == -x.max()


def test_no_furniture_is_inside_the_body(head):
    there = np.isin(head.labels, FURNITURE)
    assert there.sum() > 500
    body = ~there & (head.labels != Label.AIR)
    parts, _ = ndimage.label(body)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    filled = np.stack([ndimage.binary_fill_holes(level) for level in largest])
    assert not (there & filled).any()


def test_mr_shows_nothing_of_the_furniture(head):
    pure = np.isin(head.labels, FURNITURE) & np.isin(head.second, (*FURNITURE, Label.AIR))
    assert pure.sum() > 500
    names = maps_for("gradient_echo", agent=False, fat_saturation=False)
    maps = {name: tissue_map(head, name) for name in names}
    echo = magnitude(Protocol("gradient_echo", 500, 10, 0, 30), maps)
    assert not echo[pure].any()
    susceptibility = tissue_map(head, "chi_map")
    air = (head.labels == Label.AIR) & (head.share == 1)
    assert np.unique(susceptibility[pure]) == pytest.approx(np.unique(susceptibility[air]))
