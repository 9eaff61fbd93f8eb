"""Regions scored by themselves, distances of pooled slices, and a paper's variants, all through `evaluate`."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter

from made_volumes import save, save_pair
from refusals import refuses
from rows import every_row
from voxlate.base.files import read_json
from voxlate.evaluation.reports.page import report
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.metrics import psnr, ssim
from voxlate.scans.images.regions import regions_from


def head(number):
    """Soft tissue of 40 HU in air, with a vessel of 300 HU along z: columns 8 to 11 of rows 12 to 15."""
    data = np.full((12, 28, 24), -1000.0)
    data[1:-1, 4:24, 4:20] = 40 + gaussian_filter(
        np.random.default_rng(number).normal(0, 20, (10, 20, 16)), 1
    )
    data[1:-1, 12:16, 8:12] = 300
    return data


@pytest.fixture
def cohort(tmp_path):
    for number in range(3):
        folder = tmp_path / f"cohort/p{number}"
        save(folder / "cta.nii.gz", head(number), "cta")
        save(folder / "tof.nii.gz", tof_of(number), "tof", "a.u.")
    return tmp_path / "cohort"


def tof_of(number):
    """The vessel is 400, whose own peak it is."""
    return np.maximum(head(number) + 100, 0)


def image_of(number):
    """The synthesis of a case: vessels of 240 HU, two of whose four columns are soft tissue of 40 HU."""
    data = head(number)
    data[1:-1, 12:16, 8:12] = 240
    data[1:-1, 12:16, 10:12] = 40
    return data


@pytest.fixture
def out(cohort, tmp_path):
    """Vessels 60 HU too dark and half of them missing."""
    for number in range(3):
        save(tmp_path / f"out/p{number}/cta.nii.gz", image_of(number), "cta")
    return tmp_path / "out"


def of(scores, key):
    return scores.means["cta"]["synthesis"][key]


def mean(scores, key):
    return of(scores, key)["mean"]


def test_a_threshold_scores_its_structure_alone_in_the_table_the_csv_and_the_report(cohort, out):
    scores = evaluate(out, cohort, mask="whole", regions={"vessels": "cta>150"})
    assert mean(scores, "vessels.mae") == pytest.approx((60 + 260) / 2, abs=1e-3)
    assert mean(scores, "vessels.mean") == pytest.approx((240 + 40) / 2, abs=1e-3)
    assert mean(scores, "vessels.truth_mean") == pytest.approx(300, abs=1e-3)
    # half found, nothing false
    assert mean(scores, "vessels.dice") == pytest.approx(2 / 3)
    assert mean(scores, "vessels.voxels") == 160
    assert scores.document()["regions"]["vessels"] == "cta > 150 HU within body"
    # the whole image hardly notices
    assert scores.rows[0].scores["mae"] < 10
    lines = {line.label: line for line in scores.table().lines["cta"]}
    assert lines["vessels MAE"].unit == "HU"
    assert lines["vessels MAE"].cells[0].text.startswith("160.0")
    assert "vessels voxels" not in lines
    assert "cta &gt; 150 HU" in report(out).read_text()


@every_row("rule", ["tof>0.9", "seg=4", "masks/{case}/vessels.nii.gz"])
def test_another_modality_a_label_map_or_a_mask_file_may_say_where_to_look(
    cohort, out, tmp_path, monkeypatch, rule
):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        labels = np.where(head(number) == 300, 4, head(number) > -500)
        labels[5, 6, 6] = 1 if number else 7
        save(cohort / f"p{number}/seg.nii.gz", labels, "seg", "")
        save(f"masks/p{number}/vessels.nii.gz", labels == 4, "mask", "")
    scores = evaluate(out, cohort, regions={"vessels": rule, "head": "seg>0", "odd": "seg=7"})
    assert mean(scores, "vessels.voxels") == 160
    assert mean(scores, "vessels.mae") == pytest.approx(160, abs=1e-3)
    assert mean(scores, "head.voxels") == 10 * 20 * 16
    # the synthesis shows no such structure
    assert not {"vessels.dice", "vessels.volume"} & scores.rows[0].scores.keys()
    volumes_ml = [scores.rows[1].scores[f"{name}.truth_volume"] for name in ("vessels", "odd")]
    assert volumes_ml == pytest.approx([0.16, 0])


def test_a_region_below_a_threshold_does_not_hold_the_air_around_the_body(cohort, out):
    data = head(0)
    data[4:7, 18:21, 9:12] = -1000
    for folder in (cohort, out):
        save(folder / "p0/cta.nii.gz", data, "cta")
    scores = evaluate(out, cohort, regions={"sinus": "cta<-500", "tissue": "-200<cta<150"})
    assert scores.rows[0].scores["sinus.voxels"] == 27
    assert scores.rows[0].scores["sinus.dice"] == 1
    assert scores.rows[1].scores["tissue.voxels"] == 10 * (20 * 16 - 16)
    assert scores.rows[1].scores["tissue.mae"] == 0


UNREADABLE = ["cta>", ">150", "cta>>150", "150>cta>20", "600<cta<150", "cta>a lot", "cta>=3", ""]


@every_row(("name", "text"), [("a.b", "cta>1"), *(("vessels", text) for text in UNREADABLE)])
def test_a_region_that_cannot_be_read_is_refused(name, text):
    with refuses(name):
        regions_from({name: text})


# distances


def test_features_of_the_users_own_are_of_all_slices_of_all_cases_at_once(cohort, out):
    def spread(pictures):
        return pictures.astype(np.float64).std((1, 2))[:, None]

    truth, ours = (
        spread(np.concatenate([image(number) for number in range(3)]) / 2000).ravel()
        for image in (head, image_of)
    )
    scores = evaluate(out, cohort, features=spread, value_range=(-1000, 1000), mask="whole")
    found = of(scores, "fd")
    expected = (truth.mean() - ours.mean()) ** 2 + (truth.std(ddof=1) - ours.std(ddof=1)) ** 2
    assert found["mean"] == pytest.approx(expected, rel=1e-4)
    assert (found["n"], scores.parts["cta"]["features"]["name"]) == (36, "spread")
    # it is of no single case
    assert ",fd," not in (out / "scores.csv").read_text()
    assert "FD" in [line.label for line in scores.table().lines["cta"]]


# the TOF-to-CTA paper's variants


def test_volumes_score_as_the_paper_scores_them(shared, tmp_path):
    folder = shared / "reference/xmodality/dev"
    arrays = load_file(folder / "pipeline_io.safetensors")
    wanted = read_json(folder / "pipeline.json")["metrics3d"]
    folders = save_pair(tmp_path, arrays["vol3d_true"], arrays["vol3d_pred"], "cta")
    scores = evaluate(*folders, value_range=(-50, 350), ssim_from="zero")
    found = scores.rows[0].scores
    assert found["mae"] == pytest.approx(wanted["mae"], rel=1e-6)
    assert found["rmse"] ** 2 == pytest.approx(wanted["mse"], rel=1e-6)
    assert found["psnr"] == pytest.approx(wanted["psnr"], abs=1e-5)
    assert found["ssim_3d"] == pytest.approx(wanted["ssim"], abs=1e-6)
    low = evaluate(*folders, value_range=(-50, 350)).rows[0]
    # the origin matters
    assert abs(low.scores["ssim_3d"] - wanted["ssim"]) > 5e-5
    assert scores.parts["cta"]["ssim_from"] == "zero"


def test_pictures_score_as_paper_001_scores_its_images(shared):
    folder = shared / "reference/xmodality/dev"
    arrays = load_file(folder / "pipeline_io.safetensors")
    expected = read_json(folder / "pipeline.json")["metrics2d"]
    slices = [*zip(*(arrays[key][..., 0] for key in ("img2d_true", "img2d_pred")))]
    for function, own in ((psnr, "psnr_per_image"), (ssim, "ssim_per_image")):
        found = [function(truth, made, 1.0) for truth, made in slices]
        assert found == pytest.approx(expected[own], abs=1e-4)
