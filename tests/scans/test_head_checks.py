"""Scans that are not the kind of head that a network of synthetic heads was trained on: told on made bodies of known size."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brains import brain as made_brain
from brains import tissues
from rows import every_row, slow
from voxlate import phantom
from voxlate.checks.brain_fluid import fluid_and_tissue
from voxlate.checks.check_table import ask
from voxlate.checks.head_checks import black_pools_ml, body_numbers, check_head
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.frame import find_frame
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.volume_statistics import distribution

SHAPE = (60, 80, 70)  # voxels of 3 mm
SPACING_MM = 3.0
MIDDLE = (80, 120, 105)  # of the head, in mm
INSIDE = (74, 89, 64)  # radii of its skull's inner side, in mm
NOISE = np.random.default_rng(0).uniform(0, 1000, (15, 16, 14))


def _scan(values, x=SPACING_MM, y=SPACING_MM, z=SPACING_MM):
    """A scan whose voxels have these sizes in mm."""
    values = values * np.random.default_rng(1).uniform(0.99, 1, values.shape)
    return Volume(values[None].astype(np.float32), np.diag([x, y, z, 1.0]), "a.u.", "t1")


def _ellipsoid(centre, radii_mm):
    places = np.indices(SHAPE) * SPACING_MM
    return sum(((p - c) / r) ** 2 for p, c, r in zip(places, centre, radii_mm)) < 1


@pytest.fixture(scope="module")
def head():
    """A dome 210 mm deep and 160 mm wide with a skull, on a neck that the field of view cuts, with air in its front half."""
    neck = _ellipsoid(MIDDLE, (1e6, 85, 70))
    neck[27:] = False
    values = 500.0 * (_ellipsoid(MIDDLE, (90, 105, 80)) | neck)
    values[_ellipsoid(MIDDLE, (82, 97, 72)) & ~_ellipsoid(MIDDLE, INSIDE)] = 100
    values[_ellipsoid((20, 160, 105), (50, 20, 20))] = 0
    values[_ellipsoid((70, 160, 105), (30, 20, 20))] = 0
    return values


@pytest.fixture(scope="module")
def brain():
    """A body 160 mm deep and 130 mm wide in a constant background."""
    return 500.0 * _ellipsoid((90, 120, 105), (65, 80, 65))


def grades(values, trained="head", **mm):
    """The grade of each code that is said of a scan."""
    scan = _scan(values, **mm)
    messages = check_head(scan, trained, distribution(scan.data[0]))
    return {said.code: said.grade for said in messages if said.grade != "note"}


def test_heads_and_brains_are_warned_about_where_the_training_was_of_the_other_kind(head, brain):
    assert grades(head) == grades(head[30:31]) == grades(brain, "brain") == {}
    assert grades(brain) == {"brain-alone": "do not trust"}
    assert grades(head, "brain") == {"whole-head": "do not trust"}
    assert len(grades(head[30:31], "brain")) == 1


@pytest.fixture(scope="module", params=["head", "brain"])
def drawn(request, tmp_path_factory):
    """The T1 of a phantom head in voxels of some 3 mm, or of its brain alone."""
    made = {"modalities": ["t1"], "lesion": "none", "stripped": request.param == "brain"}
    (case,) = phantom(tmp_path_factory.mktemp("drawn"), cases=1, size=(64, 80, 72), seed=7, **made)
    return canonical_view(read_volume(case / "t1.nii.gz")).data[0], request.param


@every_row(
    ("turn", "code"),
    [
        (lambda head: head, None),
        (lambda head: head[:, ::-1], "front-to-back"),
        (lambda head: head[::-1], "upside-down"),
        (lambda head: head[::-1, ::-1], "upside-down"),
        (lambda head: np.rot90(head, 1, (1, 2)), "axes-exchanged"),
        (lambda head: head.transpose(1, 0, 2), "axes-exchanged"),
        (lambda head: head.transpose(2, 1, 0), "axes-exchanged"),
    ],
)
def test_a_head_or_brain_that_lies_in_another_way_is_told(drawn, turn, code):
    """A brain that is upside down may be taken for one of exchanged axes."""
    scan, kind = drawn
    if (kind, code) == ("brain", "front-to-back"):
        return  # the phantom's brain is almost the same in front and back
    said = grades(turn(scan), kind)
    if code is None:
        assert said == {}
    elif kind == "brain":
        assert {"upside-down", "axes-exchanged"} & said.keys()
    else:
        assert code in said


def _hot(head):
    changed = head.copy()
    changed[30, 40, 30] *= 1000
    return changed


@every_row(
    "change, code, grade",
    [
        (_hot, "quality", "caution"),
        (lambda head: np.concatenate([head[:50], head[:50]]), "two-heads", "do not trust"),
        (lambda head: np.where(head > 0, 510 - head, 0), "no-holes", "do not trust"),
        (
            lambda head: head * np.where(np.indices(SHAPE)[2] % 2, 1, -1),
            "air-inside",
            "do not trust",
        ),
        (lambda head: head - 700, "air-inside", None),
        (lambda head: np.where(head == 100, 1000, head), "no-holes", "do not trust"),
        # some slices show no skull
        (lambda head: np.where(head == 100, 1000, head)[40:41], "no-holes", "caution"),
        # the skull is not compared with an empty inside
        (
            lambda head: np.where(head == 100, 1000, np.where(_ellipsoid(MIDDLE, INSIDE), 0, head)),
            "no-holes",
            None,
        ),
    ],
)
def test_a_head_whose_values_are_wrong_in_one_part_is_told(head, change, code, grade):
    assert grades(change(head)).get(code) == grade


def test_a_head_beside_another_is_outside_of_its_frame(head):
    for axis in (0, 2):
        two = _scan(np.concatenate([head, 0 * head, head], axis))
        assert find_frame([two], 8.0).beside(two) > 0.9
    alone = _scan(head)
    assert find_frame([alone], 8.0).beside(alone) == 0


def test_a_saturated_ball_and_a_head_of_wrong_columns_or_voxels_are_told(head):
    ball = _scan(head)
    ball.data[0][_ellipsoid((90, 120, 105), (20, 20, 20))] = 600
    for scan, code in (
        (ball, "quality"),
        (_scan(head, x=2.25), "wide-head"),
        (_scan(head, 3.6, 3.6, 3.6), "body-size"),
    ):
        assert code in {said.code for said in check_head(scan, "head")}


def test_a_head_without_crown_is_a_caution_and_does_not_show_its_orientation(head):
    for slab in (head[20:41], head[20:41][::-1]):
        assert grades(slab) == {"crown-missing": "caution"}
    assert grades(head[26:39]) == {"slab": "caution"}  # a few slices
    top = int(np.flatnonzero(head.any(axis=(1, 2)))[-1])
    assert "crown-missing" not in grades(head[: top + 1])
    assert grades(head[: top - 5])["crown-missing"] == "caution"  # without 18 mm


def test_a_head_at_the_border_of_its_slices_is_a_caution(head):
    # the neck is 140 mm wide, the head 160 mm: 25 mm of air become none
    assert grades(head[:, :, 10:]) == {"border": "caution"}


@every_row("slice_mm, grade", [(0.6, "do not trust"), (1.35, "caution"), (4.8, "caution")])
def test_a_head_whose_slices_are_too_close_or_too_far_apart_is_told(head, slice_mm, grade):
    assert grades(head, z=slice_mm)["flattened"] == grade


@slow
@every_row(
    ("change", "code"),
    [
        (lambda head: head * (np.arange(head.shape[1]) > 40)[:, None], "wide-head"),
        (lambda head: ndimage.rotate(head, 40, (1, 2), reshape=False, order=0), "turned-head"),
        (lambda head: np.where(head, ndimage.zoom(NOISE, (4, 5, 5), order=0), 0), "no-mirror"),
        (lambda head: 500.0 * np.maximum.accumulate(head[::-1] > 0)[::-1], "no-holes"),
        (lambda head: head * (np.arange(len(head)) > 28)[:, None, None], "slab"),
    ],
)
def test_what_is_no_whole_upright_head_with_two_like_sides_and_dark_bone_is_said(
    head, change, code
):
    assert code in grades(change(head))


DARK, BRIGHT = (100, 300, 450), (1200, 600, 400)  # of fluid, grey and white matter


@every_row(
    "name, levels, grades",
    [
        *((name, levels, []) for name, levels in (("t1", DARK), ("t2", BRIGHT), ("pd", BRIGHT))),
        *((name, BRIGHT, ["do not trust"]) for name in ("t1", "flair")),
        ("t2", DARK, ["do not trust"]),
    ],
)
def test_a_brain_whose_fluid_is_not_as_its_name_states_is_told_alone_and_beside_a_ct(
    name, levels, grades
):
    labels = tissues(0.4)
    hu = np.array([-1000, 8, 37, 37])[labels] + np.random.default_rng(0).normal(0, 6, labels.shape)
    scan = made_brain(*levels, name=name, ventricle=0.4)
    cts = [replace(scan, data=np.float32(hu[None] + by), unit="HU") for by in (0, 20)]
    of_cases = [ask("body_in_case", body_numbers(scan, ct), name) for ct in (None, *cts)]
    for said in (check_head(scan, "brain"), *of_cases):
        assert [one.grade for one in said if one.code == "contrast-of-name"] == grades


@every_row("across_mm, count", [(190, 1), (345, 0)])
def test_the_contrast_of_a_torso_is_not_that_of_a_head(across_mm, count):
    numbers = {"fluid": 1.4, "by_name": 0.0, "across_mm": across_mm}
    assert len(ask("body_in_case", numbers)) == count


def test_fluid_as_dark_as_air_is_measured_away_from_the_rim(brain):
    def pools_ml(*brains):
        return black_pools_ml([*map(_scan, brains)], [Scale(0.0, 1000.0)] * len(brains))

    def with_fluid(value, columns=slice(30, 34)):
        changed = brain.copy()
        changed[28:32, 38:46, columns] = value  # 4 x 8 x 4 voxels of 0.027 ml
        return changed

    assert pools_ml(with_fluid(15)) == pytest.approx(128 * 0.027)
    assert pools_ml(brain) == pools_ml(with_fluid(50)) == 0
    assert pools_ml(with_fluid(0, slice(14, 17))) == 0  # at the rim
    assert pools_ml(with_fluid(15), brain) == 0


T1, T2 = (150, 500, 700), (1000, 550, 350)  # fluid, grey, white
SPACING_OF_TISSUES = (4.0, 4.0, 4.0)


def levels_of(values: np.ndarray, labels: np.ndarray | None = None) -> tuple[float, float] | None:
    return fluid_and_tissue(
        values, (tissues() if labels is None else labels) > 0, SPACING_OF_TISSUES
    )


@every_row(
    "levels, noise, ventricle, error",
    [(T1, 20, 0.2, 5), (T2, 20, 0.2, 5), (T1, 0, 0.2, 0), (T2, 0, 0.2, 0)]
    + [(T2, 10, ventricle, 20) for ventricle in (0.0, 0.55)],  # 17 % and a third of it is fluid
)
def test_levels_of_three_tissues_are_found_in_noise_and_much_or_little_fluid(
    levels, noise, ventricle, error
):
    scan = made_brain(*levels, noise=noise, ventricle=ventricle)
    assert levels_of(scan.data[0], tissues(ventricle)) == pytest.approx(levels[:2], abs=error)


def test_levels_depend_neither_on_the_orientation_nor_on_the_gain():
    values, labels = made_brain(*T2).data[0], tissues()
    found = levels_of(values)
    turned = [np.flip(array, axis=(0, 2)).transpose(0, 2, 1) for array in (values, labels)]
    assert levels_of(*turned) == found
    assert levels_of(4 * values) == pytest.approx(4 * np.array(found), rel=1e-5)


def test_images_without_three_levels_have_none():
    labels = tissues()
    inside = labels > 0
    noise = np.random.default_rng(0).normal(0, 1, labels.shape).astype(np.float32)
    for values in (inside * 5.0, (labels == 3) * 1.0, inside * noise, 0.0 * labels):
        assert fluid_and_tissue(values.astype(np.float32), inside, SPACING_OF_TISSUES) is None
    assert (
        fluid_and_tissue(made_brain(*T2).data[0], np.zeros(labels.shape, bool), SPACING_OF_TISSUES)
        is None
    )
    slab = np.zeros(labels.shape, bool)
    slab[18, 20:22, 10:30] = True  # too small to be deep
    assert fluid_and_tissue(made_brain(*T2).data[0], slab, SPACING_OF_TISSUES) is None
