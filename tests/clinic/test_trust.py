"""Trust in images: what is graded "do not trust" is handed on only where the user accepts that, and says so wherever it goes."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from rows import every_row
from voxlate.base.errors import DoNotTrust
from voxlate.base.messages import message
from voxlate.clinic.archives import export_anew
from voxlate.evaluation.intervals.summary import error_lines
from voxlate.evaluation.reports.page import report as write_report
from voxlate.scans.formats.io import content_hash
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.provenance import ENDINGS, Synthesised, provenance_of

pydicom = pytest.importorskip("pydicom")
from dicom_slices import write_series  # noqa: E402 - needs pydicom
from voxlate.clinic.dicom_out import export_dicom, trust_summary  # noqa: E402 - needs pydicom

REASON = "Only 22 mm of the head are in the scan."
BAD = message("other-content", REASON, grade="do not trust").table
CAUTION = message("slices", "Slices are missing.").table
DISTRUST = "DO NOT TRUST"
SHAPE = (6, 20, 24)
GRID = np.diag([3.0, 3, 3, 1])


def result(warnings, **more):
    """A CT of a body in air with all its maps."""
    hu = np.full(SHAPE, -1000, np.float32)
    hu[1:5, 4:16, 4:20] = 40
    hu[2:4, 6:8, 6:18] = 600
    ct = Volume(hu[None], GRID, "HU", "ct")
    provenance = {"model": {"title": "any"}, "inputs": {}, "units": {"ct": "HU"}}
    provenance |= {"warnings": warnings} | more
    state = {"ct_01": ct}
    low, high = ({"ct": replace(ct, data=ct.data + away)} for away in (-50, 50))
    maps = {"low": low, "high": high, "states": state}
    return Synthesised({"ct": ct}, {"ct": ct}, provenance, **maps)


def synthesised(folder, warnings, **more):
    """The folder of a case."""
    result(warnings, **more).write(folder)
    return folder


@pytest.fixture
def series(tmp_path):
    """A DICOM series on the grid of the cases."""
    scan = Volume(np.zeros((1, *SHAPE), np.float32), GRID, "", "mr")
    return write_series(scan, tmp_path / "head", Modality="MR")


def header_text(file):
    """What the header of an image file states, in the formats that state anything."""
    if file.name.endswith((".nii", ".nii.gz")):
        return str(nib.load(file).header["descrip"])
    return file.read_bytes()[:2000].decode("latin-1")


def stated_by_files(folder, warnings, series):
    for ending in ENDINGS:
        place = folder / ending[1:]
        result(warnings).write(place, ending)
        for file in [*place.glob(f"*{ending}"), *place.glob(f"states/*{ending}")]:
            yield file.name, header_text(file)
    yield "ct", str(result(warnings).to_nifti().header["descrip"])


def stated_by_dicom(folder, warnings, series):
    pytest.importorskip("highdicom")
    case = synthesised(folder / "out/ann", warnings)
    done = export_dicom(case, folder / "dicom", series, accept_untrusted=True, rtstruct=True)
    for file in done.files:
        one = pydicom.dcmread(file)
        quantity = one.get("ContentDescription", "")
        assert not warnings or REASON in one.get("ImageComments", REASON)
        yield file.parent.name, f"{one.SeriesDescription} {quantity}"


@every_row("writer", [stated_by_files, stated_by_dicom])
def test_every_writer_states_the_grade_and_whether_a_map_is_a_lower_or_an_upper_end(
    writer, tmp_path, series
):
    stated = [*writer(tmp_path / "bad", [BAD, CAUTION], series)]
    assert len(stated) >= 4
    for name, text in stated:
        assert DISTRUST in text, name
        for end, word in (("low", "lower"), ("high", "upper")):
            if end in name:
                assert word in text.lower(), name
    for name, text in writer(tmp_path / "good", [], series):
        assert DISTRUST not in text, name


def test_no_study_gets_it_unless_it_is_accepted(series, tmp_path):
    to, bad = tmp_path / "dicom", synthesised(tmp_path / "out/bob", [BAD, CAUTION])
    with pytest.raises(DoNotTrust):
        export_dicom(bad, to, series)
    with pytest.raises(DoNotTrust):
        export_anew([bad], to, print)
    assert not [*to.rglob("*.dcm")]
    export_dicom(bad, to, series, accept_untrusted=True)
    first = pydicom.dcmread(to / "bob/ct/0001.dcm")
    assert CAUTION["text"] in first.ImageComments
    assert REASON in first.DerivationDescription


def test_of_several_cases_the_others_are_handed_on(series, voxlate, tmp_path):
    inputs = {"mr": {"path": str(series), "sha256": content_hash(series)}}
    for name, warnings in (("ann", []), ("bob", [BAD])):
        synthesised(tmp_path / "both" / name, warnings, inputs=inputs)
    both = voxlate("export", tmp_path / "both", "--dicom", tmp_path / "dicom")
    assert both.code == 3
    assert {path.parts[-3] for path in (tmp_path / "dicom").rglob("*.dcm")} == {"ann"}


def test_every_receiver_reads_the_same_expected_error(series, tmp_path):
    case = synthesised(tmp_path / "out/ann", [], expected={"ct": {"bone": 210.0}})
    (said,) = error_lines(provenance_of(case))
    assert "bone 210 HU" in said
    export_dicom(case, tmp_path / "dicom", series)
    report = pydicom.dcmread(tmp_path / "dicom/ann/report/0001.dcm")
    texts = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    assert said in texts
    assert said in write_report(case.parent, tmp_path / "report.html").read_text()


CALIBRATED = {
    "voxlate": "0.7.0",
    "notice": "Research software, not a medical device.",
    "model": {"title": "MR to CT", "weights": "0123456789abcdef"},
    "seed": 3,
    "units": {"ct": "HU"},
    "inputs": {"mr": {"sha256": "b40f981e3a1da35a", "path": "/home/somebody/mr.nii.gz"}},
    "calibration": {"coverage": 0.9, "confidence": 0.95, "bound": "normal", "patients": 12},
    "bounds": {"ct": {"mae": 41.5}},
    "warnings": [{"code": "cut-off", "grade": "caution", "text": "The scan ends inside the head."}],
}
WIDENED = {
    "patients": 4,
    "widened": {"ct": {"factor": 1.834, "heads": 7, "bone": 1, "soft": True}},
    "held": {"ct": {"bone": 0.88}},
}


@every_row(
    "heading, changes, parts",
    [
        ("ERROR", {}, ("ct", "41.5 HU", "10%")),
        ("COVERAGE", {}, ("90%", "95%", "12")),
        (
            "COVERAGE",
            {"calibration": CALIBRATED["calibration"] | WIDENED},
            ("90%", "4 synthetic heads", "7 real heads"),
        ),
        ("MODEL", {}, ("MR to CT", "0123456789abcdef", "Seed 3", "0.7.0")),
        ("NOTICE", {}, (CALIBRATED["notice"],)),
        ("WARNING", {}, (CALIBRATED["warnings"][0]["text"],)),
        ("SOURCE", {}, ("b40f981e3a1da35a",)),
    ],
)
def test_the_summary_states_errors_coverage_model_and_warnings_and_no_path(heading, changes, parts):
    summary = trust_summary(CALIBRATED | changes)
    text = " ".join(text for (value, _, _), text in summary if value == heading)
    assert [part for part in parts if part not in text] == []
    assert not any("/" in text for _, text in summary)
