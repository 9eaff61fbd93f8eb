"""What the page says of models: their settings that have an effect, their limits, and those that cannot be used."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest
from paging import Here
from test_page_results import finished, synthesised

import voxlate as package
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.shown import top_of, window_of

JSON = {"accept": "application/json"}
RESIDUAL = """
title = "both"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "residual", predictor = "first" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0 }
synth = { sampler = "ddim", steps = 2 }

[[stages]]
name = "first"
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0 }
"""


@pytest.fixture
def both(trained):
    """A tiny run with two answers: the mean of its regression, and samples of its residual."""
    return trained("both", RESIDUAL)


def facts(text: str) -> dict[str, str]:
    """The settings that a result's page states."""
    return dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", text))


def test_a_regression_has_no_settings_of_the_sampling(page, run, cohort):
    made = page({"run": str(run)}, start=Here)
    place = made.upload(cohort / "case1" / "t1.nii.gz").headers["location"]
    text = finished(made, place)
    assert "<summary>Settings</summary>" not in text
    stated = facts(synthesised(made, place, "run")[1])
    assert stated["Prediction"] == "mean"
    assert not {"Samples", "Steps", "Seed"} & set(stated)


@pytest.mark.slow
def test_a_sharpness_gives_the_bits_of_synth_between_the_mean_and_the_sample(
    page, voxlate, both, diffusion, cohort, tmp_path
):
    scan = cohort / "case1" / "t1.nii.gz"
    made = page({"both": str(both), "alone": str(diffusion)}, start=Here)
    place = made.upload(scan).headers["location"]
    text = finished(made, place)
    assert text.count('name="sharpness"') == 1, "none of a diffusion without a mean prediction"
    for sharpness, chosen, said in (
        ("0.5", {"steps": 3, "seed": 2}, "sharpness 0.5, between the mean (0) and a sample (1)"),
        ("0", {}, "mean"),
    ):
        settings = {"answer": "sample", "noise": "independent", "sharpness": sharpness, **chosen}
        address, text = synthesised(made, place, "both", **settings)
        assert html.unescape(facts(text)["Prediction"]) == said
        drawn = [word for name, value in chosen.items() for word in (f"--{name}", value)]
        out = tmp_path / sharpness
        options = ("--sharpness", sharpness, *drawn, "--out", out, "--device", "cpu")
        assert voxlate("synth", both, scan, *options).code == 0
        (image,) = out.glob("*/t2.nii.gz")
        assert made.client.get(f"{address}/images/t2.nii.gz").content == image.read_bytes()
    _, text = synthesised(made, place, "both", **settings | {"sharpness": "1"})
    assert facts(text)["Prediction"] == "sharp (one sample)"


# A value out of range, of another type, without an effect on this model or prediction, or of no option.
WRONG = [
    ("both", {"sharpness": "1.5"}),
    ("both", {"sharpness": "nan"}),
    ("both", {"answer": "mean", "steps": "3"}),
    ("both", {"Seed": "3"}),
    ("alone", {"sharpness": "0.5"}),
    ("alone", {"samples": "101"}),
    ("alone", {"steps": "-1"}),
    ("alone", {"seed": "٣"}),
    ("another", {}),
]


@pytest.mark.slow
def test_settings_that_the_page_or_the_model_cannot_have_are_refused(page, both, diffusion, cohort):
    made = page({"both": str(both), "alone": str(diffusion)}, start=Here)
    place = made.upload(cohort / "case1" / "t1.nii.gz").headers["location"]
    finished(made, place)
    for label, settings in WRONG:
        asked = {"run": label, **settings}
        answer = made.client.post(f"{place}/synthesise", data=asked, headers=JSON)
        assert answer.status_code == 400, settings
    assert len(made.jobs.all()) == 1


def calibrate(run, cohorts, small_head, **options) -> None:
    """Fit intervals of a run on heads that its training did not see."""
    for number in range(4):
        small_head(cohorts / f"new{number}", 100 + number)
    package.calibrate(run, cohorts, progress=False, **options)


@pytest.mark.slow
def test_a_residual_diffusion_offers_the_answer_with_intervals_first_and_shows_its_map(
    page, both, small_head, cohort, tmp_path, quick_widths
):
    calibrate(both, tmp_path / "others", small_head, answer="mean")
    made = page({"both": str(both)}, start=Here)
    place = made.upload(cohort / "case1" / "t1.nii.gz").headers["location"]
    text = finished(made, place)
    assert re.findall(r'<option value="(\w+)">', text)[:2] == ["mean", "sample"]
    assert "With intervals: mean." in text
    _, text = synthesised(made, place, "both")
    assert facts(text)["Prediction"] == "mean"
    assert not {"Samples", "Steps", "Seed"} & set(facts(text))
    assert 'data-role="width"' in text
    _, text = synthesised(made, place, "both", answer="sample", seed="3")
    assert facts(text)["Prediction"] == "sharp (one sample)"
    assert (facts(text)["Steps"], facts(text)["Seed"]) == ("2", "3")
    assert 'data-role="width"' not in text


@pytest.mark.slow
def test_other_numbers_than_those_of_the_calibration_give_an_image_without_intervals_and_say_so(
    page, diffusion, small_head, cohort, tmp_path, quick_widths
):
    calibrate(diffusion, tmp_path / "others", small_head)
    made = page({"run": str(diffusion)}, start=Here)
    place = made.upload(cohort / "case1" / "t1.nii.gz").headers["location"]
    finished(made, place)
    _, text = synthesised(made, place, "run", steps="3")
    assert "No intervals: the run is calibrated for other settings." in text
    assert facts(text)["Steps"] == "3"
    assert 'data-role="width"' not in text
    _, text = synthesised(made, place, "run", seed="4")
    assert "No intervals" not in text
    assert 'data-role="width"' in text


def test_a_model_that_cannot_be_used_is_listed_with_its_sentence_and_the_others_are_checked(
    page, run, cohort, tmp_path, monkeypatch
):
    from voxlate.page import check

    faults = {
        "large": MemoryError(),
        "locked": PermissionError(13, "Permission denied"),
        "odd": ZeroDivisionError("secret"),
    }
    whole = check.load

    def load(place, *options, **more):
        if place in faults:
            raise faults[place]
        return whole(place, *options, **more)

    monkeypatch.setattr(check, "load", load)
    made = page({**{name: name for name in faults}, "run": str(run)}, start=Here)
    text = finished(made, made.upload(cohort / "case1" / "t1.nii.gz").headers["location"])
    assert text.count("<strong>Does not fit.</strong>") == 3
    assert "locked: expected a model that can be read, found &#39;Permission denied&#39;." in text
    assert "secret" not in text
    assert text.count("<strong>Fits.</strong>") == 1


def test_a_model_without_a_scan_states_why_a_damaged_one_is_none(page, run, cohort):
    scan = cohort / "case1" / "t1.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-300])
    made = page({"run": str(run)}, start=Here)
    text = finished(made, made.upload(scan).headers["location"])
    (why,) = re.findall(r"<strong>Does not fit.</strong> (.*?)</p>", text)
    assert "damaged" in why


@pytest.mark.parametrize(("widest", "top"), [(735.0, 800.0), (0.0042, 0.005), (0.0, 1.0)])
def test_a_map_ends_at_a_round_value_and_a_ct_has_the_window_of_heads_or_trunks(widest, top):
    ball = sum(np.square(axis) for axis in np.ogrid[-1:1:20j, -1:1:20j, -1:1:20j]) < 0.5
    data = np.where(ball, 40.0, -1000.0)[None].astype(np.float32)
    # wider in the air, which does not count
    width = np.where(ball, widest, 2 * widest).astype(np.float32)
    for side_mm, window in ((10, (-50, 200)), (20, (-160, 240))):
        image = Volume(data, np.diag([side_mm] * 3 + [1]), "HU", "ct")
        assert window_of(image) == window
        assert top_of(replace(image, data=width[None]), image) == pytest.approx(top)
