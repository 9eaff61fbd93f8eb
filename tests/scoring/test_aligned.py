"""Scores after an image was moved onto its truth: known shifts of a phantom."""

import numpy as np
import pytest
import scipy.ndimage

from voxlate.images.ranges import Range
from voxlate.phantoms import image, make_head
from voxlate.scoring.aligned import check_name, resample_onto, score_aligned
from voxlate.scoring.metrics import METRICS, ImagePair
from voxlate.system.errors import BadInput

SPACING_MM = (200 / 72, 240 / 80, 200 / 72)
FUNCTIONS = {
    metric.key: metric.compute for metric in METRICS if metric.key in ("mae", "gradient_strength")
}


@pytest.fixture(scope="module")
def head():
    """A CT [D, H, W] in HU, and its body."""
    ct = image(make_head(5, 0, (72, 80, 60)), "ct")
    return ct, ct > -300


def scores(truth, synthesis, body):
    pair = ImagePair(truth, synthesis, Range(-1000.0, 2000.0, "HU", ""), None)
    return score_aligned(pair, body, SPACING_MM, FUNCTIONS) | {"mae": FUNCTIONS["mae"](pair)}


def test_an_image_that_is_shifted_by_5_mm_is_moved_back(head):
    truth, body = head
    shift_mm = np.array([0.0, 4.0, -3.0])
    shifted = scipy.ndimage.shift(truth, shift_mm / SPACING_MM, order=1, mode="nearest")
    found = scores(truth, shifted, body)
    assert found["aligned.mm"] == pytest.approx(5.0, abs=0.4)
    assert found["aligned.mae"] < 0.5 * found["mae"], "interpolated twice, it keeps a part"


def test_an_image_in_its_place_keeps_its_scores(head):
    truth, body = head
    noisy = truth + 20 * np.random.default_rng(0).standard_normal(truth.shape).astype(np.float32)
    found = scores(truth, noisy, body)
    assert found["aligned.mm"] < 0.2
    assert found["aligned.mae"] == pytest.approx(found["mae"], rel=0.15)


def test_a_slice_is_moved_within_its_plane(head):
    truth, body = (volume[32:33] for volume in head)
    shifted = scipy.ndimage.shift(truth, (0, 1.0, 1.0), order=1, mode="nearest")
    moved = resample_onto(truth, shifted, body, (3.0, 3.0, 3.0), "HU")
    assert moved.median_mm == pytest.approx(3 * 2**0.5, abs=0.6)


def test_a_shift_over_10_mm_is_an_error_of_the_image_and_stays(head):
    truth, body = head
    shifted = scipy.ndimage.shift(truth, (0, 5, 0), order=1, mode="nearest")
    assert resample_onto(truth, shifted, body, SPACING_MM, "HU").median_mm is None


def test_a_region_may_not_have_the_name_of_the_aligned_scores():
    with pytest.raises(BadInput, match="--align: expected no region named aligned"):
        check_name({"aligned": "ct>100"})
