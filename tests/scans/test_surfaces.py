import numpy as np
import pytest

from voxlate.evaluation.scoring.scored_regions import surface_distances


def box(*sides):
    mask = np.zeros((12, 14, 16), bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


@pytest.mark.parametrize("axis", range(3))
def test_equal_masks_are_no_distance_apart_and_parallel_plates_their_gap(axis):
    plate = box(*((3 * (k == axis), 4 if k == axis else 99) for k in range(3)))
    spacing = (2.0, 1.0, 0.5)
    assert surface_distances(plate, plate, spacing) == (0, 0)
    assert surface_distances(plate, np.roll(plate, 4, axis), spacing) == (4 * spacing[axis],) * 2


def test_the_95_percent_are_of_the_direction_with_the_longer_distances():
    a = box((2, 4), (2, 4), (2, 4))
    b = a | box((2, 4), (2, 4), (10, 12))  # an invented piece: none of the truth's voxels is far
    mean, most = surface_distances(a, b, (1.0, 1.0, 1.0))
    assert most == pytest.approx(np.percentile([0.0] * 8 + [7.0] * 4 + [8.0] * 4, 95))
    assert mean == pytest.approx((4 * 7 + 4 * 8) / 24)


def test_the_end_of_the_image_is_no_surface():
    assert surface_distances(box((0, 5)), box((0, 7)), (1.5, 1.0, 1.0)) == (3, 3)


@pytest.mark.parametrize("other", [box((0, 0)), box(), box((0, 1), (0, 1), (0, 7))])
def test_an_empty_mask_has_no_distance_and_neither_has_one_without_a_surface(other):
    """Nor one of stray voxels."""
    a = box((2, 6), (2, 6), (2, 6))
    assert np.isnan(surface_distances(a, other, (1, 1, 1))).all()
