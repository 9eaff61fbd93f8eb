"""Scopes of scores: every voxel, and crops of slices as paper 001 scores them."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from made_volumes import save, save_pair
from refusals import refuses
from rows import every_row
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.metrics import METRIC_OF, ImagePair, psnr, ssim
from voxlate.evaluation.scoring.scopes import Crops, crop_place, crop_scores, cut_crops
from voxlate.scans.images.ranges import Range
from voxlate.training.batches.slice_filter import SliceFilter

# stored as radiologists look: array rows to posterior, columns to left
AXES = np.diag([-1.0, -1.0, 1.0, 1.0])
FUNCTIONS = {key: METRIC_OF[key].compute for key in ("mae", "mse_rel", "psnr", "ssim_2d")}


def pair(folder, truth, made, case="p0", mask=None, modality="tmax", unit="s"):
    """One case: its truth, its synthesis, and perhaps a mask of the cohort."""
    if mask is not None:
        save(folder / "cohort" / case / "mask.nii.gz", mask, "mask", "", AXES)
    return save_pair(folder, truth, made, modality, unit, AXES, case=case)


def mean(scores, key, modality="tmax"):
    return scores.means[modality]["synthesis"][key]["mean"]


def images(truth, made, inside=None, high=30.0):
    """A truth and a synthesis, as they lie in canonical arrays, and what asks for another image."""
    a, b = (np.asarray(one, np.float32) for one in (truth, made))
    return ImagePair(a, np.clip(b, 0, high), Range(0.0, high, "s", "", False), inside), a


def crops_of(truth, made, size=16, seed=0, masked=False, inside=None):
    """The crops of a pair as (truth, synthesis) of each slice."""
    scored, values = images(truth, made, inside)
    return [*cut_crops(Crops(size, seed), scored, values, masked, None)]


def checks(errors, shape=(16, 16)):
    """Truth and synthesis whose slices differ by these constants."""
    truth = np.indices((len(errors), *shape)).sum(0) % 2 * 10.0
    return truth, truth + np.array(errors)[:, None, None]


def test_a_scalp_outside_the_mask_counts_in_the_whole_image_alone(tmp_path):
    """A brain of 10 s (240 of 2,400 voxels) in a scalp of 20 s that a skull-stripping model leaves black."""
    brain, skin = np.zeros((6, 20, 20), bool), np.zeros((6, 20, 20), bool)
    skin[1:5, 2:18, 2:18] = True
    brain[1:5, 5:11, 5:15] = True
    truth = np.where(brain, 10.0, np.where(skin, 20.0, 0.0))
    out, cohort = pair(tmp_path, truth, np.where(brain, 11.0, 0.0), mask=brain)
    scores = evaluate(out, cohort, mask="cohort", scopes=["whole"])
    share = brain.mean()
    assert mean(scores, "mae") == pytest.approx(1)
    assert mean(scores, "whole.mae") == pytest.approx(share + 20 * (1024 / 2400 - share))
    plain = evaluate(out, cohort, mask="whole").rows[0].scores
    for key in ("mae", "psnr", "ssim_2d", "mae_z"):
        assert mean(scores, f"whole.{key}") == pytest.approx(plain[key])


def test_the_psnr_of_crops_is_the_mean_of_their_own_without_those_that_are_equal():
    for errors, expected in (((3.0, 0.3), (20 + 40) / 2), ((3.0, 0.0), 20)):
        scored, truth = images(*checks(errors))
        found = crop_scores(Crops(16), scored, truth, False, None, FUNCTIONS)
        assert found["crops.psnr"] == pytest.approx(expected, abs=1e-4)
        assert found["crops.mae"] == pytest.approx(np.mean(errors))


def test_pictures_score_as_paper_001_scores_its_images(shared):
    folder = shared / "reference/xmodality/dev"
    arrays = load_file(folder / "pipeline_io.safetensors")
    expected = read_json(folder / "pipeline.json")["metrics2d"]
    slices = [*zip(*(arrays[key][..., 0] for key in ("img2d_true", "img2d_pred")))]
    for function, own in ((psnr, "psnr_per_image"), (ssim, "ssim_per_image")):
        found = [function(truth, made, 1.0) for truth, made in slices]
        assert found == pytest.approx(expected[own], abs=1e-4)


def noise(seed, shape=(3, 40, 34)):
    return np.random.default_rng(seed).uniform(0, 30, shape)


def test_crops_are_the_same_for_every_method_and_lie_elsewhere_in_each_slice():
    truth = noise(0)
    ours, theirs = (crops_of(truth, noise(seed)) for seed in (1, 2))
    assert len(ours) == len(truth)
    for one, other in zip(ours, theirs):
        assert one.truth.shape == (1, 16, 16)
        assert np.array_equal(one.truth, other.truth)
        assert psnr(one.truth, one.synthesis, 30.0) != psnr(other.truth, other.synthesis, 30.0)
    places = {crop_place(Crops(16), "truth", number, (40, 34)) for number in range(3)}
    assert len(places) == 3
    again = crops_of(truth, noise(1), seed=1)
    assert not all(np.array_equal(a.truth, b.truth) for a, b in zip(ours, again))


def test_every_place_of_a_crop_is_as_likely_as_another():
    counts = np.zeros((4, 2))
    for number in range(4000):
        counts[crop_place(Crops(16), "truth", number, (19, 17))] += 1
    # the last offsets, too
    assert counts.min() > 500 - 5 * math.sqrt(500)
    assert counts.max() < 500 + 5 * math.sqrt(500)


def test_a_slice_smaller_than_the_crop_is_extended_by_the_low_end():
    truth, made = checks([3.0])
    scored, values = images(truth, made)
    found = crop_scores(Crops(32), scored, values, False, None, FUNCTIONS)
    assert found["crops.mae"] == pytest.approx(3 / 4)
    a, b = (np.pad(image[0], [(0, 16), (0, 16)]) for image in (truth, np.clip(made, 0, 30)))
    assert found["crops.ssim_2d"] == pytest.approx(ssim(a, b, 30.0), abs=1e-5)


def test_crops_and_slices_that_show_nothing_do_not_count():
    truth = np.zeros((40, 40, 40))
    truth[:30, :, 39] = 10
    found = crops_of(truth, truth + 1)
    assert 0 < len(found) < 30
    assert all(one.truth.max() == 10 for one in found)
    inside = np.zeros(truth.shape, bool)
    inside[7, 12:30, 12:30] = True
    assert len(crops_of(truth, truth + 1, masked=True, inside=inside)) == 1


def test_a_filter_keeps_slices_whose_bright_parts_overlap_and_are_large_enough(tmp_path):
    """By paper 001's rule: slice 0 overlaps, 1 is too small, 2 lies elsewhere, 3 has no bright part of one."""
    cta, tof = np.full((4, 20, 20), -100.0), np.zeros((4, 20, 20))
    for image, value in ((cta, 50), (tof, 900)):
        image[:3, :10, :10] = value
        image[1] = np.where(np.arange(20) < 3, value, image[3])
    tof[2] = np.roll(tof[2], 10, 1)
    cta[3, 5:15] = 50
    save(tmp_path / "cohort/p0/tof.nii.gz", tof, "tof", "a.u.", AXES)
    made = cta + np.reshape([10, 20, 30, 40], (4, 1, 1))
    mask = np.ones(cta.shape, bool)
    mask[0, 1:] = False
    out, cohort = pair(tmp_path, cta, made, modality="cta", unit="HU", mask=mask)
    text = 'above={tof="mean", cta=0}, pixels=80, overlap=0.3'
    chosen = SliceFilter(above={"tof": "mean", "cta": 0}, pixels=80, overlap=0.3)
    how = {"scopes": ["crops"], "crop": 20, "mask": "whole"}
    for slices, expected in ((text, 10), (chosen, 10), ("above={cta=0}, pixels=150", 40)):
        scores = evaluate(out, cohort, slices=slices, **how)
        assert mean(scores, "crops.mae", "cta") == pytest.approx(expected)
    how = {**how, "mask": "cohort", "slices": "above={mask=0}, pixels=200"}
    assert mean(evaluate(out, cohort, **how), "crops.mae", "cta") == pytest.approx(30)


@every_row(
    "options, named",
    [
        ({"scopes": ["both"]}, "'both'"),
        ({"scopes": ["whole"], "regions": {"whole": "tmax>6"}}, "whole"),
        ({"slices": "above={tmax=25}"}, "--slices"),
        *(
            ({"scopes": ["crops"], "crop": 16, "slices": text}, named)
            for text, named in (
                ("pixels>200", "pixels>200"),
                ("above={tmax=0}, pixel=2", "pixel"),
                ("above={mask=0}", "--mask"),
                ("above={cta=0}", "cta"),
                ("above={tmax=25}, pixels=1", "tmax > 25"),
            )
        ),
    ],
)
def test_scopes_that_cannot_be_scored_are_refused(tmp_path, options, named):
    with refuses(named):
        evaluate(*pair(tmp_path, *checks([1.0, 2.0])), **options)
