"""Starters as runs, of whose modalities some can be taken, and the weights from which a stage is initialised."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from voxlate.base.errors import BadInput
from voxlate.base.hub import download, is_on_hub
from voxlate.science.methods.method import Method
from voxlate.science.nets.unet import ResidualUNet, narrow
from voxlate.training.recipe import FullStage, Recipe
from voxlate.training.run import Run, weights_of
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import folder_of, is_starter
from voxlate.training.weights import load_method, read_header


def run_folder(run: Path | str) -> Path:
    """The path of a run; of starter:NAME and hf://NAME/REPO its folder."""
    if is_on_hub(run):
        return download(run)
    return folder_of(run) if is_starter(run) else Path(run)


def starter_for(source: Path | str, stage: FullStage) -> Method:
    """The method of a starter with the modalities of a stage alone.

    Where its card matches no names, the order of the modalities decides.
    """
    method, recipe, _ = load_method(folder_of(source))
    own, data = recipe.data, stage.data
    names = read_card(folder_of(source)).match(data.source, data.target)
    if names is None:
        names = dict(zip([*own.source, *own.target], [*data.source, *data.target]))
    known = {theirs: name for name, theirs in names.items()}
    _take_modalities(method, recipe, stage, known)
    return method


def _take_modalities(
    method: Method, recipe: Recipe, stage: FullStage, known: Mapping[str, str]
) -> None:
    """Leave the channels of a stage's modalities in a starter's network; known: its own names by those of the stage."""
    own, data, net = recipe.data, stage.data, method.net
    ins = [(known.get(name, name), step) for name, step in data.channels]
    outs = [known.get(name, name) for name in data.target]
    there = {*ins} <= {*own.channels} and {*outs} <= {*own.target}
    same = (ins, outs) == (
        own.channels,
        own.target,
    ) and recipe.task.completes == stage.task.completes
    if same or not there or not isinstance(net, ResidualUNet):
        return
    places = [own.channels.index(channel) for channel in ins]
    code = torch.zeros(0)
    if recipe.task.completes:
        code = torch.tensor([float(channel not in ins) for channel in own.channels])
    method.net = narrow(
        net,
        places,
        [own.target.index(name) for name in outs],
        code,
        places if stage.task.completes else (),
    )


def copy_model(folder: Path, out: Path, name: Path | str) -> Path:
    """Copy a starter or a model of a hub into a folder of the user, which is then an ordinary run; an equal copy is kept.

    Raises BadInput if the folder holds other files.
    """
    weights = weights_of(folder)
    copied = Run(out).weights()
    is_run = copied.exists()
    if is_run and read_header(copied)["sha256"] == read_header(weights)["sha256"]:
        return out
    if is_run or (out.exists() and any(out.iterdir())):
        raise BadInput(
            f"{out}: expected an empty folder or a copy of {name}, found {'another run' if is_run else 'other files'}. Choose another --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    stages = (file for file in sorted(folder.glob("weights.*.safetensors")) if file != weights)
    for file in (run.recipe, run.anatomy, *stages, weights):  # the weights make it a run
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    return out


def initial_method(stage: FullStage, earlier: Mapping[str, Method]) -> Method:
    """The method of a stage before its first step."""
    method, source = stage.build(earlier), stage.start_from
    if source is not None:
        first = starter_for(source, stage) if is_starter(source) else earlier[source]
        start_from(method, first, source)
    if stage.train.only is not None:
        train_only(method, stage.train.only)
    return method


def start_from(method: Method, earlier: Method, name: str) -> None:
    """Copy the weights of an earlier stage's method, except for its opponent; other weights stay random.

    Raises BadInput if a weight has no counterpart with its name and shape.
    """
    here = method.without_opponent.state_dict()
    there = earlier.without_opponent.state_dict()
    for key, tensor in there.items():
        if key not in here or here[key].shape != tensor.shape:
            shape = tuple(here[key].shape) if key in here else "none"
            raise BadInput(
                f"start_from = '{name}': expected a weight for each of its weights, found {shape} for '{key}' of shape {tuple(tensor.shape)}. Use the same networks except for new parts."
            )
    method.without_opponent.load_state_dict({**here, **there})


def train_only(method: Method, part: str) -> None:
    """Freeze all weights without this part in their dotted name, except for critics; raises BadInput if none remains."""
    moving = 0
    for name, parameter in method.without_opponent.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and f".{part}." in f".{name}.")
        moving += parameter.requires_grad
    for module in method.without_opponent.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if frozen and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # its statistics are no parameters, but would move
    if not moving:
        paths = [name.split(".")[:-1] for name, _ in method.without_opponent.named_parameters()]
        names = sorted(set[str]().union(*paths))
        raise BadInput(
            f"train.only: expected a part of the weights' names ({', '.join(names[:12])}, …), found '{part}', which is in none that may move. Change it."
        )
