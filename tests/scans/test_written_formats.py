"""Every format that is written has the voxels and the place of the volume, as other programs read them."""

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.testing import assert_allclose, assert_array_equal

from rows import every_row
from scans import SHEARED
from voxlate.scans.formats.io import content_hash, is_synthetic, read_volume, write_volume
from voxlate.scans.formats.nifti import SYNTHETIC_SCAN
from voxlate.scans.images.grid import LPS_TO_RAS, Volume

RANDOM = np.random.default_rng(0)
TURNED = np.linalg.qr(RANDOM.normal(size=(3, 3)))[0]
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURNED * [0.7, 1.1, 3.3]
OBLIQUE[:3, 3] = [90.123456789, -126.7, 1 / 3]
ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha"]
EXACT = {".nrrd": 1e-12, ".mha": 1e-12}  # the others have float32 headers


def volume(whole: bool, affine=OBLIQUE) -> Volume:
    data = RANDOM.normal(size=(1, 4, 5, 6)) * 1000
    return Volume(np.float32(np.rint(data) if whole else data), affine, "a.u.", "t1")


@every_row("ending", ENDINGS)
@every_row("whole, affine", [(True, OBLIQUE), (False, SHEARED)])
def test_a_written_volume_is_read_with_its_voxels_and_its_affine(tmp_path, ending, whole, affine):
    written = volume(whole, affine)
    path = tmp_path / f"t1{ending}"
    write_volume(path, written)
    back = read_volume(path, "t1")
    assert_array_equal(back.data, written.data)
    assert_allclose(back.affine, affine, rtol=0, atol=EXACT.get(ending, 1e-5))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    if ending != ".nii" and whole:  # ITK takes no shear
        image = sitk.ReadImage(str(path))
        assert_array_equal(sitk.GetArrayFromImage(image), written.data[0])
        for index in [(0, 0, 0), (5, 0, 0), (0, 4, 0), (2, 1, 3)]:
            lps = image.TransformIndexToPhysicalPoint(index)
            assert_allclose(LPS_TO_RAS @ [*lps, 1], affine @ [*index, 1], atol=1e-4)


@every_row("whole", [True, False])
def test_a_nifti_file_states_codes_a_type_that_holds_its_voxels_and_millimetres(tmp_path, whole):
    path = tmp_path / "t1.nii"
    write_volume(path, volume(whole))
    image = nib.load(path)
    assert image.get_data_dtype().newbyteorder("=") == (np.int16 if whole else np.float32)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    assert bytes(image.header["descrip"]).rstrip(b"\0") == b"voxlate; research use only"


@every_row("ending", ENDINGS)
def test_a_file_states_that_it_is_synthetic_and_its_bytes_depend_on_its_content_alone(
    tmp_path, ending
):
    written = volume(True)
    first, second, scan = (tmp_path / f"{name}{ending}" for name in ("a", "b", "scan"))
    write_volume(first, written, SYNTHETIC_SCAN)
    write_volume(second, written, SYNTHETIC_SCAN)
    write_volume(scan, written)
    assert content_hash(first) == content_hash(second)
    assert is_synthetic(first)
    assert not is_synthetic(scan)
