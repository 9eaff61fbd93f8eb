"""Starters as runs, of whose modalities some can be taken, and the weights from which a stage is initialised."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from voxlate.base.errors import BadInput
from voxlate.base.hub import download, is_on_hub
from voxlate.science.methods.method import Method
from voxlate.science.nets.unet import ResidualUNet, narrow
from voxlate.training.recipe import FullStage
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
    """The method of a starter with the modalities of a stage alone."""
    method, recipe, _ = load_method(folder_of(source))
    own, data, net = recipe.data, stage.data, method.net
    names = read_card(folder_of(source)).match(data.source, data.target) or {}
    known = {theirs: name for name, theirs in names.items()}
    ins = [(known.get(name, name), step) for name, step in data.channels]
    outs = [known.get(name, name) for name in data.target]
    completes = recipe.task.completes
    same = (ins, outs, stage.task.completes) == (own.channels, own.target, completes)
    there = {*ins} <= {*own.channels} and {*outs} <= {*own.target}
    if there and not same and isinstance(net, ResidualUNet):
        places = [own.channels.index(channel) for channel in ins]
        targets = [own.target.index(name) for name in outs]
        missing = [float(channel not in ins) for channel in own.channels] if completes else []
        kept = places if stage.task.completes else ()
        method.net = narrow(net, places, targets, torch.tensor(missing), kept)
    return method


def copy_model(folder: Path, out: Path, name: Path | str) -> Path:
    """Copy a starter or a model of a hub into a folder of the user, which is then an ordinary run; an equal copy is kept.

    Raises BadInput if the folder holds other files.
    """
    weights = weights_of(folder)
    copied = Run(out).weights()
    if copied.exists() and read_header(copied)["sha256"] == read_header(weights)["sha256"]:
        return out
    if out.exists() and any(out.iterdir()):
        raise BadInput(
            f"{out}: expected an empty folder or a copy of {name}, found other files. Choose another --out."
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
    if not moving:
        raise BadInput(
            f"train.only: expected a part of the weights' names, such as {name}, found '{part}', which is in none that may move. Change it."
        )
