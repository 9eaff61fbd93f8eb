"""Heads that lie askew are straight in the prepared cohort."""

from dataclasses import replace

import numpy as np
import pytest

from brains import symmetric
from refusals import refuses
from voxlate.anatomy.head import make_head
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.align import Preparation, find_common_grid
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Grid, Volume, resample
from voxlate.scans.images.midline import Midline, find_midline

SIZE = (50, 60, 42)  # x, y, z: 4 mm each


@pytest.fixture(scope="module")
def askew() -> Volume:
    """A symmetric head, turned by 9 degrees and 6 mm off."""
    made = make_head(3, 0, SIZE)
    rotation = Midline(9.0, 0.0, 0.0, 1.0).rotation.T
    move = np.eye(4)
    move[:3, :3], move[0, 3] = rotation, -6.0
    grid = Grid(made.labels.shape, move @ made.affine)
    seen = resample(symmetric(made), grid, fill=-1000.0)
    return Volume(np.rint(seen.data), made.affine, "HU", "ncct")


def test_prepare_aligns_a_case_and_its_labels_with_the_midline_and_keeps_both_grids(
    askew, tmp_path
):
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


def test_a_scan_of_a_voxel_size_in_another_unit_is_refused_before_memory_is_taken():
    scan = Volume(np.ones((1, 20, 30, 40), np.float32), np.diag([1000.0, 1000, 1000, 1]), "", "t1")
    with refuses("found 40 m"):
        find_common_grid("case", {"t1": scan}, Preparation(spacing_mm=(2.0, 2.0, 2.0)))
