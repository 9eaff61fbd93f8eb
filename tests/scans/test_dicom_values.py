"""DICOM: tags that differ between the images of one series, and what stored values mean where headers are unusual."""

import struct

import numpy as np
import pytest

from refusals import refuses
from rows import every_row, slow
from voxlate.scans.formats.dicom import is_dicom_folder, list_series
from voxlate.scans.formats.io import read_volume

pydicom = pytest.importorskip("pydicom")
from test_dicom import FIRST, NORMAL, write_series, write_slice  # noqa: E402 - needs pydicom

from dicom_slices import item  # noqa: E402 - needs pydicom

MAGNITUDE, PHASE = (["ORIGINAL", "PRIMARY", kind, "ND"] for kind in "MP")
PARTS = [f"1.{k}" for k in range(5)]
ODD = "6.dcm"  # of slice 2, the middle one


def write(folder, values=({},) * 5, **tags):
    """The series of test_dicom.py, with a table of tags for each slice, which lacks those that are None."""
    for k, own in enumerate(values):
        stated = tags | own
        write_series(folder, [k], **{key: one for key, one in stated.items() if one is not None})
        if None in stated.values():
            file = folder / f"{(k * 7 + 3) % 11}.dcm"
            header = pydicom.dcmread(file)
            for key, one in stated.items():
                if one is None:
                    delattr(header, key)
            header.save_as(file)
    return folder


def in_slices(numbers, tags):
    return [tags if k in numbers else {} for k in range(5)]


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
    write(tmp_path, in_slices([2], {name: value}), Modality="MR", ImageType=MAGNITUDE)
    with refuses() as caught:
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
    with refuses(next(iter(values[0]))):
        read_volume(tmp_path)


@slow
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
    plain = write(tmp_path / "plain", Modality="MR")
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
    with refuses():
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


K, ROW, COLUMN = np.indices((5, 3, 4))
STORED = 100 * K + 10 * ROW + COLUMN
NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}


def table(values, first=0):
    """A lookup table for stored values from `first` on."""
    one = item(LUTDescriptor=[len(values), first, 16], ModalityLUTType="US")
    one.add_new("LUTData", "US", list(values))
    return [one]


TWELVE_BITS = [item(LUTDescriptor=[2, 0, 12], LUTData=b"0000")]
SHARED = [item(PixelValueTransformationSequence=[item(RescaleSlope="3")])]
ALL = range(5)


@every_row(
    "only, tags, words",
    [
        ([2], NO_RESCALE, "RescaleSlope .*nothing in 6.dcm"),
        ([3], {**NO_RESCALE, "ModalityLUTSequence": table([1, 2])}, "nothing in 2.dcm"),
        (ALL, {"ModalityLUTSequence": table([1, 2])}, "found both"),
        (ALL, {**NO_RESCALE, "ModalityLUTSequence": TWELVE_BITS}, "a whole lookup table"),
        ([3], {"RescaleSlope": "-2"}, "slope above 0, found -2"),
        ([0], {"RescaleSlope": "0.015"}, "0.015 in 3.dcm; 2 in"),
        (ALL, {"PhotometricInterpretation": "PALETTE COLOR"}, "found PALETTE COLOR"),
        ([1], {"PhotometricInterpretation": "YBR_FULL"}, "found YBR_FULL"),
        ([1], {"PhotometricInterpretation": ""}, "found no PhotometricInterpretation"),
        (ALL, {"SharedFunctionalGroupsSequence": SHARED}, "found an enhanced"),
        ([4], {"PerFrameFunctionalGroupsSequence": [item(), item()]}, "each of 1 frames, .* 2"),
    ],
)
def test_values_that_headers_leave_open_are_refused_in_one_sentence(tmp_path, only, tags, words):
    folder = write(tmp_path, in_slices(only, tags))
    for modality in ("ct", "t1"):
        with refuses(words):
            read_volume(folder, modality)


@every_row(
    "only, tags, words",
    [
        (ALL, NO_RESCALE, "found neither .* no value below -500"),
        (ALL, {"RescaleSlope": "", "RescaleIntercept": ""}, "found neither"),
        (ALL, {**NO_RESCALE, "ModalityLUTSequence": table(range(500))}, "found a lookup table"),
        (ALL, {"RescaleType": "OD"}, "found RescaleType OD"),
        ([2], {"RescaleType": "Z_EFF"}, "found RescaleType Z_EFF"),
    ],
)
def test_a_ct_that_is_not_in_hounsfield_units_is_refused_and_may_be_named_otherwise(
    tmp_path, only, tags, words
):
    folder = write(tmp_path, in_slices(only, tags))
    for modality in ("", "ct", "cta2"):
        with refuses(f"expected Hounsfield units, {words}"):
            read_volume(folder, modality)
    assert read_volume(folder, "cbf").unit == "ml/100g/min"


@every_row(
    "tags, unit, values",
    [
        *(({"RescaleType": kind}, "HU", 2 * STORED - 1024) for kind in ("HU", "US", "hu")),
        ({}, "HU", 2 * STORED - 1024),
        ({"Modality": "MR", **NO_RESCALE}, "a.u.", STORED),
    ],
)
def test_usual_rescale_types_of_a_ct_pass_and_an_mr_without_rescale_is_read_as_stored(
    tmp_path, tags, unit, values
):
    volume = read_volume(write(tmp_path, **tags))
    np.testing.assert_array_equal(volume.data[0], values)
    assert (volume.unit, volume.guesses) == (unit, ())


def test_a_ct_without_rescale_whose_values_are_plainly_hounsfield_units_is_read_and_said(
    tmp_path,
):
    for file in write(tmp_path, **NO_RESCALE).iterdir():
        header = pydicom.dcmread(file)
        header.PixelData = (header.pixel_array - 1000).astype(np.int16).tobytes()
        header.save_as(file)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.data[0], STORED - 1000)
    (said,) = volume.guesses
    assert "from -1000 on" in said.text
    assert read_volume(tmp_path, "cbf").guesses == ()


@every_row("count, first", [(433, 0), (300, 100)])
def test_a_lookup_table_is_applied_and_values_beyond_it_take_its_ends(tmp_path, count, first):
    values = np.random.default_rng(0).integers(0, 60000, count)
    tags = {**NO_RESCALE, "ModalityLUTSequence": table(values.tolist(), first), "Modality": "MR"}
    expected = values[np.clip(STORED - first, 0, count - 1)]
    np.testing.assert_array_equal(read_volume(write(tmp_path, **tags)).data[0], expected)


def test_slices_of_different_slopes_are_each_scaled_by_their_own(tmp_path):
    tags = {"Modality": "PT", "RescaleIntercept": "0"}
    for k in range(5):
        write_series(tmp_path, [k], RescaleSlope=str(0.5 + 10 * k), **tags)
    np.testing.assert_allclose(read_volume(tmp_path).data[0], STORED * (0.5 + 10 * K), rtol=1e-6)


@every_row("name", ["PhotometricInterpretation", "RescaleSlope", "RescaleType"])
@every_row("kind", [b"KS", b"SQ"])
def test_a_damaged_value_is_refused_in_one_sentence(tmp_path, name, kind):
    file = write(tmp_path, RescaleType="HU") / "3.dcm"
    tag, whole = pydicom.tag.Tag(name), file.read_bytes()
    start = whole.index(struct.pack("<HH", tag.group, tag.elem)) + 4
    file.write_bytes(whole[:start] + kind + whole[start + 2 :])
    with refuses():
        read_volume(tmp_path)
