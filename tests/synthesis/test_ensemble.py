"""Several runs as one: the mean of their images, and the spread over members and samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

from scans import t1_of
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Percentile
from voxlate.synthesis.ensemble import Ensemble, _Pool
from voxlate.synthesis.model import Synthesised
from voxlate.training import recipe
from voxlate.training.model import load
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import file_hash, load_method, save_weights


@pytest.fixture
def constant(once, prepared, tiny, tmp_path):
    """Makes a run whose every image is one value."""
    path = tmp_path / "constant.toml"
    path.write_text(tiny.read_text().replace("high = 1400", "high = 2048"))

    def make(value):
        chosen = recipe.read(str(path), {"train.steps": "1", "train.validate_every": "0"})
        run = tmp_path / f"constant{value:g}"
        text = f"1 step of {path.read_text()}"
        once(text, prepared, run, lambda: train(chosen, prepared, run, device="cpu"))
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


def test_members_of_one_and_three_have_a_mean_of_two_and_their_spread(
    voxlate, constant, cohort, tmp_path
):
    one, three, out = constant(1), constant(3), tmp_path / "out"
    voxlate("synth", one, three, cohort / "case0", "--out", out).done()
    head = read_volume(t1_of(cohort)["t1"]).data > 0
    mean = read_volume(out / "case0" / "t2.nii.gz").data
    sd = read_volume(out / "case0" / "t2_std_uncalibrated.nii.gz").data
    assert_array_equal(mean[head], 2)
    assert_allclose(sd[head], np.sqrt(2), rtol=1e-6)
    for folder in (out, out / "case0"):
        made = read_json(folder / "provenance.json")
        assert [each["weights"] for each in made["members"]] == [
            file_hash(Run(run).weights()) for run in (one, three)
        ]
        assert [(folder / place).resolve() for place in made["runs"]] == [one, three]
        assert (folder / made["run"]).resolve() == one
        assert made["model"]["title"] == "tiny (ensemble of 2)"
    again = voxlate("synth", one, three, cohort / "case0", "--out", out, "-v")
    assert "1 of 1 cases were synthesised before and are kept" in again.err
    other = voxlate("synth", three, one, one, cohort / "case0", "--out", out)
    assert "made in another way" in other.said


@pytest.mark.slow
def test_each_case_of_a_cross_validation_is_made_by_the_runs_that_did_not_see_it(
    voxlate, prepared, cohort, tiny, tmp_path
):
    tiny.write_text(tiny.read_text().replace("high = 1400", "high = 2048"))
    runs, cv = tmp_path / "runs", tmp_path / "cv"
    words = ("train", tiny, "--set", "train.steps=1", "--data", prepared, "--out")
    trained = voxlate(*words, runs, "--folds", 2, "--executor", "local", "--workers", 2)
    folds = [runs / f"fold{fold}" for fold in range(2)]
    assert all(f"{fold}" in trained.out for fold in folds)
    voxlate(*words, tmp_path / "alone", "--fold", 1).done()
    alone, by_worker = (load_file(Run(run).weights()) for run in (tmp_path / "alone", folds[1]))
    assert all(np.array_equal(alone[name], by_worker[name]) for name in alone)
    for value, fold in zip((1, 3), folds):
        _make_constant(fold, value)
    voxlate("synth", *folds, cohort, "--out", cv).done()
    split = [read_json(fold / "provenance.json")["data"]["splits"] for fold in folds]
    for case in sorted(path.name for path in cohort.glob("case*")):
        unseen = [number for number in range(2) if case not in split[number]["train"]]
        made = read_json(cv / case / "provenance.json")
        expected = np.mean([(1, 3)[number] for number in unseen or range(2)])
        head = read_volume(cohort / case / "t1.nii.gz").data > 0
        assert read_volume(cv / case / "t2.nii.gz").data[head] == pytest.approx(expected)
        if len(unseen) == 1:
            assert (cv / case / made["run"]).resolve() == folds[unseen[0]], "whose baselines count"
            assert (made["held_out_by"], made["split"]) == (unseen, "val")
    voxlate("evaluate", cv, "--truth", cohort).done()
    in_training = set(split[0]["train"]) & set(split[1]["train"])
    assert set(read_json(cv / "metrics.json")["trained_on"]) == in_training
    words = ("calibrate", folds[0], cohort, "--out-of-fold", folds[1], "--method", "constant")
    voxlate(*words, *(f"--exclude={case}" for case in in_training)).done()
    calibration = load(folds[0]).calibration().header
    unseen = {*split[0]["train"], *split[0]["val"]} - in_training
    assert set(calibration.cases) == unseen


def test_members_of_another_brightness_are_refused(run):
    """A mean of an MR of 0 to 1 and one of 0 to 1,000 would be of neither; a window is the same in both."""
    one = load(run)
    facts = replace(one.facts, intensity={**one.facts.intensity, "t2": Percentile()})
    bright, dark = (
        replace(one, facts=replace(facts, target_scales={"t2": (0, high)})) for high in (1000, 1)
    )
    with pytest.raises(BadInput, match="expected t2 as bright as"):
        Ensemble((bright, dark))
    Ensemble((bright, replace(bright, facts=replace(bright.facts, target_scales={"t2": (0, 990)}))))
    window = {"t2": (-200, 1400)}  # air would be a mean of 0 and -200
    with pytest.raises(BadInput, match=r"expected the window of t2 that .* has"):
        Ensemble((one, replace(one, facts=replace(one.facts, target_scales=window))))


@pytest.mark.slow
def test_equal_members_add_samples_that_tell_nothing_new(diffusion, cohort):
    """Each of n images is there twice: the same squares over 2n - 1 instead of n - 1 degrees of freedom."""
    alone = load(diffusion).synthesise(t1_of(cohort), samples=3)
    made = Ensemble((load(diffusion), load(diffusion))).synthesise(t1_of(cohort), samples=3)
    assert_array_equal(made.volume.data, alone.volume.data)
    assert_allclose(
        made.std["t2"].data, alone.std["t2"].data * np.sqrt(2 * 2 / 5), rtol=1e-5, atol=1e-4
    )
    assert made.provenance["network_calls"] == 2 * alone.provenance["network_calls"]


def test_members_count_the_same_however_many_samples_they_drew():
    draw = np.random.default_rng(1)
    variances = []
    for _ in range(400):  # 2 and 3 images of one distribution: without bias whatever the counts
        pool = _Pool()
        few, many = (draw.normal(0, 1, (count, 1, 1, 1, 50)) for count in (2, 3))
        pool.add(_made(few.astype(np.float32)), 2, "case")
        pool.add(_made(many.astype(np.float32)), 3, "case")
        assert_allclose(
            pool.mean["ct"].data, (few.mean(0) + many.mean(0)) / 2, rtol=1e-4, atol=1e-6
        )
        variances.append(np.square(pool.std()["ct"].data).mean())
    assert np.mean(variances) == pytest.approx(1, abs=0.03)


def _made(samples) -> Synthesised:
    def volume(data):
        return Volume(data.astype(np.float32), np.eye(4), "HU", "ct")

    return Synthesised({"ct": volume(samples.mean(0))}, {"ct": volume(samples.std(0, ddof=1))}, {})


@pytest.mark.slow
def test_members_that_make_something_else_are_refused(
    voxlate, run, prepared, tiny, cohort, out, tmp_path
):
    turned = {"data.source": '["t2"]', "data.target": '["t1"]', "train.steps": "1"}
    back = train(recipe.read(str(tiny), turned), prepared, tmp_path / "back", device="cpu").folder
    refusal = voxlate("synth", run, back, cohort, "--out", out).sentence
    assert "expected a model that makes t2 [a.u.] of t1 [a.u.], as" in refusal
    assert "found one that makes t1 [a.u.] of t2 [a.u.]" in refusal
    model = load(run)
    in_hu = replace(model, facts=replace(model.facts, units={"t1": "a.u.", "t2": "HU"}))
    with pytest.raises(BadInput, match=r"found one that makes t2 \[HU\]"):
        Ensemble((model, in_hu))


def test_runs_without_scans_are_refused(voxlate, run, out):
    refusal = voxlate("synth", run, run, "--out", out).sentence
    assert "INPUT: expected scans after the runs" in refusal
