"""What single header fields of NIfTI, MGH, MetaImage, NRRD and pictures mean, where they are unusual."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from refusals import refuses
from rows import every_row
from voxlate.scans.cases.align import Preparation, find_common_grid
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume

VOXELS = np.random.default_rng(3).integers(0, 400, (4, 5, 6)).astype(np.int16)
AFFINE = np.diag([-1.2, 1.1, 3.0, 1.0])


def nifti(path, *fields, kind=nib.Nifti1Image, voxels=VOXELS):
    """A file whose header has other bytes at some places; fields: (place, type, value)."""
    image = kind(voxels, None, dtype=voxels.dtype)
    image.set_qform(AFFINE, 1)
    raw = bytearray(image.to_bytes())
    for place, form, value in fields:
        struct.pack_into(form, raw, place, value)
    path.write_bytes(raw)
    return path


SHARES = np.float32(VOXELS) / VOXELS.max()


@every_row(
    "modality, voxels, unit",
    [
        ("ct", np.floor(SHARES * 255), "grey"),
        ("t1", np.floor(SHARES * 255), "a.u."),
        ("ct", np.floor(SHARES * 240), "HU"),  # not white
        ("ct", VOXELS - 100, "HU"),  # below water
        ("ct", SHARES * 255, "HU"),
    ],
)
def test_a_ct_that_is_a_windowed_picture_has_grey_values(tmp_path, modality, voxels, unit):
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), AFFINE), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii", modality)
    assert volume.unit == unit
    assert [said.code for said in volume.guesses] == ["grey-ct"] * (unit == "grey")


@every_row(
    "field, guesses",
    [
        ((108, "<f", 0.0), 1),  # voxels stated in the header
        ((112, "<f", np.nan), 1),  # a scale that is no number
        ((68, "<h", 1002), 1),  # labels
        ((68, "<h", 3), 1),  # a t map
        ((76, "<f", -2.0), 0),  # a mirrored stack
    ],
)
def test_an_unusual_field_of_a_nifti_header_is_read_right_and_said(tmp_path, field, guesses, capfd):
    plain = read_volume(nifti(tmp_path / "a.nii"))
    volume = read_volume(nifti(tmp_path / "b.nii", field))
    np.testing.assert_array_equal(volume.data, plain.data)
    np.testing.assert_allclose(volume.affine, plain.affine, atol=1e-5)
    assert len(volume.guesses) == guesses
    assert capfd.readouterr() == ("", "")


def packed(path, times):
    """A NIfTI file that is packed by gzip, perhaps twice."""
    content = nifti(path.with_name("b")).read_bytes()
    for _ in range(times):
        content = gzip.compress(content)
    path.write_bytes(content)
    return path


HUGE = VOXELS + (np.int64(1) << 40)


@every_row(
    "write, word",
    [
        (lambda d: nifti(d / "a.nii", (108, "<f", 100.0)), "vox_offset"),
        (lambda d: nifti(d / "a.nii", (112, "<f", np.inf)), "scl_slope"),
        (lambda d: nifti(d / "a.nii", (116, "<f", np.inf)), "scl_inter"),
        (lambda d: packed(d / "a.nii", 1), r"a\.nii\.gz"),
        (lambda d: packed(d / "a.nii.gz", 2), "twice"),
        (lambda d: nifti(d / "a.nii", kind=nib.Nifti2Image, voxels=HUGE), "float32"),
    ],
)
def test_a_field_that_cannot_be_followed_is_named(tmp_path, write, word, capfd):
    with refuses(word):
        read_volume(write(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_large_whole_numbers_that_float32_tells_apart_are_read(tmp_path):
    path = nifti(tmp_path / "a.nii", voxels=VOXELS.astype(np.int32) * 200_000)
    np.testing.assert_allclose(read_volume(path).data[0].T, VOXELS * 200_000.0, rtol=1e-6)


def test_an_mgh_file_without_a_place_is_said_to_be_of_one_millimetre(tmp_path):
    path = tmp_path / "a.mgh"
    nib.save(nib.MGHImage(VOXELS, AFFINE), path)
    assert read_volume(path).guesses == ()
    raw = bytearray(path.read_bytes())
    raw[28:30] = b"\0\0"
    path.write_bytes(raw)
    (said,) = read_volume(path).guesses
    assert "1 mm" in said.text


NRRD = "NRRD0005\ntype: short\ndimension: 3\nsizes: 4 5 6\nspace: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 1 2\nDimSize = 4 5 6\nElementType = MET_SHORT\nElementDataFile = "
RAW = VOXELS.T.tobytes()  # x grows fastest
NO_SIZE = META.replace("DimSize", "Size")


@every_row(
    "name, header, voxels, cause",
    [
        ("a.nrrd", f"{NRRD}encoding: gzip\nline skip: 1\n\nnote\n", gzip.compress(RAW), ""),
        ("a.nhdr", f"{NRRD}encoding: raw\ndata file: a.bin\n", b"", ""),
        ("a.nrrd", f"{NRRD}encoding: bzip2\n\n", b"", "bzip2"),
        ("a.nhdr", f"{NRRD}encoding: raw\ndata file: b.bin\n", b"", "b.bin"),
        ("a.mhd", f"{META}b.raw\n", b"", "b.raw"),
        ("a.mhd", f"{META}../a.bin\n", b"", r"\.\./a\.bin"),
        ("a.mhd", f"{META}LIST\n/a.bin\n", b"", "/a.bin"),
        ("a.nhdr", f"{NRRD}encoding: raw\ndata file: /a.bin\n", b"", "/a.bin"),
        ("a.mha", f"{META}LOCAL\n", RAW[:-9], "not read completely"),
        ("a.mha", f"{NO_SIZE}LOCAL\n", RAW, "DimSize"),
        ("a.nrrd", f"{NRRD}encoding: raw\n\n", RAW[:-9], "fread"),
    ],
)
def test_metaimage_and_nrrd_files_are_read_or_their_cause_is_named(
    tmp_path, name, header, voxels, cause, capfd
):
    pytest.importorskip("SimpleITK", exc_type=ImportError)
    (tmp_path / "a.bin").write_bytes(RAW)
    (tmp_path / name).write_bytes(header.encode() + voxels)
    if cause:
        with refuses(cause):
            read_volume(tmp_path / name)
    else:
        np.testing.assert_array_equal(read_volume(tmp_path / name).data[0].T, VOXELS)
    assert capfd.readouterr() == ("", "")


def test_a_path_that_is_not_utf8_is_refused(tmp_path, voxlate):
    folder = tmp_path / "f\udcfc" / "a"
    folder.mkdir(parents=True)
    nifti(folder / "t1.nii")
    voxlate("prepare", folder.parent, "--dry-run").refusal  # noqa: B018
    voxlate("prepare", tmp_path, "--dry-run").refusal  # noqa: B018


def test_a_table_in_another_encoding_is_named_with_its_line(tmp_path, voxlate):
    (tmp_path / "list.csv").write_bytes(b"case;t1\na;a.nii\nM\x81ller;b.nii\n")
    refusal = voxlate("prepare", tmp_path / "list.csv", "--dry-run").refusal
    assert "line 3" in refusal
    assert "0x81" in refusal


@every_row("dtype, most", [(np.uint8, 255), (np.uint16, 65535)])
def test_a_tiff_whose_zero_is_white_is_inverted_and_said(tmp_path, dtype, most):
    pixels = (VOXELS[0] % 200).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    picture = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.data[0, 0], most - pixels.astype(float))
    assert len(picture.guesses) == 1


@every_row("ending, said", [("bmp", 0), ("jpg", 1)])
def test_bmp_and_jpeg_are_read(tmp_path, ending, said):
    Image.fromarray(np.full((8, 9), 77, np.uint8)).save(tmp_path / f"0.{ending}")
    picture = read_volume(tmp_path / f"0.{ending}")
    assert (picture.data == 77).all()
    assert len(picture.guesses) == said


def test_pictures_of_two_sizes_are_both_resized_to_the_matrix():
    scans = {}
    for name, size in (("a", 16), ("b", 32)):
        ramp = np.tile(np.linspace(0, 200, size, dtype=np.float32), (1, 1, size, 1))
        scans[name] = Volume(ramp, np.diag([-1.0, -1, 1, 1]), "grey", name)
    with refuses("--matrix"):
        find_common_grid("case", scans, Preparation())
    common = find_common_grid("case", scans, Preparation(matrix=(8, 8)))
    a, b = (common.align(name, scan).data for name, scan in scans.items())
    assert a.shape == b.shape == (1, 1, 8, 8)
    assert np.abs(a - b).max() < 8


def test_a_scan_of_a_voxel_size_in_another_unit_is_refused_before_memory_is_taken():
    scan = Volume(np.ones((1, 20, 30, 40), np.float32), np.diag([1000.0, 1000, 1000, 1]), "", "t1")
    with refuses("found 40 m"):
        find_common_grid("case", {"t1": scan}, Preparation(spacing_mm=(2.0, 2.0, 2.0)))
