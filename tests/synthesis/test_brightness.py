"""Bright ends that a mean answer cannot reach are moved near to where they lay in training."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import voxlate as package
from rows import every_row, slow
from scans import t1_of
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Percentile, Scale
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.sampling import MOST_SLOPE, Peak, find_peak
from voxlate.training.run import Run
from voxlate.training.weights import read_header

SCALE = Scale(0, 100)


def ball(low, high):
    """A ball in air of 0, 2 mm a voxel, of values evenly from low to high in an order of chance."""
    z, y, x = np.indices((24, 24, 24)) - 11.5
    inside = z**2 + y**2 + x**2 < 100
    data = np.zeros(inside.shape, np.float32)
    data[inside] = np.random.default_rng(0).permutation(np.linspace(low, high, inside.sum()))
    return Volume(data[None], np.diag([2.0, 2.0, 2.0, 1.0]), "a.u.", "t2")


def found(low, high, share=0.95):
    """The peak of a ball, whose 99th percentile should be a share of the scale."""
    return find_peak(ball(low, high), Percentile(high=99), SCALE, share=share)


def test_what_is_above_the_median_is_stretched_until_the_percentile_is_that_of_the_training():
    made = ball(20, 60)
    peak = find_peak(made, Percentile(high=99), SCALE)
    stretched, inside = peak.stretch(made.data[0]), foreground(made)
    assert peak.middle == pytest.approx(40, abs=0.3)
    assert np.percentile(stretched[inside], 99) == pytest.approx(100, abs=0.1)
    below = made.data[0] <= peak.middle
    assert_array_equal(stretched[below], made.data[0][below])
    # the slope is (100 - 40) / (59.6 - 40)
    assert stretched[inside].max() == pytest.approx(40 + 20 * 60 / 19.6, rel=0.02)
    made = ball(20, 70)  # a modality whose scans have brighter extremes
    stretched = found(20, 70, share=1.3).stretch(made.data[0])
    assert np.percentile(stretched[foreground(made)], 99) == pytest.approx(130, abs=0.1)


def test_a_stated_share_is_approached_as_far_as_a_moderate_slope_allows():
    assert found(40, 50, share=1.3).slope == 4


def test_a_standard_deviation_is_stretched_as_its_image():
    peak = Peak(10, 2)
    assert_array_equal(peak.stretch(np.array([4, 10, 11.5])), [4, 10, 13])
    assert_array_equal(peak.stretch_sd(np.array([1, 1, 3.0]), np.array([4, 10, 11.5])), [1, 1, 6])


@every_row("low, high", [(50, 50), (20, 21), (60, 102), (40, 50)])
def test_an_image_that_is_flat_or_reaches_its_peak_is_left_as_it_is(low, high):
    assert find_peak(ball(low, high), Percentile(high=99), SCALE) is None


@slow
def test_a_run_does_so_where_it_is_asked_and_says_by_how_much(run, trained, tiny, cohort):
    text = tiny.read_text().replace('kind = "window", low = 0, high = 1400', 'kind = "percentile"')
    text = re.sub(r"_every = \d+", "_every = 150", text)
    own = trained("own_scale", re.sub(r"steps = \d+", "steps = 150", text, count=1))
    plain, corrected = (
        package.load(own).synthesise(t1_of(cohort), peaks=peaks) for peaks in (False, True)
    )
    _, high = read_header(Run(own).weights())["target_scales"]["t2"]
    assert "stretched" in {said.code for said in corrected.warnings}
    bright = np.percentile(corrected.volume.data[0][foreground(plain.volume)], 99.5)
    assert bright == pytest.approx(high, rel=0.02)
    # its scale is the same for all scans
    in_window = package.load(run).synthesise(t1_of(cohort), peaks=True)
    assert "stretched" not in {said.code for said in in_window.warnings}


def test_the_note_on_a_stretched_image_blames_no_scan():
    (said,) = Peak(0.5, 1.93).check("ct")
    assert said.numbers == {"slope": 1.93}
    assert Peak(0.5, 1.05).check("ct") == []
    assert said.grade == "note"
    (capped,) = Peak(0.5, MOST_SLOPE).check("t2")
    assert capped.grade == "caution"
