"""The sharpness that the end of a training chooses: images vary as much as it was asked for."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from voxlate.batch import Batch
from voxlate.training.sharpness import LEAST, with_sharpness


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


def chosen(factor, **asked):
    truth = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) / 3
    ones = torch.ones_like(truth)
    names = {"source_names": ("mr",), "target_names": ("ct",)}
    present = torch.ones(2, 1, dtype=torch.bool)
    batch = Batch(
        source=ones, present=present, target=truth, mask=ones, item=torch.arange(2), **names
    )
    stage = SimpleNamespace(train=SimpleNamespace(precision="float32"))
    recipe = Stated(replace(Asked(), **asked))
    line = Line(truth, factor)
    return with_sharpness(recipe, stage, line, [batch], torch.device("cpu")).synth.sharpness


@pytest.mark.parametrize(("factor", "sharpness"), [(1.0, 0.5), (0.6, 0.85), (2.0, 0.25)])
def test_the_least_sharpness_with_the_gradient_ratio_is_chosen(factor, sharpness):
    assert chosen(factor) == pytest.approx(sharpness)


def test_samples_that_never_vary_enough_are_taken_as_they_are():
    assert chosen(0.2) == 1


def test_a_mean_that_varies_enough_gets_the_least_sharpness():
    assert chosen(1.0, gradient_ratio=0.01) == pytest.approx(LEAST)


def test_nothing_is_chosen_for_several_samples_or_without_a_wanted_ratio():
    assert chosen(2.0, samples=4) == 1
    assert chosen(2.0, gradient_ratio=None, sharpness=0.3) == 0.3
