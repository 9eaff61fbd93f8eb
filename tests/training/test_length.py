"""How long a training is, and how much of its time validation takes."""

import math

import pytest

from trainings import log_lines, same_weights
from voxlate.base.errors import BadInput
from voxlate.training import recipe
from voxlate.training.network import count_calls
from voxlate.training.recipe.training import VALIDATION_SHARE
from voxlate.training.train import train


@pytest.mark.slow
def test_a_length_in_epochs_is_that_in_steps_once_the_cohort_is_known(prepared, tiny, tmp_path):
    few = {"train.batch": "12", "train.validate_every": "0"}
    by_epochs = recipe.read(str(tiny), few | {"train.epochs": "1"})
    run = train(by_epochs, prepared, tmp_path / "epochs", device="cpu")
    saved = recipe.read(str(run.recipe))
    assert (saved.train.epochs, saved.train.steps) == (1, 2), "24 items of 12"
    by_steps = recipe.read(str(tiny), few | {"train.steps": "2"})
    assert same_weights(run, train(by_steps, prepared, tmp_path / "steps", device="cpu"))
    train(saved, prepared, run.folder, device="cpu")  # the run's own recipe is the same run


def test_one_length_replaces_the_other_and_both_must_agree(prepared, tiny, tmp_path):
    assert recipe.read(str(tiny), {"train.epochs": "2"}).train.steps == 0
    (tmp_path / "more.toml").write_text(f'base = "{tiny}"\ntrain = {{ epochs = 3 }}\n')
    more = recipe.read(str(tmp_path / "more.toml"))
    assert (more.train.steps, more.train.epochs) == (0, 3)
    assert recipe.read(str(tmp_path / "more.toml"), {"train.steps": "9"}).train.epochs is None
    (tmp_path / "both.toml").write_text(
        tiny.read_text().replace("steps = 6,", "steps = 6, epochs = 50,")
    )
    with pytest.raises(BadInput, match=r"expected train\.epochs or train\.steps, found both"):
        train(recipe.read(str(tmp_path / "both.toml")), prepared, tmp_path / "run", device="cpu")
    with pytest.raises(BadInput, match=r"expected train\.steps from 1, or train\.epochs, found 0"):
        recipe.read(str(tiny), {"train.steps": "0"})


@pytest.mark.slow
def test_validation_takes_at_most_a_twentieth_of_every_shipped_training():
    for name in recipe.names():
        made = recipe.read(name)
        for stage in made.all_stages:
            share = stage.validation_share(stage.validation_sampling(made.synth))
            assert share <= VALIDATION_SHARE, (name, stage.name, share)


def test_validation_is_counted_as_it_is(prepared, tiny, tmp_path, monkeypatch):
    """The counted evaluations of the averaged network are those that the recipe promises."""
    changes = {
        "method.kind": "diffusion",
        "train.validate_every": "3",
        "train.validation_items": "4",
    }
    drawing = {"synth.sampler": "ddpm", "synth.steps": "500", "synth.keep_states": "3"}
    made = recipe.read(str(tiny), {**changes, **drawing})
    (stage,) = made.all_stages
    sampling, counted = stage.validation_sampling(made.synth), []
    assert (sampling.sampler, sampling.steps) == ("ddim", 1)

    from voxlate.training import loop as module

    validate = module.validate

    def counting(method, *others):
        with count_calls(method.net) as calls:
            scores = validate(method, *others)
        counted.append(calls.count)
        return scores

    monkeypatch.setattr(module, "validate", counting)
    train(made, prepared, tmp_path / "run", device="cpu")
    assert counted == [4 * stage.evaluations(sampling)] * 2


@pytest.mark.slow
def test_how_validation_draws_does_not_change_the_weights(voxlate, prepared, tiny, tmp_path):
    for name, change in {"few": "{steps = 2}", "many": '{sampler = "heun", steps = 5}'}.items():
        line = ("train", tiny, "--data", prepared, "--out", tmp_path / name, "--device", "cpu")
        keys = ['method={kind = "diffusion"}', f"train.validation={change}"]
        answer = voxlate(*line, *(f"--set={key}" for key in keys), "--verbose").done()
        assert "note: validation of stage 'final' every 3 steps: 8 items drawn by" in answer.err
    assert same_weights(tmp_path / "few", tmp_path / "many")
    lines = log_lines(tmp_path / "few", "validation")
    assert all(math.isfinite(line["validation"]["mae"]) for line in lines)
