"""Completion and latent models through the command line, as a user would train and use them."""

import json

import nibabel as nib
import numpy as np
import pytest

from voxlate.data.find import find_cohort
from voxlate.errors import BadInput
from voxlate.synthesis.model import load

LATENT = """
title = "tiny latent"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" } }
task = { kind = "latent" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 3, batch = 2, validate_every = 0 }
synth = { sampler = "dpmpp_2m", steps = 2 }
[[stages]]
name = "autoencoder"
method = { kind = "autoencoding" }
net = { kind = "kl_autoencoder", width = 8, multipliers = [1, 2], blocks = 1, groups = 4 }
train = { steps = 3, batch = 2, validate_every = 0 }
"""


def test_only_the_modality_that_is_missing_is_made(voxlate, completing, cohort, tmp_path):
    (cohort / "case4" / "t1.nii.gz").unlink()
    assert voxlate("synth", completing, cohort / "case4", "--out", tmp_path / "o").code == 0
    (made,) = (tmp_path / "o" / "case4").glob("*.nii.gz")
    assert made.name == "desc-synthetic_t1.nii.gz", "not taken for a scan, wherever it is copied to"
    assert b"synthetic" in nib.load(made).header["descrip"].item()


def test_a_modality_that_is_there_can_be_left_out_to_score_its_synthesis(voxlate, completing, cohort, tmp_path):
    out = tmp_path / "o"
    assert voxlate("synth", completing, cohort / "case1", "--out", out, "--missing", "t2", "--samples", "2").code == 0
    assert (out / "case1" / "desc-synthetic_t2_std.nii.gz").exists()
    answer = voxlate("evaluate", out, "--truth", cohort, "--json")
    assert answer.code == 0, answer.err
    assert "t2" in json.loads(answer.out)["modalities"]


def test_cases_with_mixed_gaps_are_completed_and_whole_ones_listed(voxlate, completing, cohort, tmp_path):
    (cohort / "case4" / "t1.nii.gz").unlink()
    (cohort / "case2" / "t2.nii.gz").unlink()
    answer = voxlate("synth", completing, cohort, "--out", tmp_path / "o")
    assert answer.code == 0
    assert "4 cases lack nothing and are left as they are: case0, case1, case3, case5" in answer.out
    made = sorted(f"{path.parent.name}/{path.name}" for path in (tmp_path / "o").glob("*/*.nii.gz"))
    assert made == ["case2/desc-synthetic_t2.nii.gz", "case4/desc-synthetic_t1.nii.gz"]


def test_one_command_makes_and_scores_each_modality_without_itself(voxlate, completing, cohort, tmp_path):
    (cohort / "case4" / "t1.nii.gz").unlink()
    out = tmp_path / "o"
    answer = voxlate("evaluate", out, "--truth", cohort, "--run", completing, "--missing", "all")
    assert answer.code == 2
    assert "left out case4: expected all of t1, t2, found no t1" in answer.err
    scored = json.loads((out / "metrics.json").read_text())
    rows = {(row["case"], row["modality"]) for row in scored["cases"] if row["answer"] == "synthesis"}
    assert rows == {(f"case{n}", name) for n in (0, 1, 2, 3, 5) for name in ("t1", "t2")}
    lines = json.loads((out / "scenarios.json").read_text())["scenarios"]
    assert [(line["missing"], line["modality"], line["cases"]) for line in lines] == [("t1", "t1", 5), ("t2", "t2", 5)]
    for name in ("t1", "t2"):
        alone = [row["mae"] for row in scored["cases"] if (row["modality"], row["answer"]) == (name, "synthesis")]
        (line,) = [line for line in lines if line["missing"] == name]
        assert line["mae"] == pytest.approx(np.mean(alone))
    before = {path: path.stat().st_mtime_ns for path in out.glob("without_*/*/*.nii.gz")}
    assert voxlate("evaluate", out, "--truth", cohort, "--run", completing, "--missing", "all").code == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished images are kept"


def test_nothing_missing_is_said_in_one_sentence(voxlate, completing, cohort, tmp_path):
    answer = voxlate("synth", completing, cohort / "case1", "--out", tmp_path / "o")
    assert answer.code == 2
    assert "--missing" in answer.err


def test_an_autoencoder_and_a_latent_diffusion_train_as_stages_of_one_recipe(voxlate, prepared, cohort, tmp_path):
    (tmp_path / "latent.toml").write_text(LATENT)
    run = tmp_path / "lrun"
    answer = voxlate("train", tmp_path / "latent.toml", "--data", prepared, "--out", run)
    assert answer.code == 0, answer.err
    assert voxlate("synth", run, cohort / "case1", "--out", tmp_path / "o").code == 0
    made = nib.load(tmp_path / "o" / "case1" / "t2.nii.gz")
    assert made.shape == (20, 24, 6)
    assert np.isfinite(made.get_fdata()).all()


def test_each_stage_is_a_model_of_its_own(voxlate, cohort, prepared, tiny, tmp_path):
    text = tiny.read_text().replace('kind = "regression"', 'kind = "diffusion"')
    stage = '\n[[stages]]\nname = "first"\nmethod = { kind = "regression" }\n'
    stage += (
        'net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }\n'
    )
    stage += "train = { steps = 2, batch = 2, validate_every = 0 }\n"
    (tmp_path / "two.toml").write_text(
        text.replace("method =", 'task = { kind = "residual", predictor = "first" }\nmethod =') + stage
    )
    run = tmp_path / "two"
    answer = voxlate("train", tmp_path / "two.toml", "--data", prepared, "--out", run)
    assert answer.code == 0, answer.err
    assert voxlate("synth", run / "weights.first.safetensors", cohort / "case0", "--out", tmp_path / "o").code == 0
    said = json.loads((tmp_path / "o" / "case0" / "provenance.json").read_text())
    assert said["model"]["title"] == "tiny (first alone)"


def test_a_scan_by_another_name_is_said_where_its_modality_is_made(voxlate, completing, cohort, tmp_path):
    (cohort / "case4" / "t1.nii.gz").rename(cohort / "case4" / "t1w.nii.gz")
    answer = voxlate("synth", completing, cohort, "--out", tmp_path / "o")
    assert "case4: t1w was not used: no modality of this model has that name." in " ".join(answer.err.split())
    scans = {"T1": cohort / "case1" / "t1.nii.gz", "t2": cohort / "case1" / "t2.nii.gz"}
    with pytest.raises(BadInput, match="expected scans of t1, t2, mask, found 'T1'"):
        load(completing).synthesise(scans)


def test_images_that_were_synthesised_are_no_scans_of_a_cohort(voxlate, completing, cohort):
    (cohort / "case4" / "t1.nii.gz").unlink()
    assert voxlate("synth", completing, cohort, "--out", cohort).code == 0
    found = find_cohort(cohort)
    assert {name for case in found.cases for name in case.files} == {"t1", "t2"}
    assert "t1" not in next(case for case in found.cases if case.case == "case4").files
    assert found.unclaimed == ["1 images that were synthesised ('case4/desc-synthetic_t1.nii.gz')"]
