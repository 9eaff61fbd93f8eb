"""DICOM: tags that differ between the images of one series, and headers that state their values in unusual ways."""

import numpy as np
import pytest

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.scans.formats.dicom import is_dicom_folder, list_series
from voxlate.scans.formats.io import read_volume

pydicom = pytest.importorskip("pydicom")
from test_dicom import FIRST, NORMAL, write_series, write_slice  # noqa: E402 - needs pydicom
from test_dicom_enhanced import group, stored, write_object  # noqa: E402

MAGNITUDE, PHASE = (["ORIGINAL", "PRIMARY", kind, "ND"] for kind in "MP")
PARTS = [f"1.{k}" for k in range(5)]
ODD = "6.dcm"  # of slice 2, the middle one


def write(folder, values, **tags):
    """The series of test_dicom.py, with a table of tags for each slice."""
    for k, own in enumerate(values):
        write_series(folder, [k], **tags | own)
    return folder


def each(name, *values):
    return [{name: value} for value in values]


def one_in_five(name, usual, odd):
    return each(name, usual, usual, odd, usual, usual)


@every_row(
    "name, value, words",
    [
        ("ImageType", PHASE, "ImageType"),
        ("PatientSex", "M", "PatientSex"),
        ("PatientName", "Roe^Jane", "PatientName"),
        ("PatientBirthDate", "19500102", "PatientBirthDate"),
        ("PatientID", "P2", "PatientID"),
        ("StudyInstanceUID", "1.9", "StudyInstanceUID"),
        ("FrameOfReferenceUID", "1.9", "FrameOfReferenceUID"),
        ("BitsStored", 12, "HighBit"),
    ],
)
def test_an_image_of_another_kind_patient_or_scan_is_refused_by_its_tag(
    tmp_path, name, value, words
):
    write(tmp_path, [{}, {}, {name: value}, {}, {}], Modality="MR", ImageType=MAGNITUDE)
    with pytest.raises(BadInput) as caught:
        read_volume(tmp_path)
    sentence = str(caught.value)
    assert words in sentence
    assert ODD in sentence
    assert "P2" not in sentence


@every_row(
    "values",
    [each("EchoTime", 10, 80, 10, 80, 10), each("HighBit", *[16] * 5)],
)
def test_echoes_that_alternate_and_a_bit_beyond_those_allocated_are_refused(tmp_path, values):
    write(tmp_path, values, Modality="MR")
    with pytest.raises(BadInput, match=next(iter(values[0]))):
        read_volume(tmp_path)


@pytest.mark.slow
@every_row(
    "differing",
    [
        one_in_five("RescaleIntercept", "-1024", "0"),
        each("RescaleSlope", *"12345"),
        [{}, {}, {"ContrastBolusAgent": "Gd"}, {"ContrastBolusAgent": "Gd"}, {}],
        one_in_five("ConvolutionKernel", "H30s", "H60s"),
        one_in_five("ImageType", MAGNITUDE, [*MAGNITUDE, "NORM"]),
        each("PhotometricInterpretation", *["MONOCHROME1"] * 5),
        each("LossyImageCompression", *["01"] * 5),
        one_in_five("BurnedInAnnotation", "NO", "YES"),
        each("FrameOfReferenceUID", *PARTS),
        each("StudyInstanceUID", *PARTS),
        [{"SeriesInstanceUID": part, "SeriesDescription": part} for part in PARTS],
        each("SeriesInstanceUID", *PARTS),
        each("SeriesDescription", *"aaabb"),
        one_in_five("PatientID", "P1", ""),
    ],
)
def test_every_other_difference_is_said_with_its_tag(tmp_path, differing):
    plain = write(tmp_path / "plain", [{}] * 5, Modality="MR")
    folder = write(tmp_path / "odd", differing, Modality="MR")
    volume, (info,) = read_volume(folder), list_series(folder)
    (said,) = volume.guesses
    name = next(iter(differing[2]))
    assert name in said.text or "MONOCHROME1" in said.text
    assert info.images == 5
    if not name.startswith("Rescale"):
        np.testing.assert_array_equal(volume.data, read_volume(plain).data)
    np.testing.assert_array_equal(read_volume(info.path).data, volume.data)


@every_row(
    "values",
    [
        one_in_five("PatientName", "Doe^Jane", "DOE^Jane^^^"),
        one_in_five("RescaleSlope", "2", "2.000"),
        each("PhotometricInterpretation", *["MONOCHROME1"] * 5),  # of a CT
        each("EchoTime", 10, 10.1, 10, 10.1, 10),
    ],
)
def test_what_means_the_same_is_the_same(tmp_path, values):
    assert read_volume(write(tmp_path, values)).guesses == ()


def test_two_series_of_one_number_that_are_no_single_stack_stay_apart(tmp_path):
    write_series(tmp_path)
    for k in range(5):
        write_slice(tmp_path, f"b{k}", k, SeriesDescription="second", RescaleIntercept="0")
    assert [one.images for one in list_series(tmp_path)] == [5, 5]


@every_row("high, stored, signed", [(15, 12, 0), (15, 12, 1), (13, 12, 0), (11, 12, 1)])
def test_values_end_at_the_high_bit(tmp_path, high, stored, signed):
    values = np.arange(12).reshape(3, 4) * 150 - 800 * signed
    shifted = values << high + 1 - stored
    tags = {"HighBit": high, "BitsStored": stored, "PixelRepresentation": signed}
    write_slice(tmp_path, "a", 0, PixelData=shifted.astype(np.int16).tobytes(), **tags)
    np.testing.assert_array_equal(read_volume(tmp_path).data[0, 0], 2 * values - 1024)


@every_row(
    "kind, stated, implicit", [("SS", -2000, False), ("US", 63536, False), ("SS", -2000, True)]
)
def test_padding_is_air_before_a_tilt_is_resampled(tmp_path, kind, stated, implicit):
    for k in range(5):
        pixels = np.full((3, 4), 100 + k, np.int16)
        pixels[:, 0] = -2000
        place = FIRST + 2.5 * k * NORMAL + [0, 0, -0.7 * k]
        write_slice(tmp_path, str(k), k, PixelData=pixels.tobytes(), ImagePositionPatient=[*place])
        header = pydicom.dcmread(tmp_path / f"{k}.dcm")
        header.add_new("PixelPaddingValue", kind, stated)
        if implicit:
            header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        header.save_as(tmp_path / f"{k}.dcm", implicit_vr=implicit, little_endian=True)
    volume = read_volume(tmp_path)
    assert volume.data.min() == -1000
    assert len(volume.guesses) == 2
    np.testing.assert_allclose(volume.data[0, 0, :3, 1:], 2 * 100 - 1024)


@every_row("count, step", [(12, 0.625), (12, 0.333), (7, 1.25)])
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path, count, step):
    axial = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    for k in range(count):
        place = [-10.0, -10.0, round(step * k - 7, 1)]
        write_slice(tmp_path, str(k), k, ImagePositionPatient=place, **axial)
    assert read_volume(tmp_path).grid.spacing_mm[0] == pytest.approx(step, abs=0.1 / (count - 1))
    (tmp_path / f"{count // 2}.dcm").unlink()
    with pytest.raises(BadInput):
        read_volume(tmp_path)


@every_row("implicit", [True, False, None])
def test_files_without_the_mark_of_dicom_and_without_an_ending_are_read(tmp_path, implicit):
    true, folder = write_series(tmp_path / "true"), tmp_path / "bare"
    folder.mkdir()
    for file in true.iterdir():
        bare = folder / file.stem
        if implicit is None:  # the meta information, but not what is before it
            bare.write_bytes(file.read_bytes()[132:])
        else:
            data = pydicom.Dataset(pydicom.dcmread(file))
            pydicom.dcmwrite(bare, data, implicit_vr=implicit, little_endian=True)
    assert is_dicom_folder(folder)
    np.testing.assert_array_equal(read_volume(folder).data, read_volume(true).data)


def test_frames_are_ordered_by_their_date_and_time_alone(tmp_path):
    pixels = stored(6)
    times = ["20200101000001.5+0100", "20191231235959.5+0100", "20200101000000+0100"]
    groups = [
        group(3.0 * (k % 2), 1.0, FrameAcquisitionDateTime=times[k // 2], StackID=None)
        for k in range(6)
    ]
    write_object(tmp_path / "a.dcm", groups, pixels)
    second = read_volume(f"{tmp_path}#frame=1")
    np.testing.assert_array_equal(second.data[0], pixels[2:4] - 1024.0)
