"""Recipes of regressions, and models in memory whose networks tests write themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlate.synthesis.model import Model
from voxlate.training.recipe import Recipe, from_dict
from voxlate.training.torch_network import TorchNetwork, model_facts


class Answering(torch.nn.Module):
    """A method that keeps its batches, and answers with answer(source, noise), or with the first channel."""

    net = torch.nn.Identity()

    def __init__(self, answer: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.batches: list[Any] = []

    def synthesise(self, batch: Any, noise: object, sampling: object) -> Tensor:
        self.batches.append(batch)
        return self.answer(batch.source, noise) if self.answer else batch.source[:, :1]

    @property
    def seen(self) -> list[Tensor]:
        """The source of each item [C, D, H, W]."""
        return [source for batch in self.batches for source in batch.source]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of `seen`."""
        return [tuple(source.shape) for source in self.seen]


def recipe_of(data: dict[str, Any], intensity: dict[str, Any], **tables: Any) -> Recipe:
    """A recipe of a regression in float32, with these tables."""
    recipe = {
        "title": "stand-in",
        "data": data,
        "intensity": intensity,
        "method": {"kind": "regression"},
        "train": {"precision": "float32"},
    }
    return from_dict(recipe | tables, "here", allow_code=True)


def model_of(method: Any, recipe: Recipe, units: dict[str, str], /, **header: Any) -> Model:
    """A model on the CPU, without the anatomy and the calibrations of a folder.

    units: of its modalities; header: further entries of the header of its weights.
    """
    scales = {name: recipe.intensity[name].window for name in recipe.data.target}
    header = {"target_scales": scales, "weights_hash": "", "steps": 0, "units": units, **header}
    network = TorchNetwork(method, recipe, header, torch.device("cpu"), "cpu")
    return Model(model_facts(recipe, header), network, Path("run"))
