"""The sharpness of a model of mean and samples, chosen at the end of its training on validation items.

A network that learned for minutes leaves too much variation in its samples, one that learned for hours too little. The
place on the line from the mean to a sample (Freirich et al. 2021) at which images vary as much as true ones is
therefore measured.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from voxlate.science.batch import Batch
from voxlate.science.methods.method import Method
from voxlate.training.recipe import FullStage, Recipe
from voxlate.training.validate import draw

LEAST_SHARPNESS = 0.05  # below it an image is the mean, whose texture is blurred
PLACES = torch.linspace(LEAST_SHARPNESS, 1, 20).tolist()


@dataclass(frozen=True)
class Sharpness:
    """A place on the line from the mean (0) to the sample (1), and the gradient ratio of validation images there."""

    place: float
    ratio: float


@torch.no_grad()
def choose_sharpness(
    recipe: Recipe,
    stage: FullStage,
    method: Method,
    items: Iterable[Batch],
    device: torch.device,
) -> Sharpness | None:
    """The least sharpness at which images have the gradient ratio that a recipe asks for, or 1 if none has.

    None if the recipe asks for no ratio, or states a sharpness of its own.
    """
    synth = recipe.synth
    if synth.gradient_ratio is None or synth.samples > 1 or synth.sharpness < 1:
        return None
    found, wanted = torch.zeros(len(PLACES)), 0.0
    for batch in items:
        _, images = draw(method, batch.to(device), synth, stage.train.precision, PLACES)
        assert batch.target is not None
        wanted += _variation(batch.target)
        found += torch.tensor([_variation(image) for image in images])
    if not wanted or not found.isfinite().all():
        return None
    reached = (found >= synth.gradient_ratio * wanted).nonzero()
    place = int(reached[0]) if len(reached) else len(PLACES) - 1
    return Sharpness(round(PLACES[place], 2), float(found[place]) / wanted)


def _variation(image: Tensor) -> float:
    """The sum of the differences between rows, as the score gradient_strength has it."""
    return float(image.diff(dim=-2).abs().sum())
