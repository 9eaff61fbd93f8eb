"""What `prepare` says of patients that are held out, and of scans whose grids have nothing in common."""

import nibabel as nib
import numpy as np
import pytest

from rows import every_row
from voxlate.base.files import read_json


@pytest.fixture
def write(tmp_path):
    """write(name, values, spacing, origin=0): a scan of the folder `in`, whose voxels are cubes."""

    def save(name, values, spacing, origin=0.0):
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = origin
        path = tmp_path / "in" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
        return path

    return save


def noise(size):
    return np.random.default_rng(0).random((size, size, size))


def test_the_patients_held_out_are_named(typed, cohort):
    command = "prepare cohort --shares 4 1 1 --out out --no-audit"
    said = typed(command).err
    held_out = typed(f"{command} --json").json["held_out"]
    ((val,), (test,)) = held_out["val"], held_out["test"]
    assert f"held out from training: validation {val} (1); test {test} (1)" in said


def test_scans_whose_headers_share_no_frame_are_not_advised_to_be_resampled(typed, write):
    write("a/t1", noise(12), 1.0)
    write("a/t2", noise(12), 1.5, origin=100.0)
    refused = typed("prepare in --out out --no-audit").refusal
    assert "t2.nii.gz: expected the grid" in refused
    assert "173.21 mm away" in refused  # √3 · 100
    assert "--resample" not in refused


@every_row("patients", ["each", "^(case.)"])
def test_patients_by_a_rule_are_kept_as_they_were_typed(typed, cohort, tmp_path, patients):
    out = tmp_path / "prepared"
    assert typed(f"prepare {cohort} --no-audit --patients {patients} --out {out}").code == 0
    assert read_json(out / "cohort.json")["provenance"]["patients"] == patients
