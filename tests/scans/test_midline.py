"""The midline of heads that were turned, tilted and shifted by known amounts."""

from dataclasses import replace

import numpy as np
import pytest

from preparing import prepare
from refusals import refuses
from rows import slow
from voxlate.anatomy import signal
from voxlate.anatomy.mapped_head import make_head
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Grid, Volume, resample
from voxlate.scans.images.midline import Midline, find_midline, midline_grid

SIZE = (50, 60, 42)  # x, y, z: 4 mm each


def symmetric(made):
    """The CT of a head whose left and right mirror each other exactly."""
    ct = signal.image(made, "ncct")
    right = ct[..., ct.shape[-1] // 2 :]
    both = np.concatenate([right[..., ::-1], right], axis=-1)
    return Volume(both[None], made.affine, "HU", "ncct")


@pytest.fixture(scope="module")
def head() -> Volume:
    """Left and right mirror each other exactly, but for noise."""
    made = make_head(3, 0, SIZE)
    made = replace(made, exposure=replace(made.exposure, noise_hu=1.0, blur_mm=2.0))
    return symmetric(made)


def turned(head: Volume, turn: float, tilt: float, shift: float) -> Volume:
    """The head as a scanner sees it whose own axes are turned the other way."""
    grid = head.grid
    centre = grid.affine[:3, :3] @ (np.array(grid.shape[::-1]) - 1) / 2 + grid.affine[:3, 3]
    rotation = Midline(turn, tilt, 0.0).rotation.T
    move = np.eye(4)
    move[:3, :3] = rotation
    move[:3, 3] = centre - rotation @ centre - [shift, 0, 0]
    scan = resample(head, Grid(grid.shape, move @ grid.affine), fill=-1000.0)
    return Volume(scan.data, head.affine, "HU", "ncct")


def test_a_turn_a_tilt_and_a_shift_are_found(head):
    found = find_midline(turned(head, -13.0, 4.0, 9.0))
    assert (found.turn_deg, found.tilt_deg) == pytest.approx((-13.0, 4.0), abs=0.5)
    assert found.shift_mm == pytest.approx(9.0, abs=1.0)


@slow
def test_a_head_that_is_straight_stays_where_it_is(head):
    assert midline_grid(head) == head.grid
    found = find_midline(head)
    assert abs(found.turn_deg) < 0.5
    assert abs(found.shift_mm) < 1.0


def test_prepare_aligns_a_case_and_its_labels_with_the_midline_and_keeps_both_grids(head, tmp_path):
    askew = turned(head, 9.0, 0.0, 6.0)
    folder = tmp_path / "in" / "a"
    for name, data in (
        ("ncct", askew.data),
        ("cbf", np.zeros_like(askew.data)),  # has no midline
        ("seg", np.float32(askew.data > 300)),
    ):
        write_volume(folder / f"{name}.nii.gz", replace(askew, data=data))
    cohort = prepare(tmp_path / "in", tmp_path / "out", align="midline", workers=1, audit=False)
    straight = cohort.case("a").volume("ncct")
    assert (cohort.provenance["align"], cohort.provenance["fixed"]) == ("midline", "ncct")
    assert find_midline(straight).move_mm < 1.5 < 15 < find_midline(askew).move_mm
    header = cohort.header("a")
    np.testing.assert_allclose(header.origins["ncct"].affine, askew.affine, atol=1e-4)
    to_head = np.linalg.inv(np.array(header.affine)) @ askew.affine
    assert np.degrees(np.arctan2(-to_head[1, 0], to_head[0, 0])) == pytest.approx(9, abs=0.5)
    bone = cohort.case("a").arrays["label.seg"][:] > 0
    assert straight.data[0][bone].mean() > 300, "the label moved with the scan"


def test_what_is_unlike_its_mirror_image_is_refused():
    noise = np.random.default_rng(0).normal(50, 40, (10, 30, 30)).clip(1).astype(np.float32)
    noise[:, :, :15] = 0
    noise[0, 0, 1] = 30  # planes of one value at a side are no part of a scan
    noise *= np.linspace(0, 1, 30)
    with refuses():
        find_midline(Volume(noise[None], np.diag([4, 4, 6, 1.0]), "a.u.", "x"))
