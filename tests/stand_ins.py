"""Recipes of regressions, and models in memory whose networks tests write themselves."""

from pathlib import Path
from typing import Any

import torch

from voxlate.synthesis.model import Model
from voxlate.training.recipe import Recipe, from_dict
from voxlate.training.torch_network import TorchNetwork, model_facts


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
