"""The summary of trust as a Basic Text SR document beside the images."""

import pytest

from refusals import refuses

pydicom = pytest.importorskip("pydicom")

from derived_objects import ORIGIN, SENTENCES, numbered, write_source  # noqa: E402 - needs pydicom

from dicom_slices import change  # noqa: E402 - needs pydicom
from voxlate.clinic.dicom_images import write_derived  # noqa: E402
from voxlate.clinic.dicom_report import write_report  # noqa: E402


def written(tmp_path, **tags):
    """The document of a series whose source has these tags, and the files of the series."""
    affine = write_source(tmp_path / "mr")
    change(tmp_path / "mr", **tags)
    images = write_derived(numbered(affine), tmp_path / "mr", tmp_path / "ct", ORIGIN)
    (file,) = write_report(SENTENCES, images, tmp_path / "mr", tmp_path / "report", ORIGIN)
    return pydicom.dcmread(file), images


def test_the_document_holds_the_sentences_and_refers_to_the_images(tmp_path):
    one, files = written(tmp_path)
    images = [pydicom.dcmread(file) for file in files]
    texts = [item for item in one.ContentSequence if item.ValueType == "TEXT"]
    assert [item.TextValue for item in texts] == [text for _, text in SENTENCES]
    assert {item.ConceptNameCodeSequence[0].CodeMeaning for item in texts} == {"Expected error"}
    (evidence,) = one.CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == [
        image.SOPInstanceUID for image in images
    ]
    assert one.Modality == "SR"
    assert one.VerificationFlag == "UNVERIFIED"


def test_names_in_another_alphabet_than_the_source_s_are_kept(tmp_path):
    one, _ = written(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    assert one.SpecificCharacterSet == "ISO_IR 192"
    assert str(one.PatientName) == "Müller^Jörg"
    assert one.ContentSequence[1].TextValue == SENTENCES[1][1]


def test_other_sentences_in_the_place_of_a_document_are_refused(tmp_path):
    _, images = written(tmp_path)
    with refuses("this very series, found another"):
        write_report(SENTENCES[:1], images, tmp_path / "mr", tmp_path / "report", ORIGIN)
