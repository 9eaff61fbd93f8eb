"""Scans that are turned, cut off or of another modality are told from those of the training, without a calibration."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from voxlate.base.messages import Message
from voxlate.checks.usual_anatomy import (
    FLIPS,
    LEFT_RIGHT,
    Anatomy,
    BodyDistribution,
    anatomy_of,
    body_of,
    check_body,
    check_extent,
    read_anatomy,
)
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import prepare_case
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Percentile

MODALITIES = ("t1", "t2")
MAP = Percentile(low=0, high=99.5, floor=0.0)


def head(seed: int, *, one_sided: bool = False) -> Volume:
    """A head of 128 x 160 x 120 mm: narrow below, a nose in front, bright above, and dark on one side or on both."""
    draw = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in (30, 40, 32)), indexing="ij")
    wide, deep = draw.normal(0.7, 0.02), draw.normal(0.75, 0.02)
    skull = (x / (wide * (1 + 0.25 * z))) ** 2 + (y / deep) ** 2 + (z / 0.85) ** 2 < 1
    nose = (np.abs(x) < 0.15) & (y > 0) & (y < 0.95) & (np.abs(z + 0.3) < 0.15)
    centres, size = ((0.3,), 0.16) if one_sided else ((0.3, -0.3), 0.05)
    dark = np.any([(x - c) ** 2 + (y + 0.2) ** 2 + (z - 0.2) ** 2 < size for c in centres], axis=0)
    values = (skull | nose) * (600 + 300 * z + draw.normal(0, 20, z.shape)) - 300 * (dark & skull)
    data = np.maximum(values, 0).astype(np.float32)
    return Volume(data[None], np.diag([4.0, 4.0, 4.0, 1.0]), "a.u.", "t1", f"{seed}.nii.gz")


HEAD = head(100)


def found(anatomy: Anatomy, scan: Volume) -> list[Message]:
    case = prepare_case("case", {"t1": scan}, Preparation(fixed="t1"), masked=False)
    return check_body(anatomy, "t1", body_of(case.header, case.volume("t1"), MAP))


def graded(anatomy: Anatomy, scan: Volume) -> list[tuple[str, str]]:
    return [(said.code, said.grade) for said in found(anatomy, scan)]


def anatomy_in(folder: Path, count: int, arrays: Callable[[int], dict[str, np.ndarray]]) -> Anatomy:
    """The anatomy of so many heads, of whose T1 and T2 `arrays` gives the values [1, D, H, W]."""
    for number in range(count):
        for name, data in arrays(number).items():
            path = folder / f"scans/head{number:02d}/{name}.nii.gz"
            write_volume(path, replace(head(number), data=data.astype(np.float32)))
    cohort = prepare(folder / "scans", folder / "prepared", workers=0, audit=False)
    names = [entry.case for entry in cohort.cases]
    return anatomy_of(cohort, names, {"t1": MAP}, {"t2": MAP})


@pytest.fixture(scope="module")
def learn(tmp_path_factory):
    """What is usual in so many heads."""

    def from_heads(count, **kind):
        def arrays(number):
            t1 = head(number, **kind).data
            return {"t1": t1, "t2": np.where(t1 > 0, 1000 - t1, 0)}

        return anatomy_in(tmp_path_factory.mktemp("heads"), count, arrays)

    return from_heads


@pytest.fixture(scope="module")
def known(learn) -> Anatomy:
    return learn(5)


def of_data(data: np.ndarray) -> Volume:
    return replace(HEAD, data=data.astype(np.float32))


def flipped(scan: Volume, *axes: int) -> Volume:
    return of_data(np.flip(scan.data, axes))


@every_row(
    "axes, words",
    [((1,), "upside down"), ((2,), "front to back"), ((1, 2), "upside down and front to back")],
)
def test_a_head_that_is_upside_down_or_looks_back_is_not_to_be_trusted(known, axes, words):
    for seed in (100, 101):
        said, *_ = found(known, flipped(head(seed), *axes))
        assert (said.code, said.grade) == ("mirrored", "do not trust")
        assert f"{words}: " in said.text


@slow
def test_left_and_right_are_told_apart_where_anatomy_has_sides_and_nothing_is_said_where_it_has_none(
    known, learn
):
    sided = learn(5, one_sided=True)
    turn = FLIPS.index(LEFT_RIGHT)
    assert (sided.usual["t1"].shows_flip(turn), known.usual["t1"].shows_flip(turn)) == (True, False)
    assert "turned left to right" in found(sided, flipped(head(100, one_sided=True), 3))[0].text
    assert found(sided, head(100, one_sided=True)) == []
    assert found(known, flipped(HEAD, 3)) == found(known, HEAD) == []


def test_the_content_of_a_crop_inside_a_head_is_said_to_be_beyond_judgement(known):
    crop = of_data(HEAD.data[:, 11:19, 14:26, 11:21])
    assert graded(known, crop) == [("crop", "caution")]
    tiny = replace(crop, affine=np.diag([0.4, 0.4, 0.4, 1.0]))
    assert graded(known, tiny) == [("crop", "do not trust")]
    small_voxels = replace(HEAD, affine=np.diag([2.0, 2.0, 2.0, 1.0]))  # with air around the head
    assert "crop" not in dict(graded(known, small_voxels))


def test_a_head_whose_inside_is_inverted_shows_something_else(known):
    # so steep that no mirror image fits
    steep = np.where(HEAD.data > 0, (1 - HEAD.data / 1000) ** 4, 0)
    inverted = 1000 * steep / steep.max()
    said, *_ = found(known, of_data(inverted))
    assert (said.code, said.grade) == ("other-content", "do not trust")
    assert said.numbers["inside"] < 0 < said.numbers["usual_inside"]
    slab = of_data(inverted[:, 12:16])  # the inside of few slices varies
    assert "other-content" not in dict(graded(known, slab))


@every_row("axes, told", [((0, 1, 3, 2), "caution"), ((0, 3, 2, 1), "do not trust")])
def test_a_head_whose_axes_are_exchanged_is_told_so_and_nothing_else_is(known, axes, told):
    for seed in (100, 101):
        turned = of_data(head(seed).data.transpose(axes))
        assert graded(known, turned) == [("axes-exchanged", told)]


def test_a_body_with_voxels_of_another_size_is_refused_before_anything_is_computed(known):
    check_extent(known, HEAD, "case")
    larger = replace(HEAD, affine=np.diag([14.0, 14.0, 14.0, 1.0]))
    with refuses():
        check_extent(known, larger, "case")


@every_row("factor", [1000.0, 0.001])
def test_another_unit_is_a_note_for_a_scale_of_each_scans_own_takes_it_away(known, factor):
    assert graded(known, of_data(HEAD.data * factor)) == [("other-unit", "note")]


def test_two_patients_cannot_say_what_is_usual(learn):
    few = learn(2)
    assert few.usual == few.means == {}
    assert found(few, flipped(HEAD, 1)) == []
    assert few.backgrounds == {"t2": 0.0}


@every_row("margin, least, most", [(0, 0, 0), (6, 0.3, 1)])
def test_the_share_of_a_target_that_no_source_shows_is_of_a_head_to_a_stripped_brain(
    tmp_path, margin, least, most
):
    def arrays(number):
        t2 = head(number).data
        brain = binary_erosion(t2[0] > 0, iterations=margin) if margin else 1
        return {"t1": t2 * brain, "t2": t2}

    assert least <= anatomy_in(tmp_path, 2, arrays).beyond["t2"] <= most


def test_a_file_gives_back_what_was_saved_and_any_change_in_it_is_refused(known, tmp_path):
    path = tmp_path / "anatomy.safetensors"
    known.save(path)
    again = read_anatomy(path, MODALITIES)
    assert again.usual == known.usual
    assert again.backgrounds == known.backgrounds
    np.testing.assert_array_equal(again.means["t1"], known.means["t1"])
    with refuses():
        read_anatomy(path, {"t1", "ct"})
    assert path.stat().st_size < 20_000
    whole = path.read_bytes()
    for place in range(0, len(whole), 997):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with refuses():
            read_anatomy(path, MODALITIES)


@every_row(
    "change",
    [
        {"lean": (0.1,)},
        {"patients": "many"},
        {"size": (1.0, 2.0)},
        {"levels": (1.0, "x")},
        {"width": 0.0},
        {"deviation": (0.1, 0.0, 0.1)},
        {"levels": (2.0, 1.0)},
        {"far": 3.0},
        {"patients": True},
    ],
)
def test_numbers_that_cannot_be_are_refused_even_with_the_right_checksum(known, tmp_path, change):
    odd = replace(known, usual={"t1": BodyDistribution(**vars(known.usual["t1"]) | change)})
    odd.save(tmp_path / "anatomy.safetensors")
    with refuses():
        read_anatomy(tmp_path / "anatomy.safetensors", MODALITIES)
