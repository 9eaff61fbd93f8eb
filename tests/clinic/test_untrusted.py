"""Images graded "do not trust" are handed on only where the user accepts that, and then say so of themselves."""

import nibabel as nib
import numpy as np
import pytest

from voxlate.base.errors import DoNotTrust
from voxlate.base.files import write_json
from voxlate.base.messages import message
from voxlate.clinic.dicom_out import export_dicom
from voxlate.clinic.picture_archive import write_objects_of
from voxlate.evaluation.intervals.summary import error_lines
from voxlate.evaluation.reports.page import report as write_report
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.formats.nifti import description_of
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.provenance import provenance_of
from voxlate.synthesis.result import Synthesised

pydicom = pytest.importorskip("pydicom")

REASON = "Only 22 mm of the head are in the scan."
BAD = message("other-content", REASON, grade="do not trust").table
CAUTION = message("slices", "Slices are missing.").table
SHAPE = (6, 20, 24)
GRID = np.diag([3.0, 3, 3, 1])


def synthesised(folder, warnings, inputs=None):
    """A case with a CT of a body in air."""
    ct = np.full(SHAPE, -1000, np.float32)
    ct[1:5, 4:16, 4:20] = 40
    ct[2:4, 6:8, 6:18] = 600
    provenance = {"model": {"title": "any"}, "inputs": inputs or {}, "warnings": warnings}
    Synthesised({"ct": Volume(ct[None], GRID, "HU", "ct")}, {}, provenance).write(folder)
    return folder


@pytest.fixture
def cases(tmp_path):
    """A folder of a good case and one that is not to be trusted."""
    write_json(tmp_path / "out/provenance.json", {"cases": ["ann", "bob"]})
    synthesised(tmp_path / "out/ann", [])
    synthesised(tmp_path / "out/bob", [BAD, CAUTION])
    return tmp_path / "out"


def test_its_own_file_says_not_to_trust_it(cases):
    marked = {
        name: b"DO NOT TRUST" in bytes(nib.load(cases / name / "ct.nii.gz").header["descrip"])
        for name in ("ann", "bob")
    }
    assert marked == {"ann": False, "bob": True}
    assert description_of("", ["caution"] * 2).endswith("; 2 cautions")


def test_no_study_gets_it_unless_it_is_accepted_and_then_its_headers_say_so(
    cases, series, tmp_path
):
    to = tmp_path / "dicom"
    with pytest.raises(DoNotTrust):
        export_dicom(cases / "bob", to, series)
    with pytest.raises(DoNotTrust):
        write_objects_of([cases / "bob"], to, lambda _: None)
    assert not [*to.rglob("*.dcm")]
    export_dicom(cases / "bob", to, series, accept_untrusted=True)
    first = pydicom.dcmread(to / "bob/ct/0001.dcm")
    assert "DO NOT TRUST" in first.SeriesDescription
    assert REASON in first.ImageComments
    assert CAUTION["text"] in first.ImageComments
    assert REASON in first.DerivationDescription


def test_the_command_hands_it_on_only_where_it_is_accepted(cases, series, voxlate, tmp_path):
    words = ("export", cases / "bob", "--dicom", tmp_path / "dicom", "--rtstruct", "--like", series)
    refused = voxlate(*words)
    assert refused.code == 3
    assert REASON in refused.err
    assert not [*(tmp_path / "dicom").rglob("*.dcm")]
    voxlate(*words, "--accept-untrusted").done()
    for name in ("ct", "ct_rtstruct"):
        first = pydicom.dcmread(tmp_path / "dicom/bob" / name / "0001.dcm")
        assert "DO NOT TRUST" in first.SeriesDescription


def test_of_several_cases_the_others_are_handed_on(series, voxlate, tmp_path):
    inputs = {"mr": {"path": str(series), "sha256": content_hash(series)}}
    for name, warnings in (("ann", []), ("bob", [BAD])):
        synthesised(tmp_path / "both" / name, warnings, inputs)
    both = voxlate("export", tmp_path / "both", "--dicom", tmp_path / "dicom")
    assert both.code == 3
    assert {path.parts[-3] for path in (tmp_path / "dicom").rglob("*.dcm")} == {"ann"}


def test_every_receiver_reads_the_same_expected_error(series, tmp_path):
    case = synthesised(tmp_path / "out/ann", [])
    ct = read_volume(case / "ct.nii.gz", "ct")
    stated = {"model": {"title": "any"}, "inputs": {}, "units": {"ct": "HU"}}
    Synthesised({"ct": ct}, {}, {**stated, "expected": {"ct": {"bone": 210.0}}}).write(case)
    (said,) = error_lines(provenance_of(case))
    assert "bone 210 HU" in said
    export_dicom(case, tmp_path / "dicom", series)
    report = pydicom.dcmread(tmp_path / "dicom/ann/report/0001.dcm")
    texts = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    assert said in texts
    assert said in write_report(case.parent, tmp_path / "report.html").read_text()


@pytest.fixture
def series(tmp_path):
    """A DICOM series on the grid of the cases."""
    from dicom_slices import write_series

    scan = Volume(np.zeros((1, *SHAPE), np.float32), GRID, "", "mr")
    return write_series(scan, tmp_path / "head", Modality="MR")
