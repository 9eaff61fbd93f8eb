"""Heavy noise, ghosts and regions without signal are measured; ordinary scans have little of them."""

import numpy as np
import pytest
from numpy.random import default_rng
from scipy import ndimage

from rows import every_row
from voxlate.base.messages import Message
from voxlate.checks.check_table import ask
from voxlate.checks.quality_checks import (
    ORDER,
    WholeScan,
    check_whole,
    quality_numbers,
    slice_numbers,
)
from voxlate.scans.images.grid import Volume


def volume_of(values: np.ndarray, spacing_mm=(1.0, 1.0, 1.0), unit: str = "a.u.") -> Volume:
    """Values [D, H, W]; spacing_mm: (x, y, z)."""
    return Volume(values[None].astype(np.float32), np.diag([*spacing_mm, 1.0]), unit, "t1")


# A body 152 mm long and 112 mm wide, with folds, in air with noise of 2 % of its signal.
_, y, x = np.ogrid[:10, -50:50, -40:40]
BODY = (y / 38) ** 2 + (x / 28) ** 2 < 1
FOLDED = 500 + 60 * np.sin(0.7 * x + 0.2 * np.sin(y)) * np.cos(0.5 * y + 0.02 * x**2)
SCAN = np.abs(BODY * FOLDED + default_rng(0).normal(0, 10, (10, 100, 80)))


def scan_of(values: np.ndarray) -> WholeScan:
    return WholeScan(volume_of(values, (2, 2, 3)))


HOLE = 4 * ((np.arange(100)[:, None] - 55) ** 2 + (np.arange(80) - 42) ** 2) < 24**2


@every_row(
    "image, kind, value",
    [
        (SCAN + default_rng(1).normal(0, 125, SCAN.shape), "noise", 0.25),
        (SCAN + 0.5 * np.roll(SCAN, 50, axis=1), "ghosts", 0.75),
        (SCAN * ~HOLE, "dark_mm", 23.0),
    ],
)
def test_what_is_wrong_with_a_scan_is_measured_and_said_unless_those_of_the_training_have_it(
    image, kind, value
):
    assert check_whole(scan_of(SCAN), {}, "t1") == []
    numbers = quality_numbers(volume_of(np.abs(image), (2, 2, 3)))
    assert numbers[kind] == pytest.approx(value, rel=0.25)
    said, usual = (check_whole(scan_of(np.abs(image)), known, "t1") for known in ({}, numbers))
    assert ("quality", "caution") in {(one.code, one.grade) for one in said}
    assert "quality" not in {one.code for one in usual if "wave" not in one.numbers}


def test_a_scan_after_a_filter_or_from_thick_slices_is_called_blurred():
    draw = default_rng(0)
    cells = np.kron(draw.random((12, 12, 12)), np.ones((6, 6, 6)))
    sharp = cells + draw.normal(0, 0.02, cells.shape)
    for sigma in (0, 4, (4, 0, 0), (0, 4, 0), (0, 0, 4)):
        image = volume_of(1000 * ndimage.gaussian_filter(sharp, sigma))
        said = {one.code for one in ask("slices", slice_numbers(image))}
        assert ("quality" in said) == (sigma != 0)


# A body of 24 slices that shrink towards the upper end, in air with noise of 2 % of its signal.
z, y, x = np.ogrid[:24, -40:40, -32:32]
SHRINKING = np.hypot(y, x) < 30 - 0.8 * z
CONE = np.abs(500.0 * SHRINKING + default_rng(0).normal(0, 10, SHRINKING.shape))


def _said(image: np.ndarray) -> list[Message]:
    """What is said of the slices of an image [D, H, W] with the voxels of the cone."""
    return ask(ORDER, slice_numbers(volume_of(image, (2, 2, 5))))


@every_row(
    "image, code",
    [
        (SCAN.max() - SCAN, "other-content"),
        (SCAN // 100, "label-values"),
        (SCAN + SCAN[..., ::-1], "no-mirror"),
    ],
)
def test_an_array_that_is_no_scan_is_told_before_its_body(image, code):
    assert ask("array", scan_of(SCAN).content) == []
    (said,) = ask("array", scan_of(image).content)
    assert (said.code, said.grade) == (code, "do not trust")


def test_slices_of_which_one_half_is_twice_as_far_apart_are_told():
    z, y, x = np.ogrid[-32:32, -36:36, -32:32]
    folds = 1.5 + np.sin(x * np.cos(z / 40) + y * np.sin(z / 40))
    image = folds * (np.hypot(y, x) < 28) + default_rng(0).random(folds.shape) / 100
    (said,) = [one for one in _said(image[np.r_[:32, 32:64:2]]) if "wave" not in one.numbers]
    assert "pace" in said.numbers


DARKER = np.where(np.arange(24) % 2, 0.5, 1.0)[:, None, None]
SIDED = 1 + 0.5 / (1 + np.exp((40 - np.arange(64)) / 1.5))
EMPTIED = ~np.isin(np.arange(24), [8, 9, 10, 11])[:, None, None]


@every_row(
    "image",
    [
        CONE,
        CONE[::-1],
        CONE[:7],
        np.concatenate([0 * CONE[:5], CONE, 0 * CONE[:9]]),
        np.concatenate([CONE[:20], np.tile(CONE[:4, :8], (1, 10, 1))]),
        0 * CONE,
        np.minimum(CONE, 200),
        np.floor(CONE / 8) * 8,
        CONE * SIDED,
    ],
)
def test_nothing_is_said_of_slices_that_continue_each_other(image):
    assert _said(image) == []


WAVES = 1 + 0.5 * np.sin(np.arange(80) / 3)[:, None]
RIGHT = np.arange(64) > 35
NINTH = (np.arange(24) == 9)[:, None, None]
BALL = np.zeros((24, 80, 64), bool)
BALL[8:11, 36:44, 28:36] = True
POINTS = 2000.0 * (default_rng(0).random((24, 80, 64)) < 0.02)


IMAGE = np.float32(CONE * SIDED)
FLAT = 500.0 * (CONE > 250) * SIDED.round(1)


@every_row(
    "image, number, least",
    [
        (IMAGE[np.arange(24) ^ 1], "misplaced", 0.35),
        (IMAGE * EMPTIED, "empty", 4),
        (IMAGE * DARKER, "darker", 0.14),
        (IMAGE * (1 - 0.3 * (np.arange(64) % 2)), "darker", 0.14),
        (IMAGE * (1 - 0.4 * RIGHT), "step", 1.38),
        (np.mod(IMAGE * WAVES, 700), "wrapped", 0.01),
        (IMAGE[np.r_[:9, 8:23]], "copied_at", 8),
        (np.concatenate([IMAGE[:12], np.roll(IMAGE, 8, 2)[12:]]), "jump", 2.5),
        (np.where(NINTH, IMAGE[..., ::-1], IMAGE), "odd", 1.9),
        (np.where(RIGHT, np.roll(IMAGE, 8, 1), IMAGE), "jump", 2.1),
        (IMAGE * np.geomspace(1, 12, 24)[:, None, None], "ramp", 2.2),
        (IMAGE * np.linspace(0.1, 2, 64), "ramp", 1.6),
        (IMAGE + 800.0 * NINTH, "level", 1.2),
        (IMAGE / IMAGE.max((1, 2), keepdims=True), "same_peak", 0.8),
        (IMAGE * ~np.isin(np.arange(80), range(40, 44))[:, None], "empty", 4),
        (IMAGE + POINTS, "salt", 0.012),
        (np.where(BALL, 0, IMAGE), "block_ml", 0.9),
        (IMAGE * (1 + 0.3 * np.sin(np.arange(64))), "wave", 4.5),
        (FLAT, "flat", 0.5),
    ],
)
def test_what_one_slice_or_voxel_has_and_its_neighbours_have_not_is_said(image, number, least):
    (one,) = [one for one in _said(image) if one.numbers.get(number, 0) >= least]
    assert one.grade != "note"


@every_row(
    "unit, value, step, least, most",
    [
        ("a.u.", 0, 1 / 16, 0.9, 2),
        ("a.u.", 0, 8, 0, 0),  # the least of few levels
        ("a.u.", 400, 8, 0.9, 2),
        ("s", 0, 1 / 16, 0, 0),  # a map
    ],
)
def test_a_block_is_measured_in_images_where_it_is_not_the_least_of_few_levels(
    unit, value, step, least, most
):
    image = np.where(BALL, value, np.floor(CONE * SIDED / step) * step)
    assert least <= slice_numbers(volume_of(image, (2, 2, 5), unit))["block_ml"] <= most


ORDINARY = {"step": 1, "misplaced": 0, "empty": 0, "odd": 1, "level": 1, "darker": 0}


@every_row(
    "numbers, codes",
    [
        ({"ramp": 1.99, "ramp_axis": 0, "slice_mm": 6}, []),
        ({"ramp": 1.99, "ramp_axis": 0, "slice_mm": 1}, ["quality"]),
        ({"ramp": 1.7, "ramp_axis": 0, "slice_mm": 2}, []),
        ({"ramp": 1.99, "ramp_axis": 2, "slice_mm": 6}, ["quality"]),
        ({"jump": 1.8, "jump_axis": 0, "jump_at": 42}, []),
        ({"jump": 1.9, "jump_axis": 0, "jump_at": 42}, ["slices"]),
        ({"jump": 1.9, "jump_axis": 1, "jump_at": 42}, []),
        ({"blur": 1.6, "pixel_mm": 2.0}, ["quality"]),
        ({"blur": 1.6, "pixel_mm": 3.0}, []),
        ({"blur": 1.8, "pixel_mm": 3.0}, ["quality"]),
    ],
)
def test_thick_slices_may_differ_more_near_the_crown_and_in_brightness_and_wide_voxels_be_smoother(
    numbers, codes
):
    assert [said.code for said in ask("slices", ORDINARY | numbers)] == codes


def test_a_scan_with_much_noise_still_shows_anatomy():
    noise = default_rng(1).normal(0, 20, SCAN.shape)
    assert ask("noise", quality_numbers(volume_of(SCAN + noise, (2, 2, 3)))) == []


def test_air_in_the_bone_of_a_ct_is_no_overflow_of_large_values():
    hu = np.full((24, 40, 40), -1000, np.float32)
    hu[:, 8:32, 8:32] = default_rng(0).normal(40, 20, (24, 24, 24))
    hu[4:20, 14:26, 14:26] = np.linspace(1100, 1427, 16)[:, None, None]
    hu[6:18, 18:22, 18:22:2] = -900
    good, bad = (
        slice_numbers(volume_of(values, (3, 3, 3), "HU"))["wrapped"]
        for values in (hu, np.where(hu > 1400, -1000, hu))
    )
    assert good == 0
    assert bad > 0.0006


@every_row("elsewhere, code", [(1.0, "two-heads"), (6.4, "slices")])
def test_more_brightness_beside_a_body_than_another_has_is_an_uneven_background(elsewhere, code):
    (said,) = ask("order", {"elsewhere": elsewhere})
    assert (said.code, said.grade) == (code, "do not trust")


def test_a_map_that_is_brighter_in_one_half_as_beside_a_stroke_was_not_joined():
    halves = SCAN * np.where(np.arange(SCAN.shape[-1]) < SCAN.shape[-1] // 2, 0.3, 1)
    for unit, least, most in (("a.u.", 1.38, 9), ("ml/100g/min", 1, 1)):
        assert least <= slice_numbers(volume_of(halves, (2, 2, 3), unit))["step"] <= most
