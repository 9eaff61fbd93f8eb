"""Published weights as runs: the networks of paper 001, and the autoencoder of latent diffusion (kl-f4).

A key of paper 001 is the path of flax scopes, "ResNetBlock_0/Block_1/Conv_0/kernel"; scopes are numbered by class in the
order of construction, and our networks construct their parts in that order.

Autoencoders take colour pictures in [-1, 1]. A grey image would be repeated to three channels, and the three outputs
averaged. This equals the sum over the first kernel's input channels and the mean over the last kernel's outputs, which are
stored here, so that the network has one channel.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxlate.base.config import to_tables
from voxlate.base.errors import BadInput
from voxlate.base.files import sha256_of
from voxlate.base.groups import grouped
from voxlate.base.records import Record
from voxlate.scans.cases.align import Preparation
from voxlate.scans.images.units import unit_of
from voxlate.science.nets.autoencoder import AutoencoderNet, KLAutoencoder
from voxlate.science.nets.interface import Channels
from voxlate.science.nets.xmodality_layers import Attention, Conv, Dense
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe, ranges_of, to_dict
from voxlate.training.run import Run, begin_run, software
from voxlate.training.weights import read_header, save_weights

# Scopes of our classes; parts of other modules belong to their owner's scope.
SAME = "Conv Dense RMSNorm GroupNorm LayerNorm Block ResNetBlock SwiGLU Transformer DiTBlock FinalLayer"
SCOPES = {name: name for name in SAME.split()} | {
    "ExactDense": "Dense",
    "Down": "PixelShuffleDownsample",
    "Up": "PixelShuffleUpsample",
    "Attention": "MultiHeadDotProductAttention",
}


# The autoencoder of latent diffusion that paper 004 uses (Rombach et al. 2022, app. G).
AUTOENCODER = "kl-f4"
NETWORK = KLAutoencoder(
    width=128,
    multipliers=(1, 2, 4),
    blocks=2,
    latent=3,
    border="zeros",
    norm_eps=1e-6,
)
# The autoencoder alone knows images in its own range, and no modality.
OF_AUTOENCODER = {
    "data": {"source": ["image"], "target": ["image"], "patch": [1, 256, 256]},
    "intensity": {"image": {"kind": "window", "low": -1, "high": 1}},
    "method": {"kind": "autoencoding"},
    "train": {"precision": "float32"},
}


@dataclass(frozen=True)
class Slot:
    """The place of a published array: the parameter, which may have one for query, key and value, and the array's shape."""

    parameter: str
    shape: tuple[int, ...]


def import_run(
    weights: Path, out: Path, name: str, changes: Mapping[str, Any] | None = None
) -> Run:
    """Write a published file as a run folder for `synth`: TOF-MRA to CTA by the paper's recipe of that network.

    name: of the recipe; changes: of its keys, as with --set. Raises BadInput if the file has other weights.
    """
    recipe, state = read_weights(weights, name, changes)
    recipe = replace(recipe, title=f"{recipe.title}: {weights.name}, imported")
    return write_imported(out, weights, recipe, state, recipe.train.steps)


def layout(net: nn.Module) -> dict[str, Slot]:
    """The place of every key in the published file of a network."""
    return dict(_slots(net, "", "", Counter()))


def _slots(
    module: nn.Module, ours: str, scope: str, numbers: Counter[str]
) -> Iterator[tuple[str, Slot]]:
    for name, child in module.named_children():
        kind = SCOPES.get(type(child).__name__)
        if kind is None:
            yield from _slots(child, f"{ours}{name}.", scope, numbers)
            continue
        path = f"{scope}{kind}_{numbers[kind]}/"
        numbers[kind] += 1
        if isinstance(child, Attention):
            yield from _attention_slots(child, f"{ours}{name}.", path)
        elif next(child.children(), None) is not None:
            yield from _slots(child, f"{ours}{name}.", path, Counter())
        else:
            for parameter, values in child.named_parameters():
                key, shape = parameter, tuple(values.shape)
                if parameter != "bias":
                    is_product = isinstance(child, Conv | Dense)
                    key = "kernel" if is_product else "scale"
                    shape = (*shape[2:], shape[1], shape[0]) if is_product else shape
                yield path + key, Slot(f"{ours}{name}.{parameter}", shape)


def _attention_slots(attention: Attention, ours: str, path: str) -> Iterator[tuple[str, Slot]]:
    channels = attention.out.in_features
    each = (attention.heads, channels // attention.heads)
    for role in ("query", "key", "value"):
        yield f"{path}{role}/kernel", Slot(f"{ours}qkv.weight", (channels, *each))
        yield f"{path}{role}/bias", Slot(f"{ours}qkv.bias", each)
    yield f"{path}out/kernel", Slot(f"{ours}out.weight", (*each, channels))
    yield f"{path}out/bias", Slot(f"{ours}out.bias", (channels,))


def read_weights(
    path: Path, name: str, changes: Mapping[str, Any] | None = None
) -> tuple[Recipe, dict[str, Tensor]]:
    """The recipe of a published file by its name, and the file's tensors with our names and layouts.

    Raises BadInput if keys of the file are unknown, absent or of another shape.
    """
    recipe = recipes.read(name, changes)
    with torch.device("meta"):
        slots = layout(recipe.build().net)
    with Record(path, "published weights", "Download it again.").tensors("pt") as file:
        shapes = {key: lengths for key, (lengths, _) in file.shapes.items()}
        wanted = {key: slot.shape for key, slot in slots.items()}
        _compare_shapes(shapes, wanted, f"{path}: expected the weights of '{recipe.title}'")
        parts = grouped(
            (slot.parameter, _convert(file.file.get_tensor(key), key))
            for key, slot in slots.items()
        )
    state = {name: torch.cat(part) if len(part) > 1 else part[0] for name, part in parts.items()}
    return recipe, state


def _compare_shapes(
    found: Mapping[str, Any], wanted: Mapping[str, Sequence[int] | None], where: str
) -> None:
    """Raise BadInput with the first tensor of a file that is unknown, missing or of another shape (None: any)."""
    wrong = [
        f"{where}, found {'the unknown' if key in found else 'no'} key '{key}'"
        for key in sorted({*found} ^ {*wanted})
    ]
    for key, shape in [] if wrong else wanted.items():
        if shape is not None and tuple(found[key]) != tuple(shape):
            wrong.append(f"{where} with '{key}' of shape {tuple(shape)}, found {tuple(found[key])}")
    if wrong:
        raise BadInput(f"{wrong[0]}. Use the file as it was published.")


def _convert(array: Tensor, key: str) -> Tensor:
    """A published array in our layout; published kernels are [..., ins, outs], with separate heads in attention."""
    array = array.float()
    if not key.endswith("/kernel"):
        return array.flatten()
    if array.ndim == 4:
        return array.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    flat = array.flatten(0, -2) if key.endswith("/out/kernel") else array.flatten(1)
    return flat.t().contiguous()


def write_imported(
    out: Path,
    weights: Path,
    recipe: Recipe,
    state: Mapping[str, Tensor],
    steps: int,
) -> Run:
    """Write the run of a method whose network's tensors are from a file."""
    with torch.device("meta"):
        method = recipe.build()
    method.load_state_dict({f"net.{name}": tensor for name, tensor in state.items()}, assign=True)
    header = _header(recipe, method, steps)
    digest = sha256_of(weights)
    imported = {"imported": {"file": weights.name, "sha256": digest}}
    run = begin_run(out, recipe, f"# Imported from {weights.name} (sha256 {digest}).\n", imported)
    save_weights(run.weights(), method, header | imported)
    return run


def _header(recipe: Recipe, method: nn.Module, steps: int) -> dict[str, Any]:
    """The header as of weights.make_header; unknown entries (seconds, training cases) are 0."""
    scales = ranges_of(recipe)
    return {
        "recipe": to_dict(recipe),
        "units": {name: unit_of(name) for name in (*recipe.data.source, *recipe.data.target)},
        "target_scales": {name: scales[name] for name in recipe.data.target},
        "preparation": asdict(Preparation()),
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "steps": steps,
        "seconds": 0.0,
        "training_cases": 0,
        "made_by": software(),
    }


def import_autoencoder(weights: Path, out: Path) -> Run:
    """Write a pretrained autoencoder as a run folder, which `train --reuse` uses instead of training that stage.

    Raises BadInput if the file is no such autoencoder, or if keys are unknown, absent or of another shape.
    """
    state = read_autoencoder(weights)
    network = {"kind": NETWORK.kind, **to_tables(NETWORK)}
    tables = {"title": f"{AUTOENCODER}, imported", **OF_AUTOENCODER, "net": network}
    recipe = recipes.from_dict(tables, AUTOENCODER)
    return write_imported(out, weights, recipe, state, 0)


def read_autoencoder(path: Path) -> dict[str, Tensor]:
    """The tensors of a pretrained autoencoder with three channels, for our network with one channel."""
    with Record(path, "a pretrained autoencoder", "Download it again.").tensors("pt") as file:
        # the loss contains its critic and LPIPS
        names = [name for name in file.shapes if not name.startswith("loss.")]
        theirs = {name: file.file.get_tensor(name).float() for name in names}
    with torch.device("meta"):
        built = NETWORK.build(Channels(images={"image": 1}, out=1))
    wanted = _names_in_file(NETWORK, built)
    where = f"{path}: expected the weights of {AUTOENCODER}"
    _compare_shapes(theirs, dict.fromkeys(chain.from_iterable(wanted.values())), where)
    # The scale is set from a cohort's latents later (see Autoencoding.finish).
    state = {"scale": torch.ones(())}
    for ours, parameter in built.named_parameters():
        first = wanted[ours][0]
        values = torch.cat([theirs[name] for name in wanted[ours]])
        if first == "encoder.conv_in.weight":
            values = values.sum(1, keepdim=True)
        elif first.startswith("decoder.conv_out."):
            values = values.mean(0, keepdim=True)
        # Published attention has kernels of one pixel.
        values = values.flatten(1) if parameter.ndim == 2 else values
        _compare_shapes({first: values.shape}, {first: parameter.shape}, where)
        state[ours] = values.contiguous()
    return state


def _names_in_file(net: KLAutoencoder, built: AutoencoderNet) -> dict[str, list[str]]:
    """CompVis' names of each of our parameters; ours of queries, keys and values has three of them."""
    last = len(net.multipliers) - 1
    down, up = list[str](), list[str]()
    for level in range(last + 1):
        down += [f"down.{level}.block.{number}" for number in range(net.blocks)]
        down += [f"down.{level}.downsample"] if level < last else []
        larger = [f"up.{level}.block.{number}" for number in range(net.blocks + 1)]
        up = [*larger, *([f"up.{level}.upsample"] if level else []), *up]
    middle = ["mid.block_1", "mid.attn_1", "mid.block_2"]
    ends = ["norm_out", "conv_out"]
    scopes = {
        "encoder": ["conv_in", *down, *middle, *ends],
        "decoder": ["conv_in", *middle, *up, *ends],
    }
    published = {}
    for ours, _ in built.named_parameters():
        part, number, *leaf = ours.split(".", 2)
        if leaf:
            name = f"{part}.{scopes[part][int(number)]}.{leaf[0]}"
            name = name.replace(".skip.", ".nin_shortcut.").replace(".out.", ".proj_out.")
        else:
            name = f"{part}_conv.{number}"
        published[ours] = [name]
        if ".qkv." in name:
            published[ours] = [name.replace("qkv", role) for role in "qkv"]
    return published


def net_changes(run: Run) -> str:
    """The options that set a latent recipe's autoencoder to the network of a pretrained one."""
    net = read_header(run.weights())["recipe"]["net"]
    changes = (f"{key}={json.dumps(value)}" for key, value in net.items())
    return " ".join(f"--set 'stages.autoencoder.net.{change}'" for change in changes)
