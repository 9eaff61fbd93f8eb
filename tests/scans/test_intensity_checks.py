"""Percentiles of a scan outside those of the training's cases: how far, and in which words."""

import numpy as np

from rows import every_row
from voxlate.checks.intensity_checks import check_brightness, check_kind
from voxlate.scans.images.intensity import Window
from voxlate.scans.images.volume_statistics import intensity_statistics

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
        (660, 10, "note"),
        (720, 10, "caution"),
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
    assert [said.numbers[key] for key in ("value", "least", "most")] == [median, 500, 550]


def test_values_beyond_the_window_do_not_count_for_networks_do_not_see_them():
    assert check_brightness("t1", body(520, 2500), WINDOW, KNOWN, 10) == []


HEAD = np.zeros((8, 20, 20), np.float32)
HEAD[:, 5:15, 5:15] = np.random.default_rng(0).uniform(200, 900, (8, 10, 10))
IN_HU = np.where(HEAD > 0, HEAD - 300, np.float32(-1000))
POSITIVE_CT = np.zeros((8, 20, 20), np.float32)
POSITIVE_CT[:, 3:17, 3:17] = np.random.default_rng(0).normal(1060, 20, (8, 14, 14))
POSITIVE_CT[:, 4:6, 3:17] = 2200


@every_row(
    "modality, scan, codes",
    [
        ("mr", IN_HU, ["ct-values"]),
        ("mr", np.float32(HEAD > 0), ["label-values"]),
        ("ct", IN_HU, []),
        ("mr", HEAD, []),
        ("mr", (HEAD - HEAD.mean()) / HEAD.std(), []),
    ],
)
def test_a_ct_or_a_mask_in_the_place_of_an_mr_is_not_to_be_trusted(modality, scan, codes):
    said = check_kind(modality, "HU" if modality == "ct" else "a.u.", intensity_statistics(scan))
    assert [one.code for one in said] == codes
    assert all(one.grade == "do not trust" for one in said)


@every_row("scan", [POSITIVE_CT, POSITIVE_CT / 12])  # with an offset, and scaled to 8 bits
def test_a_ct_without_negative_values_in_the_place_of_an_mr_is_not_to_be_trusted(scan):
    (said,) = check_kind("mr", "a.u.", intensity_statistics(scan, scan > 0))
    assert (said.code, said.grade) == ("ct-values", "do not trust")
