"""Enhanced CT and MR objects that voxlate writes: the voxels and places of the classic series, in one file."""

import numpy as np
import pytest
import SimpleITK

from dciodvfy import errors_in, needs_dciodvfy

pydicom = pytest.importorskip("pydicom")

from test_dicom_derived import (  # noqa: E402 - needs pydicom
    ORDERS,
    ORIGIN,
    numbered,
    reordered,
    write_source,
)

from dicom_slices import change  # noqa: E402 - needs pydicom
from voxlate.formats.dicom_images import write_derived, write_enhanced  # noqa: E402
from voxlate.formats.io import read_volume  # noqa: E402
from voxlate.images.grid import LPS_TO_RAS  # noqa: E402


@pytest.mark.parametrize("unit", ["HU", "a.u."])
@pytest.mark.parametrize("angle", [0.0, 0.31])
@pytest.mark.parametrize(("order", "flips"), ORDERS[::17])
def test_the_object_is_read_back_as_the_volume(tmp_path, order, flips, angle, unit):
    volume = numbered(write_source(tmp_path / "mr", angle), unit=unit)
    write_enhanced(reordered(volume, order, flips), tmp_path / "mr", tmp_path / "out", ORIGIN)
    back = read_volume(tmp_path / "out")
    assert np.array_equal(back.data, volume.data)
    assert np.allclose(back.affine, volume.affine, atol=1e-3)
    assert back.unit == unit


@needs_dciodvfy
@pytest.mark.parametrize("part", ["", "HEAD", "KNEE"])
@pytest.mark.parametrize("unit", ["HU", "a.u."])
def test_the_standard_s_checker_finds_no_error_in_enhanced_objects(tmp_path, unit, part):
    volume = numbered(write_source(tmp_path / "mr", 0.31), unit=unit)
    change(tmp_path / "mr", BodyPartExamined=part)
    (file,) = write_enhanced(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    assert errors_in(file) == []
    assert errors_in(write_derived(volume, tmp_path / "mr", tmp_path / "classic", ORIGIN)[1]) == []


def test_simpleitk_reads_the_object_where_the_volume_is(tmp_path):
    volume = numbered(write_source(tmp_path / "mr", -0.7))
    (file,) = write_enhanced(volume, tmp_path / "mr", tmp_path / "out", ORIGIN)
    image = SimpleITK.ReadImage(str(file))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.data[0])
    lps = LPS_TO_RAS @ volume.affine
    for index in ((0, 0, 0), (4, 5, 3), (2, 1, 2)):
        place = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.abs(place - (lps @ (*index, 1))[:3]).max() < 1e-3


def test_the_object_has_uids_of_its_own_and_names_each_source_slice(tmp_path):
    volume = numbered(write_source(tmp_path / "mr", 0.31))
    (classic, *_) = write_derived(volume, tmp_path / "mr", tmp_path / "classic", ORIGIN)
    first, second = (
        pydicom.dcmread(write_enhanced(volume, tmp_path / "mr", tmp_path / name, ORIGIN)[0])
        for name in ("first", "second")
    )
    other = pydicom.dcmread(classic)
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.DimensionIndexSequence == second.DimensionIndexSequence
    assert first.SeriesInstanceUID != other.SeriesInstanceUID
    assert first.StudyInstanceUID == other.StudyInstanceUID
    assert first.FrameOfReferenceUID == other.FrameOfReferenceUID
    assert first.SeriesDescription == "SYNTHETIC CT - NOT FOR DIAGNOSIS"
    sources = {
        one.SOPInstanceUID: one
        for one in (pydicom.dcmread(path) for path in (tmp_path / "mr").glob("*.dcm"))
    }
    for frame in first.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        source = sources.pop(reference.ReferencedSOPInstanceUID)
        assert frame.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
    assert not sources
