"""Scopes of scores: whole, slice by slice, on crops, of filtered slices; all through `evaluate`."""

import csv
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from made_volumes import save, save_pair
from refusals import refuses
from rows import every_row
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.metrics import psnr, ssim
from voxlate.evaluation.scoring.scopes import Cut, crop_place
from voxlate.training.batches.slice_filter import SliceFilter

# stored as radiologists look: array rows to posterior, columns to left
AXES = np.diag([-1.0, -1.0, 1.0, 1.0])


def pair(folder, truth, made, case="p0", mask=None, modality="tmax", unit="s"):
    """One case: its truth, its synthesis, and perhaps a mask of the cohort."""
    if mask is not None:
        save(folder / "cohort" / case / "mask.nii.gz", mask, "mask", "", AXES)
    return save_pair(folder, truth, made, modality, unit, AXES, case=case)


def of(scores, key, modality="tmax"):
    return scores.means[modality]["synthesis"][key]


def mean(*scores_and_key):
    return of(*scores_and_key)["mean"]


def pictures_of(out):
    with open(out / "pictures.csv", newline="") as file:
        return list(csv.DictReader(file))


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
    # as paper 000 scores: both masked, then every voxel of the slices with a mask, of which 60 in 400 are 1 s off
    masked = evaluate(out, cohort, mask="cohort", scopes=["masked_slices"])
    assert mean(masked, "masked_slices.mae") == pytest.approx(60 / 400)
    assert mean(masked, "masked_slices.psnr") == pytest.approx(10 * math.log10(900 / (60 / 400)))
    plain = evaluate(out, cohort, mask="whole").rows[0].scores
    for key in ("mae", "psnr", "ssim_2d", "mae_z"):
        assert mean(scores, f"whole.{key}") == pytest.approx(plain[key])


def test_the_psnr_of_slices_is_the_mean_of_their_own_without_those_that_are_equal(tmp_path):
    truth, made = checks([3.0, 0.3])
    scores = evaluate(*pair(tmp_path, truth, made), scopes=["slices"])
    assert mean(scores, "slices.psnr") == pytest.approx((20 + 40) / 2, abs=1e-4)
    assert mean(scores, "psnr") == pytest.approx(10 * math.log10(900 / ((9 + 0.09) / 2)), abs=1e-4)
    assert mean(scores, "slices.mse_rel") == pytest.approx((1e-2 + 1e-4) / 2, rel=1e-4)
    own = [ssim(a, b, 30.0) for a, b in zip(truth, np.clip(made, 0, 30))]
    assert mean(scores, "slices.ssim_2d") == pytest.approx(np.mean(own), abs=1e-6)
    # single slices have no scores across slices
    of_slices = [key for key in scores.rows[0].scores if key.startswith("slices")]
    assert not [key for key in of_slices if key.endswith(("_z", "al", "3d"))]
    scores = evaluate(*pair(tmp_path, *checks([3.0, 0.0])), scopes=["slices"])
    assert mean(scores, "slices.psnr") == pytest.approx(20, abs=1e-4)
    assert of(scores, "slices.psnr")["pictures"]["not_finite"] == 1
    assert mean(scores, "slices.mae") == pytest.approx(1.5)


def test_all_slices_weigh_the_same_in_the_mean_over_pictures_and_all_cases_in_the_mean(tmp_path):
    pair(tmp_path, *checks([3.0]), case="a")
    out, cohort = pair(tmp_path, *checks([0.3, 0.3, 0.3]), case="b")
    found = of(evaluate(out, cohort, scopes=["slices"]), "slices.psnr")
    assert (found["mean"], found["n"]) == (pytest.approx(30, abs=1e-4), 2)
    assert found["pictures"]["mean"] == pytest.approx((20 + 3 * 40) / 4, abs=1e-4)
    assert found["pictures"]["sd"] == pytest.approx(np.std([20, 40, 40, 40], ddof=1), abs=1e-4)
    rows = [(one["case"], one["slice"], round(float(one["psnr"]))) for one in pictures_of(out)]
    assert rows == [("a", "0", 20), ("b", "0", 40), ("b", "1", 40), ("b", "2", 40)]


def test_slices_of_one_value_do_not_count_without_a_mask_nor_slices_without_the_mask(tmp_path):
    truth, made = checks([3.0, 3.0, 3.0, 3.0])
    truth[0] = 0
    mask = np.zeros(truth.shape, bool)
    mask[2, 4:8] = mask[3, 0:2] = True
    out, cohort = pair(tmp_path, truth, made, mask=mask)
    every = evaluate(out, cohort, mask="whole", scopes=["slices"])
    assert of(every, "slices.mae")["pictures"]["n"] == 3
    scores = evaluate(out, cohort, mask="cohort", scopes=["slices"])
    assert mean(scores, "slices.mae") == pytest.approx(3)
    assert {one["slice"] for one in pictures_of(out)} == {"2", "3"}
    assert scores.parts["tmax"]["slices"] == 4
    assert ",slices,,psnr,dB," in (out / "scores.csv").read_text()
    evaluate(out, cohort)
    assert not (out / "pictures.csv").exists()


def test_slices_score_as_paper_001_scores_its_images(shared, tmp_path):
    folder = shared / "reference/xmodality/dev"
    arrays = load_file(folder / "pipeline_io.safetensors")
    expected = read_json(folder / "pipeline.json")["metrics2d"]
    truth, made = (arrays[key][..., 0] for key in ("img2d_true", "img2d_pred"))
    out, cohort = pair(tmp_path, truth, made, modality="cta", unit="HU")
    scores = evaluate(out, cohort, value_range=(0, 1), scopes=["slices"])
    for key, value, tolerance in (
        ("psnr", np.mean(expected["psnr_per_image"]), 1e-4),
        ("ssim_2d", np.mean(expected["ssim_per_image"]), 1e-5),
        ("mse_rel", expected["mse"], 1e-4 * expected["mse"]),
        ("mae", expected["mae"], 1e-4 * expected["mae"]),
    ):
        assert mean(scores, f"slices.{key}", "cta") == pytest.approx(value, abs=tolerance)


def noise(seed, shape=(3, 40, 34)):
    return np.random.default_rng(seed).uniform(0, 30, shape)


def test_a_crop_is_scored_where_its_row_and_column_say(tmp_path):
    truth, made = noise(0), noise(1)
    out, cohort = pair(tmp_path, truth, made)
    evaluate(out, cohort, scopes=["crops"], crop=16)
    found = pictures_of(out)
    # another place in each slice
    assert len({(one["row"], one["column"]) for one in found}) == 3
    for one in found:
        k, row, column = (int(one[key]) for key in ("slice", "row", "column"))
        a, b = (image[k, row : row + 16, column : column + 16] for image in (truth, made))
        assert float(one["mae"]) == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
        assert float(one["psnr"]) == pytest.approx(psnr(a, b, 30.0), abs=1e-3)
        assert float(one["ssim_2d"]) == pytest.approx(ssim(a, b, 30.0), abs=1e-4)


def test_crops_are_the_same_in_every_run_for_every_method_name_and_order(tmp_path):
    def places(out, cohort, case, **more):
        evaluate(out, cohort, scopes=["crops"], crop=16, **more)
        pictures = [one for one in pictures_of(out) if one["case"] == case]
        return {(one["slice"], one["row"], one["column"]) for one in pictures}

    expected = {("0", "7", "3"), ("1", "18", "0"), ("2", "4", "15")}
    for case, others in (("p0", ["p1"]), ("renamed", ["a", "b"])):
        folders = pair(tmp_path / case, noise(0), noise(ord(case[-1])), case=case)
        for number, other in enumerate(others):
            pair(tmp_path / case, noise(10 + number), noise(2), case=other)
        assert places(*folders, case) == expected
    assert places(*folders, case, seed=1) != expected


def test_every_place_of_a_crop_is_as_likely_as_another():
    counts = np.zeros((4, 2))
    for number in range(4000):
        counts[crop_place(Cut(size=16), "truth", number, (19, 17))] += 1
    # the last offsets, too
    assert counts.min() > 500 - 5 * math.sqrt(500)
    assert counts.max() < 500 + 5 * math.sqrt(500)


def test_a_slice_smaller_than_the_crop_is_extended_by_the_low_end(tmp_path):
    truth, made = checks([3.0])
    scores = evaluate(*pair(tmp_path, truth, made), mask="whole", scopes=["crops"], crop=32)
    assert mean(scores, "crops.mae") == pytest.approx(3 / 4)
    a, b = (np.pad(image[0], [(0, 16), (0, 16)]) for image in (truth, np.clip(made, 0, 30)))
    assert mean(scores, "crops.ssim_2d") == pytest.approx(ssim(a, b, 30.0), abs=1e-5)


def test_a_crop_without_foreground_does_not_count(tmp_path):
    truth = np.zeros((40, 40, 40))
    truth[:, :, 39] = 10
    out, cohort = pair(tmp_path, truth, truth + 1)
    evaluate(out, cohort, scopes=["crops"], crop=16)
    crops = pictures_of(out)
    assert 0 < len(crops) < 40
    assert {one["column"] for one in crops} == {"24"}


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
    for slices, expected in ((text, 10), (chosen, 10), ("above={cta=0}, pixels=150", 40)):
        scores = evaluate(out, cohort, scopes=["slices"], slices=slices)
        assert mean(scores, "slices.mae", "cta") == pytest.approx(expected)
    how = {"mask": "cohort", "scopes": ["slices"], "slices": "above={mask=0}, pixels=200"}
    assert mean(evaluate(out, cohort, **how), "slices.mae", "cta") == pytest.approx(30)


@every_row(
    "options, named",
    [
        ({"scopes": ["both"]}, "'both'"),
        ({"scopes": ["crops"], "crop": 10}, "11"),
        ({"scopes": ["masked_slices"]}, "masked_slices"),
        ({"scopes": ["whole"], "regions": {"whole": "tmax>6"}}, "whole"),
        ({"slices": "above={tmax=25}"}, "--slices"),
        *(
            ({"scopes": ["slices"], "slices": text}, named)
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
