"""DICOM files under pseudonyms: no attribute names the patient, and geometry, pixels and references stay."""

import datetime
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dciodvfy import errors_in, needs_dciodvfy
from dicom_slices import mr_slice
from voxlate.base.errors import BadInput
from voxlate.clinic.deidentify import SYNTHETIC, actions_of_table, deidentify_folder
from voxlate.scans.cohorts.pseudonyms import Pseudonyms
from voxlate.scans.formats.io import read_volume

KEY = Pseudonyms(bytes(range(32)))
SECRETS = (
    "MEIER",
    "X4711",
    "Lindenstr",
    "Charite",
    "Huber",
    "ACC-99",
    "Radiologie",
    "SN-1",
    "private",
)
STUDY, SERIES, FRAME = (generate_uid() for _ in range(3))


def ct_slice(number: int) -> Dataset:
    """A slice of a derived CT, whose attributes name a patient in many places."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.SourceApplicationEntityTitle = "RADCT_WARD4"
    uid = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.FrameOfReferenceUID = FRAME
    dataset.PatientName, dataset.PatientID = "MEIER^ANNA", "X4711"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19500101", "F", "070Y"
    dataset.PatientAddress = "Lindenstr. 1"
    dataset.OtherPatientIDs = "X4711-B"
    dataset.InstitutionName, dataset.ReferringPhysicianName = "Charite", "Huber^Karl"
    dataset.InstitutionalDepartmentName = "Radiologie"
    dataset.AccessionNumber, dataset.DeviceSerialNumber = "ACC-99", "SN-1"
    dataset.StudyDate, dataset.SeriesDate, dataset.StudyTime = "20200228", "20200301", "101112"
    dataset.AcquisitionDateTime = "20200228101112.500000"
    dataset.StudyDescription = "Head of MEIER"
    dataset.SeriesDescription = f"{SYNTHETIC} of MEIER"
    dataset.Modality, dataset.ImageType = "CT", ["DERIVED", "SECONDARY", "AXIAL"]
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = CTImageStorage, STUDY
    dataset.SourceImageSequence = [source]
    block = dataset.private_block(0x0011, "OTHER VENDOR", create=True)
    block.add_new(0x01, "LO", "private X4711")
    own = dataset.private_block(0x0091, "VOXLATE", create=True)
    own.add_new(0x01, "LO", "run 0123abcd")
    forged = dataset.private_block(0x0013, "VOXLATE", create=True)
    forged.add_new(0x01, "LO", "private X4711")
    dataset.add_new(0x00282222, "UN", b"MEIER")
    text = Dataset()
    text.TextValue = "Head of MEIER"
    dataset.ContentSequence = [text]
    dataset.WindowCenterWidthExplanation = "as MEIER likes it"
    dataset.add_new(0x60000022, "LO", "drawn for MEIER")
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 4, 5, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.5], 2
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-10, -20, 2.0 * number]
    dataset.InstanceNumber, dataset.RescaleIntercept, dataset.RescaleSlope = number + 1, 0, 1
    dataset.PixelData = np.full((4, 5), 10 * number, np.int16).tobytes()
    return dataset


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for number in range(3):
        ct_slice(number).save_as(folder / f"MEIER_{number}.dcm", enforce_file_format=True)
    return folder


def texts(dataset: Dataset) -> list[str]:
    """All values of a dataset and of its sequences as text."""
    found = []
    for element in dataset.iterall():
        if element.VR != "SQ" and element.keyword != "PixelData":
            found.append(str(element.value))
    return found


def test_no_attribute_names_the_patient_and_the_volume_stays(series, tmp_path):
    done = deidentify_folder(series, tmp_path / "out", KEY)
    assert len(done.files) == 3
    for path in done.files:
        dataset = pydicom.dcmread(path)
        words = " ".join([*texts(dataset), str(dataset.file_meta), path.name])
        for secret in (*SECRETS, "19500101", "20200228", "20200301", STUDY, SERIES, FRAME):
            assert secret not in words, secret
        assert str(dataset.PatientID) == str(dataset.PatientName) == KEY.patient("X4711")
        assert dataset.SeriesDescription == SYNTHETIC
        assert dataset.private_block(0x0091, "VOXLATE")[0x01].value == "run 0123abcd"
        assert dataset.PatientIdentityRemoved == "YES"
        codes = [one.CodeValue for one in dataset.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113107"]
    before, after = read_volume(series), read_volume(tmp_path / "out")
    np.testing.assert_array_equal(before.data, after.data)
    np.testing.assert_array_equal(before.affine, after.affine)


def test_files_that_would_replace_each_other_are_refused(series, tmp_path):
    first = sorted(series.iterdir())[0]
    shutil.copy(first, series / "copy.dcm")
    with pytest.raises(BadInput, match="expected a SOPInstanceUID of its own"):
        deidentify_folder(series, tmp_path / "out", KEY)


def test_patients_without_an_id_have_pseudonyms_of_their_own(tmp_path):
    found = set()
    for name in ("ALICE", "BOB"):
        dataset = ct_slice(0)
        dataset.PatientID, dataset.PatientName = "", name
        folder = tmp_path / name
        folder.mkdir()
        dataset.save_as(folder / "1.dcm", enforce_file_format=True)
        (path,) = deidentify_folder(folder, tmp_path / f"{name}_out", KEY).files
        found.add(str(pydicom.dcmread(path).PatientID))
    assert len(found) == 2
    dataset.PatientName = ""
    dataset.save_as(folder / "1.dcm", enforce_file_format=True)
    with pytest.raises(BadInput, match="expected a PatientID or PatientName"):
        deidentify_folder(folder, tmp_path / "neither", KEY)


def test_references_between_files_still_hold(series, tmp_path):
    done = deidentify_folder(series, tmp_path / "out", KEY)
    datasets = [pydicom.dcmread(path) for path in done.files]
    assert {one.StudyInstanceUID for one in datasets} == {KEY.uid(STUDY)}
    assert {one.FrameOfReferenceUID for one in datasets} == {KEY.uid(FRAME)}
    for one in datasets:
        (source,) = one.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == KEY.uid(STUDY)
        assert source.ReferencedSOPClassUID == CTImageStorage
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID


def test_dates_keep_their_distance_and_births_are_removed(series, tmp_path):
    done = deidentify_folder(series, tmp_path / "out", KEY)
    dataset = pydicom.dcmread(done.files[0])
    study, later = (
        datetime.date.fromisoformat(one) for one in (dataset.StudyDate, dataset.SeriesDate)
    )
    assert datetime.date(2020, 2, 28) - study == datetime.timedelta(KEY.days("X4711"))
    assert later - study == datetime.timedelta(2)
    assert dataset.get("PatientBirthDate", "") in ("", None)
    assert "PatientAge" not in dataset
    assert dataset.AcquisitionDateTime == dataset.StudyDate  # without its time


def test_every_attribute_of_the_table_is_changed_or_removed():
    actions = actions_of_table("table")
    assert len(actions) > 600
    expected = {
        (0x0010, 0x0010): "empty",
        (0x0010, 0x1010): "delete",
        (0x0008, 0x0018): "uid",
        (0x0008, 0x2112): "uid",
        (0x0018, 0x0050): None,
    }
    assert {tag: actions.get(tag) for tag in expected} == expected


def test_a_file_without_pixels_is_left_out_and_names_in_pixels_are_refused(series, tmp_path):
    report = ct_slice(9)
    del report.PixelData
    report.save_as(series / "report.dcm", enforce_file_format=True)
    assert deidentify_folder(series, tmp_path / "out", KEY).left_out == (series / "report.dcm",)
    burned = ct_slice(8)
    burned.BurnedInAnnotation = "YES"
    burned.save_as(series / "burned.dcm", enforce_file_format=True)
    with pytest.raises(BadInput, match="expected pixels without names, found BurnedInAnnotation"):
        deidentify_folder(series, tmp_path / "other", KEY)
    (series / "burned.dcm").write_bytes(b"no DICOM")
    with pytest.raises(BadInput, match="expected a DICOM file, found another one"):
        deidentify_folder(series, tmp_path / "other", KEY)


def test_the_command_writes_a_series_that_is_read_and_refuses_a_folder_without_files(
    voxlate, series, tmp_path
):
    key = tmp_path / "key"
    assert voxlate("pseudonym-key", key).code == 0
    said = voxlate("pseudonymise", series, "--key", key, "--out", tmp_path / "out").done()
    assert "3 images" in said.out
    np.testing.assert_array_equal(read_volume(tmp_path / "out").data, read_volume(series).data)
    refused = voxlate("pseudonymise", tmp_path / "none", "--key", key, "--out", tmp_path / "new")
    assert "expected a folder with DICOM files, found none" in refused.refusal


@needs_dciodvfy
def test_pseudonyms_add_no_error_of_the_standard_s_checker(tmp_path):
    pytest.importorskip("dicomanonymizer")
    made = mr_slice(0, STUDY, SERIES)
    made.FrameOfReferenceUID = FRAME
    made.ClinicalTrialSponsorName, made.ClinicalTrialProtocolID = "sponsor", "protocol"
    made.ClinicalTrialSubjectID, made.ClinicalTrialProtocolName = "subject", ""
    made.ClinicalTrialSiteID = made.ClinicalTrialSiteName = ""
    made.ClinicalTrialProtocolEthicsCommitteeName = "committee"
    made.ClinicalTrialProtocolEthicsCommitteeApprovalNumber = "1"
    overlay = {0x10: ("US", 24), 0x11: ("US", 16), 0x40: ("CS", "G"), 0x50: ("SS", [1, 1])}
    overlay |= {0x100: ("US", 1), 0x102: ("US", 0), 0x3000: ("OW", bytes(48))}
    for element, (kind, value) in overlay.items():
        made.add_new((0x6000, element), kind, value)
    (tmp_path / "scan").mkdir()
    made.save_as(tmp_path / "scan" / "1.dcm", enforce_file_format=True)
    (written,) = deidentify_folder(tmp_path / "scan", tmp_path / "out", KEY).files
    before = errors_in(tmp_path / "scan" / "1.dcm")
    assert not [error for error in before if "Overlay" in error or "Clinical" in error]
    assert {*errors_in(written)} <= {*before}
