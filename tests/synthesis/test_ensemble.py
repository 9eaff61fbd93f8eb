"""Several runs as one: the mean of their images, and the spread over members and samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from refusals import refuses
from rows import slow
from scans import t1_of
from voxlate.base.files import file_hash, read_json
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.intensity import Percentile
from voxlate.synthesis.model import Ensemble
from voxlate.synthesis.sampling import Moments
from voxlate.training.load import load
from voxlate.training.run import Run
from voxlate.training.weights import load_method, save_weights


@pytest.fixture
def constant(changed):
    """Makes a run whose every image is one value."""
    changes = {"train.steps": "1", "train.validate_every": "0", "intensity.t2.high": "2048"}

    def make(value):
        run = changed(f"constant{value}", changes)
        _make_constant(run, value)
        return run

    return make


def _make_constant(run, value):
    """Replace the weights of a run, whose window is 0 to 2048, by such that give one value."""
    method, _, header = load_method(run)
    with torch.no_grad():
        method.net.head.weight.zero_()
        method.net.head.bias.fill_(value / 1024 - 1)  # network units
    save_weights(Run(run).weights(), method, header)


def test_members_of_one_and_three_have_a_mean_of_two_and_their_spread(synth, constant, cohort, out):
    members = one, three = constant(1), constant(3)
    synth(one, three, cohort / "case0").done()
    head = read_volume(t1_of(cohort)["t1"]).data > 0
    mean, sd = (
        read_volume(out / f"case0/t2{name}.nii.gz").data[head] for name in ("", "_std_uncalibrated")
    )
    assert_array_equal(mean, 2)
    assert_allclose(sd, np.sqrt(2), rtol=1e-6)
    hashes = [file_hash(Run(run).weights()) for run in members]
    for folder in (out, out / "case0"):
        made = read_json(folder / "provenance.json")
        assert [each["weights"] for each in made["members"]] == hashes
        assert [(folder / place).resolve() for place in made["runs"]] == [*members]
        assert (folder / made["run"]).resolve() == one
        assert made["model"]["title"] == "tiny (ensemble of 2)"
    again = synth(one, three, cohort / "case0", "-v")
    assert "1 of 1 cases were synthesised before and are kept" in again.err
    synth(three, one, one, cohort / "case0").done()
    assert len(read_json(out / "case0/provenance.json")["members"]) == 3


@slow
def test_each_case_of_a_cross_validation_is_made_by_the_runs_that_did_not_see_it(
    voxlate, synth, prepared, cohort, tiny, out, tmp_path
):
    tiny.write_text(tiny.read_text().replace("high = 1400", "high = 2048"))
    words = ("train", tiny, "--set", "train.steps=1", "--data", prepared, "--out")
    trained = voxlate(*words, tmp_path / "runs", "--folds", 2)
    folds = [tmp_path / f"runs/fold{fold}" for fold in range(2)]
    assert all(f"{fold}" in trained.out for fold in folds)
    for value, fold in zip((1, 3), folds):
        _make_constant(fold, value)
    synth(*folds, cohort).done()
    split = [read_json(fold / "provenance.json")["data"]["splits"] for fold in folds]
    for case in sorted(path.name for path in cohort.glob("case*")):
        unseen = [number for number in range(2) if case not in split[number]["train"]]
        made = read_json(out / case / "provenance.json")
        expected = np.mean([(1, 3)[number] for number in unseen or range(2)])
        head = read_volume(cohort / case / "t1.nii.gz").data > 0
        assert read_volume(out / case / "t2.nii.gz").data[head] == pytest.approx(expected)
        if len(unseen) == 1:
            assert (out / case / made["run"]).resolve() == folds[unseen[0]], "whose baselines count"
            assert (made["held_out_by"], made["split"]) == (unseen, "val")
    in_training = set(split[0]["train"]) & set(split[1]["train"])
    words = ("calibrate", folds[0], cohort, "--out-of-fold", folds[1])
    voxlate(*words, *(f"--exclude={case}" for case in in_training)).done()
    unseen = {*split[0]["train"], *split[0]["val"]} - in_training
    assert set(load(folds[0]).calibration().header.cases) == unseen


def test_members_of_another_brightness_are_refused(run):
    """A mean of an MR of 0 to 1 and one of 0 to 1,000 would be of neither; a window is the same in both."""
    one = load(run)

    def scaled(low, high, **changes):
        facts = replace(one.facts, target_scales={"t2": (low, high)}, **changes)
        return replace(one, facts=facts)

    own = {"intensity": {**one.facts.intensity, "t2": Percentile()}}
    bright = scaled(0, 1000, **own)
    Ensemble((bright, scaled(0, 990, **own)))
    for pair in (
        (bright, scaled(0, 1, **own)),
        (one, scaled(-200, 1400)),  # air would be a mean of 0 and -200
    ):
        with refuses("expected the range of t2 that"):
            Ensemble(pair)


def test_members_count_the_same_however_many_samples_they_drew():
    draw = np.random.default_rng(1)
    variances = []
    for _ in range(400):  # 2 and 3 images of one distribution: without bias whatever the counts
        pool, means = Moments(), []
        for count in (2, 3):
            samples = draw.normal(0, 1, (count, 50)).astype(np.float32)
            means.append(samples.mean(0))
            pool.add(means[-1], samples.std(0, ddof=1), count)
        assert_allclose(pool.mean, np.mean(means, axis=0), rtol=1e-4, atol=1e-6)
        variances.append(np.square(pool.sd()).mean())
    assert np.mean(variances) == pytest.approx(1, abs=0.03)


def test_members_that_make_something_else_are_refused(run):
    model = load(run)
    in_hu = replace(model, facts=replace(model.facts, units={"t1": "a.u.", "t2": "HU"}))
    with refuses(r"found one that makes t2 \[HU\]"):
        Ensemble((model, in_hu))


def test_runs_without_scans_are_refused(synth, run):
    assert "INPUT: expected scans after the runs" in synth(run, run).sentence
