"""What `prepare --dry-run` shows before anything is written."""

import nibabel as nib
import numpy as np
import pytest


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


def test_a_dry_run_needs_no_folder_for_results_and_says_what_it_leaves_out(typed, cohort):
    last = typed("prepare cohort --dry-run").done().err.strip().splitlines()[-1]
    assert last == "Outliers, copies and registration were not checked: prepare --out does that."
    assert "--out: expected a folder for the prepared cohort" in typed("prepare cohort").refusal


def test_files_of_a_case_with_a_problem_are_listed_too(typed, write):
    write("a/t1", noise(12), 1.0)
    write("a/t2", noise(6), 2.0)
    write("a/t3", noise(6), 2.0).write_bytes(b"no scan")
    said = typed("prepare in --dry-run --json")
    assert said.code == 3
    assert [(one["name"], one["grid"]) for one in said.json["files"]] == [
        ("t1", "12×12×12, 1.00×1.00×1.00 mm"),
        ("t2", "6×6×6, 2.00×2.00×2.00 mm"),
        ("t3", "cannot be read"),
    ]
    (problem,) = said.json["problems"]
    assert "t3.nii.gz: expected" in problem


def test_the_first_files_are_listed_with_whole_paths_and_all_on_demand(typed, write):
    name = "a_case_with_a_name_" + "x" * 80
    for case in (name, *(f"case{number:02}" for number in range(19))):
        write(f"{case}/t1", noise(4), 1.0)
    short = typed("prepare in --dry-run").err
    assert f"{name}/t1.nii.gz" in short
    assert "case11/t1.nii.gz" not in short
    assert "case18/t1.nii.gz" in typed("prepare in --dry-run --all").err


def test_the_patients_held_out_are_named_by_the_dry_run_and_by_prepare(typed, cohort):
    dry, prepare = (
        f"prepare cohort --shares 4 1 1 {words}" for words in ("--dry-run", "--out out --no-audit")
    )
    held_out = typed(f"{dry} --json").json["held_out"]
    ((val,), (test,)) = held_out["val"], held_out["test"]
    line = f"held out from training: validation {val} (1); test {test} (1)"
    assert line in typed(dry).err
    assert line in typed(prepare).err
    assert typed(f"{prepare} --json").json["held_out"] == held_out


def test_scans_whose_headers_share_no_frame_are_not_advised_to_be_resampled(typed, write):
    write("a/t1", noise(12), 1.0)
    write("a/t2", noise(12), 1.5, origin=100.0)
    for options in ("--dry-run", "--out out --no-audit"):
        refused = typed(f"prepare in {options}")
        assert "t2.nii.gz: expected it to overlap" in refused.refusal
        assert "178 mm apart" in refused.err  # √3 (100 + 8.25 - 5.5)
        assert "--resample" not in refused.err


def test_bodies_far_apart_on_grids_that_overlap_share_no_frame(typed, write):
    for name, spacing, first in (("t1", 1.0, 4), ("t2", 1.1, 24)):
        values = np.zeros((40, 40, 40))
        values[first : first + 14, 12:28, 12:28] = 100
        write(f"a/{name}", values, spacing)
    refused = typed("prepare in --dry-run").err
    assert "the headers share no frame" in refused
    assert "t2.nii.gz: expected the grid of" not in refused
