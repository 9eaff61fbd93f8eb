import numpy as np
import pytest

from voxlate.evaluation.scoring.regions import surface_distances


def box(first, end, shape=(12, 14, 16)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(first, end))] = True
    return mask


def by_hand(a, b, spacing):
    """The distances of all pairs of surface voxels, by their positions in mm."""

    def surface(mask):
        padded = np.pad(mask, 1, mode="edge")
        inner = mask.copy()
        for axis in range(3):
            for step in (-1, 1):
                inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
        return np.argwhere(mask & ~inner) * spacing

    apart = np.linalg.norm(surface(a)[:, None] - surface(b)[None], axis=-1)
    there, back = apart.min(1), apart.min(0)
    return (
        np.concatenate([there, back]).mean(),
        max(np.percentile(there, 95), np.percentile(back, 95)),
    )


def test_the_distances_of_two_shells_are_those_of_all_their_voxels_in_mm():
    a, b = box((2, 3, 3), (8, 9, 11)), box((3, 2, 5), (10, 9, 12))
    spacing = (3.0, 1.0, 0.5)
    assert surface_distances(a, b, spacing) == pytest.approx(by_hand(a, b, spacing))


def test_equal_masks_are_no_distance_apart_and_parallel_plates_their_gap():
    a = box((3, 0, 0), (4, 14, 16))
    assert surface_distances(a, a, (2.0, 1.0, 1.0)) == (0, 0)
    assert surface_distances(a, np.roll(a, 4, 0), (2.0, 1.0, 1.0)) == (8, 8)


def test_the_95_percent_are_of_the_direction_with_the_longer_distances():
    a = box((2, 2, 2), (4, 4, 4))
    b = a | box((2, 2, 10), (4, 4, 12))  # an invented piece: none of the truth's voxels is far
    mean, most = surface_distances(a, b, (1.0, 1.0, 1.0))
    assert most == pytest.approx(np.percentile([0.0] * 8 + [7.0] * 4 + [8.0] * 4, 95))
    assert mean == pytest.approx((4 * 7 + 4 * 8) / 24)


def test_the_end_of_the_image_is_no_surface():
    a, b = box((0, 0, 0), (5, 14, 16)), box((0, 0, 0), (7, 14, 16))
    assert surface_distances(a, b, (1.5, 1.0, 1.0)) == (3, 3)


def test_stray_voxels_are_no_surface():
    a, stray = box((2, 2, 2), (6, 6, 6)), box((0, 0, 0), (1, 1, 7))
    assert np.isnan(surface_distances(a, stray, (1, 1, 1))).all()


def test_an_empty_mask_has_no_distance_and_neither_has_one_without_a_surface():
    a, none, whole = box((2, 2, 2), (4, 4, 4)), box((0, 0, 0), (0, 0, 0)), box((0,) * 3, (99,) * 3)
    assert np.isnan(surface_distances(a, none, (1, 1, 1))).all()
    assert np.isnan(surface_distances(a, whole, (1, 1, 1))).all()
