"""Runs as frozen networks whose features are compared in losses (methods.feature_loss)."""

from pathlib import Path

import torch
from torch import nn

from voxlate.base.errors import BadInput
from voxlate.science.nets.lpips import is_lpips
from voxlate.science.nets.vit import VitFeatures, is_vit
from voxlate.training.recipe import Recipe, to_dict
from voxlate.training.run import weights_of
from voxlate.training.starter import load_run, run_folder
from voxlate.training.weights import read_header


def frozen_network(path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The network of a run in evaluation, and the names of its input channels: one source, and its neighbours."""
    method, recipe, _ = load_run(path)
    return method.net, recipe.data.source_names


def check_features(recipe: Recipe) -> None:
    """Raise BadInput where a network of method.features does not take the target of its stage as it is."""
    for stage in recipe.all_stages:
        for loss in getattr(stage.method, "features", ()):
            if is_lpips(loss.network):
                if loss.layers:
                    raise BadInput(
                        f"method.features.layers: expected none for LPIPS, whose layers are fixed, found {', '.join(loss.layers)}. Remove them."
                    )
                continue
            if is_vit(loss.network):
                VitFeatures(loss.network, loss.layers, torch.device("cpu"))  # or BadInput
                continue
            header = read_header(weights_of(run_folder(loss.network)))["recipe"]
            sources = header["data"]["source"]
            predicts = header["method"]["kind"] == "regression"
            maps = [header["intensity"].get(name) for name in sources]
            wanted = [to_dict(recipe)["intensity"][name] for name in stage.data.target]
            if len(sources) != 1 or not predicts or maps != wanted:
                raise BadInput(
                    f"method.features: expected a run of a regression from one source with the intensity map {wanted} of the target, found {header['method']['kind']} from {', '.join(sources)} with {maps} in {loss.network}. Train one, or state that map."
                )
