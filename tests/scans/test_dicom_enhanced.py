"""Enhanced DICOM objects: frames with places and scales of their own, and compressed frames."""

import re

import numpy as np
import pytest

from voxlate.base.errors import BadInput
from voxlate.scans.formats.io import read_volume

pydicom = pytest.importorskip("pydicom")
from pydicom.uid import RLELossless  # noqa: E402 - needs pydicom

from dicom_slices import image, item, save  # noqa: E402

ORDER = [2, 0, 3, 1]  # the place of each frame: frames need not follow each other in space


def group(z, slope, **content):
    """The functional groups of a frame at a height of z mm whose values are multiplied by a slope."""
    return item(
        PlanePositionSequence=[item(ImagePositionPatient=[-10.0, 5.0, z])],
        PixelValueTransformationSequence=[
            item(RescaleSlope=slope, RescaleIntercept=-1024.0, RescaleType="US")
        ],
        FrameContentSequence=[item(**{"StackID": "1"} | content)],
    )


def write_object(file, groups, pixels):
    """An enhanced object of axial frames whose pixels are 0.5 mm high and 0.8 mm wide."""
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.8], SliceThickness=3.0)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    header = image(
        pixels.astype("<u2"),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        SeriesInstanceUID="1.2.3",
        BitsStored=12,
        HighBit=11,
        NumberOfFrames=len(groups),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )
    del header.ImageOrientationPatient
    return save(header, file)


def stored(count):
    return np.random.default_rng(5).integers(0, 4096, (count, 3, 4))


@pytest.mark.parametrize("packed", [False, True])
def test_frames_are_ordered_by_place_and_each_is_scaled_by_its_own_slope(tmp_path, packed):
    pixels = stored(4)
    groups = [group(3.0 * place, 1.0 + place) for place in ORDER]
    file = write_object(tmp_path / "a.dcm", groups, pixels)
    if packed:
        header = pydicom.dcmread(file)
        header.compress(RLELossless)
        header.save_as(file)
    volume = read_volume(file)
    for frame, place in enumerate(ORDER):
        expected = pixels[frame] * (1.0 + place) - 1024
        np.testing.assert_array_equal(volume.data[0, place], expected)
    np.testing.assert_allclose(volume.affine @ [3, 2, 3, 1], [10 - 2.4, -5 - 1.0, 9, 1])
    assert (volume.unit, [said.code for said in volume.guesses]) == ("HU", ["guess"])


def test_two_stacks_of_one_object_are_listed_and_each_is_read_by_its_path(tmp_path):
    groups = [group(3.0 * (k // 2), 1.0) for k in range(6)]
    for k, one in enumerate(groups[1::2]):
        one.FrameContentSequence[0].StackID = "2"
        one.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])]
        one.PlanePositionSequence[0].ImagePositionPatient = [-10.0, 5.0 + 3.0 * k, 40.0]
    pixels = stored(6)
    write_object(tmp_path / "a.dcm", groups, pixels)
    with pytest.raises(BadInput, match="2 in this series by StackID") as caught:
        read_volume(tmp_path)
    paths = re.findall(r"\S+#[0-9a-f]{8}", str(caught.value))
    axial, coronal = [read_volume(tmp_path.parent / path) for path in paths]
    np.testing.assert_array_equal(axial.data[0], pixels[::2] - 1024.0)
    np.testing.assert_array_equal(coronal.data[0], pixels[1::2] - 1024.0)
    np.testing.assert_allclose(coronal.affine @ [0, 0, 2, 1], [10, -11, 40, 1])


def test_the_times_of_one_object_are_frames_of_a_dynamic_scan(tmp_path):
    pixels = stored(6)
    groups = [group(3.0 * (k % 2), 1.0, TemporalPositionIndex=1 + k // 2) for k in range(6)]
    file = write_object(tmp_path / "a.dcm", groups, pixels)
    with pytest.raises(BadInput, match="3 in this series by TemporalPositionIdentifier"):
        read_volume(file)
    second = read_volume(f"{tmp_path}#frame=2")
    np.testing.assert_array_equal(second.data[0], pixels[2:4] - 1024.0)


def test_an_object_that_claims_more_frames_than_it_holds_is_refused(tmp_path):
    groups = [group(3.0 * k, 1.0) for k in range(4)]
    file = write_object(tmp_path / "a.dcm", groups, stored(2))
    with pytest.raises(BadInput, match="48 vs 96 bytes"):
        read_volume(file)
