"""The skull and face."""

import hashlib
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from voxlate.anatomy.head import Head, make_head
from voxlate.anatomy.scanner import image
from voxlate.anatomy.shapes import Space
from voxlate.anatomy.tissue import Label

pytestmark = pytest.mark.slow

SIZE = (72, 88, 60)
SMALL = (36, 44, 30)


@cache
def head(case: int, size: tuple[int, int, int] = SIZE) -> Head:
    return make_head(11, case, size)


def bits(of: Head) -> str:
    parts = (of.labels, of.second, of.share, of.texture)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_the_same_seed_and_case_give_the_same_head():
    again = make_head(11, 0, SMALL)
    assert bits(again) == bits(head(0, SMALL))
    assert bits(head(1, SMALL)) != bits(head(0, SMALL))


def test_a_head_on_a_finer_grid_has_the_same_tissues():
    # The voxels of the coarse grid are centred between eight of the fine one.
    eighth = head(0).labels[::2, ::2, ::2]
    assert np.mean(eighth == head(0, SMALL).labels) > 0.82


def test_slices_do_not_depend_on_how_many_are_painted_at_a_time(monkeypatch):
    import voxlate.anatomy.head as module

    monkeypatch.setattr(module, "_SLAB_VOXELS", 7 * SMALL[0] * SMALL[1])
    again, whole = make_head(11, 0, SMALL), head(0, SMALL)
    # Vector instructions round the last elements of an array in another way, which may decide a tie of two tissues.
    assert (again.labels != whole.labels).sum() <= 2
    assert np.abs(again.share - whole.share).max() < 1e-4


def test_painting_each_organ_in_its_box_gives_what_painting_it_everywhere_gives(monkeypatch):
    boxed = [make_head(11, case, SMALL, kind) for case, kind in enumerate(("stroke", "tumour"))]
    monkeypatch.setattr(Space, "box", lambda points, *_: tuple(map(slice, points.x.shape)))
    for case, kind in enumerate(("stroke", "tumour")):
        whole = make_head(11, case, SMALL, kind)
        assert bits(whole) == bits(boxed[case])
        assert np.array_equal(whole.lesion_map, boxed[case].lesion_map)


def test_heads_have_the_tissues_of_a_face_and_a_neck():
    found = set()
    for case in range(4):
        found |= set(np.unique(head(case, SMALL).labels).tolist())
    wanted = (
        *(Label.SINUS, Label.MUCOSA, Label.LENS, Label.EYE, Label.GLAND, Label.TOOTH),
        *(Label.CARTILAGE, Label.CORD, Label.SPINAL_FLUID, Label.MARROW, Label.DISC),
    )
    assert {label.name for label in wanted if label not in found} == set()


def test_sinuses_lie_inside_the_head_and_not_inside_the_brain():
    made = head(0)
    body = made.labels != Label.AIR
    deep = ndimage.binary_erosion(body, iterations=1)
    sinus = made.labels == Label.SINUS
    # Nostrils, mouth and the canals of the ears open to the outside.
    assert np.mean(deep[sinus]) > 0.8
    brain = ndimage.binary_erosion(np.isin(made.labels, (Label.WHITE, Label.GREY)))
    assert not (ndimage.binary_dilation(brain) & sinus).any()


def test_the_walls_of_the_sinuses_are_bone_in_ct():
    made = head(0)
    ct = image(made, "ct")
    sinus = ndimage.binary_opening(made.labels == Label.SINUS)
    shell = ndimage.binary_dilation(sinus, iterations=2) & ~ndimage.binary_dilation(sinus)
    assert ct[sinus].mean() < -600
    assert np.percentile(ct[shell], 80) > 200
