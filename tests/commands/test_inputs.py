"""What is given on the command line is used, or refused in one sentence, or its neglect is said."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from rows import every_row


def refused(answer, *words) -> None:
    for word in ("expected", "found", *words):
        assert word in answer.refusal, word


@pytest.fixture
def images(cohort, tmp_path):
    """A folder as if synthesised, by a program that writes no provenance: the truth itself."""
    for case in (f"case{k}" for k in range(6)):
        (tmp_path / "images" / case).mkdir(parents=True)
        shutil.copy(cohort / case / "t2.nii.gz", tmp_path / "images" / case)
    return tmp_path / "images"


def test_a_modality_that_is_given_twice_is_refused(voxlate, run, cohort, tmp_path):
    pairs = [
        f"{name}={cohort / case / 't1.nii.gz'}" for name, case in (("t1", "case0"), ("T1", "case1"))
    ]
    refused(voxlate("synth", run, *pairs, "--out", tmp_path / "o"), "t1", "twice")
    assert not (tmp_path / "o").exists()


def test_a_key_that_is_set_twice_to_two_values_is_refused(voxlate, images, cohort):
    answer = voxlate(
        "evaluate", images, "--truth", cohort, "--region", "a=t2>900", "--region", "a=t2>800"
    )
    refused(answer, "--region", "'a' twice")


@every_row(
    "shares",
    [("nan", 1, 1), (0.7, "inf", 0.1), (2.5, 2.5, 1), (3, -1, 4), (4, 1, 2), (0.7, 0.2, 0.2)],
)
@every_row("table", [False, True])
def test_shares_are_shares_of_one_or_whole_counts_of_all_patients(
    voxlate, cohort, tmp_path, shares, table
):
    if table:
        (cohort / "cases.csv").write_text(
            "case,split\n" + "".join(f"case{k},train\n" for k in range(6))
        )
    answer = voxlate("prepare", cohort, "--dry-run", "--out", tmp_path / "o", "--shares", *shares)
    refused(answer, "--shares", " ".join(f"{float(one):g}" for one in shares))


@pytest.mark.slow
def test_a_mask_file_of_several_patients_is_said_by_prepare_and_evaluate(
    voxlate, cohort, images, tmp_path
):
    grid = nib.load(cohort / "case0" / "t1.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(grid.shape, np.uint8), grid.affine), tmp_path / "m.nii.gz")
    rows = "".join(
        f"case{k},cohort/case{k}/t1.nii.gz,cohort/case{k}/t2.nii.gz,m.nii.gz\n" for k in range(2)
    )
    (tmp_path / "table.csv").write_text("case,t1,t2,mask\n" + rows)
    said = "ssumed: the mask m.nii.gz fits all 2 patients for whom it is used"
    table = ("--manifest", tmp_path / "table.csv")
    assert said in voxlate("prepare", cohort, *table, "--out", tmp_path / "o").err
    for mask in (tmp_path / "m.nii.gz", "cohort"):
        assert said in voxlate("evaluate", images, "--truth", cohort, *table, "--mask", mask).err
        assert json.loads((images / "metrics.json").read_text())["shared_masks"]
    answer = voxlate(
        "evaluate", images, "--truth", cohort, "--region", f"part={tmp_path / 'm.nii.gz'}"
    )
    assert said.replace("2", "6") in answer.err
    for k in range(6):
        shutil.copy(tmp_path / "m.nii.gz", tmp_path / f"case{k}.nii.gz")
    assert (
        "assumed: the"
        not in voxlate(
            "evaluate", images, "--truth", cohort, "--mask", tmp_path / "{case}.nii.gz"
        ).err
    )


def test_a_mask_file_on_another_grid_than_one_of_the_cases_is_refused(
    voxlate, cohort, images, tmp_path
):
    grid = nib.load(cohort / "case0" / "t1.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((20, 24, 5), np.uint8), grid.affine), tmp_path / "m.nii.gz")
    refused(
        voxlate("evaluate", images, "--truth", cohort, "--mask", tmp_path / "m.nii.gz"),
        "m.nii.gz",
        "20×24×5",
    )


@pytest.mark.slow
def test_a_prepared_cohort_that_would_not_be_used_is_refused(voxlate, cohort, images, prepared):
    evaluate = ("evaluate", images, "--truth", cohort, "--prepared")
    refused(voxlate(*evaluate, cohort), "a prepared cohort")
    assert (
        voxlate(*evaluate, prepared).code == 0
    )  # nothing was registered there: headers say it all
    (prepared / "transforms" / "case0").mkdir(parents=True)
    refused(voxlate(*evaluate, prepared), "provenance", "case0", "--prepared")


@every_row("range_", [(0, "inf"), ("-inf", 0), ("nan", 1), (1, 0)])
def test_a_range_that_is_not_finite_is_refused(voxlate, cohort, images, range_):
    refused(voxlate("evaluate", images, "--truth", cohort, "--json", "--range", *range_), "range")


@pytest.mark.slow
def test_a_crop_far_larger_than_the_slices_is_refused_before_it_is_made(voxlate, cohort, images):
    evaluate = ("evaluate", images, "--truth", cohort, "--score", "crops", "--crop")
    refused(voxlate(*evaluate, 100000), "--crop", "20×24", "100000")
    refused(voxlate(*evaluate, 257), "at most 256")
    assert voxlate(*evaluate, 256).code == 0
