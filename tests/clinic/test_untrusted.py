"""Images graded "do not trust" are handed on only where the user accepts that, and then say so of themselves."""

import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from voxlate.base.errors import DoNotTrust
from voxlate.base.files import read_json, write_json
from voxlate.base.messages import message
from voxlate.clinic.archive import write_objects_of
from voxlate.clinic.dicom_out import export_dicom
from voxlate.evaluation.intervals.expected import expected_errors
from voxlate.evaluation.reports.page import report as write_report
from voxlate.scans.formats.io import read_volume
from voxlate.scans.formats.nifti import description_of
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.result import Synthesised

pydicom = pytest.importorskip("pydicom")

REASON = "Only 22 mm of the head are in the scan."
BAD = message("other-content", REASON, grade="do not trust").table
CAUTION = message("slices", "Slices are missing.").table
SHAPE = (6, 20, 24)
GRID = np.diag([3.0, 3, 3, 1])


def synthesised(folder, warnings):
    """A case with a CT of a body in air."""
    ct = np.full(SHAPE, -1000, np.float32)
    ct[1:5, 4:16, 4:20] = 40
    ct[2:4, 6:8, 6:18] = 600
    provenance = {"model": {"title": "any"}, "inputs": {}, "warnings": warnings}
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


def test_no_user_of_a_ct_gets_it_unless_it_is_accepted(cases, voxlate, tmp_path):
    words = ("export", cases, "--for", "pet", "--out", tmp_path / "pet")
    alone = voxlate("export", cases / "bob", "--for", "pet", "--out", tmp_path / "alone")
    assert alone.code == 3
    assert REASON in alone.err
    assert not (tmp_path / "alone/bob").exists()
    file = cases / "bob/ct.nii.gz"
    for one in (file, shutil.copy(file, tmp_path / "copy.nii.gz")):
        assert voxlate("export", one, "--for", "pet", "--out", tmp_path / "alone").code == 3
    both = voxlate(*words)
    assert both.code != 0, both.said
    assert [path.parent.name for path in (tmp_path / "pet").glob("*/facts.json")] == ["ann"], (
        both.said
    )
    voxlate(*words, "--accept-untrusted").done()
    facts = {case: read_json(tmp_path / "pet" / case / "facts.json") for case in ("ann", "bob")}
    assert [facts[case]["do_not_trust"] for case in ("ann", "bob")] == ["", BAD["text"]]


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


def test_every_receiver_reads_the_same_expected_error(series, voxlate, tmp_path):
    # not at the top: test_leaves.py collects this file without that wing
    from voxlate.page.views import _volumes

    case = synthesised(tmp_path / "out/ann", [])
    ct = read_volume(case / "ct.nii.gz", "ct")
    ends = {end: {"ct": replace(ct, data=ct.data + by)} for end, by in (("low", -50), ("high", 50))}
    calibration = {"coverage": 0.9, "levels": {"ct": {"0.5": 0.4, "0.9": 1.0}}}
    stated = {"model": {"title": "any"}, "inputs": {}, "units": {"ct": "HU"}}
    Synthesised({"ct": ct}, {}, stated | {"calibration": calibration}, **ends).write(case)
    said = expected_errors(case)["ct"]
    voxlate("export", case, "--for", "pet", "--out", tmp_path / "pet").done()
    facts = read_json(tmp_path / "pet/ann/facts.json")
    export_dicom(case, tmp_path / "dicom", series)
    report = pydicom.dcmread(tmp_path / "dicom/ann/report/0001.dcm")
    (view,) = (view for view, _ in _volumes(case, {}) if view.role == "width")
    assert facts["expected_error"]["ct"] == view.expected == said
    texts = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    assert said in texts
    assert said in write_report(case.parent, tmp_path / "report.html").read_text()


@pytest.fixture
def series(tmp_path):
    """A DICOM series on the grid of the cases."""
    from dicom_slices import write_series

    scan = Volume(np.zeros((1, *SHAPE), np.float32), GRID, "", "mr")
    return write_series(scan, tmp_path / "head", Modality="MR")
