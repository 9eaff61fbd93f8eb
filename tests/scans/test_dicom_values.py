"""DICOM: what stored values mean, where headers differ, are silent or name another scale."""

import struct

import numpy as np
import pytest

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.scans.formats.io import read_volume

pydicom = pytest.importorskip("pydicom")
from test_dicom import write_series  # noqa: E402 - needs pydicom

from dicom_slices import item  # noqa: E402 - needs pydicom

K, ROW, COLUMN = np.indices((5, 3, 4))
STORED = 100 * K + 10 * ROW + COLUMN
NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}


def table(values, first=0):
    """A lookup table for stored values from `first` on."""
    one = item(LUTDescriptor=[len(values), first, 16], ModalityLUTType="US")
    one.add_new("LUTData", "US", list(values))
    return [one]


def write(folder, only=range(5), **tags):
    """The series of test_dicom.py; slices in `only` have other tags, and lack those that are None."""
    stated = {key: value for key, value in tags.items() if value is not None}
    for k in range(5):
        write_series(folder, [k], **(stated if k in only else {}))
        if k in only and len(stated) < len(tags):
            file = folder / f"{(k * 7 + 3) % 11}.dcm"
            header = pydicom.dcmread(file)
            for key in tags.keys() - stated.keys():
                delattr(header, key)
            header.save_as(file)
    return folder


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
    folder = write(tmp_path, only, **tags)
    for modality in ("ct", "t1"):
        with pytest.raises(BadInput, match=words):
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
    folder = write(tmp_path, only, **tags)
    for modality in ("", "ct", "cta2"):
        with pytest.raises(BadInput, match=f"expected Hounsfield units, {words}"):
            read_volume(folder, modality)
    assert read_volume(folder, "cbf").unit == "ml/100g/min"


@every_row("kind", ["HU", "US", "hu", None])
def test_usual_rescale_types_of_a_ct_pass(tmp_path, kind):
    volume = read_volume(write(tmp_path, **({"RescaleType": kind} if kind else {})))
    np.testing.assert_array_equal(volume.data[0], 2 * STORED - 1024)
    assert (volume.unit, volume.guesses) == ("HU", ())


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


def test_an_mr_without_rescale_is_read_as_stored(tmp_path):
    volume = read_volume(write(tmp_path, Modality="MR", **NO_RESCALE))
    np.testing.assert_array_equal(volume.data[0], STORED)
    assert volume.guesses == ()


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


def test_real_scans_pass_without_a_guess(shared):
    odd = shared / "data" / "odd"
    for path in (
        odd / "dicom_ct_small_ok.dcm",
        odd / "dicom_mr_rle.dcm",
        *(shared / "data" / "dicom").iterdir(),
    ):
        assert read_volume(path).guesses == ()


@every_row("name", ["PhotometricInterpretation", "RescaleSlope", "RescaleType"])
@every_row("kind", [b"KS", b"SQ"])
def test_a_damaged_value_is_refused_in_one_sentence(tmp_path, name, kind):
    file = write(tmp_path, RescaleType="HU") / "3.dcm"
    tag, whole = pydicom.tag.Tag(name), file.read_bytes()
    start = whole.index(struct.pack("<HH", tag.group, tag.elem)) + 4
    file.write_bytes(whole[:start] + kind + whole[start + 2 :])
    with pytest.raises(BadInput):
        read_volume(tmp_path)
