"""Masks as contours of an RT Structure Set: every voxel as in the mask, by a polygon filler that voxlate does not use."""

import numpy as np
import pytest
from skimage.draw import polygon2mask

from dciodvfy import errors_in, needs_dciodvfy
from refusals import refuses
from rows import every_row
from voxlate.scans.images.grid import Volume

pydicom = pytest.importorskip("pydicom")
from derived_objects import ORIGIN, headers, numbered, write_source  # noqa: E402 - needs pydicom

from dicom_slices import change, write_series  # noqa: E402 - needs pydicom
from voxlate.clinic.dicom_images import write_derived  # noqa: E402 - needs pydicom
from voxlate.clinic.dicom_structure import write_structure  # noqa: E402 - needs pydicom


def filled(structure, series):
    """The voxels [D, H, W] within the contours of a structure, in the order of the slices of a series."""
    slices = {one.SOPInstanceUID: one for one in series}
    masks = {uid: np.zeros((one.Rows, one.Columns), bool) for uid, one in slices.items()}
    for contour in structure.ROIContourSequence[0].ContourSequence:
        (reference,) = contour.ContourImageSequence
        one = slices[reference.ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        axes = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        away = points - np.array(one.ImagePositionPatient, float)
        assert np.abs(away @ np.cross(*axes)).max() < 1e-3  # mm from the plane of the slice
        columns, rows = (away @ axes.T / np.array(one.PixelSpacing, float)[::-1]).T
        masks[one.SOPInstanceUID] ^= polygon2mask((one.Rows, one.Columns), np.c_[rows, columns])
    return np.array([masks[uid] for uid in slices])


def shapes():
    """Slices [4, 40, 30]: two parts, a ring with two holes, a part at the border, and nothing."""
    mask = np.zeros((4, 40, 30), np.float32)
    mask[0, 5:15, 5:15] = mask[0, 20:30, 10:25] = 1
    rows, columns = np.mgrid[:40, :30]
    mask[1] = (rows - 20) ** 2 + (columns - 15) ** 2 < 150
    mask[1, 16:20, 10:14] = mask[1, 22:25, 15:20] = 0
    mask[2, :12, :9] = mask[2, 30:, 20:] = 1
    return mask


@every_row("angle", [0.0, 0.31])
def test_contours_hold_the_voxels_of_the_mask_its_parts_and_not_its_holes(tmp_path, angle):
    mask = shapes()
    affine = write_source(tmp_path / "mr", angle)
    ct = Volume(mask[None] * 1000 - 1000, affine, "HU", "ct")
    files = write_derived(ct, tmp_path / "mr", tmp_path / "ct", ORIGIN)
    body = Volume(mask[None], affine, "", "mask")
    write = (body, "BODY", "EXTERNAL", tmp_path / "ct", tmp_path / "rt", ORIGIN)
    (structure,) = headers(write_structure(*write))
    series = headers(files)
    np.testing.assert_array_equal(filled(structure, series), mask > 0)
    (roi,) = structure.ROIContourSequence
    assert len(roi.ContourSequence) == 5  # a hole belongs to the contour around it
    assert structure.RTROIObservationsSequence[0].RTROIInterpretedType == "EXTERNAL"
    frame, study = structure.FrameOfReferenceUID, structure.StudyInstanceUID
    assert (frame, study) == (series[0].FrameOfReferenceUID, series[0].StudyInstanceUID)
    referenced = structure.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    named = referenced.RTReferencedSeriesSequence[0]
    assert named.SeriesInstanceUID == series[0].SeriesInstanceUID
    assert len(named.ContourImageSequence) == 4
    assert write_structure(*write) == [tmp_path / "rt/0001.dcm"]  # the same again is kept


@needs_dciodvfy
@every_row("part", ["", "HEAD", "KNEE"])
def test_the_standard_s_checker_finds_no_error_in_a_structure(tmp_path, part):
    volume = numbered(write_source(tmp_path / "mr", 0.31))
    change(tmp_path / "mr", BodyPartExamined=part)
    write_derived(volume, tmp_path / "mr", tmp_path / "ct", ORIGIN)
    body = Volume((volume.data > volume.data.mean()).astype(np.float32), volume.affine, "", "mask")
    (file,) = write_structure(body, "BODY", "EXTERNAL", tmp_path / "ct", tmp_path / "rt", ORIGIN)
    assert errors_in(file) == []


def test_a_contour_of_more_points_than_an_attribute_holds_is_refused_and_nothing_is_written(
    tmp_path,
):
    mask = np.ones((1, 3, 70, 70), np.float32)
    mask[0, 1, 1:-1:2, 1:-1:2] = 0  # more than a thousand holes, all of one contour
    sieve = Volume(mask, np.eye(4), "", "mask")
    write_series(Volume(mask, np.eye(4), "HU", "ct"), tmp_path / "ct")
    with refuses(r"at most 65534 bytes.*found \d{4} points in slice 2"):
        write_structure(sieve, "BODY", "EXTERNAL", tmp_path / "ct", tmp_path / "rt", ORIGIN)
    empty = Volume(mask * 0, np.eye(4), "", "mask")
    with refuses("expected a mask with voxels above 0"):
        write_structure(empty, "BODY", "EXTERNAL", tmp_path / "ct", tmp_path / "rt", ORIGIN)
    assert not (tmp_path / "rt").exists()
