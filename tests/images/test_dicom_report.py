"""The summary of trust as a Basic Text SR document beside the images."""

import pytest

from dciodvfy import errors_in, needs_dciodvfy

pydicom = pytest.importorskip("pydicom")

from test_dicom_derived import ORIGIN, numbered, write_source  # noqa: E402 - needs pydicom

from dicom_slices import change  # noqa: E402 - needs pydicom
from voxlate.formats.dicom_images import write_derived  # noqa: E402
from voxlate.formats.dicom_report import write_report  # noqa: E402
from voxlate.system.errors import BadInput  # noqa: E402

HEADING = ("ERROR", "99VOXLATE", "Expected error")
SENTENCES = [(HEADING, "At most 40 HU."), (HEADING, "Grid 5×6×4 – read “as is”.")]


def written(tmp_path, sentences=SENTENCES, out="report"):
    images = write_derived(
        numbered(write_source(tmp_path / "mr")), tmp_path / "mr", tmp_path / "ct", ORIGIN
    )
    (file,) = write_report(sentences, images, tmp_path / "mr", tmp_path / out, ORIGIN)
    return file, [pydicom.dcmread(image) for image in images]


def test_the_document_holds_the_sentences_and_refers_to_the_images(tmp_path):
    file, images = written(tmp_path)
    one = pydicom.dcmread(file)
    texts = [item for item in one.ContentSequence if item.ValueType == "TEXT"]
    assert [item.TextValue for item in texts] == [text for _, text in SENTENCES]
    assert {item.ConceptNameCodeSequence[0].CodeMeaning for item in texts} == {"Expected error"}
    (evidence,) = one.CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == [
        image.SOPInstanceUID for image in images
    ]
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
        assert one[name].value == images[0][name].value
    assert one.Modality == "SR"
    assert one.VerificationFlag == "UNVERIFIED"
    assert one.SeriesDescription == "SYNTHETIC SUMMARY OF TRUST - NOT FOR DIAGNOSIS"


@needs_dciodvfy
def test_the_standard_s_checker_finds_no_error_in_the_document(tmp_path):
    file, _ = written(tmp_path)
    assert errors_in(file) == []


def test_names_in_another_alphabet_than_the_source_s_are_kept(tmp_path):
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    images = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "ct", ORIGIN)
    (file,) = write_report(SENTENCES, images, tmp_path / "mr", tmp_path / "report", ORIGIN)
    one = pydicom.dcmread(file)
    assert one.SpecificCharacterSet == "ISO_IR 192"
    assert str(one.PatientName) == "Müller^Jörg"
    assert one.ContentSequence[1].TextValue == SENTENCES[1][1]


def test_the_same_sentences_are_kept_and_others_are_refused(tmp_path):
    file, images = written(tmp_path)
    paths = sorted((tmp_path / "ct").glob("*.dcm"))
    same = write_report(SENTENCES, paths, tmp_path / "mr", tmp_path / "report", ORIGIN)
    assert same == [file]
    with pytest.raises(BadInput, match="this very series, found another"):
        write_report(SENTENCES[:1], paths, tmp_path / "mr", tmp_path / "report", ORIGIN)
    assert len(images) == 4
