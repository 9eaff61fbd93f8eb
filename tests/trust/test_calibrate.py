"""`voxlate calibrate`, and what synth, evaluate and report make of it."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import voxlate as package
from rows import every_row
from voxlate.formats.io import read_volume
from voxlate.reports.page import report
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.metrics import METRIC_OF
from voxlate.synthesis.model import load
from voxlate.system.files import read_json
from voxlate.system.records import checksum
from voxlate.training.weights import load_method, save_weights


@pytest.fixture(autouse=True)
def _short(shorten_widths):
    shorten_widths(60, 512)


@pytest.fixture
def others(tmp_path, small_head):
    """Ten heads that no training saw."""
    for number in range(10):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    return tmp_path / "others"


def test_held_back_patients_give_a_regression_intervals_that_hold(voxlate, run, others, tmp_path):
    answer = voxlate("calibrate", run, others)
    assert answer.code == 0, answer.err
    assert "10 patients that training did not see (10 cases)" in answer.out
    assert "can prove a coverage of 79% at best" in answer.out
    out = tmp_path / "out"
    said = voxlate("synth", run, others, "--out", out)
    assert said.code == 0
    made = {path.name for path in (out / "new0").iterdir()}
    assert made == {
        "t2.nii.gz",
        "t2_low.nii.gz",
        "t2_high.nii.gz",
        "t2_unfamiliar.nii.gz",
        "provenance.json",
    }
    image, low, high = (
        read_volume(out / "new0" / f"t2{end}.nii.gz").data for end in ("", "_low", "_high")
    )
    assert (low <= image + 1e-3).all()
    assert (high >= image - 1e-3).all()
    assert low.min() >= 0 and high.max() <= 1400  # noqa: PT018 - the window
    stated = read_json(out / "new0" / "provenance.json")
    assert stated["calibration"]["patients"] == 10
    assert stated["bounds"]["t2"]["mae"] > 0
    assert "each exceeded with a probability of 10% at most" in said.out
    assert (
        f"new0: t2 MAE inside the body {METRIC_OF['mae'].text(stated['bounds']['t2']['mae'])}"
        in said.out
    )
    scores = evaluate(out, others)
    ours = [row.scores for row in scores.rows if row.answer == "synthesis"]
    assert (
        np.mean([one["coverage"] for one in ours]) >= 0.89
    )  # of the patients that it learned from
    assert np.mean([one["mae_bound_held"] for one in ours]) >= 0.9
    assert ours[0]["coverage_50"] < ours[0]["coverage_90"] == pytest.approx(ours[0]["coverage"])
    (row,) = [row for row in scores.rows if row.answer == "synthesis" and row.case == "new0"]
    truth = read_volume(others / "new0" / "t2.nii.gz").data
    inside, body = (truth >= low) & (truth <= high), truth > 0
    assert row.scores["coverage"] == pytest.approx(np.mean(inside, where=body), abs=0.03)
    assert row.scores["interval"] == pytest.approx((high - low)[body].mean(), rel=0.02)
    assert "with intervals" in repr(load(run).synthesise(others / "new0" / "t1.nii.gz"))
    page = report(out).read_text()
    assert "Coverage" in page
    assert "truth outside" in page
    scored = voxlate("evaluate", out, "--truth", others).out
    for part in ("Coverage", "Bound of body MAE", "Bound held"):
        assert part in scored
    again = voxlate("synth", run, others, "--out", out, "-v")
    assert "10 of 10 cases were synthesised before and are kept" in again.err


def test_samples_without_calibration_say_so_in_name_and_header(
    voxlate, diffusion, cohort, others, tmp_path
):
    out = tmp_path / "out"
    assert voxlate("synth", diffusion, others / "new0", "--out", out, "--samples", "2").code == 0
    spread = out / "new0" / "t2_std_uncalibrated.nii.gz"
    assert b"not calibrated" in nib.load(spread).header["descrip"].item()
    assert voxlate("calibrate", diffusion, others, "--samples", "2").code == 0
    assert voxlate("synth", diffusion, others / "new0", "--out", out, "--samples", "2").code == 0
    assert not spread.exists()
    assert (
        b"upper end of intervals"
        in nib.load(out / "new0" / "t2_high.nii.gz").header["descrip"].item()
    )
    assert (out / "new0" / "t2_std.nii.gz").is_file()
    refused = voxlate(
        "synth", diffusion, others / "new0", "--out", tmp_path / "o3", "--samples", "3"
    )
    assert refused.code == 2
    assert "found one of 2 samples" in " ".join(refused.err.split())
    plain = voxlate("synth", diffusion, others / "new0", "--out", tmp_path / "o1")
    assert plain.code == 0
    assert "the run is calibrated for 2 samples" in " ".join(plain.err.split())
    assert (
        voxlate(
            "synth",
            diffusion,
            others / "new0",
            "--out",
            tmp_path / "o3",
            "--samples",
            "3",
            "--no-intervals",
        ).code
        == 0
    )


def test_patients_of_the_training_are_refused_whatever_they_are_called(
    voxlate, run, cohort, others, tmp_path
):
    trained = read_json(run / "provenance.json")["data"]["splits"]["train"]
    named = voxlate("calibrate", run, cohort)
    assert named.code == 2
    assert "which was in it (by the voxels of its scans)" in " ".join(named.err.split())
    shutil.copytree(cohort / trained[0], others / "stranger")
    hidden = voxlate("calibrate", run, others)
    assert hidden.code == 2
    sentence = "found stranger, which was in it (by the voxels of its scans)"
    assert sentence in " ".join(hidden.err.split())
    path = others / "stranger" / "t1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32) * 1.001, image.affine), path)
    with pytest.raises(package.BadInput, match="found stranger, which was in it"):  # by its truth
        package.calibrate(run, others)


def test_a_truth_that_cannot_be_that_of_its_image_is_left_out_of_a_calibration(
    voxlate, run, others
):
    path = others / "new3" / "t2.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, 7, np.float32), image.affine), path)
    shown = np.diag([1000, 1000, 1000, 1]) @ nib.load(others / "new5" / "t2.nii.gz").affine
    large = nib.load(others / "new5" / "t2.nii.gz").get_fdata()
    nib.save(nib.Nifti1Image(large, shown), others / "new5" / "t2.nii.gz")
    shutil.copytree(others / "new0", others / "twin")
    answer = voxlate("calibrate", run, others)
    said = " ".join(answer.err.split())
    assert "twin: It has the same scans as new0: it is left out" in said
    assert "new3 is left out" in said
    assert "new5 is left out: new5: expected t2 to show the region of its image" in said
    assert "8 patients that training did not see" in answer.out


def test_a_calibration_of_other_weights_is_refused(voxlate, run, others, tmp_path):
    assert voxlate("calibrate", run, others).code == 0
    method, _, header = load_method(run)
    method.net.head.bias.data += 0.1
    save_weights(run / "weights.safetensors", method, header)
    answer = voxlate("synth", run, others, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "found one of others" in " ".join(answer.err.split())


def test_a_damaged_calibration_and_a_lone_patient_are_one_sentence(voxlate, run, others, tmp_path):
    alone = voxlate("calibrate", run, others / "new0")
    assert alone.code == 2
    assert "expected at least 2 patients" in " ".join(alone.err.split())
    assert "cases 0/" not in alone.err, "it is refused before any image is drawn"
    (run / "calibration.mean.1.safetensors").write_bytes(b"nothing")
    answer = voxlate("synth", run, others, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "found something else or a part of one" in " ".join(answer.err.split())


def test_a_stopped_calibration_goes_on_and_ends_the_same(
    voxlate, run, others, tmp_path, monkeypatch
):
    whole = json.loads(voxlate("calibrate", run, others, "--json").out)
    (run / "calibration.mean.1.safetensors").unlink()
    seen, draw = [], type(load(run)).sample

    def stopping(self, inputs, *rest, **named):
        seen.append(inputs.prepared.header.case)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return draw(self, inputs, *rest, **named)

    monkeypatch.setattr("voxlate.synthesis.model.Model.sample", stopping)
    assert voxlate("calibrate", run, others).code == 130
    (kept,) = run.glob("*.parts/new1.*")
    arrays = load_file(kept)
    shorter = {
        name: values[1:] if name.endswith("/image") else values for name, values in arrays.items()
    }
    save_file(shorter, kept, {"sha256": checksum("", shorter)})
    again = json.loads(voxlate("calibrate", run, others, "--json").out)
    assert seen == [f"new{k}" for k in (0, 1, 2, 3, 1, *range(3, 10))], (
        "what was kept of new1 is none of a case"
    )
    assert again == whole
    assert not list(run.glob("*.parts"))


def test_intervals_hold_on_the_files_own_voxels_where_the_network_sees_coarser_ones(
    voxlate, run, others, tmp_path
):
    method, _, header = load_method(run)
    coarse = {
        **header["preparation"],
        "spacing_mm": [2 * one for one in header["training_spacing_mm"]],
    }
    save_weights(
        run / "weights.safetensors",
        method,
        {**header, "preparation": coarse, "training_voxels": ["0" * 16]},
    )
    assert voxlate("calibrate", run, others, "--bound", "none").code == 0
    assert voxlate("synth", run, others, "--out", tmp_path / "out").code == 0
    scores = evaluate(tmp_path / "out", others)
    ours = [row.scores for row in scores.rows if row.answer == "synthesis"]
    assert np.mean([one["coverage"] for one in ours]) == pytest.approx(0.9, abs=0.01)


def test_any_whole_percent_is_scored_and_others_are_refused(voxlate, run, others, tmp_path):
    assert voxlate("calibrate", run, others, "--coverage", "0.855").code == 2
    assert voxlate("calibrate", run, others, "--coverage", "0.85", "--bound", "none").code == 0
    voxlate("synth", run, others, "--out", tmp_path / "out")
    answer = voxlate("evaluate", tmp_path / "out", "--truth", others)
    assert answer.code == 0, answer.err
    assert "10 of 10 cases were used for the calibration" in " ".join(answer.out.split())
    ours = [
        row.scores for row in evaluate(tmp_path / "out", others).rows if row.answer == "synthesis"
    ]
    assert np.mean([one["coverage"] for one in ours]) == pytest.approx(0.85, abs=0.01)


def test_maps_that_were_changed_after_synthesis_are_not_scored_and_changed_images_are_named(
    voxlate, run, others, tmp_path
):
    voxlate("calibrate", run, others)
    out = tmp_path / "out"
    voxlate("synth", run, others, "--out", out)
    shutil.copy(out / "new1" / "t2_low.nii.gz", out / "new2" / "t2_low.nii.gz")
    shutil.copy(out / "new4" / "t2.nii.gz", out / "new3" / "t2.nii.gz")
    answer = voxlate("evaluate", out, "--truth", others)
    said = " ".join(answer.out.split())
    assert "new3/t2: it was changed after synth wrote it" in said
    assert said.count("it was changed after") == 1
    assert "its intervals were changed after synth wrote them" in said
    assert "1 of 10 images have no intervals" in said


@every_row(
    ("rule", "said"),
    [
        ("body=t2>100", "expected a name that the calibration has no use for"),
        ("mae=t2>100", "expected a name that the calibration has no use for"),
        ("dark=t2<30%", "Drop the %"),
        ("none=t2>90000", "found none. Move the threshold"),
        ("none", "--region: expected KEY=VALUE"),
    ],
)
def test_regions_that_cannot_be_calibrated_are_refused(voxlate, run, others, rule, said):
    answer = voxlate("calibrate", run, others, "--region", rule)
    assert answer.code == 2
    assert said in " ".join(answer.err.split())


def test_patients_of_the_run_that_another_began_from_are_refused(
    voxlate, run, prepared, cohort, small_head, tmp_path
):
    for number in range(4):
        small_head(tmp_path / "more" / f"more{number}", 50 + number)
    assert voxlate("prepare", tmp_path / "more", "--out", tmp_path / "p2", "--no-audit").code == 0
    tuned = tmp_path / "tuned"
    answer = voxlate(
        "train", run / "recipe.toml", "--data", tmp_path / "p2", "--out", tuned, "--init", run
    )
    assert answer.code == 0, answer.err
    refused = voxlate("calibrate", tuned, cohort)
    assert refused.code == 2
    assert "which was in it (by the voxels of its scans)" in " ".join(refused.err.split())


def test_too_few_cases_because_of_their_scans_are_not_to_be_held_back(run, others, voxlate):
    for path in others.glob("*/t2.nii.gz"):
        path.write_bytes(b"no image")
    answer = voxlate("calibrate", run, others)
    assert answer.code == 2
    assert "cases that are left out, or give others" in answer.err
    assert "Hold back more" not in answer.err
