"""Every odd file of the development data: it loads as described, or one sentence says why not."""

import csv
import re

import pytest

from refusals import refuses
from voxlate.scans.formats.io import read_volume

# sound files in another sense than ours: colour, several frames, no place in a patient, complex, not finite, singular
REFUSED = {
    *("dicom_big_endian_us.dcm", "dicom_nm_jpeg2000.dcm", "dicom_rgb_odd_length.dcm"),
    *("dicom_rtdose_multiframe_u32.dcm", "nifti_4d.nii", "nifti2.nii.gz", "freesurfer.mgz"),
    *("nifti_complex64.nii.gz", "nifti_sform_all_zero.nii", "nifti_nan_inf.nii.gz"),
    "nifti_multiecho_tiny_values.nii",
}


def test_every_row_loads_as_described_or_is_refused_in_one_sentence(shared):
    pytest.importorskip("pydicom")
    folder = shared / "data/odd"
    with open(folder / "expected.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 15
    for row in rows:
        path = folder / row["file"]
        if row["voxels_load"].startswith("yes") and path.name not in REFUSED:
            check_loads(path, row)
        else:
            with refuses(f"^{re.escape(str(path))}: expected [^\n]*$"):
                read_volume(path)


def check_loads(path, row) -> None:
    volume = read_volume(path)
    # DICOM arrays are listed as rows × columns, NIfTI ones as x × y
    assert sorted(volume.grid.shape) == sorted(
        [1, *map(int, row["expected_shape"].split("x"))][-3:]
    )
    low, high = (float(value) for value in row["value_range"].split(".."))
    # the list has values before the rescale intercept
    shift = -1024 if path.name == "dicom_ct_small_ok.dcm" else 0
    assert (volume.data.min(), volume.data.max()) == (low + shift, high + shift), path.name
