"""DICOM series: order, place and values against a made-up series and real ones."""

import json
import os
import re

import numpy as np
import pytest

from preparing import prepare
from refusals import refuses
from rows import every_row
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import content_hash, read_volume, write_volume
from voxlate.scans.images.grid import LPS_TO_RAS, canonical, return_to

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402 - needs pydicom

from dicom_slices import image, item, save  # noqa: E402 - needs pydicom

TILT = np.radians(20)
ROW_WAY = np.array([np.cos(TILT), np.sin(TILT), 0.0])
COLUMN_WAY = np.array([0.0, 0.0, -1.0])  # coronal: rows go down the patient
NORMAL = np.cross(ROW_WAY, COLUMN_WAY)
FIRST = np.array([-100.0, 40.0, 70.0])


def write_slice(folder, name, k, **changes):
    """Slice k of a coronal, oblique CT of 3×4 pixels whose value is 100k + 10·row + column."""
    pixels = (100 * k + 10 * np.arange(3)[:, None] + np.arange(4)).astype(np.int16)
    place = FIRST + 2.5 * k * NORMAL
    tags = {
        "SOPInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3",
        "SeriesNumber": 4,
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19500101",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2",
        "FrameOfReferenceUID": "1.3",
        "PixelSpacing": [0.5, 0.8],  # between rows, between columns
        "ImageOrientationPatient": [f"{v:.10f}" for v in (*ROW_WAY, *COLUMN_WAY)],
        "ImagePositionPatient": [f"{v:.8f}" for v in place],
        "RescaleSlope": "2",
        "RescaleIntercept": "-1024",
    }
    save(image(pixels, **tags | changes), folder / f"{name}.dcm")


def write_series(folder, slices=range(5), **changes):
    for k in slices:
        write_slice(folder, str((k * 7 + 3) % 11), k, **changes)  # not in the order of places
    return folder


def test_slices_are_ordered_by_place_rescaled_and_every_voxel_lies_where_dicom_says(
    tmp_path,
):
    volume = read_volume(write_series(tmp_path))
    assert (volume.unit, volume.modality, volume.data.shape) == ("HU", "ct", (1, 5, 3, 4))
    k, row, column = np.indices((5, 3, 4))
    np.testing.assert_array_equal(volume.data[0], 2 * (100 * k + 10 * row + column) - 1024)
    # DICOM PS3.3 C.7.6.2.1.1: position + 0.8 column · row direction + 0.5 row · column direction; LPS to RAS
    last = FIRST + 0.8 * 3 * ROW_WAY + 0.5 * 2 * COLUMN_WAY + 2.5 * 4 * NORMAL
    np.testing.assert_allclose(volume.affine @ [3, 2, 4, 1], LPS_TO_RAS @ [*last, 1], atol=1e-5)
    np.testing.assert_array_equal(return_to(canonical(volume), volume.grid).data, volume.data)


def write_shifted(folder, shift):
    """A series whose slice k is shift(k) mm beside the normal of the first one."""
    for k in range(5):
        place = FIRST + 2.5 * k * NORMAL + shift(k)
        write_series(folder, [k], ImagePositionPatient=[f"{v:.8f}" for v in place])


def test_a_series_that_misses_a_slice_is_bent_or_holds_a_file_that_is_no_image_is_refused(tmp_path):
    for number, (damage, words) in enumerate(
        (
            (lambda d: (d / "6.dcm").unlink(), "found 5.00 mm between 10.dcm and 2.dcm"),
            (lambda d: write_shifted(d, lambda k: 0.7 * (k % 4) * ROW_WAY), "2.dcm 2.10 mm beside"),
            (lambda d: (d / "9.dcm").write_bytes(b"lost" * 99), "found something else"),
        )
    ):
        folder = write_series(tmp_path / str(number))
        damage(folder)
        with refuses(words):
            read_volume(folder)


@every_row(
    "slices, tags, words",
    [
        ({"x": 0}, {"SeriesInstanceUID": "1.2.9"}, r"found 2 .CT .*#[0-9a-f]{8}.*. Name one"),
        ({"x": 2}, {"RescaleIntercept": "-1000"}, "at one"),
        ({"3": 0}, {"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, "side by side"),
        ({"x": 9}, {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "localiser"),
        ({"x": 9}, {"NumberOfFrames": 3}, "found 3 frames"),
        ({"x": 9}, {"SamplesPerPixel": 3}, "colour"),
        ({"x": 9}, {"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"9": 4}, {"PixelData": b""}, "whole pixel data"),
        ({"9": 4}, {"RescaleSlope": "0"}, "slope above 0"),
        ({"3": 0}, {"Rows": 0}, "pixel data|direction, spacing and size"),
        ({}, {"ImagesInAcquisition": 7}, "state"),
        ({}, {"PixelSpacing": [0, 0.8]}, "above 0"),
        ({}, {"ImageOrientationPatient": [1, 0, 0, 0.3, 0.954, 0]}, "right angles"),
    ],
)
def test_a_series_that_is_no_volume_by_the_tags_of_a_slice_or_of_all_is_refused(
    tmp_path, slices, tags, words
):
    write_series(tmp_path, **({} if slices else tags))
    for name, k in slices.items():
        write_slice(tmp_path, name, k, **tags)
    with refuses(words):
        read_volume(tmp_path)


def test_a_tilted_series_is_resampled_to_an_upright_grid_within_its_planes(tmp_path):
    write_shifted(tmp_path, lambda k: 0.7 * k * COLUMN_WAY)
    volume = read_volume(tmp_path)
    assert volume.data.shape == (1, 5, 3 + 6, 4)  # the last slice is 5.6 rows of 0.5 mm lower
    assert "tilted by 15.6 degrees" in volume.guesses[0].text
    # the shift of slice k is 1.4 k rows: interpolation between two rows of the slice itself
    for k in range(5):
        for row in range(9):
            source = row - 1.4 * k
            expected = -1024.0
            if -0.5 <= source <= 2.5:
                expected = 2 * (100 * k + 10 * np.clip(source, 0, 2) + np.arange(4)) - 1024
            np.testing.assert_allclose(volume.data[0, k, row], expected, atol=1e-2)
    last = FIRST + 2.5 * 4 * NORMAL
    np.testing.assert_allclose(volume.affine @ [0, 0, 4, 1], LPS_TO_RAS @ [*last, 1], atol=1e-5)


def test_slices_that_repeat_others_exactly_are_left_out_and_counted(tmp_path):
    true = read_volume(write_series(tmp_path))
    write_slice(tmp_path, "x", 2)
    write_slice(tmp_path, "y", 4)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.data, true.data)
    assert volume.guesses[0].text.startswith("2 images repeat another at the same place exactly")


def test_two_acquisitions_in_one_series_are_listed_and_each_is_read_by_its_path(tmp_path):
    true = read_volume(write_series(tmp_path))
    write_series(tmp_path, AcquisitionNumber=1)
    for k in range(5):
        write_slice(tmp_path, f"second{k}", k, AcquisitionNumber=2, RescaleIntercept="0")
    with refuses() as caught:
        read_volume(tmp_path)
    with refuses():
        read_volume(f"{tmp_path}#00000000")
    names = re.findall(r"\S+#[0-9a-f]{8}", str(caught.value))
    first, second = [read_volume(tmp_path.parent / name) for name in names]
    np.testing.assert_array_equal(first.data, true.data)
    np.testing.assert_array_equal(second.data, true.data + 1024)


@every_row(
    "allocated, stored, high",
    [(8, 5, 4), (16, 16, 15), (16, 12, 11), (16, 12, 13), (16, 12, 15), (32, 20, 19)],
)
@every_row("signed", [0, 1])
def test_values_of_one_file_are_its_stored_bits_by_the_name_of_the_user(
    tmp_path, allocated, stored, high, signed
):
    below = high + 1 - stored  # bits that hold nothing; those above may hold anything
    words = np.random.default_rng(1).integers(0, 2**allocated, (3, 4), f"u{allocated // 8}")
    words = words >> below << below
    tags = {"BitsAllocated": allocated, "BitsStored": stored, "HighBit": high}
    write_slice(tmp_path, "a", 0, PixelRepresentation=signed, PixelData=words.tobytes(), **tags)
    values = (words.astype(int) >> below) % 2**stored
    values -= signed * (values >> stored - 1) * 2**stored
    volume = read_volume(tmp_path / "a.dcm", "cta")
    np.testing.assert_array_equal(volume.data[0, 0], np.float32(2.0 * values - 1024))
    assert volume.modality == "cta"


def test_what_is_no_image_of_the_series_lies_next_to_it(tmp_path):
    write_series(tmp_path)
    structures = "1.2.840.10008.5.1.4.1.1.481.3"
    save(item(SOPClassUID=structures, SOPInstanceUID="1.2.8", Modality="RS"), tmp_path / "rs.dcm")
    for name in ("DICOMDIR", ".hidden", "readme.txt"):
        (tmp_path / name).write_bytes(b"something")
    for name in ("1.2.840.113", "masks", "run.feat", ".hidden.dcm"):
        (tmp_path / name).mkdir()
    for name in ("notes.txt", ".lost.dcm"):
        (tmp_path / name).symlink_to("gone")
    assert read_volume(tmp_path).data.shape == (1, 5, 3, 4)


def test_every_slice_counts_however_it_is_damaged(tmp_path):
    true = read_volume(write_series(tmp_path)).data
    draw = np.random.default_rng(0)
    for _ in range(20):
        file = tmp_path / f"{draw.choice([3, 10, 6, 2, 9])}.dcm"
        whole = file.read_bytes()
        file.write_bytes(whole[: draw.integers(0, len(whole) - 1)])
        with refuses():
            read_volume(tmp_path)
        file.write_bytes(whole)
    np.testing.assert_array_equal(read_volume(tmp_path).data, true)


def test_damaged_run_lengths_are_noticed(tmp_path, shared):
    file = tmp_path / "a.dcm"
    whole = (shared / "data" / "odd" / "dicom_mr_rle.dcm").read_bytes()
    file.write_bytes(whole)
    start = whole.index(b"\xfe\xff\x00\xe0", 600)
    for place in range(start + 80, len(whole) - 8, len(whole) // 15):
        file.write_bytes(whole[:place] + whole[place + 2 :])
        with refuses():
            read_volume(file)


def test_the_real_series_have_their_known_grids(shared):
    folder = shared / "data" / "dicom"
    mr, ct = read_volume(folder / "t1_studyforrest"), read_volume(folder / "ct_head_phantom")
    assert mr.guesses == ct.guesses == ()
    assert (str(mr.grid), mr.unit) == ("274×384×48, 0.70×0.67×0.67 mm", "a.u.")
    assert (str(ct.grid), ct.unit, ct.data.min()) == ("512×512×20, 0.45×0.45×5.00 mm", "HU", -1024)
    np.testing.assert_array_equal(return_to(canonical(mr), mr.grid).data, mr.data)


@every_row(
    "spoil, kind",
    [
        (lambda file: file.symlink_to("lost.dcm"), "a link that leads nowhere"),
        (lambda file: file.symlink_to(file.name), "a link that leads nowhere"),
        (lambda file: file.mkdir(), "a folder"),
        (lambda file: write_slice(file, "a", 4), "a folder"),
        (os.mkfifo, "no ordinary file"),
    ],
)
@every_row("suffix", [".MR", ""])
def test_every_entry_that_is_called_like_the_images_counts(tmp_path, spoil, kind, suffix):
    for file in write_series(tmp_path, range(4)).iterdir():
        file.rename(file.with_suffix(suffix))
    before = content_hash(tmp_path)
    spoil(tmp_path / f"9{suffix}")
    if kind == "a folder" and not suffix:  # an ordinary folder next to the series
        assert read_volume(tmp_path).data.shape == (1, 4, 3, 4)
        return
    with refuses(f"9{suffix}: expected a DICOM image, found {kind}"):
        read_volume(tmp_path)
    # so that nothing that was made before is taken for the result
    assert content_hash(tmp_path) != before


def test_a_folder_of_nothing_but_lost_links_is_a_series_that_cannot_be_read(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.dcm").symlink_to(f"/lost/{k}.dcm")
    assert is_dicom_folder(tmp_path)
    with refuses():
        read_volume(tmp_path)


@every_row(
    "name", ["MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"]
)
def test_lossless_images_have_the_values_of_the_uncompressed_one(name):
    pytest.importorskip("gdcm")
    files = [get_testdata_file(one, download=False) for one in ("MR_small.dcm", name)]
    if None in files:
        pytest.skip("pydicom lacks the file")
    plain, packed = map(read_volume, files)
    np.testing.assert_array_equal(packed.data, plain.data)
    np.testing.assert_array_equal(packed.affine, plain.affine)


@every_row(
    ("image_type", "description", "name", "odd"),
    [
        ("M\\ND", "t1_mprage sag", "t1", False),
        ("SECONDARY\\MPR", "t1 location map", "t1", False),  # reformatted
        ("LOCALIZER", "head", "ct", True),
        ("M", "localizer", "mr", True),
        ("SUBTRACTION", "t1", "t1", True),
        ("MIP", "t1", "swi", True),
        ("SCREEN SAVE", "t1", "t1", True),
        ("P\\ND", "t1", "t1", True),
        ("PHASE_MAP", "t1", "t1", True),
        ("ADC", "ep2d", "t2", True),
        ("ADC", "ep2d", "adc", False),  # as it is called
    ],
)
def test_a_series_whose_tags_name_another_kind_of_image_is_a_caution(
    tmp_path, image_type, description, name, odd
):
    tags = {"ImageType": ["DERIVED", "PRIMARY", *image_type.split("\\")]}
    modality = "CT" if name == "ct" else "MR"
    write_series(tmp_path, Modality=modality, SeriesDescription=description, **tags)
    said = [(one.code, one.grade) for one in read_volume(tmp_path, name).guesses]
    assert said == [("taken-as", "caution")] * odd


def test_a_sheared_mr_series_is_a_caution_since_no_gantry_of_an_mr_tilts(tmp_path):
    for k in range(5):
        write_slice(tmp_path, str(k), k, Modality="MR", ImagePositionPatient=[k * 0.1, 0, k])
    (guess,) = read_volume(tmp_path, "t1").guesses
    assert (guess.code, guess.grade) == ("guess", "caution")


def write_spaced(folder, step=3.0, count=6, number=1, numbers=None, **tags):
    """Slices `step` mm apart; number: what InstanceNumber counts by (0: none is written)."""
    if number and not numbers:
        numbers = [7 + number * k for k in range(count)]
    for k in range(count):
        place = [f"{v:.8f}" for v in FIRST + step * k * NORMAL]
        named = {"InstanceNumber": numbers[k]} if numbers else {}
        write_slice(folder, str(k), k, ImagePositionPatient=place, **named, **tags)
    return folder


STATED = "step, number, count, spacing, thickness"
MISSING = [  # every second, third ... file was deleted
    (6.0, 1, 6, 3, 3),  # half of the slices, and InstanceNumber hides it
    (6.0, 2, 6, 3, 3),
    (6.0, -2, 4, 3, None),
    (6.0, 2, 6, -3, None),
    (1.25, 2, 6, 0.6, 0.6),  # the spacing is rounded
    (9.0, 3, 6, 3, 2.5),  # two of three
    (6.0, 1, 2, 3, None),
    (12.0, 2, 6, 6, 5),  # of slices with gaps
    (12.0, 2, 6, 1, 5),  # of slices with gaps, which SpacingBetweenSlices states
    (4.0, 4, 6, 1, 3),  # of slices that overlap
    (6.0, 2, 6, None, 3),
    (11.0, -2, 6, None, 5),
]


def tags_of(spacing, thickness):
    tags = {"SpacingBetweenSlices": spacing, "SliceThickness": thickness}
    return {key: value for key, value in tags.items() if value is not None}


@every_row(STATED, MISSING)
def test_a_series_that_misses_slices_by_a_rule_is_refused(
    tmp_path, step, number, count, spacing, thickness
):
    folder = write_spaced(tmp_path, step, count, number, **tags_of(spacing, thickness))
    with refuses(r"only one of \d+"):
        read_volume(folder)


SOUND = [
    (3.0, 1, 6, 3, 3),
    (3.0, 1, 6, -3, 3),
    (5.5, 1, 6, 5.5, 5),
    (6.0, 1, 6, 6, 3),  # the gap is as thick as a slice
    (6.0, 1, 6, 1, 5),  # SpacingBetweenSlices states the gap
    (7.5, 1, 6, 2.5, 5),
    (1.5, 1, 6, 1.5, 3),  # slices overlap
    (1.5, 1, 6, None, 3),
    (7.5, 1, 6, None, 5),
    (3.0, 2, 6, 3, 3),  # of two echoes
    (3.0, 0, 6, None, None),
    (3.0, 1, 6, 0, 0),
]


@every_row(STATED, SOUND)
def test_what_scanners_write_of_whole_series_passes_without_a_word(
    tmp_path, step, number, count, spacing, thickness
):
    volume = read_volume(write_spaced(tmp_path, step, count, number, **tags_of(spacing, thickness)))
    assert volume.grid.spacing_mm[0] == pytest.approx(step, rel=1e-6)
    assert volume.guesses == ()


@every_row(
    "step, number, thickness, words",
    [
        (10.0, 1, 1, "1 mm thick are 10.00 mm apart"),
        (5.0, 2, 5, "InstanceNumber counts by 2"),
    ],
)
def test_what_may_be_missing_slices_is_said(tmp_path, step, number, thickness, words):
    folder = write_spaced(tmp_path, step, number=number, SliceThickness=thickness)
    (said,) = read_volume(folder).guesses
    assert (said.code, said.grade) == ("guess", "note")
    assert words in said.text


@every_row(
    "tags, guesses",
    [
        ({"SpacingBetweenSlices": 6, "GantryDetectorTilt": 20}, 2),
        ({"SliceThickness": 3, "numbers": [1, 4, 2, 6, 3, 5]}, 0),
    ],
)
def test_tags_that_contradict_the_positions_of_slices_are_named_and_numbers_of_no_rule_are_not(
    tmp_path, tags, guesses
):
    assert len(read_volume(write_spaced(tmp_path, **tags)).guesses) == guesses


def test_info_prepare_and_evaluate_say_what_was_guessed_of_a_series(tmp_path, voxlate):
    cohort = tmp_path / "cohort"
    folder = write_spaced(cohort / "p0" / "ct", step=5.8, number=0, SliceThickness=3)
    guessed = json.loads(voxlate("info", folder, "--json").out)["guessed"][0]["text"]
    warnings = prepare(cohort, tmp_path / "prepared", workers=1, audit=False).warnings
    write_volume(tmp_path / "out" / "p0" / "ct.nii.gz", read_volume(folder))
    answer = voxlate("evaluate", tmp_path / "out", "--truth", cohort, "--json").done()
    moved = json.loads(answer.out)["moved"]["p0/ct"]
    for said in (guessed, moved, " ".join(one.text for one in warnings)):
        assert "3 mm thick are 5.80 mm apart" in said


def test_every_second_file_of_a_real_series_is_refused(tmp_path, shared):
    for name in ("t1_studyforrest", "ct_head_phantom"):
        folder = shared / "data" / "dicom" / name
        (tmp_path / name).mkdir()
        for file in sorted(folder.iterdir())[::2]:
            (tmp_path / name / file.name).symlink_to(file)
        with refuses("only one of 2 is here"):
            read_volume(tmp_path / name)


@every_row("thickness", ["NaN", "inf", "-3"])
def test_a_single_slice_whose_thickness_is_no_length_is_refused(tmp_path, thickness):
    with refuses("SliceThickness"):
        read_volume(write_spaced(tmp_path, count=1, SliceThickness=thickness))


def test_a_single_slice_that_states_no_thickness_is_said_to_be_of_one_millimetre(tmp_path):
    for name, tags, mm in (("without", {}, 1), ("with", {"SliceThickness": 5}, 5)):
        volume = read_volume(write_spaced(tmp_path / name, count=1, **tags))
        assert volume.grid.spacing_mm[0] == pytest.approx(mm)
        assert ("1 mm is assumed" in " ".join(map(str, volume.guesses))) == (mm == 1)
