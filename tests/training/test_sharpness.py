"""The sharpness that the end of a training chooses: images vary as much as it was asked for."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from voxlate.science.batch import Batch
from voxlate.training.model import load
from voxlate.training.sharpness import LEAST_SHARPNESS, choose_sharpness
from voxlate.training.validate import draw

NET = 'net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }'
TRAIN = 'train = { steps = 2, batch = 2, precision = "float32", workers = 0, validate_every = 0 }'
TWO_STAGES = f"""
title = "a mean, and samples of its residual"
task = {{ kind = "residual", predictor = "regression" }}
data = {{ source = ["t1"], target = ["t2"], patch = [1, 24, 20] }}
intensity = {{ t1 = {{ kind = "window", low = 0, high = 1200 }}, t2 = {{ kind = "window", low = 0, high = 1400 }} }}
method = {{ kind = "diffusion" }}
{NET}
{TRAIN}
"""
PREDICTOR = f"""
[[stages]]
name = "regression"
method = {{ kind = "regression" }}
{NET}
{TRAIN}
"""


@dataclass(frozen=True)
class Asked:
    """The keys of a recipe's synth that decide."""

    gradient_ratio: float | None = 0.5
    samples: int = 1
    sharpness: float = 1.0


@dataclass(frozen=True)
class Stated:
    synth: Asked


class Line:
    """A mean without any variation, and samples that vary `factor` times as much as the truth."""

    def __init__(self, truth, factor):
        self.predictor = SimpleNamespace(synthesise=lambda *_: torch.zeros_like(truth))
        self.synthesise = lambda *_: factor * truth
        self.as_at_inference = lambda batch: batch


def pair() -> Batch:
    truth = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) / 30
    ones = torch.ones_like(truth)
    names = {"source_names": ("mr",), "target_names": ("ct",)}
    present = torch.ones(2, 1, dtype=torch.bool)
    return Batch(
        source=ones, present=present, target=truth, mask=ones, item=torch.arange(2), **names
    )


def chosen(factor, **asked):
    batch = pair()
    stage = SimpleNamespace(train=SimpleNamespace(precision="float32"))
    recipe = Stated(replace(Asked(), **asked))
    line = Line(batch.target, factor)
    found = choose_sharpness(recipe, stage, line, [batch], torch.device("cpu"))
    return None if found is None else found.place


def test_images_are_clipped_as_synthesis_writes_them():
    batch = pair()
    _, images = draw(Line(batch.target, 1000), batch, None, "float32", (0.0, 1.0))
    assert [image.abs().max() for image in images] == [0, 1]


@pytest.mark.parametrize(("factor", "sharpness"), [(1.0, 0.5), (0.6, 0.85), (2.0, 0.25)])
def test_the_least_sharpness_with_the_gradient_ratio_is_chosen(factor, sharpness):
    assert chosen(factor) == pytest.approx(sharpness)


def test_samples_that_never_vary_enough_are_taken_as_they_are():
    assert chosen(0.2) == 1


def test_a_mean_that_varies_enough_gets_the_least_sharpness():
    assert chosen(1.0, gradient_ratio=0.01) == pytest.approx(LEAST_SHARPNESS)


def test_nothing_is_chosen_for_several_samples_or_without_a_wanted_ratio():
    assert chosen(2.0, samples=4) is None
    assert chosen(2.0, gradient_ratio=None) is None
    assert chosen(2.0, sharpness=0.3) is None, "a stated sharpness stays"
    assert chosen(float("nan")) is None


@pytest.mark.slow
def test_a_run_states_the_sharpness_that_its_training_chose(voxlate, prepared, cohort, tmp_path):
    text = (
        TWO_STAGES + 'synth = { sampler = "ddim", steps = 2, gradient_ratio = 0.001 }\n' + PREDICTOR
    )
    (tmp_path / "two.toml").write_text(text)
    run = tmp_path / "run"
    voxlate("train", tmp_path / "two.toml", "--data", prepared, "--out", run).done()
    made = load(run).network.recipe.synth
    assert made.sharpness == pytest.approx(LEAST_SHARPNESS)
    assert load(run).with_options(samples=2).network.recipe.synth.sharpness == 1
    assert load(run).with_options(sharpness=0.5).network.recipe.synth.sharpness == 0.5
    for extra in ((), ("--answer", "mean"), ("--samples", 2)):
        out = tmp_path / f"out{len(extra)}{extra[-1] if extra else ''}"
        voxlate("synth", run, cohort / "case0", "--out", out, *extra).done()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["sharpness"]["place"] for line in lines if "sharpness" in line] == [made.sharpness]
