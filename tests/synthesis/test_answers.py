"""One training, two answers: the predictor's image, which is the mean, and a sample."""

import pytest
from numpy.testing import assert_allclose, assert_array_equal

import voxlate as package
from scans import t1_of
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.scans.formats.io import read_volume
from voxlate.training.model import load
from voxlate.training.run import Run
from voxlate.training.weights import file_hash

RESIDUAL = """
title = "tiny residual"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "residual", predictor = "base" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, validate_every = 0 }
synth = { sampler = "ddim", steps = 2 }
[[stages]]
name = "base"
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, validate_every = 0 }
"""


@pytest.fixture
def residual(trained):
    return trained("residual", RESIDUAL)


def images_of(run, cohort, answer=None, **options):
    """The synthesised image of one scan."""
    return load(run, answer=answer).synthesise(t1_of(cohort), **options).volume.data


def test_the_mean_answer_is_the_predictors_own_image(voxlate, residual, cohort, out):
    alone = load(Run(residual).weights("base")).synthesise(t1_of(cohort))
    assert alone.provenance["model"]["title"] == "tiny residual (base alone)"
    own = alone.volume
    mean = package.load(residual, answer="mean").synthesise(t1_of(cohort)).volume
    assert_array_equal(mean.data, own.data)
    voxlate("synth", residual, cohort / "case0", "--out", out, "--answer", "mean").done()
    assert_array_equal(read_volume(out / "case0" / "t2.nii.gz").data, own.data)
    made = read_json(out / "case0" / "provenance.json")
    assert made["run"].endswith("residual/weights.base.safetensors")
    assert made["model"]["weights"] == file_hash(Run(residual).weights("base"))
    assert made["split"] in ("train", "val", "test")  # as the run has it, which the weights lie in


@pytest.mark.slow
def test_a_predictor_that_mirrors_does_so_alone_and_in_no_sample(trained, residual, cohort):
    mirrors = trained("mirrors", RESIDUAL.replace('name = "base"', 'name = "base"\nmirror = true'))
    own, wanted = (images_of(residual, cohort, "mean", mirror=mirror) for mirror in (False, True))
    assert (own != wanted).any()
    assert_array_equal(images_of(mirrors, cohort, "mean"), wanted)
    sample, as_before = (images_of(one, cohort) for one in (mirrors, residual))
    assert_array_equal(sample, as_before)


def test_a_regression_has_its_image_for_a_mean_and_no_sample(voxlate, run, cohort, out):
    assert_array_equal(images_of(run, cohort), images_of(run, cohort, "mean"))
    answer = voxlate("synth", run, cohort / "case0", "--out", out, "--answer", "sample")
    assert "found 'tiny', which makes one image of a case" in answer.sentence
    assert voxlate("synth", run, cohort / "case0", "--out", out, "--keep-states", 3).sentence


@pytest.mark.slow
@pytest.mark.parametrize("made_by", ["latent", "diffusion"])
def test_states_of_the_reverse_process_are_written_up_to_the_image(
    voxlate, request, cohort, out, made_by
):
    line = ("synth", request.getfixturevalue(made_by), cohort / "case0", "--out", out)
    voxlate(*line).done()
    image = read_volume(out / "case0" / "t2.nii.gz")
    voxlate(*line, "--keep-states", 3).done()
    states = sorted((out / "case0" / "states").iterdir())
    assert [path.name for path in states] == ["states.png", *(f"t2_{k}.nii.gz" for k in (1, 2, 3))]
    first, *_, last = (read_volume(path).data for path in states[1:])
    shown = image.data != 0  # empty slices of an image become background, those of states do not
    assert_array_equal(last[shown], image.data[shown])
    assert (first[shown] != last[shown]).mean() > 0.9


def test_a_diffusion_without_predictor_points_to_the_mean_of_its_samples(
    voxlate, diffusion, cohort, out
):
    answer = voxlate("synth", diffusion, cohort / "case0", "--out", out, "--answer", "mean")
    assert "--samples 10" in answer.sentence
    with pytest.raises(BadInput, match="found 'median'"):
        load(diffusion, answer="median")


def test_sharpness_goes_from_the_mean_answer_to_the_sample_in_a_straight_line(residual, cohort):
    mean, sample = (images_of(residual, cohort, answer) for answer in ("mean", "sample"))
    assert (sample != mean).any()
    assert_array_equal(images_of(residual, cohort), sample)
    assert_array_equal(images_of(residual, cohort, sharpness=0), mean)
    assert_array_equal(images_of(residual, cohort, sharpness=1), sample)
    quarter = images_of(residual, cohort, sharpness=0.25)
    assert_allclose(quarter, mean + 0.25 * (sample - mean), rtol=0, atol=1e-3)


@pytest.mark.slow
def test_sharpness_0_mirrors_as_its_mean_stage_does_and_runs_no_sampler(trained, cohort):
    mirrors = trained("mirrors", RESIDUAL.replace('name = "base"', 'name = "base"\nmirror = true'))
    mean, blurred = (
        load(mirrors, answer=answer).synthesise(t1_of(cohort), **options)
        for answer, options in (("mean", {}), (None, {"sharpness": 0}))
    )
    assert_array_equal(mean.volume.data, blurred.volume.data)
    assert mean.provenance["network_calls"] == blurred.provenance["network_calls"] == 2


def test_the_provenance_states_the_sharpness_of_an_image_between_mean_and_sample(
    voxlate, residual, cohort, out
):
    case = (residual, cohort / "case0", "--out", out)
    voxlate("synth", *case).done()
    assert read_json(out / "case0" / "provenance.json")["synth"]["sharpness"] == 1
    again = voxlate("synth", *case, "--sharpness", 0.5).done()
    assert "synthesised again" in again.out + again.err
    stated = read_json(out / "case0" / "provenance.json")
    assert stated["synth"]["sharpness"] == 0.5
    assert (
        stated["network_calls"] == 4
    )  # of the mean, and of the sample from its own mean in two steps


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sharpness": 0.5, "samples": 4}, "expected one sample, because the mean of several"),
        ({"sharpness": 0, "steps": 4}, "for sharpness 0, which draws no noise, found steps"),
        ({"sharpness": 1.5}, "sharpness: expected 0 to 1"),
    ],
)
def test_a_sharpness_that_contradicts_other_options_is_refused(residual, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        load(residual).with_options(**options)


def test_models_that_lack_a_mean_or_a_sample_have_no_sharpness(residual, diffusion):
    for model in (load(diffusion), load(residual, answer="mean")):
        with pytest.raises(
            BadInput, match=r"expected samples of a model with a mean prediction, found '.*'"
        ):
            model.with_options(sharpness=0.5)


@pytest.mark.slow
def test_one_flow_from_the_mean_serves_any_number_of_steps_and_sharpness_0_is_its_mean(
    trained, cohort
):
    text = RESIDUAL.replace('sampler = "ddim", ', "").replace("diffusion", "flow")
    run = trained("flow", text)
    one, four = (load(run).synthesise(t1_of(cohort), steps=steps) for steps in (1, 4))
    assert (one.provenance["network_calls"], four.provenance["network_calls"]) == (2, 5)
    codes = [{note.code for note in result.warnings} for result in (one, four)]
    odd = load(run).synthesise(t1_of(cohort), steps=3, warn=lambda _: None)
    assert not any("flow-steps" in found for found in codes)
    said = next(note for note in odd.warnings if note.code == "flow-steps")
    assert "3 steps, of a size for which it was not trained: 1, 2, 4, 8 steps are" in said.text
    assert (one.volume.data != four.volume.data).any()
    mean = images_of(run, cohort, "mean")
    assert_array_equal(images_of(run, cohort, sharpness=0), mean)
