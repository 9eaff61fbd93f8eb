"""DICOM series: order, place and values against a made-up series and real ones."""

import numpy as np
import pytest

from refusals import refuses
from rows import every_row
from voxlate.scans.formats.dicom import is_dicom_folder, list_series
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import LPS_TO_RAS, canonical, return_to

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402 - needs pydicom

from made_series import (  # noqa: E402
    ALL,
    COLUMN_WAY,
    FIRST,
    NORMAL,
    ROW_WAY,
    STORED,
    place,
    write,
    write_slice,
    write_spaced,
)


def test_slices_are_ordered_by_place_rescaled_and_lie_where_dicom_and_highdicom_say(tmp_path):
    volume = read_volume(write(tmp_path))
    assert (volume.unit, volume.modality, volume.data.shape) == ("HU", "ct", (1, 5, 3, 4))
    np.testing.assert_array_equal(volume.data[0], 2 * STORED - 1024)
    # DICOM PS3.3 C.7.6.2.1.1: position + 0.8 column · row direction + 0.5 row · column direction; LPS to RAS
    last = FIRST + 0.8 * 3 * ROW_WAY + 0.5 * 2 * COLUMN_WAY + 2.5 * 4 * NORMAL
    np.testing.assert_allclose(volume.affine @ [3, 2, 4, 1], LPS_TO_RAS @ [*last, 1], atol=1e-5)
    np.testing.assert_array_equal(return_to(canonical(volume), volume.grid).data, volume.data)
    files = [*map(pydicom.dcmread, tmp_path.iterdir())]
    theirs = pytest.importorskip("highdicom").get_volume_from_series(files).flip_spatial(0)
    np.testing.assert_array_equal(theirs.array, volume.data[0])
    affine = LPS_TO_RAS @ theirs.affine[:, [2, 1, 0, 3]]
    np.testing.assert_allclose(affine, volume.affine, atol=1e-6)


def write_tilted(folder, shift, **tags):
    """A series whose slices are shifted by `shift` mm against each other, along their columns."""
    return write(
        folder,
        *({"ImagePositionPatient": place(k, shift * k * COLUMN_WAY)} | tags for k in ALL),
    )


def test_a_tilted_series_is_resampled_to_an_upright_grid_within_its_planes(tmp_path):
    volume = read_volume(write_tilted(tmp_path, 0.7))
    assert volume.data.shape == (1, 5, 3 + 6, 4)  # the last slice is 5.6 rows of 0.5 mm lower
    assert [said.grade for said in volume.guesses] == ["note"]
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


def test_padding_is_air_before_a_tilt_is_resampled(tmp_path):
    write_tilted(tmp_path, 0.7)
    for file in tmp_path.iterdir():
        header = pydicom.dcmread(file)
        pixels = header.pixel_array.copy()
        pixels[:, 0] = -2000
        header.PixelData = pixels.tobytes()
        header.save_as(file)
    volume = read_volume(tmp_path)
    assert volume.data.min() == -1022  # of the other voxels
    assert len(volume.guesses) == 2
    np.testing.assert_allclose(volume.data[0, 0, :3, 1:], 2 * STORED[0, :, 1:] - 1024)


def test_two_series_that_are_no_single_stack_stay_apart(tmp_path):
    write(tmp_path)
    for k in ALL:
        write_slice(tmp_path, f"b{k}", k, SeriesDescription="second", RescaleIntercept="0")
    assert [one.images for one in list_series(tmp_path)] == [5, 5]
    with refuses():
        read_volume(f"{tmp_path}#00000000")
    first, second = (read_volume(one.path) for one in list_series(tmp_path))
    np.testing.assert_array_equal(second.data, first.data + 1024)


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
    tags = {"Modality": "PT", "BitsAllocated": allocated, "BitsStored": stored, "HighBit": high}
    write_slice(tmp_path, "a", 0, PixelRepresentation=signed, PixelData=words.tobytes(), **tags)
    values = (words.astype(int) >> below) % 2**stored
    values -= signed * (values >> stored - 1) * 2**stored
    volume = read_volume(tmp_path / "a.dcm", "cta")
    np.testing.assert_array_equal(volume.data[0, 0], np.float32(2.0 * values - 1024))
    assert volume.modality == "cta"


def test_every_slice_counts_however_it_is_damaged(tmp_path):
    true = read_volume(write(tmp_path)).data
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
    for at in range(start + 80, len(whole) - 8, len(whole) // 15):
        file.write_bytes(whole[:at] + whole[at + 2 :])
        with refuses():
            read_volume(file)


def test_the_real_series_have_their_known_grids(shared):
    folder = shared / "data" / "dicom"
    mr, ct = read_volume(folder / "t1_studyforrest"), read_volume(folder / "ct_head_phantom")
    assert mr.guesses == ct.guesses == ()
    assert (str(mr.grid), mr.unit) == ("274×384×48, 0.70×0.67×0.67 mm", "a.u.")
    assert (str(ct.grid), ct.unit, ct.data.min()) == ("512×512×20, 0.45×0.45×5.00 mm", "HU", -1024)
    np.testing.assert_array_equal(return_to(canonical(mr), mr.grid).data, mr.data)


def test_a_lost_entry_changes_the_hash_of_a_series(tmp_path):
    for file in write(tmp_path).iterdir():
        file.rename(file.with_suffix(""))
    before = content_hash(tmp_path)
    (tmp_path / "9x").symlink_to("lost")
    assert is_dicom_folder(tmp_path)
    with refuses("9x"):
        read_volume(tmp_path)
    # so that nothing that was made before is taken for the result
    assert content_hash(tmp_path) != before


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
        ("SECONDARY\\MPR", "t1 location map", "t1", False),  # reformatted
        ("M", "localizer", "mr", True),
        ("P\\ND", "t1", "t1", True),
        ("ADC", "ep2d", "t2", True),
        ("ADC", "ep2d", "adc", False),  # as it is called
    ],
)
def test_a_series_whose_tags_name_another_kind_of_image_is_a_caution(
    tmp_path, image_type, description, name, odd
):
    tags = {"ImageType": ["DERIVED", "PRIMARY", *image_type.split("\\")]}
    modality = "CT" if name == "ct" else "MR"
    write(tmp_path, Modality=modality, SeriesDescription=description, **tags)
    said = [(one.code, one.grade) for one in read_volume(tmp_path, name).guesses]
    assert said == [("taken-as", "caution")] * odd


@every_row(
    "step, number, count, spacing, thickness, messages",
    [
        # every second, third ... file was deleted: refused
        (6.0, 1, 6, 3, 3, None),  # half of the slices, and InstanceNumber hides it
        (1.25, 2, 6, 0.6, 0.6, None),  # the spacing is rounded
        (9.0, 3, 6, 3, 2.5, None),  # two of three
        (3.0, 1, 6, -3, 3, 0),
        (6.0, 1, 6, 1, 5, 0),  # SpacingBetweenSlices states the gap
        (1.5, 1, 6, None, 3, 0),
        (3.0, 0, 6, None, None, 0),
        (10.0, 1, 6, None, 1, 1),
        # a single slice has its thickness
        (5.0, 1, 1, None, 5, 0),
        (1.0, 1, 1, None, None, 1),
    ],
)
def test_steps_of_slices_that_contradict_their_headers_are_refused_or_said(
    tmp_path, step, number, count, spacing, thickness, messages
):
    folder = write_spaced(tmp_path, step, count, number, spacing, thickness)
    if messages is None:
        with refuses(r"only one of \d+"):
            read_volume(folder)
        return
    volume = read_volume(folder)
    assert volume.grid.spacing_mm[0] == pytest.approx(step, rel=1e-6)
    assert [said.grade for said in volume.guesses] == ["note"] * messages


@every_row("count, step", [(12, 0.333), (7, 1.25)])
def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path, count, step):
    axial = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    for k in range(count):
        rounded = [-10.0, -10.0, round(step * k - 7, 1)]
        write_slice(tmp_path, str(k), k, ImagePositionPatient=rounded, **axial)
    assert read_volume(tmp_path).grid.spacing_mm[0] == pytest.approx(step, abs=0.1 / (count - 1))
    (tmp_path / f"{count // 2}.dcm").unlink()
    with refuses():
        read_volume(tmp_path)
