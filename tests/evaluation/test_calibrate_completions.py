"""Calibration of models that complete missing modalities: intervals for each modality that may be missing."""

import numpy as np
import pytest

from scans import change_scan
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.formats.io import read_volume
from voxlate.training.load import load

THREE = """
title = "tiny completion"
data = { source = ["t1", "t2", "pd"], target = ["t1", "t2", "pd"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 }, pd = { kind = "window", low = 0, high = 1400 } }
task = { kind = "complete" }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
"""


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_widths")]


def test_each_missing_modality_has_its_own_intervals_which_hold_the_truth(
    voxlate, small_head, tmp_path
):
    run, heads = tmp_path / "run", tmp_path / "others"
    seeds = {f"cohort/case{number}": number for number in range(3)}
    seeds |= {f"others/new{number}": 100 + number for number in range(4)}
    for folder, seed in seeds.items():
        small_head(tmp_path / folder, seed)
        t2 = tmp_path / folder / "t2.nii.gz"
        change_scan(t2, lambda values: np.sqrt(1400 * values), t2.with_name("pd.nii.gz"))
    (tmp_path / "three.toml").write_text(THREE)
    prepared = ("--out", tmp_path / "prepared", "--shares", 2, 1, 0, "--no-audit")
    voxlate("prepare", tmp_path / "cohort", *prepared).done()
    data = ("--data", tmp_path / "prepared", "--out", run)
    voxlate("train", tmp_path / "three.toml", *data).done()
    voxlate("calibrate", run, heads).done()
    header = load(run, "cpu").calibration().header
    assert set(header.targets) == {"t1", "t2", "pd"}
    assert header.patients == 4
    for name in ("t1", "pd"):
        out = tmp_path / name
        voxlate("synth", run, heads, "--out", out, "--missing", name).done()
        inside = []
        for case in sorted(heads.iterdir()):
            made = out / case.name / f"desc-synthetic_{name}"
            low, high = (read_volume(f"{made}_{end}.nii.gz").data for end in ("low", "high"))
            truth = read_volume(case / f"{name}.nii.gz").data
            body = read_volume(case / "t1.nii.gz").data > 0
            inside.append(((low <= truth + 1e-3) & (truth <= high + 1e-3))[body].mean())
        assert np.mean(inside) >= 0.89, name  # of the patients that it learned from
        scored = [row.scores for row in evaluate(out, heads).rows if row.method == "synthesis"]
        coverage = np.mean([one["coverage"] for one in scored])
        assert coverage == pytest.approx(np.mean(inside), abs=0.01), name
