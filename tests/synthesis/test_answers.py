"""One training, two answers: the predictor's image, which is the mean, and a sample."""

import shutil

from numpy.testing import assert_allclose, assert_array_equal

from refusals import refuses
from rows import every_row, slow
from scans import t1_of
from voxlate.base.executors.case_work import no_report
from voxlate.base.files import file_hash, read_json
from voxlate.scans.formats.io import read_volume
from voxlate.training.load import load
from voxlate.training.run import Run


def images_of(run, cohort, answer=None, **options):
    """The synthesised image of one scan."""
    return load(run, answer=answer).synthesise(t1_of(cohort), **options).volume.data


def test_the_mean_answer_is_the_predictors_own_image(synth, residual, cohort, out):
    weights = Run(residual).weights("base")
    alone = load(weights).synthesise(t1_of(cohort))
    assert alone.provenance["model"]["title"] == "tiny residual (base alone)"
    own = alone.volume.data
    assert_array_equal(images_of(residual, cohort, "mean"), own)
    synth(residual, cohort / "case0", "--answer", "mean").done()
    assert_array_equal(read_volume(out / "case0/t2.nii.gz").data, own)
    made = read_json(out / "case0/provenance.json")
    assert made["run"].endswith("residual/weights.base.safetensors")
    assert made["model"]["weights"] == file_hash(weights)
    assert made["split"] in ("train", "val", "test")  # as the run has it, which the weights lie in


def test_a_regression_has_its_image_for_a_mean_and_no_sample(synth, run, cohort):
    assert_array_equal(images_of(run, cohort), images_of(run, cohort, "mean"))
    answer = synth(run, cohort / "case0", "--answer", "sample")
    assert "found 'tiny'" in answer.sentence
    assert synth(run, cohort / "case0", "--keep-states", 3).sentence


@slow
def test_states_of_the_reverse_process_are_written_up_to_the_image(
    synth, latent, diffusion, cohort, out
):
    for run in (latent, diffusion):
        synth(run, cohort / "case0").done()
        image = read_volume(out / "case0/t2.nii.gz").data
        synth(run, cohort / "case0", "--keep-states", 3).done()
        names = [path.name for path in sorted((out / "case0/states").iterdir())]
        assert names == [f"t2_{k}.nii.gz" for k in (1, 2, 3)]
        first, last = (read_volume(out / "case0/states" / name).data for name in names[::2])
        shown = image != 0  # empty slices of an image become background, those of states do not
        assert_array_equal(last[shown], image[shown])
        assert (first[shown] != last[shown]).mean() > 0.9
        shutil.rmtree(out)


def test_a_diffusion_without_predictor_points_to_the_mean_of_its_samples(synth, diffusion, cohort):
    answer = synth(diffusion, cohort / "case0", "--answer", "mean")
    assert "--samples 10" in answer.sentence


def test_sharpness_goes_from_the_mean_answer_to_the_sample_in_a_straight_line(residual, cohort):
    mean, sample = (images_of(residual, cohort, answer) for answer in ("mean", "sample"))
    assert (sample != mean).any()
    assert_array_equal(images_of(residual, cohort), sample)
    for sharpness in (0, 0.25, 1):
        between = images_of(residual, cohort, sharpness=sharpness)
        assert_allclose(between, mean + sharpness * (sample - mean), rtol=0, atol=1e-3)


@every_row(
    "options, sentence",
    [
        ({"sharpness": 0.5, "samples": 4}, "expected one sample, because the mean of several"),
        ({"sharpness": 0, "steps": 4}, "synth.steps: expected no option of the sampling"),
        ({"sharpness": 1.5}, "sharpness: expected it to be at most 1"),
    ],
)
def test_a_sharpness_that_contradicts_other_options_is_refused(residual, options, sentence):
    with refuses(sentence):
        load(residual).with_options(**options)


def test_models_that_lack_a_mean_or_a_sample_have_no_sharpness(residual, diffusion):
    refusal = "synth.sharpness: expected a model with a mean prediction"
    for model in (load(diffusion), load(residual, answer="mean")):
        with refuses(refusal):
            model.with_options(sharpness=0.5)


@slow
def test_one_flow_from_the_mean_serves_any_number_of_steps_and_sharpness_0_is_its_mean(
    trained, residual, cohort, tmp_path
):
    text = (tmp_path / "residual.toml").read_text()
    run = trained("flow", text.replace('sampler = "ddim", ', "").replace("diffusion", "flow"))
    one, three, four = (
        load(run).synthesise(t1_of(cohort), steps=steps, warn=no_report) for steps in (1, 3, 4)
    )
    assert (one.provenance["network_calls"], four.provenance["network_calls"]) == (2, 5)
    codes = [{note.code for note in result.warnings} for result in (one, three, four)]
    assert ["flow-steps" in found for found in codes] == [False, True, False]
    said = next(note for note in three.warnings if note.code == "flow-steps")
    assert "3 steps, of a size for which it was not trained: 1, 2, 4, 8 steps are" in said.text
    assert (one.volume.data != four.volume.data).any()
    assert_array_equal(images_of(run, cohort, sharpness=0), images_of(run, cohort, "mean"))
