"""What info says of a scan whose slices or values are wrong, as DICOM and as NIfTI."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

import voxlate
from rows import every_row
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.scans.formats.io import read_volume, write_volume

pytest.importorskip("pydicom")
from dicom_slices import write_series


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """The CT of a phantom in whole HU."""
    folder = tmp_path_factory.mktemp("heads")
    write_cohort(folder, cases=1, size=(56, 60, 40), modalities=["ct"], lesion="none", seed=2)
    volume = read_volume(folder / "phantom_000" / "ct.nii.gz", "ct")
    return replace(volume, data=np.rint(volume.data))


def at_20(slice_of):
    """A change of the slice 20 into another one."""
    return lambda hu: np.concatenate([hu[:20], slice_of(hu)[None], hu[21:]])


@every_row(
    "change, codes",
    [
        (lambda hu: hu, []),
        (lambda hu: hu + 1024, ["shifted-hu"]),
        (lambda hu: hu.clip(-160, 240), ["cut-window"]),
        (at_20(lambda hu: hu[19]), ["slices"]),
        (lambda hu: hu[np.random.default_rng(0).permutation(len(hu))], ["slices"]),
        (lambda hu: 1.0 * (hu > -300) + (hu > 200), ["not-hu"]),
    ],
)
def test_info_names_wrong_slices_and_values_of_a_dicom_series_and_of_the_same_file(
    ct, tmp_path, change, codes
):
    changed = replace(ct, data=change(ct.data[0])[None].astype(np.float32))
    write_volume(tmp_path / "ct.nii.gz", changed)
    for path in (write_series(changed, tmp_path / "series"), tmp_path / "ct.nii.gz"):
        warnings = voxlate.info(path)["warnings"]
        assert [warning.code for warning in warnings] == codes


def test_info_of_a_scan_with_voxels_that_are_not_finite_counts_them_alone(ct, tmp_path):
    holed = (ct.data[0] + 1024).T.copy()
    holed[3, 3, 3] = np.nan
    nib.save(nib.nifti1.Nifti1Image(holed, ct.affine), tmp_path / "ct.nii.gz")
    facts = voxlate.info(tmp_path / "ct.nii.gz")
    assert facts["not_finite"] == 1
    assert facts["warnings"] == []
