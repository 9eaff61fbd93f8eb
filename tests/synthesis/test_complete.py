"""Completion and latent models through the command line, as a user would train and use them."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from voxlate import recipe as recipes
from voxlate.batches.patches import read_patch
from voxlate.cases.prepare import prepare
from voxlate.cases.prepared import open_cohort
from voxlate.cohorts.find import find_cohort
from voxlate.synthesis.model import load
from voxlate.system.errors import BadInput

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


THREE = """
title = "tiny completion of three"
data = { source = ["t1", "t2", "pd"], target = ["t1", "t2", "pd"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" }, pd = { kind = "percentile" } }
task = { kind = "complete" }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, validate_every = 0, precision = "float32", workers = 0 }
"""


def test_only_the_modality_that_is_missing_is_made(voxlate, completing, cohort, tmp_path):
    (cohort / "case4" / "t1.nii.gz").unlink()
    assert voxlate("synth", completing, cohort / "case4", "--out", tmp_path / "o").code == 0
    (made,) = (tmp_path / "o" / "case4").glob("*.nii.gz")
    assert made.name == "desc-synthetic_t1.nii.gz", "not taken for a scan, wherever it is copied to"
    assert b"synthetic" in nib.load(made).header["descrip"].item()


def test_a_modality_that_is_there_can_be_left_out_to_score_its_synthesis(
    voxlate, completing, cohort, tmp_path
):
    out = tmp_path / "o"
    assert (
        voxlate(
            "synth", completing, cohort / "case1", "--out", out, "--missing", "t2", "--samples", "2"
        ).code
        == 0
    )
    assert (out / "case1" / "desc-synthetic_t2_std_uncalibrated.nii.gz").exists()
    answer = voxlate("evaluate", out, "--truth", cohort, "--json")
    assert answer.code == 0, answer.err
    assert "t2" in json.loads(answer.out)["modalities"]


def test_cases_with_mixed_gaps_are_completed_and_whole_ones_listed(
    voxlate, completing, cohort, tmp_path
):
    (cohort / "case4" / "t1.nii.gz").unlink()
    (cohort / "case2" / "t2.nii.gz").unlink()
    answer = voxlate("synth", completing, cohort, "--out", tmp_path / "o")
    assert answer.code == 0
    assert (
        "4 cases lack no modality and are not synthesised: case0, case1, case3, case5" in answer.out
    )
    made = sorted(f"{path.parent.name}/{path.name}" for path in (tmp_path / "o").glob("*/*.nii.gz"))
    assert made == ["case2/desc-synthetic_t2.nii.gz", "case4/desc-synthetic_t1.nii.gz"]


@pytest.fixture
def of_three(voxlate, cohort, tmp_path):
    """A tiny run that completes t1, t2 and pd; its cohort has a pd scan in each case."""
    for case in cohort.iterdir():
        shutil.copy(case / "t1.nii.gz", case / "pd.nii.gz")
    prepare(cohort, tmp_path / "three", workers=0, audit=False)
    (tmp_path / "three.toml").write_text(THREE)
    run = tmp_path / "run_of_three"
    answer = voxlate("train", tmp_path / "three.toml", "--data", tmp_path / "three", "--out", run)
    assert answer.code == 0, answer.err
    return run


def test_only_what_was_named_is_written_and_the_other_gaps_are_said(
    voxlate, of_three, cohort, tmp_path
):
    scan = f"t1={cohort / 'case1' / 't1.nii.gz'}"
    out = tmp_path / "o"
    named = voxlate("synth", of_three, scan, "--out", out, "--missing", "t2")
    assert named.code == 0, named.err
    assert [path.name for path in out.glob("*/*.nii.gz")] == ["desc-synthetic_t2.nii.gz"]
    assert "Only t2 was asked for: pd could be synthesised as well" in named.err
    (t2,) = out.glob("*/*.nii.gz")
    alone = nib.load(t2).get_fdata()
    # without --missing all gaps are filled: the folder is not taken for finished
    everything = voxlate("synth", of_three, scan, "--out", out)
    assert everything.code == 0, everything.err
    made = {path.name for path in out.glob("*/*.nii.gz")}
    assert made == {"desc-synthetic_t2.nii.gz", "desc-synthetic_pd.nii.gz"}
    assert np.array_equal(alone, nib.load(t2).get_fdata())


def test_one_command_makes_and_scores_each_modality_without_itself(
    voxlate, completing, cohort, tmp_path
):
    (cohort / "case4" / "t1.nii.gz").unlink()
    out = tmp_path / "o"
    answer = voxlate("evaluate", out, "--truth", cohort, "--run", completing, "--missing", "all")
    assert answer.code == 0, (
        "a case that lacks a truth cannot be scored, and nobody asked for it by name"
    )
    assert "left out case4: expected all of t1, t2, found no t1" in answer.err
    scored = json.loads((out / "metrics.json").read_text())
    rows = {
        (row["case"], row["modality"]) for row in scored["cases"] if row["answer"] == "synthesis"
    }
    assert rows == {(f"case{n}", name) for n in (0, 1, 2, 3, 5) for name in ("t1", "t2")}
    lines = json.loads((out / "scenarios.json").read_text())["scenarios"]
    assert [(line["missing"], line["modality"], line["cases"]) for line in lines] == [
        ("t1", "t1", 5),
        ("t2", "t2", 5),
    ]
    for name in ("t1", "t2"):
        alone = [
            row["mae"]
            for row in scored["cases"]
            if (row["modality"], row["answer"]) == (name, "synthesis")
        ]
        (line,) = [line for line in lines if line["missing"] == name]
        assert line["mae"] == pytest.approx(np.mean(alone))
    before = {path: path.stat().st_mtime_ns for path in out.glob("without_*/*/*.nii.gz")}
    assert (
        voxlate("evaluate", out, "--truth", cohort, "--run", completing, "--missing", "all").code
        == 0
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished images are kept"


def test_nothing_missing_is_said_in_one_sentence(voxlate, completing, cohort, tmp_path):
    answer = voxlate("synth", completing, cohort / "case1", "--out", tmp_path / "o")
    assert answer.code == 2
    assert "--missing" in answer.err


def test_an_autoencoder_and_a_latent_diffusion_train_as_stages_of_one_recipe(
    voxlate, prepared, cohort, tmp_path
):
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
    stage += 'net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }\n'
    stage += "train = { steps = 2, batch = 2, validate_every = 0 }\n"
    (tmp_path / "two.toml").write_text(
        text.replace("method =", 'task = { kind = "residual", predictor = "first" }\nmethod =')
        + stage
    )
    run = tmp_path / "two"
    answer = voxlate("train", tmp_path / "two.toml", "--data", prepared, "--out", run)
    assert answer.code == 0, answer.err
    assert (
        voxlate(
            "synth", run / "weights.first.safetensors", cohort / "case0", "--out", tmp_path / "o"
        ).code
        == 0
    )
    said = json.loads((tmp_path / "o" / "case0" / "provenance.json").read_text())
    assert said["model"]["title"] == "tiny (first alone)"


def test_a_scan_by_another_name_is_said_where_its_modality_is_made(
    voxlate, completing, cohort, tmp_path
):
    (cohort / "case4" / "t1.nii.gz").rename(cohort / "case4" / "mprage.nii.gz")
    answer = voxlate("synth", completing, cohort, "--out", tmp_path / "o")
    assert "case4: mprage was not used: no modality of this model has that name." in " ".join(
        answer.err.split()
    )
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


def test_a_case_without_any_scan_is_listed_and_whole_cases_are_not_said_to_be_stopped(
    voxlate, completing, cohort, tmp_path
):
    (cohort / "case4" / "t1.nii.gz").unlink()
    (cohort / "case2" / "t1.nii.gz").rename(cohort / "case2" / "seg.nii.gz")
    (cohort / "case2" / "t2.nii.gz").unlink()
    answer = voxlate("synth", completing, cohort, "--out", cohort)
    assert answer.code == 2
    assert "voxlate: left out case2: expected t1 and t2, found none of them." in answer.err
    said = " ".join(answer.out.split())
    assert (
        f"1 case in {cohort}. Next: voxlate report {cohort} To score the model on complete cases:"
        in said
    )
    assert (
        f"voxlate evaluate NEW --truth {cohort} --run {completing} --missing one --units network"
        in said
    )
    assert (
        voxlate(
            "synth", completing, cohort, "--missing", "t2", "--out", cohort, "--split", "val"
        ).code
        == 0
    )
    scored = voxlate("evaluate", cohort, "--truth", cohort, "--json")
    assert scored.code == 0, scored.err  # nobody asked for images of the other cases
    assert "synth was stopped" not in scored.err + scored.out


def test_after_training_a_completion_the_command_that_scores_it_in_the_networks_units_is_named(
    voxlate, completing, prepared, tmp_path
):
    answer = voxlate("train", tmp_path / "done.toml", "--data", prepared, "--out", completing)
    said = " ".join(answer.out.split())
    assert "Next: voxlate evaluate NEW --truth " in said
    assert f"--run {completing} --missing one --units network --split val" in said


def test_gaps_without_the_keys_for_gaps_are_refused_by_naming_these(
    voxlate, completing, cohort, tmp_path
):
    (cohort / "cases.csv").write_text(
        "case,split\n" + "".join(f"case{k},{'val' if k == 5 else 'train'}\n" for k in range(6))
    )
    for number in range(5):
        (cohort / f"case{number}" / ("t1.nii.gz" if number % 2 else "t2.nii.gz")).unlink()
    assert voxlate("prepare", cohort, "--out", tmp_path / "gaps").code == 0
    train = (
        "train",
        tmp_path / "done.toml",
        "--data",
        tmp_path / "gaps",
        "--out",
        tmp_path / "new",
    )
    answer = voxlate(*train)
    assert answer.code == 2
    assert "found none among its 5 cases (case0 has no t2)." in answer.err
    gaps = ["--set", "task.incomplete=true", "--set", "data.allow_missing=true"]
    assert f"by {' '.join(gaps)}" in answer.err
    assert voxlate(*train, *gaps).code == 0


def test_a_target_whose_scale_varies_between_cases_is_said_to_be_a_guess(
    voxlate, completing, cohort, tmp_path
):
    text = (
        (tmp_path / "done.toml")
        .read_text()
        .replace('t2 = { kind = "window", low = 0, high = 1400 }', 't2 = { kind = "percentile" }')
    )
    (tmp_path / "own.toml").write_text(text)
    for number in range(6):
        path = cohort / f"case{number}" / "t2.nii.gz"
        scan = nib.load(path)
        nib.save(
            nib.Nifti1Image(scan.get_fdata().astype(np.float32) * 4.0 ** (number % 2), scan.affine),
            path,
        )
    (cohort / "cases.csv").write_text(
        "case,split\n" + "".join(f"case{k},{'val' if k == 5 else 'train'}\n" for k in range(6))
    )
    assert voxlate("prepare", cohort, "--out", tmp_path / "varied").code == 0
    trained = voxlate(
        "train", tmp_path / "own.toml", "--data", tmp_path / "varied", "--out", tmp_path / "vrun"
    )
    made = voxlate(
        "synth", tmp_path / "vrun", cohort / "case5", "--missing", "t2", "--out", tmp_path / "o"
    )
    for answer in (trained, made):
        assert answer.code == 0, answer.err
        assert (
            "in the training cases, by scanner or gain; images take the median, so that"
            in answer.err
        )
    other = voxlate(
        "synth", tmp_path / "vrun", cohort / "case5", "--missing", "t1", "--out", tmp_path / "o2"
    )
    assert "scanner or gain" not in other.err, "t1 has one window"


def test_a_blank_scan_counts_as_missing_in_training(voxlate, tiny, completing, cohort, tmp_path):
    scan = nib.load(cohort / "case0" / "t2.nii.gz")
    nib.save(
        nib.Nifti1Image(np.zeros(scan.shape, np.float32), scan.affine),
        cohort / "case0" / "t2.nii.gz",
    )
    (cohort / "cases.csv").write_text(
        "case,split\n" + "".join(f"case{k},{'val' if k == 5 else 'train'}\n" for k in range(6))
    )
    assert voxlate("prepare", cohort, "--out", tmp_path / "blank").code == 0
    answer = voxlate("train", tiny, "--data", tmp_path / "blank", "--out", tmp_path / "new")
    assert answer.code == 0, answer.err
    assert "note: left out of training: case0 (no t2)." in answer.err
    recipe, prepared = (
        tiny_recipe(tiny, 'data.source=["t1", "t2"]'),
        open_cohort(tmp_path / "blank"),
    )
    patch = read_patch(prepared.case("case0"), recipe.data, recipe.intensity, (0, 0, 0))
    assert patch.present.tolist() == [[True, False]]


def tiny_recipe(path, change):
    return recipes.read(str(path), dict([change.split("=", 1)]))


def test_a_validation_picture_shows_what_was_given_and_a_contrast_that_was_hidden(
    monkeypatch, completing, prepared
):
    from voxlate.training import validate as module

    drawn = []
    monkeypatch.setattr(
        module, "montage", lambda rows, titles, path, labels: drawn.append((rows, titles, labels))
    )
    model, cohort = load(completing), open_cohort(prepared)
    (stage,) = model.recipe.all_stages
    items = module.validation_items(model.recipe, stage, cohort)
    module.validate(model.method, items, model.recipe, stage, model.device, completing / "none.png")
    ((rows, titles, labels),) = drawn
    assert titles == ["t1", "t2", "synthesis", "truth"]
    assert labels[:2] == ["t1", "t2"], "hidden in turn"
    true = items[0].target
    for number, (row, name) in enumerate(zip(rows[:2], labels)):
        hidden, given = (row[0], row[1]) if name == "t1" else (row[1], row[0])
        place = titles.index(name)
        assert (hidden == 0).all()
        assert given.max() > 0.1
        np.testing.assert_allclose(row[3], (true[number, place, 0] + 1) / 2)
        assert not np.array_equal(row[2], row[3]), "made, not copied"
