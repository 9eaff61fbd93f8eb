"""What `prepare --dry-run` shows before anything is written."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np


def write(path: Path, shape: tuple[int, int, int], spacing: float, origin: float = 0.0) -> None:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def test_a_dry_run_needs_no_folder_for_results_and_says_what_it_leaves_out(voxlate, cohort):
    dry = voxlate("prepare", cohort, "--dry-run").done()
    last = dry.err.strip().splitlines()[-1]
    assert last == "Outliers, copies and registration were not checked: prepare --out does that."
    refused = voxlate("prepare", cohort)
    assert "--out: expected a folder for the prepared cohort" in refused.refusal


def test_files_of_a_case_with_a_problem_are_listed_too(voxlate, tmp_path):
    write(tmp_path / "in" / "a" / "t1.nii.gz", (12, 12, 12), 1.0)
    write(tmp_path / "in" / "a" / "t2.nii.gz", (6, 6, 6), 2.0)
    (tmp_path / "in" / "a" / "t3.nii.gz").write_bytes(b"no scan")
    said = voxlate("prepare", tmp_path / "in", "--dry-run", "--json")
    assert said.code == 3
    found = json.loads(said.out)
    assert [(one["name"], one["grid"]) for one in found["files"]] == [
        ("t1", "12×12×12, 1.00×1.00×1.00 mm"),
        ("t2", "6×6×6, 2.00×2.00×2.00 mm"),
        ("t3", "cannot be read"),
    ]
    (problem,) = found["problems"]
    assert "t3.nii.gz: expected" in problem


def test_the_first_files_are_listed_with_whole_paths_and_all_on_demand(voxlate, tmp_path):
    name = "a_case_with_a_name_" + "x" * 80
    write(tmp_path / "in" / name / "t1.nii.gz", (4, 4, 4), 1.0)
    for number in range(19):
        write(tmp_path / "in" / f"case{number:02}" / "t1.nii.gz", (4, 4, 4), 1.0)
    short = voxlate("prepare", tmp_path / "in", "--dry-run").err
    assert f"{name}/t1.nii.gz" in short
    assert "case11/t1.nii.gz" not in short
    assert "case18/t1.nii.gz" in voxlate("prepare", tmp_path / "in", "--dry-run", "--all").err


def test_the_patients_held_out_are_named_by_the_dry_run_and_by_prepare(voxlate, cohort, tmp_path):
    options = ("--shares", 4, 1, 1)
    dry = json.loads(voxlate("prepare", cohort, "--dry-run", "--json", *options).out)["held_out"]
    ((val,), (test,)) = dry["val"], dry["test"]
    line = f"held out from training: validation {val} (1); test {test} (1)"
    assert line in voxlate("prepare", cohort, "--dry-run", *options).err
    assert line in voxlate("prepare", cohort, "--out", tmp_path / "out", "--no-audit", *options).err
    again = voxlate("prepare", cohort, "--out", tmp_path / "out", "--no-audit", "--json", *options)
    assert json.loads(again.out)["held_out"] == dry


def test_scans_whose_headers_share_no_frame_are_not_advised_to_be_resampled(voxlate, tmp_path):
    write(tmp_path / "in" / "a" / "t1.nii.gz", (12, 12, 12), 1.0)
    write(tmp_path / "in" / "a" / "t2.nii.gz", (12, 12, 12), 1.5, origin=100.0)
    for options in (("--dry-run",), ("--out", tmp_path / "out", "--no-audit")):
        refused = voxlate("prepare", tmp_path / "in", *options)
        assert "t2.nii.gz: expected it to overlap" in refused.refusal
        assert "178 mm apart" in refused.err  # √3 (100 + 8.25 - 5.5)
        assert "--resample" not in refused.err


def test_bodies_far_apart_on_grids_that_overlap_share_no_frame(voxlate, tmp_path):
    for name, spacing, first in (("t1", 1.0, 4), ("t2", 1.1, 24)):
        values = np.zeros((40, 40, 40), np.float32)
        values[first : first + 14, 12:28, 12:28] = 100
        path = tmp_path / "in" / "a" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, np.diag([spacing, spacing, spacing, 1.0])), path)
    refused = voxlate("prepare", tmp_path / "in", "--dry-run").err
    assert "the headers share no frame" in refused
    assert "t2.nii.gz: expected the grid of" not in refused
