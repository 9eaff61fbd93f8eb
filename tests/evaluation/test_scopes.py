"""Scopes of scores: every voxel; and the scores of paper 001."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from made_volumes import save, save_pair
from refusals import refuses
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.metrics import psnr, ssim

# stored as radiologists look: array rows to posterior, columns to left
AXES = np.diag([-1.0, -1.0, 1.0, 1.0])


def pair(folder, truth, made, case="p0", mask=None, modality="tmax", unit="s"):
    """One case: its truth, its synthesis, and perhaps a mask of the cohort."""
    if mask is not None:
        save(folder / "cohort" / case / "mask.nii.gz", mask, "mask", "", AXES)
    return save_pair(folder, truth, made, modality, unit, AXES, case=case)


def mean(scores, key, modality="tmax"):
    return scores.means[modality]["synthesis"][key]["mean"]


def test_a_scalp_outside_the_mask_counts_in_the_whole_image_alone(tmp_path):
    """A brain of 10 s (240 of 2,400 voxels) in a scalp of 20 s that a skull-stripping model leaves black."""
    brain, skin = np.zeros((6, 20, 20), bool), np.zeros((6, 20, 20), bool)
    skin[1:5, 2:18, 2:18] = True
    brain[1:5, 5:11, 5:15] = True
    truth = np.where(brain, 10.0, np.where(skin, 20.0, 0.0))
    out, cohort = pair(tmp_path, truth, np.where(brain, 11.0, 0.0), mask=brain)
    scores = evaluate(out, cohort, mask="cohort")
    with refuses("whole"):
        evaluate(out, cohort, regions={"whole": "tmax>6"})
    share = brain.mean()
    assert mean(scores, "mae") == pytest.approx(1)
    assert mean(scores, "whole.mae") == pytest.approx(share + 20 * (1024 / 2400 - share))
    plain = evaluate(out, cohort, mask="whole").rows[0].scores
    for key in ("mae", "psnr", "ssim_2d", "mae_z"):
        assert mean(scores, f"whole.{key}") == pytest.approx(plain[key])


def test_pictures_score_as_paper_001_scores_its_images(shared):
    folder = shared / "reference/xmodality/dev"
    arrays = load_file(folder / "pipeline_io.safetensors")
    expected = read_json(folder / "pipeline.json")["metrics2d"]
    slices = [*zip(*(arrays[key][..., 0] for key in ("img2d_true", "img2d_pred")))]
    for function, own in ((psnr, "psnr_per_image"), (ssim, "ssim_per_image")):
        found = [function(truth, made, 1.0) for truth, made in slices]
        assert found == pytest.approx(expected[own], abs=1e-4)
