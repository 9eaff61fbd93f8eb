"""Synthesised images as derived DICOM series, through the command line and Python."""

import numpy as np
import pytest

import voxlate as package
from voxlate.errors import BadInput
from voxlate.images.grid import LPS_TO_RAS, Volume
from voxlate.images.io import read_volume
from voxlate.synthesis.dicom_out import export_dicom
from voxlate.synthesis.result import Synthesised

pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def series(cohort, tmp_path):
    """The T1 of a small head as a DICOM series of axial slices."""
    scan = read_volume(next(iter(sorted(cohort.glob("*/t1.nii.gz")))))
    lps = LPS_TO_RAS @ scan.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    folder = tmp_path / "head"
    folder.mkdir()
    for level, plane in enumerate(np.rint(scan.data[0])):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.SOPClassUID, one.Modality = "1.2.840.10008.5.1.4.1.1.4", "MR"
        one.SOPInstanceUID = f"1.2.3.4.{level + 1}"
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        one.FrameOfReferenceUID, one.SeriesNumber, one.SeriesDescription = "1.2.9", 2, "t1"
        one.PatientName, one.PatientID = "Nobody^Test", "ID7"
        one.Rows, one.Columns = plane.shape
        directions = (lps[:3, :2] / spacing[:2]).T.ravel()
        one.ImageOrientationPatient = [f"{value:.8f}" for value in directions]
        one.ImagePositionPatient = [f"{v:.6f}" for v in lps[:3, 3] + level * lps[:3, 2]]
        one.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"]
        one.SliceThickness = f"{spacing[2]:.8g}"
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = plane.astype(np.uint16).tobytes()
        one.save_as(folder / f"{level:03d}.dcm", enforce_file_format=True)
    return folder


def test_synth_writes_a_derived_series_with_the_voxels_of_the_image(run, series, voxlate, tmp_path):
    out, to = tmp_path / "out", tmp_path / "dicom"
    answer = voxlate("synth", run, f"t1={series}", "--out", out, "--dicom", to)
    assert answer.code == 0, answer.err
    image = read_volume(next(out.glob("*/t2.nii.gz")))
    back = read_volume(to / "head" / "t2")
    assert np.allclose(back.affine, image.affine, atol=1e-3)
    assert np.abs(back.data - image.data).max() <= np.abs(image.data).max() / 4095
    first = pydicom.dcmread(to / "head" / "t2" / "0001.dcm")
    assert (first.StudyInstanceUID, first.FrameOfReferenceUID) == ("1.2.3", "1.2.9")
    assert first.PatientID == "ID7"
    # The same command again keeps both.
    again = voxlate("synth", run, f"t1={series}", "--out", out, "--dicom", to)
    assert again.code == 0, again.err


def test_export_finds_the_source_by_the_provenance_and_python_does_the_same(
    run, series, voxlate, tmp_path
):
    out = tmp_path / "out"
    assert voxlate("synth", run, f"t1={series}", "--out", out).code == 0
    answer = voxlate("export", out, "--dicom", tmp_path / "first")
    assert answer.code == 0, answer.err
    assert "1 series" in answer.out
    assert "not for diagnosis" in answer.out
    done = package.export(out, tmp_path / "second", progress=False)
    assert [path.relative_to(tmp_path / "second").as_posix() for path in done.series] == ["head/t2"]
    first, second = (
        pydicom.dcmread(tmp_path / name / "head" / "t2" / "0003.dcm")
        for name in ("first", "second")
    )
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.PixelData == second.PixelData


def test_a_scan_that_is_no_series_is_refused_before_the_synthesis(run, cohort, voxlate, tmp_path):
    scan = next(iter(sorted(cohort.glob("*/t1.nii.gz"))))
    out = tmp_path / "out"
    answer = voxlate("synth", run, f"t1={scan}", "--out", out, "--dicom", tmp_path / "dicom")
    assert answer.code == 2
    assert "expected a DICOM series as the scan of every case" in answer.err
    assert not out.exists()
    assert voxlate("synth", run, f"t1={scan}", "--out", out).code == 0
    with pytest.raises(BadInput, match="expected a synthesis of a DICOM series"):
        package.export(out, tmp_path / "dicom", progress=False)


def test_a_series_named_by_like_takes_an_image_on_another_grid(
    run, cohort, series, tmp_path, voxlate
):
    scan = sorted(cohort.glob("*/t1.nii.gz"))[1]
    out = tmp_path / "out"
    assert voxlate("synth", run, f"t1={scan}", "--out", out).code == 0
    case = next(path.parent for path in out.glob("*/provenance.json"))
    answer = voxlate("export", case, "--dicom", tmp_path / "dicom", "--like", series)
    assert answer.code == 0, answer.err
    (made,) = (tmp_path / "dicom").glob("*/t2")
    image = read_volume(case / "t2.nii.gz")
    back = read_volume(made)
    assert np.allclose(np.abs(back.data).sum(), np.abs(image.data).sum(), rtol=1e-3)


def test_an_image_in_hounsfield_units_becomes_a_ct_series(series, tmp_path):
    scan = read_volume(series)
    image = Volume(scan.data - 900, scan.affine, "HU", "ct")
    Synthesised({"ct": image}, {}, {"model": {"title": "any"}}).write(tmp_path / "case")
    (folder,) = export_dicom(tmp_path / "case", tmp_path / "dicom", series).series
    back = read_volume(folder)
    assert (back.modality, back.unit) == ("ct", "HU")
    assert np.array_equal(back.data, image.data)
