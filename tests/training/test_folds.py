"""Five folds of the patients that are not for test: each validates once, and teaches nothing there."""

import json
from functools import partial

import numpy as np
import pytest

from refusals import refuses
from rows import slow
from voxlate.base.errors import Stopped
from voxlate.base.files import read_json
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import read_header


@pytest.fixture
def by_percentile(read_tiny):
    """A recipe whose target's scale comes from the training cases."""
    return read_tiny({"intensity.t2": '{ kind = "percentile" }'}, steps=2, validate_every=0)


@pytest.fixture
def fold_run(once, by_percentile, prepared, fit, tmp_path):
    train_fold = partial(fit, by_percentile, "fold1", fold=1)
    return Run(once("fold 1", prepared, tmp_path / "fold1", train_fold))


def test_the_run_of_a_fold_knows_its_scales_and_its_splits(fold_run, prepared, by_percentile):
    cohort = open_cohort(prepared)
    fold, header = cohort.in_fold(1), read_header(fold_run.weights())
    stated = read_json(fold_run.provenance)["data"]
    assert (stated["fold"], stated["splits"]) == (1, fold.splits)

    def median(cases):
        scale = by_percentile.intensity["t2"].scale
        return np.median([scale(cohort.header(case).statistics["t2"]).high for case in cases])

    own = fold.splits["train"]
    assert header["target_scales"]["t2"][1] == pytest.approx(float(median(own)))
    assert median(own) != median(cohort.splits["train"])  # else the test could not fail
    assert header["training_cases"] == len(own)


@slow
def test_the_same_fold_resumes_and_another_one_is_refused(fold_run, by_percentile, fit):
    before = fold_run.weights().stat().st_mtime_ns
    fit(by_percentile, "fold1", fold=1)
    assert fold_run.weights().stat().st_mtime_ns == before
    for fold in (2, None):
        with refuses(r"found another run \(data\.fold is 1 there"):
            fit(by_percentile, "fold1", fold=fold)
    assert read_json(fold_run.provenance)["data"]["fold"] == 1


def test_synth_takes_the_cases_that_the_fold_held_out_whatever_the_cohort_says(
    voxlate, fold_run, cohort, out
):
    (held_out,) = read_json(fold_run.provenance)["data"]["splits"]["val"]
    rows = ["case,patient,split,t1,t2"]
    for case in (f"case{number}" for number in range(6)):
        split = "train" if case == held_out else "val"
        rows.append(f"{case},{case},{split},{case}/t1.nii.gz,{case}/t2.nii.gz")
    (cohort / "manifest.csv").write_text("\n".join([*rows, ""]))
    line = ("synth", fold_run.folder, cohort, "--out", out)
    answer = voxlate(*line, "--split", "val", "--json").done()
    assert json.loads(answer.out)["cases"] == [held_out]
    assert read_json(out / held_out / "provenance.json")["split"] == "val"


@slow
def test_a_stage_of_another_fold_is_not_reused(prepared, read_two, tmp_path):
    chosen = read_two(steps=1, validate_every=0)
    first = train(chosen, prepared, tmp_path / "first", fold=0, device="cpu")

    def end_when_said(said):
        if "it saw other cases" in said.text:
            raise Stopped("it was said")

    options = {"fold": 1, "reuse": [first.folder], "device": "cpu"}
    with pytest.raises(Stopped):
        train(chosen, prepared, tmp_path / "again", **options, say=end_when_said)
