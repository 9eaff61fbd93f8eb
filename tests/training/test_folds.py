"""Five folds of the patients that are not for test: each validates once, and teaches nothing there."""

import json
from pathlib import Path

import numpy as np
import pytest

from voxlate.base.errors import BadInput, Stopped
from voxlate.base.files import read_json
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training import recipe
from voxlate.training.continuing import train_further
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import read_header


@pytest.fixture
def by_percentile(tiny):
    """A recipe whose target's scale comes from the training cases."""
    changes = {"intensity.t2": '{ kind = "percentile" }', "train.steps": "2"}
    return recipe.read(str(tiny), {**changes, "train.validate_every": "0"})


@pytest.fixture
def fold_run(once, by_percentile, prepared, tmp_path) -> Path:
    out = tmp_path / "fold1"
    fit = lambda: train(by_percentile, prepared, out, fold=1, device="cpu")  # noqa: E731
    return once("fold 1", prepared, out, fit)


def test_the_run_of_a_fold_knows_its_scales_and_its_splits(fold_run, prepared, by_percentile):
    cohort = open_cohort(prepared)
    fold, header = cohort.in_fold(1), read_header(Run(fold_run).weights())
    stated = read_json(Run(fold_run).provenance)
    assert (stated["data"]["fold"], stated["data"]["splits"]) == (1, fold.splits)
    training = [cohort.header(case) for case in fold.splits["train"]]
    spec = by_percentile.intensity["t2"]
    highs = [spec.scale(one.statistics["t2"]).high for one in training]
    assert header["target_scales"]["t2"][1] == pytest.approx(float(np.median(highs)))
    everyone = [
        spec.scale(cohort.header(case).statistics["t2"]).high for case in cohort.splits["train"]
    ]
    assert np.median(highs) != np.median(everyone)  # else the test could not fail
    assert header["training_cases"] == len(training)


@pytest.mark.slow
def test_the_same_fold_resumes_and_another_one_is_refused(fold_run, by_percentile, prepared):
    before = Run(fold_run).weights().stat().st_mtime_ns
    train(by_percentile, prepared, fold_run, fold=1, device="cpu")
    assert Run(fold_run).weights().stat().st_mtime_ns == before
    for fold in (2, None):
        with pytest.raises(BadInput, match=r"found another run \(data\.fold is 1 there"):
            train(by_percentile, prepared, fold_run, fold=fold, device="cpu")
    train_further(fold_run, steps=1, device="cpu")
    assert read_json(Run(fold_run).provenance)["data"]["fold"] == 1


def test_synth_takes_the_cases_that_the_fold_held_out_whatever_the_cohort_says(
    voxlate, fold_run, cohort, tmp_path
):
    (held_out,) = read_json(Run(fold_run).provenance)["data"]["splits"]["val"]
    rows = [f"case{k},case{k},{'val' if f'case{k}' != held_out else 'train'}" for k in range(6)]
    (cohort / "manifest.csv").write_text(
        "case,patient,split,t1,t2\n"
        + "".join(f"{row},{row[:5]}/t1.nii.gz,{row[:5]}/t2.nii.gz\n" for row in rows)
    )
    line = ("synth", fold_run, cohort, "--out", tmp_path / "out")
    answer = voxlate(*line, "--split", "val", "--json").done()
    assert json.loads(answer.out)["cases"] == [held_out]
    assert read_json(tmp_path / "out" / held_out / "provenance.json")["split"] == "val"


@pytest.mark.slow
def test_a_stage_of_another_fold_is_not_reused(tmp_path, prepared, read_two):
    chosen = read_two(steps=1, validate_every=0)
    train(chosen, prepared, tmp_path / "first", fold=0, device="cpu")
    cases = {0: "stage 'predictor' is taken from", 1: "it trained on other cases (--fold)"}
    for fold, words in cases.items():

        def end_when_said(said, words=words):
            if words in said.text:
                raise Stopped("it was said")

        options = {"fold": fold, "reuse": [tmp_path / "first"], "device": "cpu"}
        with pytest.raises(Stopped):
            train(chosen, prepared, tmp_path / f"again{fold}", **options, say=end_when_said)
