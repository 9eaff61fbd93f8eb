"""How long a training is, and how much of its time validation takes."""

import math

from refusals import refuses
from rows import slow
from trainings import log_lines, recipe_of_text, same_weights
from voxlate.training import recipe


@slow
def test_a_length_in_epochs_is_that_in_steps_once_the_cohort_is_known(read_tiny, fit):
    few = {"batch": 12, "validate_every": 0}
    run = fit(read_tiny(epochs=1, **few))
    saved = recipe.read(str(run.recipe))
    assert (saved.train.epochs, saved.train.steps) == (1, 2), "24 items of 12"
    assert same_weights(run, fit(read_tiny(steps=2, **few), "steps"))
    fit(saved)  # the run's own recipe is the same run


def test_one_length_replaces_the_other_and_both_must_agree(tiny, read_tiny, fit, tmp_path):
    assert read_tiny(epochs=2).train.steps == 0
    path = tmp_path / "more.toml"
    path.write_text(f'base = "{tiny}"\ntrain = {{ epochs = 3 }}\n')
    more = recipe.read(str(path))
    assert (more.train.steps, more.train.epochs) == (0, 3)
    assert recipe.read(str(path), {"train.steps": "9"}).train.epochs is None
    both = recipe_of_text(tiny.read_text().replace("steps = 6,", "steps = 6, epochs = 50,"))
    with refuses(r"expected train\.epochs or train\.steps, found both"):
        fit(both)
    with refuses(r"expected train\.steps from 1, or train\.epochs, found 0"):
        read_tiny(steps=0)


@slow
def test_validation_takes_at_most_a_twentieth_of_every_shipped_training():
    for name in recipe.names():
        made = recipe.read(name)
        for stage in made.all_stages:
            if stage.method.iterates:
                each = 1 + stage.validation_sampling(made.synth).evaluations
                assert each <= stage.affordable, (name, stage.name)


@slow
def test_how_validation_draws_does_not_change_the_weights(voxlate, prepared, tiny, tmp_path):
    for name, steps in {"few": 2, "many": 5}.items():
        line = ("train", tiny, "--data", prepared, "--out", tmp_path / name, "--device", "cpu")
        keys = ['method={kind = "diffusion"}', f"synth.steps={steps}"]
        voxlate(*line, *(f"--set={key}" for key in keys)).done()
    assert same_weights(tmp_path / "few", tmp_path / "many")
    lines = log_lines(tmp_path / "few", "validation")
    assert all(math.isfinite(line["validation"]["mae"]) for line in lines)
