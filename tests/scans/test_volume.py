"""Files in and out: voxels, places and units as written, and one sentence for each bad file."""

import contextlib
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from refusals import refuses
from rows import every_row
from scans import SHEARED as AFFINE
from voxlate.base.errors import BadInput
from voxlate.checks.check_table import check_guesses
from voxlate.scans.cases.case import Origin
from voxlate.scans.formats.io import content_hash, read_volume, write_volume
from voxlate.scans.images.grid import Volume, canonical, return_to

RANDOM = np.random.default_rng(0)


def stored(path, array, kind=nib.Nifti1Image):
    """Write an array as it is indexed in NIfTI, (x, y, z), and return the path."""
    nib.save(kind(array, AFFINE), path)
    return path


def overwrite(path, place, content: bytes):
    """Put other bytes at a place of a file, and return its path."""
    raw = bytearray(path.read_bytes())
    raw[place : place + len(content)] = content
    path.write_bytes(raw)
    return path


def volume_of(array, affine=AFFINE, unit="a.u.") -> Volume:
    return Volume(np.asarray(array, np.float32), affine, unit, "t1")


@every_row(
    "shape, kind",
    [
        ((5, 4, 3, 1), nib.Nifti1Image),
        ((5, 4, 3, 1, 1), nib.Nifti2Image),
        ((5, 4), nib.Nifti1Image),
    ],
)
def test_last_axes_of_one_and_single_slices_are_volumes(tmp_path, shape, kind):
    array = RANDOM.integers(0, 99, shape).astype(np.int16)
    volume = read_volume(stored(tmp_path / "a.nii.gz", array, kind))
    assert_array_equal(volume.data[0].transpose(2, 1, 0), array.reshape(5, 4, -1))
    assert_allclose(volume.affine, AFFINE, atol=1e-5)


@every_row("module, name", [("SimpleITK", "a.mha"), ("pydicom", "a.dcm")])
def test_an_absent_extra_names_the_command_that_installs_it(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"anything")
    with refuses():
        read_volume(tmp_path / name)


@every_row("dtype", [np.uint8, np.uint16])
@every_row("suffix", ["png", "tif"])
def test_pictures_keep_their_values_and_return_from_canonical(tmp_path, dtype, suffix):
    pixels = RANDOM.integers(0, np.iinfo(dtype).max, (7, 9), endpoint=True).astype(dtype)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    picture = read_volume(path, "mr")
    assert (picture.unit, picture.modality) == ("grey", "mr")
    assert picture.grid.spacing_mm == (1, 1, 1)
    assert_array_equal(picture.data[0, 0], pixels)
    ras = canonical(picture)
    assert_array_equal(ras.data[0, 0], pixels[::-1, ::-1])
    assert_array_equal(return_to(ras, picture.grid).data[0, 0], pixels)


def test_nan_and_infinity_are_counted_or_let_through(tmp_path):
    array = np.zeros((3, 3, 3), np.float32)
    array[0, 0, :2], array[1, 1, 1] = np.nan, -np.inf
    path = stored(tmp_path / "a.nii.gz", array)
    with refuses():
        read_volume(path)
    assert np.isnan(read_volume(path, allow_nan=True).data).sum() == 2


def test_what_cannot_be_written_is_refused(tmp_path):
    with refuses("file name that ends"):
        write_volume(tmp_path / "a.png", volume_of(np.zeros((1, 2, 3, 4))))
    assert list(tmp_path.iterdir()) == []


@every_row("suffix", [".nii.gz", ".png", ".npz"])
def test_a_flipped_bit_in_compressed_voxels_is_never_read_as_voxels(tmp_path, suffix):
    draw = np.random.default_rng(0)
    voxels = draw.integers(0, 200, (6, 20, 24)).astype(np.int16 if suffix != ".png" else np.uint8)
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    if suffix == ".png":
        Image.fromarray(voxels[0]).save(good)
    elif suffix == ".npz":
        np.savez_compressed(good, src=voxels[0])
    else:
        write_volume(good, volume_of(voxels[None]))
    whole, true = good.read_bytes(), read_volume(good).data
    read = 0
    for place in draw.integers(0, len(whole), 20):
        bad.write_bytes(whole)
        overwrite(bad, place, bytes([whole[place] ^ 1 << draw.integers(8)]))
        with contextlib.suppress(BadInput):
            assert_array_equal(read_volume(bad).data, true)
            read += 1
    assert read < (8 if suffix == ".npz" else 5)  # a few bits of headers mean nothing


def test_the_hash_of_an_image_is_that_of_all_its_files(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    itk.WriteImage(itk.Image(4, 5, 6, itk.sitkInt16), str(tmp_path / "a.mhd"))
    before = content_hash(tmp_path / "a.mhd")
    overwrite(tmp_path / "a.raw", 0, b"\1")
    assert content_hash(tmp_path / "a.mhd") != before


def nifti_with(path: Path, qform: tuple[float, int], sform: tuple[float, int]) -> Path:
    """A NIfTI file with two affines of 2 mm, each with an x of its first voxel and a code."""
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    image.header.set_zooms((2, 2, 2))
    for (origin, code), put in ((qform, image.set_qform), (sform, image.set_sform)):
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[0, 3] = origin
        put(affine, code=code)
    nib.save(image, path)
    return path


@every_row(
    "qform, sform, codes, said",
    [
        ((5, 1), (5, 4), (1, 4), ""),
        ((5, 1), (0, 0), (1, 0), ""),
        ((0, 0), (5, 2), (0, 2), ""),
        ((9, 1), (5, 1), (0, 1), "its qform and sform disagree on places; the sform"),
        ((0, 0), (0, 0), (0, 0), "its header states no orientation"),
    ],
)
def test_an_image_states_no_orientation_that_its_source_did_not(
    tmp_path, qform, sform, codes, said
):
    scan = read_volume(nifti_with(tmp_path / "t1.nii.gz", qform, sform), "t1")
    assert [guess.text.startswith(said) for guess in scan.guesses] == [True] * bool(said)
    image = return_to(canonical(scan), scan.grid)
    write_volume(tmp_path / "image.nii.gz", image)
    source, written = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("t1", "image"))
    assert (written.header["qform_code"], written.header["sform_code"]) == codes
    assert_allclose(written.affine, source.affine)
    assert_array_equal(written.get_fdata(), source.get_fdata())


@every_row(
    "place, content, codes, grades",
    [
        # an empty sform, and a qform that is no rotation: srow_x, y and z; quatern_b
        (280, bytes(48), (1, 0), []),
        (256, np.float32(5).tobytes(), (0, 1), ["note"]),
        # srow_x, by which left and right may be exchanged
        (280, np.float32(2).tobytes(), (0, 1), ["note"]),
        (280, np.float32(-2).tobytes(), (0, 1), ["caution"]),
    ],
)
def test_of_two_affines_one_counts_and_the_other_is_said(tmp_path, place, content, codes, grades):
    path = nifti_with(tmp_path / "t1.nii", (5, 1), (9 if grades else 5, 1))
    scan = read_volume(overwrite(path, place, content), "t1")
    assert scan.codes == codes
    assert scan.grid.spacing_mm == pytest.approx((2, 2, 2))
    guesses = Origin.of(scan).guesses
    assert [said.grade for said in check_guesses("t1", guesses)] == grades


def test_a_grid_that_a_header_without_codes_cannot_state_is_written_as_that_of_another_file(
    tmp_path,
):
    scan = read_volume(nifti_with(tmp_path / "t1.nii.gz", (0, 0), (0, 0)), "t1")
    turned = canonical(scan)
    write_volume(tmp_path / "turned.nii.gz", turned)
    written = nib.load(tmp_path / "turned.nii.gz")
    assert written.header["sform_code"] == 2
    assert_allclose(written.affine, turned.affine)


SHARES = RANDOM.integers(0, 400, (4, 5, 6)) / np.float32(399)
SHARES[0, 0, :2] = 0, 1


@every_row(
    "modality, voxels, unit",
    [
        ("ct", np.floor(SHARES * 255), "grey"),
        ("t1", np.floor(SHARES * 255), "a.u."),
        ("ct", np.floor(SHARES * 240), "HU"),  # not white
        ("ct", np.floor(SHARES * 400) - 100, "HU"),  # below water
        ("ct", SHARES * 255, "HU"),
    ],
)
def test_a_ct_that_is_a_windowed_picture_has_grey_values(tmp_path, modality, voxels, unit):
    stored(tmp_path / "a.nii", voxels.astype(np.float32))
    volume = read_volume(tmp_path / "a.nii", modality)
    assert volume.unit == unit
    assert [said.code for said in volume.guesses] == ["grey-ct"] * (unit == "grey")
