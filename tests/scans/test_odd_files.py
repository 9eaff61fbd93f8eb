"""Every odd file of the development data: it loads as described, or one sentence says why not."""

import csv

import pytest

from voxlate.base.errors import BadInput
from voxlate.scans.formats.io import read_volume

# sound files in another sense than ours: colour, several frames, no place in a patient, complex, not finite, singular
REFUSED = {
    "dicom_big_endian_us.dcm": "colour",
    "dicom_nm_jpeg2000.dcm": "place in the patient",
    "dicom_rgb_odd_length.dcm": "colour",
    "dicom_rtdose_multiframe_u32.dcm": "15 frames",
    "nifti_4d.nii": "20 frames",
    "nifti2.nii.gz": "2 frames",
    "freesurfer.mgz": "2 frames",
    "nifti_complex64.nii.gz": "complex",
    "nifti_sform_all_zero.nii": "an affine",
    "nifti_nan_inf.nii.gz": "4100 NaN and 1 infinite",
    "nifti_multiecho_tiny_values.nii": "3 frames",
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
            check_refused(path, REFUSED.get(path.name, "expected"))


def check_loads(path, row) -> None:
    volume = read_volume(path)
    columns_and_rows = [int(n) for n in row["expected_shape"].split("x")]
    _, depth, height, width = volume.data.shape
    # DICOM arrays are listed as rows × columns, NIfTI ones as x × y
    assert [height, width, depth] == [*columns_and_rows, 1] or [width, height, depth] == [
        *columns_and_rows,
        1,
    ]
    low, high = (float(value) for value in row["value_range"].split(".."))
    shift = (
        -1024 if path.name == "dicom_ct_small_ok.dcm" else 0
    )  # the list has values before the rescale intercept
    assert (volume.data.min(), volume.data.max()) == (low + shift, high + shift), path.name


def check_refused(path, sentence) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)
