"""Hostile files: headers that claim more than there is, and small files that expand without end."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from refusals import refuses
from rows import every_row
from voxlate.base.option import bytes_of
from voxlate.scans.formats.format import check_volume
from voxlate.scans.formats.io import read_volume
from voxlate.scans.layout_options import LARGEST_VOLUME, Layout

pydicom = pytest.importorskip("pydicom")
from made_series import write_slice  # noqa: E402 - needs pydicom


@pytest.fixture(autouse=True)
def one_megabyte(monkeypatch) -> None:
    monkeypatch.setenv(LARGEST_VOLUME, "1MB")


def test_a_size_is_read_with_its_unit():
    sizes = {"4GB": 4 * 2**30, "500 MB": 500 * 2**20, "2g": 2 * 2**30, "10": 10}
    assert {text: bytes_of(text) for text in sizes} == sizes
    with refuses():
        Layout(max_volume="big")


def nifti(side: int) -> nib.nifti1.Nifti1Image:
    return nib.nifti1.Nifti1Image(np.zeros((side, side, side), np.int16), np.eye(4))


def test_the_largest_volume_that_fits_passes_and_one_slice_more_only_by_the_option():
    check_volume((4, 256, 256), "a.nii")
    with refuses():
        check_volume((5, 256, 256), "a.nii")
    Layout(max_volume="2MB")
    check_volume((5, 256, 256), "a.nii")
    assert "max_volume" not in Layout().layout


@every_row("ending", [".nii", ".nii.gz", ".mha", ".nrrd", ".png", ".npz", ".npy"])
def test_a_large_volume_or_picture_is_refused_before_its_voxels_are_read(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    if ending.startswith(".nii"):
        nib.save(nifti(100), path)
    elif ending == ".png":
        Image.new("L", (1000, 1000)).save(path)
    elif ending.startswith(".np"):
        (np.save if ending == ".npy" else np.savez_compressed)(path, np.zeros((1000, 1000)))
    else:
        itk = pytest.importorskip("SimpleITK")
        itk.WriteImage(itk.Image(100, 100, 100, itk.sitkInt16), str(path), True)
    with refuses():
        read_volume(path)


def test_a_gzip_bomb_behind_the_voxels_or_in_the_extensions_of_the_header_is_refused(tmp_path):
    path, whole = tmp_path / "a.nii.gz", nifti(4).to_bytes()
    far = np.float32(2**31).tobytes()
    for content in (whole + bytes(3 * 2**20), whole[:108] + far + whole[112:]):
        path.write_bytes(gzip.compress(content))
        with refuses():
            read_volume(path)


def test_a_deflated_series_is_read(tmp_path):
    write_slice(tmp_path, "a", 0)
    path = tmp_path / "a.dcm"
    plain, header = read_volume(path), pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    header.save_as(path)
    np.testing.assert_array_equal(read_volume(path).data, plain.data)


def test_a_compressed_image_that_claims_a_huge_size_is_refused(tmp_path):
    write_slice(tmp_path, "a", 0)
    header = pydicom.dcmread(tmp_path / "a.dcm")
    header.compress(pydicom.uid.RLELossless)
    header.Rows = header.Columns = 65535
    header.save_as(tmp_path / "a.dcm")
    with refuses():
        read_volume(tmp_path)


def test_deep_sequences_and_huge_private_elements_end_in_a_volume_or_a_sentence(
    tmp_path,
):
    write_slice(tmp_path, "a", 0)
    whole = (tmp_path / "a.dcm").read_bytes()
    at = whole.index(b"\x20\x00\x11\x00")
    opening = b"\x09\x00\x02\x10SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    claim = b"\x09\x00\x01\x10OB\x00\x00" + (2**32 - 2).to_bytes(4, "little")
    for added in (opening * 20000, claim):
        (tmp_path / "a.dcm").write_bytes(whole[:at] + added + whole[at:])
        with refuses():
            read_volume(tmp_path)
