"""The audit of a cohort: how far the scans of each case lie from each other, and which pairs prepare names."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage

from preparing import prepare
from rows import slow
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.checks.check_table import check_together
from voxlate.checks.cohort_examination import check_alignment
from voxlate.evaluation.reports.page import report
from voxlate.scans.cases.case import misalignments
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume, write_volume

SHIFT_MM = 5.0


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Two heads with t1 and t2; the t2 of the second lies 5 mm further to the front."""
    folder = tmp_path_factory.mktemp("audit") / "heads"
    write_cohort(folder, cases=2, size=(64, 80, 56), lesion="none", modalities=["t1", "t2"])
    path = folder / "phantom_001" / "t2.nii.gz"
    scan = read_volume(path, "t2")
    rows = SHIFT_MM / scan.grid.spacing_mm[1]
    scan.data[0] = scipy.ndimage.shift(scan.data[0], (0, rows, 0), order=3, mode="nearest")
    write_volume(path, scan)
    return folder


@pytest.fixture(scope="module")
def prepared(heads):
    out = heads.parent / "prepared"
    prepare(heads, out, fixed="t1", resample=True, workers=1)
    return out


@slow
def test_prepare_measures_how_far_scans_lie_apart(prepared):
    near, far = (entry.misaligned["t2"] for entry in open_cohort(prepared).cases)
    assert near.median_mm < 0.6
    assert far.median_mm == pytest.approx(SHIFT_MM, abs=0.5)
    assert far.to == "t1"
    assert open_cohort(prepared).header("phantom_001").misaligned == {"t2": far}


@slow
def test_the_pair_that_is_out_of_register_is_named_in_prepare_in_synthesis_and_first_in_the_report(
    prepared, tmp_path
):
    cohort = open_cohort(prepared)
    assert [said.case for said in cohort.warnings if said.code == "misaligned"] == ["phantom_001"]
    page = report(prepared, tmp_path / "report.html").read_text()
    worst, near = page.index("phantom_001"), page.index("phantom_000")
    assert worst < page.index("t2 against t1: 5.0 mm") < near

    def said_of(case):
        return [(said.code, said.grade) for said in check_together(cohort.case(case))]

    assert said_of("phantom_000") == []
    assert said_of("phantom_001") == [("misaligned", "caution")]


def test_a_blank_scan_is_named_and_neither_it_nor_a_case_of_one_scan_is_compared(tmp_path, save):
    rng = np.random.default_rng(0)
    for case in "ab":
        save(tmp_path / "in" / case / "t1.nii.gz", rng.integers(1, 1000, (4, 6, 8)))
    for case in "bc":
        save(tmp_path / "in" / case / "t2.nii.gz", np.full((4, 6, 8), 7))
    cohort = prepare(tmp_path / "in", tmp_path / "out", workers=1)
    assert [entry.misaligned for entry in cohort.cases] == [{}, {}, {}]
    assert "blank" in {said.code for said in cohort.warnings}


@slow
def test_scans_of_too_large_voxels_cannot_be_measured_and_are_said_to_be_so(prepared):
    case = open_cohort(prepared).case("phantom_000")
    coarse = replace(case, header=replace(case.header, spacing_mm=(7.0, 3.0, 3.125)))
    found = misalignments(coarse, "t1")
    assert found["t2"].median_mm is None
    (said,) = check_alignment([replace(coarse.header, misaligned=found)])
    assert said.code == "not-measured"


@slow
def test_a_map_is_not_compared(prepared):
    case = open_cohort(prepared).case("phantom_000")
    units = {"t1": "s", "t2": "a.u."}
    assert misalignments(replace(case, header=replace(case.header, units=units))) == {}
