"""The misalignment of two scans: known motions of phantom heads are found, and what cannot be seen is not stated."""

import functools
import itertools

import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.transform import Rotation

from voxlate.anatomy.head import Head, make_head
from voxlate.anatomy.scanner import image
from voxlate.base.similarity import class_of, dice, information_of_rows, mutual_information
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.misalignment import displacement_field, misalignment
from voxlate.scans.images.units import unit_of

slow = pytest.mark.slow
SIZE = (80, 96, 68)  # 2.5 mm
PLANE = (160, 192, 9)


@functools.cache
def head(size: tuple[int, int, int]) -> Head:
    return make_head(5, 0, size)


@functools.cache
def scan(modality: str, size: tuple[int, int, int] = SIZE) -> np.ndarray:
    return image(head(size), modality)


def spacing_of(size: tuple[int, int, int] = SIZE) -> np.ndarray:
    return np.array(head(size).spacing_mm)


def body(modality: str, size: tuple[int, int, int] = SIZE) -> np.ndarray:
    volume = Volume(scan(modality, size)[None], head(size).affine, unit_of(modality), modality)
    return foreground(volume)


def moved(scan: np.ndarray, spacing: np.ndarray, shift_mm: tuple, turn: tuple = (0, 0, 0)) -> tuple:
    """The scan after a rigid motion about its middle, and the displacement at points (mm)."""
    matrix = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    middle = (np.array(scan.shape) - 1) / 2 * spacing
    back = np.diag(1 / spacing) @ matrix.T @ np.diag(spacing)
    first = (matrix.T @ (-middle - shift_mm) + middle) / spacing
    made = scipy.ndimage.affine_transform(scan, back, first, order=3, mode="nearest")
    return made, lambda points: (points - middle) @ matrix.T + middle + shift_mm - points


def compared(
    pair: tuple[str, str], shift_mm: tuple, turn: tuple = (0, 0, 0), size: tuple = SIZE, **options
) -> tuple:
    """The estimate and the true median of the displacement along the axes that were seen."""
    spacing, mask = spacing_of(size), body(pair[0], size)
    moving, displacement = moved(scan(pair[1], size), spacing, shift_mm, turn)
    units = tuple(map(unit_of, pair))
    found = misalignment(scan(pair[0], size), moving, tuple(spacing), mask, units, **options)
    seen = [axis not in found.unseen for axis in "DHW"]
    true = np.linalg.norm(displacement(np.argwhere(mask) * spacing) * seen, axis=1)
    return found, np.median(true)


MOTIONS = (
    ((0, 0, 0), (0, 0, 0)),
    ((2.0, -1.0, 2.0), (0, 0, 0)),
    ((3.0, 4.0, -3.3), (2.0, -3.0, 3.5)),
)
PAIRS = (("t1", "ct"), ("t1", "t2"), ("tof", "cta"), ("pd", "t1"))


@slow
def test_known_motions_are_found_within_half_a_millimetre_in_nine_of_ten_pairs():
    errors = []
    for pair, motion in itertools.product(PAIRS, MOTIONS):
        found, true = compared(pair, *motion)
        errors.append(abs(found.median_mm - true))
    assert np.mean(np.array(errors) < 0.5) >= 0.9
    assert max(errors) < 0.8


@slow
def test_the_rigid_motion_of_a_moved_head_is_stated_with_its_direction():
    shift_mm = (2.0, -3.0, 1.0)
    found, _ = compared(("pd", "t1"), shift_mm, (0, 0, 3.0), coarse=True)
    assert found.rotation_deg == pytest.approx(3.0, abs=0.3)
    found, _ = compared(("pd", "t1"), shift_mm, coarse=True)
    assert found.translation_mm == pytest.approx(shift_mm, abs=0.3)


@slow
def test_a_warped_head_is_followed_where_a_rigid_motion_would_be_wrong():
    spacing = spacing_of()

    def bend(points):
        """Rows at the front to one side, at the back to the other."""
        return 4.0 * np.sin(2 * np.pi * points[:, 1:2] / 260) * [0, 0, 1]

    points = np.indices(SIZE[::-1]).reshape(3, -1).T * spacing
    moving = scipy.ndimage.map_coordinates(scan("t2"), ((points - bend(points)) / spacing).T)
    field, _, _ = displacement_field(
        scan("t1"), moving.reshape(SIZE[::-1]), tuple(spacing), body("t1"), ("", "")
    )
    inside = np.argwhere(body("t1"))[::97] * spacing
    errors = np.linalg.norm(field(inside) - bend(inside), axis=1)
    assert np.median(errors) < 0.8  # where a rigid motion leaves 1.8 mm


@slow
def test_shifts_across_thick_slices_are_said_to_be_unseen_and_not_stated():
    found, true = compared(("t1", "t2"), (0, 2.5, -2.5), size=(80, 96, 34), coarse=True)
    assert (found.unseen, found.translation_mm[0]) == ("D", 0.0)
    assert found.median_mm == pytest.approx(true, abs=0.5)


def test_a_single_slice_is_measured_in_its_plane_without_the_air_of_a_ct():
    ct, t2 = (scan(name, PLANE)[4:5] for name in ("ct", "t2"))
    spacing = spacing_of(PLANE)
    moving = scipy.ndimage.shift(t2, np.array([0, 3.0, -2.0]) / spacing, order=3)
    found, of_all = (
        misalignment(ct, moving, tuple(spacing), mask, ("HU", "")) for mask in (ct > -150, ct < 1e4)
    )
    assert found.unseen == "D"
    assert found.median_mm == pytest.approx(np.hypot(3, 2), abs=0.5)
    assert found.left_out == of_all.left_out


def test_noise_has_no_misalignment():
    noise = np.random.default_rng(0).standard_normal((2, 64, 64, 64), np.float32)
    found = misalignment(*noise, (1.0, 1.0, 1.0), np.ones((64, 64, 64), bool))
    assert found.median_mm is found.translation_mm is None


@slow
def test_the_cut_of_one_mask_does_not_make_moved_brains_look_aligned():
    spacing = spacing_of()
    inside = scipy.ndimage.binary_erosion(body("t1"), iterations=6)
    moving, _ = moved(scan("t2"), spacing, (0.0, 4.0, 0.0))
    fixed = scan("t1") * inside
    found = misalignment(fixed, moving * inside, tuple(spacing), inside, coarse=True)
    assert found.median_mm == pytest.approx(4.0, abs=0.5)


def test_shared_information_is_highest_where_classes_determine_each_other():
    a = np.arange(64, dtype=np.uint8) % 4
    information, entropy = information_of_rows(a, np.stack([3 - a, np.sort(a)]), 4)
    assert information == pytest.approx([2.0, 1.0])
    assert entropy == pytest.approx(np.log(4))


def test_mutual_information_is_one_for_independent_values_and_none_of_constants():
    values, others = np.random.default_rng(0).uniform(0, 1, (2, 200_000))
    unit = (0.0, 1.0)
    assert mutual_information(values, others, unit, unit, 32) == pytest.approx(1, abs=1e-3)
    assert np.isnan(mutual_information(values * 0, values * 0, unit, unit, 32))


def test_dice_of_masks():
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert dice(a, b) == pytest.approx(2 / 3)
    assert np.isnan(dice(~a & a, a & ~a))


def test_classes_end_at_the_range_and_leave_out_what_is_not_finite():
    values = np.array([-9.0, 0.0, 0.6, 9.0, np.nan])
    assert class_of(values, 0.0, 1.0, 4).tolist() == [0, 0, 2, 3, 4]
