"""What single header fields of NIfTI, MGH, MetaImage, NRRD and pictures mean, where they are unusual."""

import bz2
import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.scans.cases.align import Preparation, find_common_grid
from voxlate.scans.cases.case_header import Origin
from voxlate.scans.formats.io import read_volume

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


@every_row(
    ("name", "stated"),
    [("a.png", False), ("a.npy#slice=3", False), ("a.npy#slice=3,mm=1x1x2", True), ("a.nii", True)],
)
def test_an_origin_tells_whether_its_file_states_the_size_of_voxels(name, stated):
    assert Origin(name, (1, 2, 3), np.eye(4).tolist()).states_spacing == stated


SAID = {
    "voxels stated in the header": [(108, "<f", 0.0)],
    "a scale that is no number": [(112, "<f", np.nan)],
    "labels": [(68, "<h", 1002)],
    "a t map": [(68, "<h", 3)],
    "a mirrored stack": [(76, "<f", -2.0)],
}


EIGHT_BITS = VOXELS.astype(int) * 255 // VOXELS.max()
WINDOWED = {
    "a CT of eight bits": ("ct", EIGHT_BITS, "grey"),
    "an MR of eight bits": ("t1", EIGHT_BITS, "a.u."),
    "a CT that is not white": ("ct", VOXELS.astype(int) * 240 // VOXELS.max(), "HU"),
    "a CT below water": ("ct", VOXELS - 100, "HU"),
    "a CT of shares": ("ct", np.float32(VOXELS) * 255 / VOXELS.max(), "HU"),
}


@every_row("case", WINDOWED)
def test_a_ct_that_is_a_windowed_picture_has_grey_values(tmp_path, case):
    modality, voxels, unit = WINDOWED[case]
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), AFFINE), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii", modality)
    assert volume.unit == unit
    assert [said.code for said in volume.guesses] == ["grey-ct"] * (unit == "grey")


@every_row("case", SAID)
def test_an_unusual_field_of_a_nifti_header_is_read_right_and_said(tmp_path, case, capfd):
    plain = read_volume(nifti(tmp_path / "a.nii"))
    volume = read_volume(nifti(tmp_path / "b.nii", *SAID[case]))
    np.testing.assert_array_equal(volume.data, plain.data)
    mirrored = case == "a mirrored stack"
    np.testing.assert_allclose(volume.affine, plain.affine, atol=1e-5)
    assert len(volume.guesses) == (not mirrored)
    assert capfd.readouterr() == ("", "")


def packed_twice(folder):
    (folder / "a.nii.gz").write_bytes(
        gzip.compress(gzip.compress(nifti(folder / "b").read_bytes()))
    )
    return folder / "a.nii.gz"


def misnamed(folder):
    (folder / "a.nii").write_bytes(gzip.compress(nifti(folder / "b").read_bytes()))
    return folder / "a.nii"


LARGE = 1 << 40
REFUSED = {
    "voxels within the header": (lambda d: nifti(d / "a.nii", (108, "<f", 100.0)), "vox_offset"),
    "an infinite slope": (lambda d: nifti(d / "a.nii", (112, "<f", np.inf)), "scl_slope"),
    "an infinite intercept": (lambda d: nifti(d / "a.nii", (116, "<f", np.inf)), "scl_inter"),
    "gzip under another name": (misnamed, r"a\.nii\.gz"),
    "gzip in gzip": (packed_twice, "twice"),
    "values too near for float32": (
        lambda d: nifti(d / "a.nii", kind=nib.Nifti2Image, voxels=VOXELS + np.int64(LARGE)),
        "float32",
    ),
}


@every_row("case", REFUSED)
def test_a_field_that_cannot_be_followed_is_named(tmp_path, case, capfd):
    write, word = REFUSED[case]
    with pytest.raises(BadInput, match=word):
        read_volume(write(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_large_whole_numbers_that_float32_tells_apart_are_read(tmp_path):
    path = nifti(tmp_path / "a.nii", voxels=VOXELS.astype(np.int32) * 200_000)
    np.testing.assert_allclose(read_volume(path).data[0].T, VOXELS * 200_000.0, rtol=1e-6)


def test_an_mgh_file_without_a_place_is_said_to_be_of_one_millimetre(tmp_path):
    nib.save(nib.MGHImage(VOXELS, AFFINE), tmp_path / "a.mgh")
    assert read_volume(tmp_path / "a.mgh").guesses == ()
    raw = bytearray((tmp_path / "a.mgh").read_bytes())
    raw[28:30] = b"\0\0"
    (tmp_path / "a.mgh").write_bytes(raw)
    (said,) = read_volume(tmp_path / "a.mgh").guesses
    assert "1 mm" in said.text


NRRD = "NRRD0005\ntype: short\ndimension: 3\nsizes: 4 5 6\nspace: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 1 2\nDimSize = 4 5 6\nElementType = MET_SHORT\nElementDataFile = "
RAW = VOXELS.T.tobytes()  # x grows fastest
ITK_FILES = {
    "line skip": (
        "a.nrrd",
        f"{NRRD}encoding: gzip\nline skip: 1\n\nnote\n",
        gzip.compress(RAW),
        "",
    ),
    "detached": ("a.nhdr", f"{NRRD}encoding: raw\ndata file: a.bin\n", None, ""),
    "bzip2": ("a.nrrd", f"{NRRD}encoding: bzip2\n\n", bz2.compress(RAW), "bzip2"),
    "without its .bin": ("a.nhdr", f"{NRRD}encoding: raw\ndata file: b.bin\n", None, "b.bin"),
    "without its .raw": ("a.mhd", f"{META}b.raw\n", None, "b.raw"),
    "outside": ("a.mhd", f"{META}../a.bin\n", None, r"\.\./a\.bin"),
    "a list outside": ("a.mhd", f"{META}LIST\n/a.bin\n", None, "/a.bin"),
    "outside of NRRD": ("a.nhdr", f"{NRRD}encoding: raw\ndata file: /a.bin\n", None, "/a.bin"),
    "cut short": ("a.mha", f"{META}LOCAL\n", RAW[:-9], "not read completely"),
    "without a size": ("a.mha", f"{META}LOCAL\n".replace("DimSize", "Size"), RAW, "DimSize"),
    "a short .nrrd": ("a.nrrd", f"{NRRD}encoding: raw\n\n", RAW[:-9], "fread"),
}


@every_row("case", ITK_FILES)
def test_metaimage_and_nrrd_files_are_read_or_their_cause_is_named(tmp_path, case, capfd):
    pytest.importorskip("SimpleITK", exc_type=ImportError)
    name, header, voxels, cause = ITK_FILES[case]
    (tmp_path / "a.bin").write_bytes(RAW)
    (tmp_path / name).write_bytes(header.encode() + (voxels or b""))
    if cause:
        with pytest.raises(BadInput, match=cause):
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
    (tmp_path / "list.csv").write_bytes("case;t1\na;a.nii\nMüller;b.nii\n".encode("cp1252"))
    refusal = voxlate("prepare", tmp_path / "list.csv", "--dry-run").refusal
    assert "line 3" in refusal
    assert "0xfc" in refusal


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


def test_pictures_of_two_sizes_are_both_resized_to_the_matrix(tmp_path):
    ramp = np.linspace(0, 200, 16, dtype=np.uint8)
    for name, size in (("a", 16), ("b", 32)):
        image = Image.fromarray(np.tile(ramp, (16, 1))).resize((size, size))
        image.save(tmp_path / f"{name}.png")
    scans = {name: read_volume(tmp_path / f"{name}.png", name) for name in "ab"}
    with pytest.raises(BadInput, match="--matrix"):
        find_common_grid("case", scans, Preparation())
    common = find_common_grid("case", scans, Preparation(matrix=(8, 8)))
    a, b = (common.align(name, scan).data for name, scan in scans.items())
    assert a.shape == b.shape == (1, 1, 8, 8)
    assert np.abs(a - b).max() < 8
