"""Percentiles of a scan outside those of the training's cases: how far, and in which words."""

import numpy as np

from rows import every_row
from voxlate.scans.images.intensity import Window, intensity_statistics
from voxlate.synthesis.scan_checks import check_brightness

WINDOW = Window(low=0, high=1000)
KNOWN = {"t1": {"low": [-0.8, -0.5, 0.0, 0.4, 1.6], "high": [-0.7, -0.4, 0.1, 0.9, 1.7]}}


def body(median: float, bright: float):
    """Values whose percentiles lie in the known range, but for the median and the bright end."""
    points = [90, 130, 270, median, max(720, median + 20), bright, bright]
    values = np.interp(np.linspace(0, 100, 10_001), [0, 5, 25, 50, 75, 95, 100], points)
    return intensity_statistics(values.reshape(1, 1, -1).astype(np.float32))


@every_row(
    "median, patients, grade",
    [
        (740, 10, "note"),
        (800, 10, "caution"),
        (870, 10, "do not trust"),
        # few training patients refuse no scan
        (870, 0, "note"),
        (870, 3, "caution"),
    ],
)
def test_the_farther_a_scan_lies_outside_the_training_the_graver_is_the_warning(
    median, patients, grade
):
    (said,) = check_brightness("t1", body(median, 1320), WINDOW, KNOWN, patients)
    assert (said.code, said.grade) == ("brightness", grade)
    assert said.numbers["value"] == median


def test_values_beyond_the_window_do_not_count_for_networks_do_not_see_them():
    assert check_brightness("t1", body(520, 2500), WINDOW, KNOWN, 10) == []
