"""A scan's numbers and picture, and its distance from usual scans, by which faults are named."""

from dataclasses import replace

import numpy as np
import pytest

from rows import every_row
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.checks.check_table import ask, exact_messages, kind_messages, mask_numbers
from voxlate.checks.fingerprint import Fingerprint, fingerprint
from voxlate.checks.reference import (
    MISSING,
    Reference,
    among,
    fit_reference,
    likeness,
)
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical

SIZE, CASES = (64, 72, 48), 13


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """T1 of heads by number."""
    folder = tmp_path_factory.mktemp("heads")
    made = write_cohort(folder, modalities=["t1"], cases=CASES, size=SIZE, lesion="none", seed=3)
    return [canonical(read_volume(path / "t1.nii.gz", "t1")) for path in made]


@pytest.fixture(scope="module")
def prints(scans):
    return [fingerprint(scan) for scan in scans]


@pytest.fixture(scope="module")
def usual(prints) -> Reference:
    return fit_reference(prints[1:], [f"p{n}" for n in range(1, CASES)])


def of_data(scan: Volume, data: np.ndarray) -> Volume:
    return replace(scan, data=np.ascontiguousarray(data[None], np.float32))


def graver_than_a_note(said):
    return {one.code for one in said if one.grade != "note"}


def test_scans_of_the_same_kind_pass_without_a_caution(prints):
    for number, scan in enumerate(prints):
        others = [one for k, one in enumerate(prints) if k != number]
        reference = fit_reference(others, [f"p{k}" for k in range(CASES - 1)])
        assert graver_than_a_note(reference.messages(scan, "the scan")) == set()


def noisy(v):
    draw = np.random.default_rng(1)
    return np.hypot(v + draw.normal(0, 250, v.shape), draw.normal(0, 250, v.shape))


def ramp(v):
    return v * np.exp(np.linspace(0, 2, v.shape[2]))


def hollow(v):
    z, y, x = np.indices(v.shape)
    middle = np.array(v.shape) // 2
    away = np.sqrt((z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2] - 6) ** 2)
    return np.where(away < 8, 0, v)


def brighter_half(v):
    return np.where(np.arange(len(v))[:, None, None] < len(v) // 2, v, 2 * v)


def without_slices(v):
    return np.delete(v, np.s_[len(v) // 2 : len(v) // 2 + 7], 0)


FAULTS = {
    "noise": (noisy, "noise"),
    "uneven": (ramp, "uneven"),
    "a hole": (hollow, "void"),
    "every second slice darker": (
        lambda v: v * np.where(np.arange(len(v)) % 2, 0.7, 1)[:, None, None],
        "slices",
    ),
    "a brighter half": (brighter_half, "slices"),
    "missing slices": (without_slices, "slices"),
    "an offset": (lambda v: v + 400, "other-background"),
    "one half empty": (
        lambda v: np.where(np.arange(v.shape[2]) < v.shape[2] // 2, v, 0),
        "body-size",
    ),
}


@every_row("name", FAULTS)
def test_a_fault_is_told_by_the_number_that_it_changes(scans, usual, name):
    change, code = FAULTS[name]
    said = usual.messages(fingerprint(of_data(scans[0], change(scans[0].data[0]))), "the scan")
    assert code in graver_than_a_note(said)


@every_row("axis, code", [(0, "upside-down"), (1, "front-to-back")])
def test_a_body_that_lies_turned_is_said_before_and_in_place_of_its_outline(
    scans, usual, axis, code
):
    said = usual.messages(
        fingerprint(of_data(scans[0], np.flip(scans[0].data[0], axis))), "the scan"
    )
    assert said[0].code == code
    assert {"shape", "body-size", "appearance"}.isdisjoint(one.code for one in said)


@every_row("factor", [0.7, 1.6])
def test_another_voxel_size_is_another_size_of_the_body(scans, usual, factor):
    scaled = replace(scans[0], affine=scans[0].affine @ np.diag([factor] * 3 + [1]))
    said = {one.code: one for one in usual.messages(fingerprint(scaled), "the scan")}["body-size"]
    assert said.grade != "note"
    assert (said.numbers["value"] > said.numbers["usual"]) == (factor > 1)


@pytest.mark.parametrize("narrower", [1.0, 0.75])
def test_the_width_of_the_skull_over_the_face_is_that_of_two_cylinders(narrower):
    z, y, x = np.indices((96, 100, 100)) * 2.0
    radius_mm = np.where(z > 90, 80.0, 80.0 * narrower)
    body = (np.hypot(y - 99, x - 99) < radius_mm) & (z > 4) & (z < 186)
    grains = np.random.default_rng(1).normal(1, 0.05, body.shape)
    scan = Volume((100 * body * grains)[None].astype(np.float32), np.eye(4) * 2, "a.u.", "t1")
    found = fingerprint(scan).numbers["skull_over_face"]
    assert found == pytest.approx(1 - narrower, abs=0.02)


def test_a_few_slices_are_not_judged_by_the_shape_of_whole_bodies(scans, usual):
    slab = of_data(scans[0], scans[0].data[0][20:25])
    said = usual.messages(fingerprint(slab), "the scan")
    assert [(one.code, one.grade) for one in said] == [("slab", "caution")]
    picture = fingerprint(replace(slab, origin="t1.png"))  # which states no depth
    assert usual.messages(picture, "the scan") == []
    larger = replace(slab, affine=slab.affine @ np.diag([2.6] * 3 + [1]))
    codes = {one.code for one in usual.messages(fingerprint(larger), "the scan")}
    assert "body-size" in codes, "a part may be narrower than a body, and not wider"


def test_air_around_a_scan_changes_neither_its_picture_nor_its_size(scans, prints):
    padded = of_data(scans[0], np.pad(scans[0].data[0], ((0, 0), (9, 5), (7, 3))))
    other = fingerprint(padded)
    assert other.numbers["across"] == pytest.approx(prints[0].numbers["across"], abs=0.02)
    assert likeness(prints[0].picture, other.picture) > 0.98


def test_a_fingerprint_survives_its_text(prints):
    scan = prints[0]
    assert np.array_equal(Fingerprint.from_text({}, scan.text).picture, scan.picture)


def test_one_odd_case_of_a_cohort_is_named_and_few_others_make_it_no_more_than_a_caution(
    scans, prints
):
    odd = fingerprint(of_data(scans[0], scans[0].data[0][::-1]))
    for count in (7, CASES):
        cases = {f"c{n}": scan for n, scan in enumerate([odd, *prints[1:count]])}
        said = among(cases, {name: name for name in cases}, "t1")
        assert {one.case for one in said if one.grade != "note"} == {"c0"}
        assert {one.grade for one in said} == {"caution"}
    assert (
        among({f"c{n}": scan for n, scan in enumerate(prints[:2])}, {"c0": "a", "c1": "b"}, "t1")
        == []
    )


def test_a_number_that_a_reference_lacks_is_not_judged(prints, usual):
    values = np.where(np.array(usual.names) == "noise", np.float32(MISSING), usual.values)
    blind = replace(usual, values=values)
    loud = Fingerprint({**prints[0].numbers, "noise": 9.0}, prints[0].picture)
    assert "noise" in {one.code for one in usual.messages(loud, "the scan")}
    assert "noise" not in {one.code for one in blind.messages(loud, "the scan")}


SMOOTH = np.add.outer(np.add.outer(np.arange(20.0) * 7, np.arange(30) ** 1.5), np.arange(30) * 9.0)
HEAD = np.zeros((20, 30, 30), np.float32)
HEAD[4:16, 5:25, 5:25] = 300 + SMOOTH[4:16, 5:25, 5:25]
HEAD[4:16, 5:25, 5:25] += np.random.default_rng(0).normal(0, 9, (12, 20, 20))


def alone(data):
    scan = Volume(data[None].astype(np.float32), np.diag([4.0, 4, 4, 1]), "a.u.", "mr")
    return exact_messages(fingerprint(scan), "a.u.", groups=("array", "scan"))


@every_row(
    ("data", "codes"),
    [
        (HEAD, set()),
        (np.float32(HEAD > 0), {"label-values"}),
        (900 - HEAD, {"other-content"}),
        (np.random.default_rng(0).normal(500, 50, HEAD.shape), {"other-content"}),
        ((HEAD + HEAD[:, :, ::-1]) / 2, {"no-mirror"}),
        (np.repeat(HEAD[::2], 2, 0), {"slices"}),
        (np.where(np.arange(20)[:, None, None] == 9, 0, HEAD), {"slices"}),
    ],
)
def test_what_is_exact_needs_no_other_scan(data, codes):
    assert {one.code for one in alone(data)} >= codes
    assert codes or not alone(data)


@every_row(
    ("kind", "across", "alone", "codes"),
    [
        ("head", 5.0, 1.0, {"brain-alone"}),
        ("brain", 5.25, 0.0, {"whole-head"}),
        ("head", 5.25, 0.0, set()),
        ("brain", 5.0, 1.0, set()),
    ],
)
def test_a_brain_is_no_head_and_a_head_is_no_brain(kind, across, alone, codes):
    numbers = {"across": across, "alone": alone, "lost_mm": 0.0, "height_mm": 150.0, "upper": 0.1}
    numbers |= {f"touch_{side}": 0.0 for side in ("left", "right", "back", "front")}
    scan = Fingerprint(numbers, Fingerprint.none().picture)
    assert {one.code for one in kind_messages(scan, kind, "t1")} == codes


BODY = np.zeros((24, 40, 40), bool)
BODY[2:22, 5:35, 8:32] = True
BODY[2:12, 5:35, 8:14] = BODY[2:12, 5:35, 26:32] = False  # a neck
FEW = np.where(np.arange(24)[:, None, None] // 4 == 3, BODY, False)


@every_row(
    ("mask", "codes"),
    [
        (BODY, []),
        (np.ones_like(BODY), []),
        (np.roll(BODY, 12, 1), ["misplaced-mask"]),
        (BODY[::-1], ["misplaced-mask"]),
        (FEW, ["part-mask"]),
        (~BODY, ["part-mask", "inverted-mask"]),
    ],
)
def test_a_mask_that_does_not_lie_on_the_body_is_named(mask, codes):
    given = Volume(mask[None].astype(np.float32), np.diag([4.0, 4, 4, 1]), "", "mask")
    assert [one.code for one in ask("mask", mask_numbers(given, mask, [BODY]))] == codes


def test_one_mask_that_lies_otherwise_than_those_of_other_patients_is_named():
    upper = np.array([0.3, 0.02, 0.9, 0.2])
    drawn = np.random.default_rng(0).normal(0, 0.005, (8, 4)) + upper
    drawn[0, 3] *= -1
    names = ("of_body", "in_air", "mask_slices", "mask_up")
    masks = {
        f"p{n}": replace(Fingerprint.none(), numbers=dict(zip(names, row)))
        for n, row in enumerate(drawn)
    }
    said = among(masks, {name: name for name in masks}, "mask")
    assert [(one.case, one.code) for one in said] == [("p0", "misplaced-mask")]


AIR, TISSUE, BONE = -1000.0, 40.0, 600.0
SKULL = np.select([~BODY, np.arange(24)[:, None, None] % 5 == 0], [AIR, BONE], TISSUE)
SKULL += np.random.default_rng(0).normal(0, np.where(SKULL == BONE, 300, 8))


@every_row(
    ("hu", "codes"),
    [
        (SKULL, set()),
        (SKULL + 1024, {"shifted-hu"}),
        (SKULL - 1024, {"shifted-hu"}),
        (SKULL + 200, {"tissue-hu"}),
        (-SKULL, {"other-content"}),
        (SKULL.clip(0), {"cut-window"}),
        (SKULL.clip(-200, 400), {"cut-window"}),
    ],
)
def test_the_values_of_a_ct_tell_an_offset_from_a_window(hu, codes):
    scan = Volume(hu[None].astype(np.float32), np.diag([4.0, 4, 4, 1]), "HU", "ct")
    said = {one.code for one in exact_messages(fingerprint(scan), "HU")}
    assert said & {"shifted-hu", "tissue-hu", "cut-window", "other-content"} == codes
