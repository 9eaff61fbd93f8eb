"""`voxlate calibrate`, and what synth, evaluate and report make of it."""

import shutil

import nibabel as nib
import numpy as np
import pytest

import voxlate as package
from rows import slow
from scans import change_scan, keep_cases
from voxlate.base.files import read_json
from voxlate.evaluation.calibrate import InTraining
from voxlate.evaluation.reports.page import report
from voxlate.evaluation.scoring.metrics import METRIC_OF
from voxlate.evaluation.scoring.scores import read_scores
from voxlate.scans.formats.io import read_volume
from voxlate.training.load import load
from voxlate.training.weights import load_method, save_weights


@pytest.fixture(autouse=True)
def _short(shorten_widths):
    shorten_widths(20, 256)


@pytest.fixture(scope="module")
def heads(tmp_path_factory, small_head):
    """Ten heads that no training saw."""
    folder = tmp_path_factory.mktemp("heads")
    for number in range(10):
        small_head(folder / f"new{number}", 100 + number)
    return folder


@pytest.fixture
def others(heads, tmp_path):
    """A copy of the ten heads."""
    return shutil.copytree(heads, tmp_path / "others")


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory):
    """The calibration of the run that `calibrated` copies, once a test has made it."""
    return tmp_path_factory.mktemp("calibrations")


@pytest.fixture
def calibrated(calibrations, run, others):
    """The run, calibrated on the ten heads."""
    if not any(calibrations.iterdir()):
        package.calibrate(run, others, progress=False)
        for path in run.glob("calibration.*"):
            shutil.copy(path, calibrations)
    return shutil.copytree(calibrations, run, dirs_exist_ok=True)


@slow
def test_held_back_patients_give_a_regression_intervals_that_hold(voxlate, run, others, out):
    assert "10 patients" in voxlate("calibrate", run, others).done().out
    said = voxlate("synth", run, others, "--out", out).done()
    voxlate("evaluate", out, "--truth", others).done()
    ours = read_scores(out / "metrics.json").by_case("t2")
    assert {path.name for path in (out / "new0").iterdir()} == {
        "t2.nii.gz", "t2_low.nii.gz", "t2_high.nii.gz", "provenance.json",
    }  # fmt: skip
    image, low, high = (
        read_volume(out / f"new0/t2{end}.nii.gz").data for end in ("", "_low", "_high")
    )
    assert (low <= image + 1e-3).all()
    assert (high >= image - 1e-3).all()
    assert low.min() >= 0 and high.max() <= 1400  # noqa: PT018 - the window
    stated = read_json(out / "new0/provenance.json")
    assert stated["calibration"]["patients"] == 10
    assert stated["bounds"]["t2"]["mae"] > 0
    assert METRIC_OF["mae"].text(stated["bounds"]["t2"]["mae"]) in said.out
    # Of the patients that it learned from.
    assert ours["coverage"].mean() >= 0.89
    assert ours["mae_bound_held"].mean() >= 0.9
    row = ours.loc["new0"]
    truth = read_volume(others / "new0/t2.nii.gz").data
    inside, body = (truth >= low) & (truth <= high), truth > 0
    assert row["coverage"] == pytest.approx(np.mean(inside, where=body), abs=0.03)
    assert row["interval"] == pytest.approx((high - low)[body].mean(), rel=0.02)
    assert "interval width, 90%" in report(out).read_text()
    assert "10 of 10" in voxlate("synth", run, others, "--out", out, "-v").err


@slow
def test_samples_without_calibration_say_so_in_name_and_header(
    voxlate, diffusion, others, tmp_path
):
    def synth(samples, *options):
        to = tmp_path / f"of_{samples}"
        command = ("synth", diffusion, others / "new0", "--out", to, "--samples", samples)
        return voxlate(*command, *options)

    synth(2).done()
    spread = tmp_path / "of_2/new0/t2_std_uncalibrated.nii.gz"
    assert b"spread of samples" in nib.load(spread).header["descrip"].item()
    voxlate("calibrate", diffusion, others, "--samples", "2").done()
    synth(2).done()
    assert not spread.exists()
    assert spread.with_name("t2_std.nii.gz").is_file()
    assert "--samples 2" in synth(3).done().err


def test_patients_of_the_training_are_refused_whatever_they_are_called(
    voxlate, run, cohort, others, tmp_path
):
    trained = read_json(run / "provenance.json")["data"]["splits"]["train"]
    assert trained[0] in voxlate("calibrate", run, cohort).refusal
    shutil.copytree(cohort / trained[0], others / "stranger")
    assert "stranger" in voxlate("calibrate", run, others).refusal
    change_scan(others / "stranger/t1.nii.gz", lambda data: data * 1.001)
    with pytest.raises(InTraining, match="stranger"):  # by its truth
        package.calibrate(run, others)


def test_a_truth_that_cannot_be_that_of_its_image_is_left_out_of_a_calibration(
    voxlate, run, others
):
    change_scan(others / "new3/t2.nii.gz", lambda data: np.full_like(data, 7))
    path = others / "new5/t2.nii.gz"
    scan = nib.load(path)
    nib.save(nib.Nifti1Image(scan.get_fdata(), 1000 * scan.affine), path)
    shutil.copytree(others / "new0", others / "twin")
    said = voxlate("calibrate", run, others).done().err
    assert all(case in said for case in ("new3", "new5", "twin"))
    header = load(run).calibration().header
    assert header.patients == 9
    assert not {"new3", "new5"} & header.cases.keys()


def test_a_calibration_of_other_weights_is_refused(voxlate, calibrated, others, out):
    method, _, header = load_method(calibrated)
    method.net.head.bias.data += 0.1
    save_weights(calibrated / "weights.safetensors", method, header)
    assert load(calibrated).facts.weights_hash in (
        voxlate("synth", calibrated, others, "--out", out).refusal
    )


def test_a_damaged_calibration_and_a_lone_patient_are_refused(voxlate, run, others, out):
    alone = voxlate("calibrate", run, others / "new0").refusal
    # it is refused before any image is drawn
    assert "cases 0/" not in alone
    damaged = run / "calibration.mean.1.safetensors"
    damaged.write_bytes(b"nothing")
    assert damaged.name in voxlate("synth", run, others, "--out", out).refusal


@slow
def test_maps_that_were_changed_after_synthesis_are_not_scored_and_changed_images_are_named(
    voxlate, calibrated, others, out
):
    keep_cases(others, *(f"new{k}" for k in range(5)))
    voxlate("synth", calibrated, others, "--out", out).done()
    shutil.copy(out / "new1/t2_low.nii.gz", out / "new2/t2_low.nii.gz")
    shutil.copy(out / "new4/t2.nii.gz", out / "new3/t2.nii.gz")
    voxlate("evaluate", out, "--truth", others).done()
    scores = read_scores(out / "metrics.json")
    assert scores.header["moved"].keys() == {"new2/t2", "new3/t2"}
    coverage = scores.by_case("t2")["coverage"]
    assert [*coverage.index[coverage.isna()]] == ["new2"]
