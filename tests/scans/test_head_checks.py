"""Scans that are not the kind of head that a network of synthetic heads was trained on: told on made bodies of known size."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from brains import brain as made_brain
from brains import tissues
from rows import every_row
from voxlate import phantom
from voxlate.checks.head_checks import black_pools_ml, body_numbers, check_head
from voxlate.checks.table import ask
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.frame import find_frame
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.statistics import distribution

SHAPE = (60, 80, 70)  # voxels of 3 mm
SPACING_MM = 3.0
NOISE = np.random.default_rng(0).uniform(0, 1000, (15, 16, 14))


def _scan(values: np.ndarray) -> Volume:
    values = values * np.random.default_rng(1).uniform(0.99, 1, values.shape)
    return Volume(values[None].astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), "a.u.", "t1")


def _ellipsoid(centre: tuple[float, ...], radii_mm: tuple[float, ...]) -> np.ndarray:
    places = np.indices(SHAPE) * SPACING_MM
    return sum(((p - c) / r) ** 2 for p, c, r in zip(places, centre, radii_mm)) < 1


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """A dome 210 mm deep and 160 mm wide with a skull, on a neck that the field of view cuts, with air in its front half."""
    crown = _ellipsoid((80, 120, 105), (90, 105, 80))
    neck = _ellipsoid((80, 120, 105), (1e6, 85, 70))
    neck[27:] = False
    values = 500.0 * (crown | neck)
    skull = _ellipsoid((80, 120, 105), (82, 97, 72)) & ~_ellipsoid((80, 120, 105), (74, 89, 64))
    values[skull] = 100
    values[_ellipsoid((20, 160, 105), (50, 20, 20))] = 0
    values[_ellipsoid((70, 160, 105), (30, 20, 20))] = 0
    return values


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """A body 160 mm deep and 130 mm wide in a constant background."""
    return 500.0 * _ellipsoid((90, 120, 105), (65, 80, 65))


def grades(
    values: np.ndarray, trained: str = "head", slice_mm: float = SPACING_MM
) -> dict[str, str]:
    """The grade of each code that is said of a scan."""
    scan = replace(_scan(values), affine=np.diag([3.0, 3.0, slice_mm, 1.0]))
    messages = check_head(scan, trained, distribution(scan.data[0]))
    return {said.code: said.grade for said in messages if said.grade != "note"}


def test_whole_heads_and_brains_of_the_trainings_kind_are_not_warned_about(head, brain):
    assert grades(head) == grades(head[30:31]) == grades(brain, "brain") == {}


def test_a_brain_without_skull_is_no_head_and_a_head_is_no_brain(head, brain):
    assert grades(brain) == {"brain-alone": "do not trust"}
    assert grades(head, "brain") == {"whole-head": "do not trust"}
    assert len(grades(head[30:31], "brain")) == 1


@pytest.fixture(scope="module", params=["head", "brain"])
def drawn(request, tmp_path_factory) -> tuple[np.ndarray, str]:
    """The T1 of a phantom head in voxels of some 3 mm, or of its brain alone."""
    out = tmp_path_factory.mktemp("drawn")
    stripped = request.param == "brain"
    made = {"modalities": ["t1"], "lesion": "none", "stripped": stripped}
    (case,) = phantom(out, cases=1, size=(64, 80, 72), **made)
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
    scan, kind = drawn
    if (kind, code) == ("brain", "front-to-back"):
        return  # the phantom's brain is almost the same in front and back
    said = grades(turn(scan), kind)
    assert (code in said) if code else said == {}


def _hot(head: np.ndarray) -> np.ndarray:
    changed = head.copy()
    changed[30, 40, 30] *= 1000
    return changed


CHANGES = {
    "one voxel": (_hot, "quality"),
    "two that touch": (lambda head: np.concatenate([head[:50], head[:50]]), "two-heads"),
    "inverted in its air": (lambda head: np.where(head > 0, 510 - head, 0), "no-holes"),
}


@every_row("name", CHANGES)
def test_a_head_whose_values_are_wrong_in_one_part_is_told(head, name):
    change, code = CHANGES[name]
    grade = "caution" if code == "quality" else "do not trust"
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
    narrow = replace(_scan(head), affine=np.diag([2.25, 3.0, 3.0, 1.0]))
    large = replace(narrow, affine=np.diag([3.6, 3.6, 3.6, 1.0]))
    for scan, code in ((ball, "quality"), (narrow, "wide-head"), (large, "body-size")):
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


@every_row(("slice_mm", "grade"), [(0.6, "do not trust"), (1.35, "caution"), (4.8, "caution")])
def test_a_head_whose_slices_are_too_close_or_too_far_apart_is_told(head, slice_mm, grade):
    assert grades(head, slice_mm=slice_mm)["flattened"] == grade


@pytest.mark.slow
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


def test_bright_bone_in_one_slice_is_a_caution_because_some_slices_show_no_skull(head):
    bright = np.where(head == 100, 1000, head)
    assert grades(bright)["no-holes"] == "do not trust"
    assert grades(bright[40:41])["no-holes"] == "caution"


@every_row(("slice_mm", "codes"), [(3.0, []), (1.0, ["flattened"])])
def test_a_head_of_a_cohort_whose_slices_are_too_close_is_told(head, slice_mm, codes):
    scan = replace(_scan(head), affine=np.diag([3.0, 3.0, slice_mm, 1.0]))
    assert [said.code for said in ask("body_in_case", body_numbers(scan, None))] == codes


def test_the_skull_is_not_compared_with_an_empty_inside(head):
    empty = np.where(_ellipsoid((80, 120, 105), (74, 89, 64)), 0, head)
    assert "no-holes" not in grades(np.where(head == 100, 1000, empty))


def test_a_brain_whose_fluid_is_not_as_its_name_states_is_told():
    def said(name, *levels):
        messages = check_head(made_brain(*levels, name=name), "brain")
        return [one.grade for one in messages if one.code == "contrast-of-name"]

    dark, bright = (100, 300, 450), (1200, 600, 400)
    assert said("t1", *dark) == said("t2", *bright) == said("pd", *bright) == []
    assert said("t1", *bright) == said("flair", *bright) == said("t2", *dark) == ["do not trust"]


@every_row("ct_offset", [None, 0, 20])
def test_the_contrast_of_a_brain_or_beside_a_ct_is_known_whatever_the_other_cases_show(ct_offset):
    labels = tissues(0.4)
    hu = np.array([-1000, 8, 37, 37])[labels] + np.random.default_rng(0).normal(0, 6, labels.shape)

    def said(name, *levels):
        scan = made_brain(*levels, name=name, ventricle=0.4)
        ct = None
        if ct_offset is not None:
            ct = replace(scan, data=np.float32(hu[None] + ct_offset), unit="HU", modality="ct")
        return [one.code for one in ask("body_in_case", body_numbers(scan, ct), name)]

    dark, bright = (100, 300, 450), (1200, 600, 400)
    assert said("t1", *dark) == said("t2", *bright) == said("pd", *bright) == []
    assert said("t1", *bright) == said("t2", *dark) == ["contrast-of-name"]


def test_the_contrast_of_a_torso_is_not_that_of_a_head():
    said = [
        ask("body_in_case", {"fluid": 1.4, "by_name": 0.0, "across_mm": mm}) for mm in (190, 345)
    ]
    assert [len(of_body) for of_body in said] == [1, 0]


def test_fluid_as_dark_as_air_is_measured_away_from_the_rim(brain):
    scale = Scale(0.0, 1000.0)
    assert black_pools_ml([_scan(brain)], [scale]) == 0
    ventricle = np.s_[28:32, 38:46, 30:34]  # 4 x 8 x 4 voxels of 0.027 ml
    dark = brain.copy()
    dark[ventricle] = 15
    assert black_pools_ml([_scan(dark)], [scale]) == pytest.approx(128 * 0.027)
    dim = brain.copy()
    dim[ventricle] = 50
    assert black_pools_ml([_scan(dim)], [scale]) == 0
    at_rim = brain.copy()
    at_rim[28:32, 38:46, 14:17] = 0
    assert black_pools_ml([_scan(at_rim)], [scale]) == 0
    assert black_pools_ml([_scan(dark), _scan(brain)], [scale, scale]) == 0


def test_tissue_below_the_constant_air_is_refused(head):
    signs = np.where(np.indices(SHAPE)[2] % 2, 1, -1)
    assert grades(head * signs)["air-inside"] == "do not trust"
    assert "air-inside" not in {**grades(head), **grades(head - 700)}
