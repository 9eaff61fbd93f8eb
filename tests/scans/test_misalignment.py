"""The misalignment of two scans: known motions of phantom heads are found, and what cannot be seen is not stated."""

import functools
import itertools

import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.transform import Rotation

from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.signal import Head, image
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.misalignment import is_resolved, median_displacement
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
    pair: tuple[str, str], shift_mm: tuple, turn: tuple = (0, 0, 0), size: tuple = SIZE
) -> tuple:
    """The estimate and the true median of the displacement."""
    spacing, mask = spacing_of(size), body(pair[0], size)
    moving, displacement = moved(scan(pair[1], size), spacing, shift_mm, turn)
    units = tuple(map(unit_of, pair))
    found = median_displacement(scan(pair[0], size), moving, tuple(spacing), mask, units)
    true = np.linalg.norm(displacement(np.argwhere(mask) * spacing), axis=1)
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
        errors.append(abs(found - true))
    assert np.mean(np.array(errors) < 0.5) >= 0.9
    assert max(errors) < 0.8


def test_a_single_slice_is_measured_in_its_plane_without_the_air_of_a_ct():
    ct, t2 = (scan(name, PLANE)[4:5] for name in ("ct", "t2"))
    spacing = spacing_of(PLANE)
    moving = scipy.ndimage.shift(t2, np.array([0, 3.0, -2.0]) / spacing, order=3)
    found = median_displacement(ct, moving, tuple(spacing), ct < 1e4, ("HU", ""))
    assert found == pytest.approx(np.hypot(3, 2), abs=0.5)


@pytest.mark.parametrize("thick", [1, 2])
def test_thick_slices_of_any_plane_move_within_themselves(thick):
    """As of sagittal and coronal scans."""
    scans = [np.moveaxis(scan(name, PLANE)[2:7], 0, thick) for name in ("t1", "t2")]
    spacing = np.insert(spacing_of(PLANE)[1:], thick, 5.0)
    shift_mm = np.insert([2.0, -3.0], thick, 0.0)
    moving = scipy.ndimage.shift(scans[1], shift_mm / spacing, order=1)
    assert (~is_resolved(moving.shape, spacing)).nonzero()[0] == thick
    inside = scans[0] > 0.05 * scans[0].max()
    found = median_displacement(scans[0], moving, tuple(spacing), inside)
    assert found == pytest.approx(np.hypot(2, 3), abs=0.5)


def test_noise_and_blank_scans_have_no_misalignment():
    still, noise = np.random.default_rng(0).standard_normal((2, 64, 64, 64), np.float32)
    for moving in (noise, 0 * noise):
        whole = np.ones((64, 64, 64), bool)
        assert median_displacement(still, moving, (1.0, 1.0, 1.0), whole) is None


@slow
def test_the_cut_of_one_mask_does_not_make_moved_brains_look_aligned():
    spacing = spacing_of()
    inside = scipy.ndimage.binary_erosion(body("t1"), iterations=6)
    moving, _ = moved(scan("t2"), spacing, (0.0, 4.0, 0.0))
    fixed = scan("t1") * inside
    found = median_displacement(fixed, moving * inside, tuple(spacing), inside)
    assert found == pytest.approx(4.0, abs=0.5)
