"""The sharpness that the end of a training chooses: images vary as much as it was asked for."""

from types import SimpleNamespace

import pytest
import torch

from rows import every_row, slow
from voxlate.science.batch import Batch
from voxlate.training.load import load
from voxlate.training.validate import LEAST_SHARPNESS, choose_sharpness, draw


class Line:
    """A mean without any variation, and samples that vary `factor` times as much as the truth."""

    def __init__(self, truth, factor):
        self.predictor = SimpleNamespace(synthesise=lambda *_: torch.zeros_like(truth))
        self.synthesise = lambda *_: factor * truth
        self.as_at_inference = lambda batch: batch


def pair():
    truth = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) / 30
    ones, present = torch.ones_like(truth), torch.ones(2, 1, dtype=torch.bool)
    names = {"source_names": ("mr",), "target_names": ("ct",)}
    return Batch(ones, ones, present, torch.arange(2), target=truth, **names)


def chosen(factor, **asked):
    batch = pair()
    stage = SimpleNamespace(train=SimpleNamespace(precision="float32"))
    synth = {"gradient_ratio": 0.5, "samples": 1, "sharpness": 1.0, **asked}
    recipe, line = SimpleNamespace(synth=SimpleNamespace(**synth)), Line(batch.target, factor)
    found = choose_sharpness(recipe, stage, line, [batch], torch.device("cpu"))
    return found and found[0]


def test_images_are_clipped_as_synthesis_writes_them():
    batch = pair()
    _, images = draw(Line(batch.target, 1000), batch, None, "float32", (0.0, 1.0))
    assert [image.abs().max() for image in images] == [0, 1]


@every_row(
    "factor, ratio, sharpness",
    [
        (1.0, 0.5, 0.5),
        (0.6, 0.5, 0.85),
        (2.0, 0.5, 0.25),
        (0.2, 0.5, 1),  # samples never vary enough
        (1.0, 0.01, LEAST_SHARPNESS),  # the mean varies enough
    ],
)
def test_the_least_sharpness_with_the_gradient_ratio_is_chosen(factor, ratio, sharpness):
    assert chosen(factor, gradient_ratio=ratio) == pytest.approx(sharpness)


def test_nothing_is_chosen_for_several_samples_or_without_a_wanted_ratio():
    assert chosen(2.0, samples=4) is None
    assert chosen(2.0, gradient_ratio=None) is None
    assert chosen(2.0, sharpness=0.3) is None, "a stated sharpness stays"
    assert chosen(float("nan")) is None


@slow
def test_a_run_states_the_sharpness_that_its_training_chose(read_two, fit):
    said = []
    run = fit(read_two({"synth.gradient_ratio": "0.001"}), say=said.append)
    sharpness = load(run.folder).network.recipe.synth.sharpness
    assert sharpness == pytest.approx(LEAST_SHARPNESS)
    for options, wanted in (({"samples": 2}, 1), ({"sharpness": 0.5}, 0.5)):
        drawn = load(run.folder).with_options(**options)
        assert drawn.network.recipe.synth.sharpness == wanted
    assert [one.numbers["place"] for one in said if one.code == "sharpness"] == [sharpness]
