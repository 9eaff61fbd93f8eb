"""DICOM files under pseudonyms: no attribute names the patient, and geometry, pixels and references stay."""

import datetime
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dciodvfy import errors_in, needs_dciodvfy
from dicom_slices import image, item, mr_slice
from refusals import refuses
from voxlate.clinic.deidentify import SYNTHETIC, actions_of_table, deidentify_folder
from voxlate.scans.cohorts.pseudonyms import Pseudonyms
from voxlate.scans.formats.io import read_volume

KEY = Pseudonyms(bytes(range(32)))
SECRETS = [
    "MEIER",
    "X4711",
    "Lindenstr",
    "Charite",
    "Huber",
    "ACC-99",
    "Radiologie",
    "SN-1",
    "private",
]
STUDY, SERIES, FRAME = (generate_uid() for _ in range(3))


def ct_slice(number: int, **tags) -> Dataset:
    """A slice of a derived CT, whose attributes name a patient in many places."""
    dataset = image(
        np.full((4, 5), 10 * number, np.int16),
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=SERIES,
        FrameOfReferenceUID=FRAME,
        PatientName="MEIER^ANNA",
        PatientID="X4711",
        PatientBirthDate="19500101",
        PatientSex="F",
        PatientAge="070Y",
        PatientAddress="Lindenstr. 1",
        OtherPatientIDs="X4711-B",
        InstitutionName="Charite",
        ReferringPhysicianName="Huber^Karl",
        InstitutionalDepartmentName="Radiologie",
        AccessionNumber="ACC-99",
        DeviceSerialNumber="SN-1",
        StudyDate="20200228",
        SeriesDate="20200301",
        AcquisitionDateTime="20200228101112.500000",
        StudyDescription="Head of MEIER",
        SeriesDescription=f"{SYNTHETIC} of MEIER",
        ImageType=["DERIVED", "SECONDARY", "AXIAL"],
        SourceImageSequence=[
            item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=STUDY)
        ],
        ContentSequence=[item(TextValue="Head of MEIER")],
        WindowCenterWidthExplanation="as MEIER likes it",
        PixelSpacing=[0.5, 0.5],
        SliceThickness=2,
        ImagePositionPatient=[-10, -20, 2.0 * number],
        InstanceNumber=number + 1,
        RescaleIntercept=0,
        RescaleSlope=1,
    )
    dataset.update(tags)
    for group, creator, text in (
        (0x0011, "OTHER VENDOR", "private X4711"),
        (0x0091, "VOXLATE", "run 0123abcd"),
        (0x0013, "VOXLATE", "private X4711"),  # forged
    ):
        dataset.private_block(group, creator, create=True).add_new(0x01, "LO", text)
    dataset.add_new(0x00282222, "UN", b"MEIER")
    dataset.add_new(0x60000022, "LO", "drawn for MEIER")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.SourceApplicationEntityTitle = "RADCT_WARD4"
    return dataset


def put(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    for number in range(3):
        put(ct_slice(number), folder / f"MEIER_{number}.dcm")
    return folder


def test_no_attribute_names_the_patient_but_volume_references_and_distances_of_dates_stay(
    series, tmp_path
):
    done = deidentify_folder(series, tmp_path / "out", KEY)
    assert len(done.files) == 3
    for path in done.files:
        dataset = pydicom.dcmread(path)
        texts = [
            str(element.value)
            for element in dataset.iterall()
            if element.VR != "SQ" and element.keyword != "PixelData"
        ]
        words = " ".join([*texts, str(dataset.file_meta), path.name])
        for secret in (*SECRETS, "19500101", "20200228", "20200301", STUDY, SERIES, FRAME):
            assert secret not in words, secret
        assert str(dataset.PatientID) == str(dataset.PatientName) == KEY.patient("X4711")
        assert dataset.SeriesDescription == SYNTHETIC
        assert dataset.private_block(0x0091, "VOXLATE")[0x01].value == "run 0123abcd"
        assert dataset.PatientIdentityRemoved == "YES"
        codes = [one.CodeValue for one in dataset.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113107"]
        assert dataset.StudyInstanceUID == KEY.uid(STUDY)
        assert dataset.FrameOfReferenceUID == KEY.uid(FRAME)
        (source,) = dataset.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == KEY.uid(STUDY)
        assert source.ReferencedSOPClassUID == CTImageStorage
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        study, later = map(datetime.date.fromisoformat, (dataset.StudyDate, dataset.SeriesDate))
        assert datetime.date(2020, 2, 28) - study == datetime.timedelta(KEY.days("X4711"))
        assert later - study == datetime.timedelta(2)
        assert dataset.get("PatientBirthDate", "") in ("", None)
        assert "PatientAge" not in dataset
        assert dataset.AcquisitionDateTime == dataset.StudyDate  # without its time
    before, after = read_volume(series), read_volume(tmp_path / "out")
    np.testing.assert_array_equal(before.data, after.data)
    np.testing.assert_array_equal(before.affine, after.affine)


def test_files_that_would_replace_each_other_are_refused(series, tmp_path):
    first = sorted(series.iterdir())[0]
    shutil.copy(first, series / "copy.dcm")
    with refuses("expected a SOPInstanceUID of its own"):
        deidentify_folder(series, tmp_path / "out", KEY)


def test_patients_without_an_id_have_pseudonyms_of_their_own(tmp_path):
    def identity_of(name):
        file = put(ct_slice(0, PatientID="", PatientName=name), tmp_path / f"of_{name}/1.dcm")
        (path,) = deidentify_folder(file.parent, tmp_path / "out" / name, KEY).files
        return str(pydicom.dcmread(path).PatientID)

    assert identity_of("ALICE") != identity_of("BOB")
    with refuses("expected a PatientID or PatientName"):
        identity_of("")


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
    put(report, series / "report.dcm")
    assert deidentify_folder(series, tmp_path / "out", KEY).left_out == (series / "report.dcm",)
    put(ct_slice(8, BurnedInAnnotation="YES"), series / "burned.dcm")
    with refuses("expected pixels without names, found BurnedInAnnotation"):
        deidentify_folder(series, tmp_path / "other", KEY)
    (series / "burned.dcm").write_bytes(b"no DICOM")
    with refuses("expected a DICOM file, found another one"):
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
    file = put(made, tmp_path / "scan/1.dcm")
    (written,) = deidentify_folder(file.parent, tmp_path / "out", KEY).files
    before = errors_in(file)
    assert not [error for error in before if "Overlay" in error or "Clinical" in error]
    assert {*errors_in(written)} <= {*before}
