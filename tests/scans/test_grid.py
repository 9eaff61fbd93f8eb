"""Grids: known orientations, exact returns and resampling against closed forms."""

from itertools import permutations, product

import nibabel as nib
import numpy as np

from refusals import refuses
from rows import every_row
from scans import indices, turn_about_z
from voxlate.scans.images.grid import (
    Grid,
    Volume,
    canonical,
    check_affine,
    resample,
    return_to,
    same_grid,
    with_matrix,
    with_spacing,
)

RANDOM = np.random.default_rng(0)
ORIENTATIONS = [
    "".join(letters) for axes in permutations(("LR", "PA", "IS")) for letters in product(*axes)
]


EYE = np.eye(4)


def of(data, affine=EYE):
    return Volume(data.astype(np.float32), affine, "a.u.", "t1")


def turned(axes, tilt_degrees=12.0, shape=(4, 5, 6)):
    """A volume of uneven size and spacing whose (x, y, z) grow towards `axes`, a little oblique."""
    to_axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(axes)), (1, 1, 1))
    affine = np.eye(4)
    affine[:3, :3] = (
        turn_about_z(tilt_degrees) @ np.linalg.inv(to_axes)[:3, :3] @ np.diag([0.7, 1.3, 2.5])
    )
    affine[:3, 3] = [-31.25, 12.5, 80.0]
    return of(RANDOM.normal(size=(2, *shape)), affine)


def ramp(grid):
    """1 + 2x - 3y + 0.5z at every voxel, in RAS millimetres."""
    row = np.array([2.0, -3.0, 0.5, 1.0]) @ grid.affine
    return of(np.tensordot(row, indices(grid), 1)[None], grid.affine)


def test_canonical_is_ras_keeps_every_place_and_returns_bit_identical_from_all_48_orientations():
    for axes in ORIENTATIONS:
        volume = turned(axes)
        assert "".join(nib.aff2axcodes(volume.affine)) == axes
        ras = canonical(volume)
        # an independent implementation agrees on voxels and affine
        oracle = nib.as_closest_canonical(nib.Nifti1Image(volume.data[0].T, volume.affine))
        np.testing.assert_array_equal(ras.data[0].T, oracle.get_fdata(), axes)
        np.testing.assert_allclose(ras.affine, oracle.affine, atol=1e-12, err_msg=axes)
        back = return_to(ras, volume.grid)
        assert back.data.tobytes() == np.ascontiguousarray(volume.data).tobytes(), axes
        np.testing.assert_array_equal(back.affine, volume.affine, axes)


@every_row("axes, tilt", [("RAS", 10), ("PIL", 0)])
def test_a_linear_ramp_is_reproduced_in_the_interior(axes, tilt):
    grid = turned("RAS", 0, (24, 26, 28)).grid
    target = with_spacing(turned(axes, tilt, (24, 26, 28)).grid, (1.1, 0.9, 1.7))
    target.affine[:3, 3] += grid.centre_mm - target.centre_mm
    got = resample(ramp(grid), target).data
    place = np.tensordot(np.linalg.inv(grid.affine) @ target.affine, indices(target), 1)[:3]
    last = np.array(grid.shape[::-1])[:, None, None, None] - 1
    inside = ((place >= 0) & (place <= last)).all(axis=0)[None]
    assert inside.sum() > 300
    np.testing.assert_allclose(got[inside], ramp(target).data[inside], atol=1e-3)


def test_points_beyond_the_box_get_the_fill_and_the_box_reaches_half_a_voxel():
    affine = np.diag([0.4, 1.0, 1.0, 1.0])
    affine[0, 3] = -0.8
    volume = of(np.full((1, 1, 1, 4), 7.0))
    got = resample(volume, Grid((1, 1, 13), affine), fill=-5.0).data[0, 0, 0]
    places = -0.8 + 0.4 * np.arange(13)
    np.testing.assert_array_equal(got, np.where((places >= -0.5) & (places <= 3.5), 7.0, -5.0))


def test_labels_stay_labels_and_the_default_fill_is_the_lowest_value():
    labels = of(RANDOM.integers(2, 5, (1, 6, 7, 8)))
    fine = with_spacing(labels.grid, (0.8, 0.7, 0.6))
    assert set(np.unique(resample(labels, fine, order=0).data)) == {2.0, 3.0, 4.0}
    shifted = fine.affine.copy()
    shifted[:3, 3] += 100
    assert (resample(labels, Grid(fine.shape, shifted), order=0).data == 2.0).all()


def test_with_spacing_covers_the_box():
    grid = turned("LPS").grid
    assert same_grid(with_spacing(grid, grid.spacing_mm), grid, 1e-9)
    odd = with_spacing(grid, (3.1, 0.93, 0.61))
    np.testing.assert_allclose(odd.spacing_mm, (3.1, 0.93, 0.61))
    box, covered = np.array(grid.shape) * grid.spacing_mm, np.array(odd.shape) * odd.spacing_mm
    assert ((covered >= box - 1e-6) & (covered < box + odd.spacing_mm)).all()


@every_row(
    "change, shape",
    [
        (lambda grid: with_matrix(grid, (7, 33)), (4, 7, 33)),
        (lambda grid: with_matrix(grid, (9, 7, 33)), (9, 7, 33)),
        (lambda grid: with_spacing(grid, np.divide(grid.spacing_mm, 2)), (8, 10, 12)),
    ],
)
def test_another_matrix_or_half_the_spacing_covers_exactly_the_same_box(change, shape):
    grid = turned("LPS").grid
    made = change(grid)
    assert made.shape == shape
    for corner in product((0, 1), repeat=3):
        index = [[*(np.array(corner) * one.shape[::-1] - 0.5), 1.0] for one in (grid, made)]
        np.testing.assert_allclose(grid.affine @ index[0], made.affine @ index[1], atol=1e-9)
    assert same_grid(with_matrix(grid, grid.shape[1:]), grid, 1e-9)


def test_an_affine_that_gives_voxels_no_places_is_bad_input():
    ones, last = np.ones((4, 4)), np.eye(4)
    last[3, 0] = 0.5
    wrong = [0 * ones, np.diag([1.0, 0, 1, 1]), np.nan * ones, ones + np.diag([1, 0, 0, 0])]
    for affine in (*wrong, last, 1j + last, np.eye(4)[:3], np.eye(4).astype(str), None):
        with refuses(r"^t1\.nii: expected an affine"):
            check_affine(affine, "t1.nii")
    for data in ([1], ones):
        with refuses():
            Volume(data, last, "HU", "ct")
