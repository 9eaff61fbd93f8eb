"""Models of other packages as runs: what their files state, and what a user must state in addition."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.base.records import Record
from voxlate.exchange.imported import compare_shapes, write_imported
from voxlate.scans.cases.align import Preparation
from voxlate.scans.formats.format import errors_as
from voxlate.science.nets.foreign import NETWORKS
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe
from voxlate.training.recipe import text as recipe_text
from voxlate.training.run import Run

AUTOENCODER = "foreign_autoencoder"
ABSENT = object()  # stands for the value of a key that tables do not have
# Names that training wrappers prefix to the names of a network's tensors.
WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Foreign:
    """What the files of a model state.

    form: the format; weights: the file; tensors: by the names of the package; tables: of the recipe (net, and method
    and synth where they are stated); inside: where the network is in voxlate's; channels: of input and output, where
    they are stated; needs: keys that the user must state in addition; hint: what the files state of the preprocessing,
    which is not taken over.
    """

    form: str
    weights: Path
    tensors: Mapping[str, Tensor]
    tables: Mapping[str, Any]
    inside: str = "net.net."
    channels: tuple[int, int] | None = None
    needs: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """What the user states: changes of the recipe, and the voxel size (D, H, W), None where any will do."""

    recipe: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    spacing_mm: tuple[float, float, float] | None = None
    any_spacing: bool = False


Reader = Callable[[Path], Foreign]


def import_foreign(found: Foreign, stated: Preprocessing, out: Path) -> Run:
    """Write a model as a run folder.

    Raises BadInput that lists what the user must state and has not, or where weights do not fit their configuration.
    """
    below = {"title": f"{found.form}, imported", "train": {"precision": "float32"}, **found.tables}
    above = recipe_text.values_of(stated.recipe or {}, stated.changes)
    values = recipe_text.over(below, above)
    if found.tables["net"]["kind"] == AUTOENCODER:
        values, unstated = recipe_text.over(values, OF_AUTOENCODER), []
    else:
        unstated = _unstated(values, stated)
    unstated += [key for key in found.needs if _at(values, key) is ABSENT]
    if unstated:
        hint = f" {found.hint}" if found.hint else ""
        raise BadInput(
            f"{found.weights}: expected the model's inputs and preprocessing to be stated, found no {', '.join(unstated)}.{hint} Add them with --recipe FILE or --set KEY=VALUE (see docs/guides/importing.md)."
        )
    recipe = recipes.from_dict(values, str(found.weights))
    _check_channels(found, recipe)
    method = recipe.build()
    _load(method, found)
    prepared = Preparation(spacing_mm=stated.spacing_mm)
    return write_imported(out, found.weights, found.form, recipe, method, 0, prepared)


# An autoencoder alone knows images in its own range, and no modality.
OF_AUTOENCODER = {
    "data": {"source": ["image"], "target": ["image"], "patch": [1, 256, 256]},
    "intensity": {"image": {"kind": "window", "low": -1, "high": 1}},
    "method": {"kind": "autoencoding"},
}


def _unstated(values: Mapping[str, Any], stated: Preprocessing) -> list[str]:
    """The keys and options that describe the model's inputs and are not given."""
    sources, targets = (_names(values, side) for side in ("source", "target"))
    wanted = [f"data.{key}" for key in ("source", "target", "patch", "axes")]
    wanted += [f"intensity.{name}" for name in dict.fromkeys((*sources, *targets))]
    wanted += ["method", "net"]
    if _at(values, "net.kind") == "foreign":
        wanted += ["net.network", *(f"net.input_range.{name}" for name in sources)]
        if _at(values, "method.kind") != "diffusion":
            wanted.append("net.output_range")
    missing = [key for key in wanted if _at(values, key) is ABSENT]
    if stated.spacing_mm is None and not stated.any_spacing:
        missing.append("--spacing X Y Z (or --any-spacing)")
    return missing


def _names(values: Mapping[str, Any], side: str) -> list[str]:
    """The modalities of a side, where they are a list of names."""
    modalities = _at(values, f"data.{side}")
    return [str(name) for name in modalities] if isinstance(modalities, list) else []


def _at(values: Any, key: str) -> Any:
    """The value of a key of tables, such as "net.arguments.activation"; ABSENT where they have none."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return ABSENT
        values = values[part]
    return values


def _check_channels(found: Foreign, recipe: Recipe) -> None:
    """Raise BadInput where the model has other channels than the recipe's modalities."""
    data, net = recipe.data, vars(recipe.net)
    if found.channels is not None and recipe.method.makes_targets:
        noisy = len(data.target) * recipe.method.iterates
        wanted = (len(data.channels) + noisy, len(data.target))
        if wanted != found.channels:
            raise BadInput(
                f"{found.weights}: expected {found.channels[0]} input and {found.channels[1]} output channels as the model has, found {wanted[0]} and {wanted[1]} in the recipe ({len(data.channels)} of sources{f', {noisy} noisy' if noisy else ''}; {len(data.target)} of targets). Change data.source, data.target or data.stack."
            )
    if (architecture := NETWORKS.get(net.get("network", ""))) is None:
        return
    volumes = architecture.layout(net["arguments"])[0] == 3
    if volumes != (data.patch[0] > 1):
        wanted_depth = "more than one slice" if volumes else "one slice"
        raise BadInput(
            f"data.patch: expected {wanted_depth} for {net['network']} with convolutions of {3 if volumes else 2} dimensions, found {list(data.patch)}. Change it."
        )


def _load(method: nn.Module, found: Foreign) -> None:
    """Load the tensors; raises BadInput where they are not those of the method's network."""
    wanted = {
        name.removeprefix(found.inside): tuple(tensor.shape)
        for name, tensor in method.state_dict().items()
        if name.startswith(found.inside)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    compare_shapes(shapes, wanted, f"{found.weights}: expected the weights of {found.form}")
    state = {f"{found.inside}{name}": tensor for name, tensor in found.tensors.items()}
    method.load_state_dict(method.state_dict() | state)


def read_tensors(path: Path, *holders: str) -> dict[str, Tensor]:
    """The tensors of a file of safetensors or of torch, without the names of wrappers; nothing is unpickled.

    holders: keys under which a training may have put them. Raises BadInput where the file holds something else.
    """
    if path.suffix == ".safetensors":
        with Record(path, "weights", "Copy it again.").tensors("pt") as file:
            state: Any = {name: file.file.get_tensor(name) for name in file.shapes}
    else:
        state = read_checkpoint(path)
    for holder in holders:
        if isinstance(state, dict) and isinstance(state.get(holder), dict):
            state = state[holder]
    tensors = {}
    for name, tensor in state.items() if isinstance(state, dict) else ():
        for wrapper in WRAPPERS:
            name = str(name).removeprefix(wrapper)
        if not isinstance(tensor, Tensor):
            raise BadInput(
                f"{path}: expected tensors by their names alone, found '{name}' ({type(tensor).__name__}). Save network.state_dict()."
            )
        # statistics of batch norms count batches in integers
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    if not tensors:
        raise BadInput(
            f"{path}: expected tensors by their names, found none. Save network.state_dict()."
        )
    return tensors


def read_checkpoint(path: Path) -> Any:
    """What torch reads of a file without unpickling; raises BadInput where it holds more than tensors and numbers."""
    if not path.is_file():
        raise BadInput(f"{path}: expected the weights, found no such file. Check the path.")
    with errors_as(
        f"{path}: expected weights that torch.load(weights_only=True) reads, found a file that it refuses",
        "If you trust the file, which voxlate does not unpickle, save its weights alone in Python (docs/guides/importing.md has the line).",
    ):  # errors of pickle, zip and torch, as the file decides
        return torch.load(path, map_location="cpu", weights_only=True)


def read_config(path: Path, what: str) -> dict[str, Any]:
    """The table in a file of JSON; raises BadInput where there is none."""
    if not path.is_file():
        raise BadInput(f"{path}: expected {what}, found no such file. Check the path.")
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(f"{path}: expected {what}, found {json.dumps(value)[:40]}. Check the path.")
    return value
