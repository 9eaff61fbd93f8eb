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


CONTRADICTING = {
    "phase among magnitude": one_in_five("ImageType", MAGNITUDE, PHASE),
    "echoes that alternate": each("EchoTime", 10, 80, 10, 80, 10),
    "two sexes": one_in_five("PatientSex", "F", "M"),
    "two names": one_in_five("PatientName", "Doe^Jane", "Roe^Jane"),
    "two dates of birth": one_in_five("PatientBirthDate", "19500101", "19500102"),
    "two patients": one_in_five("PatientID", "P1", "P2"),
    "two studies": one_in_five("StudyInstanceUID", "1.2", "1.9"),
    "two frames of reference": one_in_five("FrameOfReferenceUID", "1.3", "1.9"),
    "stored bits below HighBit": [{}, {}, {"BitsStored": 12}, {}, {}],
    "a bit beyond those allocated": [{"HighBit": 16}] * 5,
}


@every_row("case", CONTRADICTING)
def test_images_of_two_kinds_patients_or_scans_are_refused_by_name(tmp_path, case):
    write(tmp_path, CONTRADICTING[case], Modality="MR")
    name = next(iter(CONTRADICTING[case][2]))
    with pytest.raises(BadInput) as caught:
        read_volume(tmp_path)
    sentence = str(caught.value)
    assert name.replace("BitsStored", "HighBit") in sentence
    assert ODD in sentence or case.startswith("a bit")
    assert "P2" not in sentence


SAID = {
    "scale of one slice": one_in_five("RescaleIntercept", "-1024", "0"),
    "slope of one slice": one_in_five("RescaleSlope", "2", "3"),
    "a slope for each": each("RescaleSlope", *"12345"),
    "contrast in some": [{}, {}, {"ContrastBolusAgent": "Gd"}, {"ContrastBolusAgent": "Gd"}, {}],
    "kernels": one_in_five("ConvolutionKernel", "H30s", "H60s"),
    "another processing": one_in_five("ImageType", MAGNITUDE, [*MAGNITUDE, "NORM"]),
    "inverted display": [{"PhotometricInterpretation": "MONOCHROME1"}] * 5,
    "lost by compression": [{"LossyImageCompression": "01"}] * 5,
    "text in pixels": one_in_five("BurnedInAnnotation", "NO", "YES"),
    "a frame of reference for each": each("FrameOfReferenceUID", *map("1.{}".format, range(5))),
    "a study for each": each("StudyInstanceUID", *map("1.{}".format, range(5))),
    "a series for each": each("SeriesInstanceUID", *map("1.{}".format, range(5))),
    "a description for each": each("SeriesDescription", *"abcde"),
    "both for each": [
        {"SeriesInstanceUID": f"1.{k}", "SeriesDescription": "abcde"[k]} for k in range(5)
    ],
    "descriptions of two times": each("SeriesDescription", *"aaabb"),
    "no patient in some": one_in_five("PatientID", "P1", ""),
}


@pytest.mark.slow
@every_row("case", SAID)
def test_every_other_difference_is_said_with_its_tag(tmp_path, case):
    differing = SAID[case]
    plain = write(tmp_path / "plain", [{}] * 5, Modality="MR")
    folder = write(tmp_path / "odd", differing, Modality="MR")
    volume, (info,) = read_volume(folder), list_series(folder)
    (said,) = volume.guesses
    assert next(iter(differing[2])) in said.text or "MONOCHROME1" in said.text
    assert info.images == 5
    if not {"RescaleIntercept", "RescaleSlope"} & {*differing[2]}:
        np.testing.assert_array_equal(volume.data, read_volume(plain).data)
    np.testing.assert_array_equal(read_volume(info.path).data, volume.data)


SILENT = {
    "carets at the end of a name": one_in_five("PatientName", "Doe^Jane", "DOE^Jane^^^"),
    "numbers in other digits": one_in_five("RescaleSlope", "2", "2.000"),
    "inverted display of a CT": [{"PhotometricInterpretation": "MONOCHROME1"}] * 5,
    "echo times that vary a little": each("EchoTime", 10, 10.1, 10, 10.1, 10),
}


@every_row("case", SILENT)
def test_what_means_the_same_is_the_same(tmp_path, case):
    assert read_volume(write(tmp_path, SILENT[case])).guesses == ()


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


@every_row("implicit", [True, False])
@every_row("kept", [0, 132])
def test_files_without_the_mark_of_dicom_and_without_an_ending_are_read(tmp_path, implicit, kept):
    true = read_volume(write_series(tmp_path / "true")).data
    (tmp_path / "bare").mkdir()
    for file in (tmp_path / "true").iterdir():
        data = pydicom.dcmread(file)
        bare = tmp_path / "bare" / file.stem
        if kept:  # the meta information, but not what is before it
            bare.write_bytes(file.read_bytes()[kept:])
        else:
            pydicom.dcmwrite(bare, pydicom.Dataset(data), implicit_vr=implicit, little_endian=True)
    assert is_dicom_folder(tmp_path / "bare")
    np.testing.assert_array_equal(read_volume(tmp_path / "bare").data, true)


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
