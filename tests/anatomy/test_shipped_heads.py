"""Phantoms of the label maps that come with the package."""

import hashlib
from functools import cache

import numpy as np
import pytest

from shipped_maps import halved
from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.shapes import Space
from voxlate.anatomy.signal import Head
from voxlate.anatomy.tissue import INTRACRANIAL, Label

SIZE = (72, 88, 60)
SMALL = (36, 44, 30)


@cache
def head(case: int, size: tuple[int, int, int] = SIZE) -> Head:
    return make_head(11, case, size)


def bits(of: Head) -> str:
    parts = (of.labels, of.second, of.share, of.texture)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_slices_do_not_depend_on_how_many_are_painted_at_a_time(monkeypatch):
    import voxlate.anatomy.mapped_head as module

    monkeypatch.setattr(module, "_SLAB_VOXELS", 7 * SMALL[0] * SMALL[1])
    again, whole = make_head(11, 0, SMALL), head(0, SMALL)
    assert bits(head(1, SMALL)) != bits(whole)
    # Vector instructions round the last elements of an array in another way, which may decide a tie of two tissues.
    assert (again.labels != whole.labels).sum() <= 2
    assert np.abs(again.share - whole.share).max() < 1e-4


def test_painting_each_organ_in_its_box_gives_what_painting_it_everywhere_gives(monkeypatch):
    boxed = [make_head(11, case, SMALL, kind) for case, kind in enumerate(("stroke", "tumour"))]
    everywhere = (slice(None),) * 3
    monkeypatch.setattr(Space, "boxes", lambda _, low, high: [everywhere] * len(low))
    for case, kind in enumerate(("stroke", "tumour")):
        whole = make_head(11, case, SMALL, kind)
        assert bits(whole) == bits(boxed[case])
        assert np.array_equal(whole.lesion_map, boxed[case].lesion_map)


def test_heads_have_the_tissues_of_a_face_and_a_neck():
    found = set()
    for case in range(4):
        found |= set(np.unique(head(case, SMALL).labels).tolist())
    wanted = (
        *(Label.SINUS, Label.MUCOSA, Label.EYE, Label.SKIN, Label.FAT, Label.DIPLOE),
        *(Label.CORD, Label.SPINAL_FLUID, Label.MARROW, Label.DURA, Label.ARTERY, Label.VEIN),
    )
    assert {label.name for label in wanted if label not in found} == set()


def test_the_middle_of_the_brain_is_near_the_middle_of_the_field_however_the_head_is_turned():
    for case in range(6):
        made = head(case, SMALL)
        inside = np.isin(made.labels, INTRACRANIAL)
        index = np.argwhere(inside).mean(0)[::-1]
        x, y, z = made.affine[:3, :3] @ index + made.affine[:3, 3]
        assert abs(x) < 15
        assert abs(y) < 30
        assert -30 < z < 50


def test_a_map_of_larger_voxels_keeps_the_volume_of_a_thin_shell():
    radius = np.linalg.norm(np.indices((64,) * 3) - 31.7, axis=0)
    codes = np.select([radius < 24, radius < 27, radius < 29], [Label.GREY, Label.BONE, Label.SKIN])
    small = halved(codes.astype(np.uint8))
    for label in (Label.GREY, Label.BONE, Label.SKIN):
        assert 8 * (small == label).sum() == pytest.approx((codes == label).sum(), rel=0.05)
