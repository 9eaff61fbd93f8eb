"""What is given on the command line is used, or refused in one sentence, or its neglect is said."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from rows import every_row


def refused(answer, *words):
    for word in ("expected", "found", *words):
        assert word in answer.refusal, word


@pytest.fixture
def images(cohort, tmp_path):
    """A folder as if synthesised, by a program that writes no provenance: the truth itself."""
    for k in range(6):
        (tmp_path / f"images/case{k}").mkdir(parents=True)
        shutil.copy(cohort / f"case{k}/t2.nii.gz", tmp_path / f"images/case{k}")
    return tmp_path / "images"


@pytest.fixture
def mask(cohort, tmp_path):
    """Writes a mask file of ones, m.nii.gz."""
    affine = nib.load(cohort / "case0" / "t1.nii.gz").affine

    def write(slices):
        ones = np.ones((20, 24, slices), np.uint8)
        nib.save(nib.Nifti1Image(ones, affine), tmp_path / "m.nii.gz")
        return tmp_path / "m.nii.gz"

    return write


EVALUATE = "evaluate images --truth cohort"


@every_row(
    "line, words",
    [
        ("--regions 'a=t2>900' --regions 'a=t2>800'", ["--regions", "'a' twice"]),
        ("--mask m.nii.gz", ["m.nii.gz", "20×24×5"]),  # a mask on another grid
        *(
            (f"--json --value-range {pair}", ["range"])
            for pair in ("0 inf", "-inf 0", "nan 1", "1 0")
        ),
    ],
)
def test_options_of_scores_that_cannot_be_used_are_refused(typed, images, mask, line, words):
    mask(slices=5)
    refused(typed(f"{EVALUATE} {line}"), *words)


def test_a_modality_that_is_given_twice_is_refused(typed, run, cohort, tmp_path):
    scans = "t1=cohort/case0/t1.nii.gz T1=cohort/case1/t1.nii.gz"
    refused(typed(f"synth run {scans} --out o"), "t1", "twice")
    assert not (tmp_path / "o").exists()


@every_row(
    "shares",
    ["nan 1 1", "0.7 inf 0.1", "2.5 2.5 1", "3 -1 4", "4 1 2", "0.7 0.2 0.2"],
)
@every_row("table", [False, True])
def test_shares_are_shares_of_one_or_whole_counts_of_all_patients(typed, cohort, shares, table):
    if table:
        rows = [f"case{k},train" for k in range(6)]
        (cohort / "cases.csv").write_text("\n".join(["case,split", *rows, ""]))
    refused(typed(f"prepare cohort --out o --shares {shares}"), "--shares", shares.split()[1])
