"""Calibration of models that complete missing modalities: intervals for each modality that may be missing."""

import shutil

import numpy as np
import pytest

from voxlate.formats.io import read_volume
from voxlate.scoring.evaluate import evaluate
from voxlate.synthesis.model import load
from voxlate.system.files import read_json

THREE = """
title = "tiny completion"
data = { source = ["t1", "t2", "pd"], target = ["t1", "t2", "pd"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 }, pd = { kind = "window", low = 0, high = 1400 } }
task = { kind = "complete" }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
"""


@pytest.fixture(autouse=True)
def _short(shorten_widths):
    shorten_widths(20, 512)


@pytest.fixture
def calibrated(voxlate, small_head, tmp_path):
    """A completion of three modalities, calibrated on four heads that its training did not see; gives (run, heads)."""
    heads = {f"cohort/case{number}": number for number in range(3)}
    heads |= {f"others/new{number}": 100 + number for number in range(4)}
    for folder, seed in heads.items():
        small_head(tmp_path / folder, seed)
        shutil.copy(tmp_path / folder / "t2.nii.gz", tmp_path / folder / "pd.nii.gz")
    prepared = tmp_path / "prepared"
    options = ("--shares", 2, 1, 0, "--no-audit")
    assert voxlate("prepare", tmp_path / "cohort", "--out", prepared, *options).code == 0
    (tmp_path / "three.toml").write_text(THREE)
    run = tmp_path / "run"
    answer = voxlate("train", tmp_path / "three.toml", "--data", prepared, "--out", run)
    assert answer.code == 0, answer.err
    answer = voxlate("calibrate", run, tmp_path / "others")
    assert answer.code == 0, answer.err
    return run, tmp_path / "others"


def test_each_missing_modality_has_its_own_intervals_which_hold_the_truth(
    calibrated, voxlate, tmp_path
):
    run, heads = calibrated
    header = load(run, "cpu").calibration().header
    assert set(header.targets) == {"t1", "t2", "pd"}
    assert header.patients == 4
    for name in ("t1", "t2", "pd"):
        out = tmp_path / name
        answer = voxlate("synth", run, heads, "--out", out, "--missing", name)
        assert answer.code == 0, answer.err
        inside = []
        for case in sorted(heads.iterdir()):
            made = out / case.name / f"desc-synthetic_{name}"
            low, high = (read_volume(f"{made}_{end}.nii.gz").data for end in ("low", "high"))
            truth = read_volume(case / f"{name}.nii.gz").data
            body = read_volume(case / "t1.nii.gz").data > 0
            inside.append(((low <= truth + 1e-3) & (truth <= high + 1e-3))[body].mean())
        assert np.mean(inside) >= 0.89, name  # of the patients that it learned from
        scored = [row.scores for row in evaluate(out, heads).rows if row.answer == "synthesis"]
        coverage = np.mean([one["coverage"] for one in scored])
        assert coverage == pytest.approx(np.mean(inside), abs=0.01), name


def test_a_case_that_lacks_two_modalities_has_no_intervals_and_says_so(
    calibrated, voxlate, tmp_path
):
    run, heads = calibrated
    out = tmp_path / "out"
    scan = heads / "new0" / "t1.nii.gz"
    answer = voxlate("synth", run, f"t1={scan}", "--out", out)
    assert answer.code == 0, answer.err
    (folder,) = (path.parent for path in out.glob("*/provenance.json"))
    assert {path.name for path in folder.glob("*.nii.gz")} == {
        "desc-synthetic_t2.nii.gz",
        "desc-synthetic_pd.nii.gz",
    }
    warnings = " ".join(one["text"] for one in read_json(folder / "provenance.json")["warnings"])
    assert "calibrated for one missing modality, and this case lacks t2 and pd" in warnings
