"""The misalignment of two scans: known motions of phantom heads are found, and what cannot be seen is not stated."""

import functools
import itertools

import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.transform import Rotation

from rows import every_row
from voxlate.anatomy.head import Head, make_head
from voxlate.anatomy.scanner import image
from voxlate.base.similarity import class_of, information_of_rows
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.misalignment import displacement_field, misalignment
from voxlate.scans.images.units import unit_of

SIZE = (80, 96, 68)  # 2.5 mm


@functools.cache
def head(case: int, size: tuple[int, int, int]) -> Head:
    return make_head(5, case, size)


@functools.cache
def scan(case: int, modality: str, size: tuple[int, int, int] = SIZE) -> np.ndarray:
    return image(head(case, size), modality)


def body(case: int, modality: str, size: tuple[int, int, int] = SIZE) -> np.ndarray:
    return foreground(
        Volume(
            scan(case, modality, size)[None], head(case, size).affine, unit_of(modality), modality
        )
    )


def moved(
    scan: np.ndarray, spacing: np.ndarray, shift_mm: np.ndarray, turn_degrees: np.ndarray
) -> tuple:
    """The scan after a rigid motion about its middle, and the displacement at points (mm)."""
    matrix = Rotation.from_rotvec(turn_degrees, degrees=True).as_matrix()
    middle = (np.array(scan.shape) - 1) / 2 * spacing
    back = np.diag(1 / spacing) @ matrix.T @ np.diag(spacing)
    first = (matrix.T @ (-middle - shift_mm) + middle) / spacing
    made = scipy.ndimage.affine_transform(scan, back, first, order=3, mode="nearest")
    return made, lambda points: (points - middle) @ matrix.T + middle + shift_mm - points


def compared(
    case: int,
    pair: tuple[str, str],
    shift_mm: tuple,
    turn: tuple,
    size: tuple = SIZE,
    coarse: bool = False,
) -> tuple:
    """The estimate and the true median of the displacement along the axes that were seen."""
    spacing = np.array(head(case, size).spacing_mm)
    fixed, mask = scan(case, pair[0], size), body(case, pair[0], size)
    moving, displacement = moved(
        scan(case, pair[1], size), spacing, np.array(shift_mm), np.array(turn)
    )
    units = tuple(map(unit_of, pair))
    found = misalignment(fixed, moving, tuple(spacing), mask, units, coarse)
    seen = np.array([axis not in found.unseen for axis in "DHW"])
    true = np.linalg.norm(displacement(np.argwhere(mask) * spacing) * seen, axis=1)
    return found, float(np.median(true))


MOTIONS = (
    ((0, 0, 0), (0, 0, 0)),
    ((2.0, -1.0, 2.0), (0, 0, 0)),
    ((3.0, 4.0, -3.3), (2.0, -3.0, 3.5)),
)
PAIRS = (("t1", "ct"), ("t1", "t2"), ("tof", "cta"), ("pd", "t1"))


@pytest.mark.slow
@every_row("every", [6, 1])
def test_known_motions_are_found_within_half_a_millimetre_in_nine_of_ten_pairs(every):
    errors = []
    for pair, (shift_mm, turn) in list(itertools.product(PAIRS, MOTIONS))[every - 1 :: every]:
        found, true = compared(0, pair, shift_mm, turn)
        errors.append(abs(found.median_mm - true))
    assert np.mean(np.array(errors) < 0.5) >= 0.9
    assert max(errors) < 0.8


@pytest.mark.slow
def test_the_rigid_motion_of_a_moved_head_is_stated_with_its_direction():
    found, _ = compared(0, ("pd", "t1"), (2.0, -3.0, 1.0), (0, 0, 3.0), coarse=True)
    assert found.rotation_deg == pytest.approx(3.0, abs=0.3)
    found, _ = compared(0, ("pd", "t1"), (2.0, -3.0, 1.0), (0, 0, 0), coarse=True)
    assert found.translation_mm == pytest.approx((2.0, -3.0, 1.0), abs=0.3)


@pytest.mark.slow
def test_a_warped_head_is_followed_where_a_rigid_motion_would_be_wrong():
    spacing = np.array(head(0, SIZE).spacing_mm)
    points = np.indices(SIZE[::-1]).reshape(3, -1).T * spacing
    bent = 4.0 * np.sin(
        2 * np.pi * points[:, 1] / 260
    )  # rows at the front to one side, at the back to the other

    def across(x):
        return np.stack([0 * x, 0 * x, x], axis=1)

    moving = scipy.ndimage.map_coordinates(
        scan(0, "t2"), ((points - across(bent)) / spacing).T, order=3
    )
    field, _, _ = displacement_field(
        scan(0, "t1"), moving.reshape(SIZE[::-1]), tuple(spacing), body(0, "t1"), ("", "")
    )
    inside = np.argwhere(body(0, "t1"))[::97] * spacing
    true = across(4.0 * np.sin(2 * np.pi * inside[:, 1] / 260))
    assert (
        np.median(np.linalg.norm(field(inside) - true, axis=1)) < 0.8
    )  # where a rigid motion leaves 1.8 mm


@pytest.mark.slow
def test_shifts_across_thick_slices_are_said_to_be_unseen_and_not_stated():
    found, true = compared(1, ("t1", "t2"), (0, 2.5, -2.5), (0, 0, 0), (80, 96, 34), coarse=True)
    assert (found.unseen, found.translation_mm[0]) == ("D", 0.0)
    assert found.median_mm == pytest.approx(true, abs=0.5)


def test_a_single_slice_is_measured_in_its_plane_without_the_air_of_a_ct():
    size = (160, 192, 9)
    ct, t2 = (scan(0, name, size)[4:5] for name in ("ct", "t2"))
    spacing = np.array(head(0, size).spacing_mm)
    moving = scipy.ndimage.shift(t2, np.array([0, 3.0, -2.0]) / spacing, order=3)
    found, of_all = (
        misalignment(ct, moving, tuple(spacing), mask, ("HU", "")) for mask in (ct > -150, ct < 1e4)
    )
    assert found.unseen == "D"
    assert found.median_mm == pytest.approx(np.hypot(3, 2), abs=0.5)
    assert found.left_out == of_all.left_out


def test_noise_has_no_misalignment():
    rng = np.random.default_rng(0)
    noise = [rng.standard_normal((64, 64, 64)).astype(np.float32) for _ in range(2)]
    found = misalignment(*noise, (1.0, 1.0, 1.0), np.ones((64, 64, 64), bool))
    assert found.median_mm is found.translation_mm is None


@pytest.mark.slow
def test_the_cut_of_one_mask_does_not_make_moved_brains_look_aligned():
    spacing = np.array(head(0, SIZE).spacing_mm)
    inside = scipy.ndimage.binary_erosion(body(0, "t1"), iterations=6)
    moving, _ = moved(scan(0, "t2"), spacing, np.array([0.0, 4.0, 0.0]), np.zeros(3))
    found = misalignment(
        scan(0, "t1") * inside, moving * inside, tuple(spacing), inside, coarse=True
    )
    assert found.median_mm == pytest.approx(4.0, abs=0.5)


def test_shared_information_is_highest_where_classes_determine_each_other():
    a = np.arange(64, dtype=np.uint8) % 4
    rows = np.stack([3 - a, np.roll(np.repeat(np.arange(4, dtype=np.uint8), 16), 0)])
    information, entropy = information_of_rows(a, rows, 4)
    assert information == pytest.approx([2.0, 1.0])
    assert entropy == pytest.approx(np.log(4))


def test_classes_end_at_the_range_and_leave_out_what_is_not_finite():
    assert class_of(np.array([-9.0, 0.0, 0.6, 9.0, np.nan]), 0.0, 1.0, 4).tolist() == [
        0,
        0,
        2,
        3,
        4,
    ]
