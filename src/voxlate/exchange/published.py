"""Imported weights as runs, and those of paper 001: from the names and layouts of flax to ours.

A published key is the path of flax scopes, "ResNetBlock_0/Block_1/Conv_0/kernel"; scopes are numbered by class in the
order of construction, and our networks construct their parts in that order.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxlate.base.config import fill, kind_of
from voxlate.base.errors import BadInput
from voxlate.base.files import sha256_of
from voxlate.base.groups import grouped
from voxlate.base.records import Record
from voxlate.scans.cases.align import Preparation
from voxlate.scans.images.units import unit_of
from voxlate.science.nets.interface import Channels
from voxlate.science.nets.xmodality.adm import ADM
from voxlate.science.nets.xmodality.baseline_unet import PlainUNet
from voxlate.science.nets.xmodality.dit import DiT
from voxlate.science.nets.xmodality.parts import Attention, Backbone, Conv, Dense
from voxlate.science.nets.xmodality.uvit import UViT
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe, ranges_of, to_dict
from voxlate.training.run import Run, begin_run, software
from voxlate.training.weights import save_weights

# Scopes of our classes; parts of other modules belong to their owner's scope.
SAME = "Conv Dense RMSNorm GroupNorm LayerNorm Block ResNetBlock SwiGLU Transformer DiTBlock FinalLayer"
SCOPES = {name: name for name in SAME.split()} | {
    "ExactDense": "Dense",
    "Down": "PixelShuffleDownsample",
    "Up": "PixelShuffleUpsample",
    "Attention": "MultiHeadDotProductAttention",
}


@dataclass(frozen=True)
class Slot:
    """The place of a published array: the parameter, which may have one for query, key and value, and the array's shape."""

    parameter: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PublishedNetwork:
    """A network's settings, its number of input and output channels, and whether it has a noise level."""

    name: str
    net: PlainUNet | ADM | UViT | DiT
    ins: int
    outs: int
    noisy: bool = True

    def build(self) -> Backbone:
        """The network without weights (on torch's meta device)."""
        with torch.device("meta"):
            return self.net.build(
                Channels(images={"all": self.ins}, out=self.outs, noisy=self.noisy)
            )


@dataclass(frozen=True)
class _Arrays:
    """The shapes of a file's arrays, which may lack any of them."""

    of: Mapping[str, tuple[int, ...]]
    where: str

    def get(self, key: str, ndim: int) -> tuple[int, ...]:
        """The shape of an array; raises BadInput if there is none, or if it has other dimensions."""
        shape = self.of.get(key)
        if shape is None:
            raise wrong_weights(f"{self.where}: expected the key '{key}', found none")
        if len(shape) != ndim or 0 in shape:
            raise wrong_weights(
                f"{self.where}: expected '{key}' with {ndim} dimensions, found the shape {shape}"
            )
        return shape

    def count(self, scope: str) -> int:
        """The number of scopes of a class, such as DiTBlock_0, DiTBlock_1, …"""
        numbered = (re.match(rf"{scope}_(\d+)/", key) for key in self.of)
        return len({match[1] for match in numbered if match})


def import_run(weights: Path, out: Path, changes: Mapping[str, Any] | None = None) -> Run:
    """Write a published file as a run folder for `synth`: TOF-MRA to CTA by the paper's recipe with the file's network.

    changes: changes of the recipe, as with --set. Raises BadInput if the file is none of the four networks, or if its
    channels are not those of the recipe's modalities.
    """
    network, state = read_weights(weights)
    recipe = _recipe(network, weights, changes)
    with torch.device("meta"):
        method = recipe.build()
    method.load_state_dict({f"net.{name}": tensor for name, tensor in state.items()}, assign=True)
    return write_imported(out, weights, "xmodality (flax)", recipe, method, recipe.train.steps)


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


def read_weights(path: Path) -> tuple[PublishedNetwork, dict[str, Tensor]]:
    """The network of a published file, and its tensors with our names and layouts.

    Raises BadInput if it is none of the four networks, or if keys are unknown, absent or of another shape.
    """
    with Record(path, "published weights", "Download it again.").tensors("pt") as file:
        shapes = {key: lengths for key, (lengths, _) in file.shapes.items()}
        network = detect(shapes, str(path))
        slots = layout(network.build())
        wanted = {key: slot.shape for key, slot in slots.items()}
        _compare_shapes(shapes, wanted, f"{path}: expected the weights of the {network.name}")
        parts = grouped(
            (slot.parameter, _convert(file.file.get_tensor(key), key))
            for key, slot in slots.items()
        )
    state = {name: torch.cat(part) if len(part) > 1 else part[0] for name, part in parts.items()}
    return network, state


def _compare_shapes(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Raise BadInput with the first tensor of a file that is unknown, missing or of another shape."""
    if unknown := sorted(found.keys() - wanted.keys()):
        raise wrong_weights(f"{where}, found the unknown key '{unknown[0]}'")
    for key, shape in wanted.items():
        if key not in found:
            raise wrong_weights(f"{where}, found no key '{key}'")
        if found[key] != shape:
            raise wrong_weights(f"{where} with '{key}' of shape {shape}, found {found[key]}")


def _convert(array: Tensor, key: str) -> Tensor:
    """A published array in our layout; published kernels are [..., ins, outs], with separate heads in attention."""
    array = array.float()
    if not key.endswith("/kernel"):
        return array.flatten()
    if array.ndim == 4:
        return array.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    flat = array.flatten(0, -2) if key.endswith("/out/kernel") else array.flatten(1)
    return flat.t().contiguous()


def _recipe(network: PublishedNetwork, weights: Path, changes: Mapping[str, Any] | None) -> Recipe:
    """The paper's recipe for a network; a U-Net with a noise level is a denoiser."""
    denoises = network.noisy and network.name == "unet"
    recipe = recipes.read(f"tof_to_cta_{'adm' if denoises else network.name}", changes)
    recipe = replace(recipe, net=network.net, title=f"{recipe.title}: {weights.name}, imported")
    known = len(recipe.data.channels)
    outs = len(recipe.data.target)
    if (known + outs * network.noisy, outs) != (network.ins, network.outs):
        raise BadInput(
            f"{weights}: expected a network of {known} source and {outs} target channels as in the recipe, found {network.ins - network.outs * network.noisy} and {network.outs}. Change data.source and data.target."
        )
    return recipe


def detect(shapes: Mapping[str, tuple[int, ...]], where: str) -> PublishedNetwork:
    """The network of these arrays; raises BadInput if it is none of the four, or if a size cannot be read."""
    file = _Arrays(shapes, where)
    if file.count("DiTBlock"):
        return _detect_dit(file)
    if not file.count("ResNetBlock") or not file.count("Conv"):
        raise BadInput(
            f"{where}: expected one of the published networks (U-Net, ADM, U-ViT, DiT), found other weights ({', '.join(list(shapes)[:2]) or 'none'}, …). Choose another file."
        )
    ins, width = file.get("Conv_0/kernel", 4)[2:]
    attends = file.count("MultiHeadDotProductAttention")
    blocks = 2 if attends else 1  # number of blocks of a stage in the encoder
    multipliers = []
    for stage in range(1 + file.count("PixelShuffleDownsample")):
        key = f"ResNetBlock_{blocks * stage}/Block_0/Conv_0/kernel"
        multipliers.append(file.get(key, 4)[3] // width)
    values: dict[str, Any] = {"width": width, "multipliers": multipliers}
    if not attends:
        noisy = "Dense_2/kernel" in shapes
        outs = file.get("Dense_2/kernel" if noisy else "Dense_0/kernel", 2)[1]
        return PublishedNetwork("unet", fill(PlainUNet, values, where), ins, outs, noisy)
    values["heads"] = file.get("MultiHeadDotProductAttention_0/query/kernel", 3)[1]
    if not file.count("Transformer"):
        outs = file.get("Dense_2/kernel", 2)[1]
        return PublishedNetwork("adm", fill(ADM, values, where), ins, outs)
    values["vit_heads"] = file.get("Transformer_0/MultiHeadDotProductAttention_0/query/kernel", 3)[
        1
    ]
    values["depth"] = file.count("Transformer_0/SwiGLU")
    outs = file.get("Dense_3/kernel", 2)[1]
    return PublishedNetwork("uvit", fill(UViT, values, where), ins // 4, outs)


def _detect_dit(file: _Arrays) -> PublishedNetwork:
    pixels_in, width = file.get("Dense_0/kernel", 2)
    pixels_out = file.get("FinalLayer_0/Dense_1/kernel", 2)[1]
    # Each patch has patch² · outs outputs; the largest square divisor gives the fewest output channels.
    patch = max(side for side in range(1, math.isqrt(pixels_out) + 1) if pixels_out % side**2 == 0)
    values = {
        "patch": patch,
        "width": width,
        "depth": file.count("DiTBlock"),
        "heads": file.get("DiTBlock_0/MultiHeadDotProductAttention_0/query/kernel", 3)[1],
    }
    net = fill(DiT, values, file.where)
    return PublishedNetwork("dit", net, pixels_in // patch**2, pixels_out // patch**2)


def wrong_weights(sentence: str) -> BadInput:
    """The error of a file that is not as it was published."""
    return BadInput(f"{sentence}. Use the file as it was published.")


def write_imported(
    out: Path,
    weights: Path,
    form: str,
    recipe: Recipe,
    method: nn.Module,
    steps: int,
) -> Run:
    """Write the run of a method whose weights are from a file; form: the file's format."""
    header = _header(recipe, method, steps)
    digest = sha256_of(weights)
    imported = {"imported": {"file": weights.name, "sha256": digest, "format": form}}
    run = begin_run(out, recipe, f"# Imported from {weights.name} (sha256 {digest}).\n", imported)
    save_weights(run.weights(), method, header | imported)
    return run


def _header(recipe: Recipe, method: nn.Module, steps: int) -> dict[str, Any]:
    """The header as of weights.make_header; unknown entries (seconds, training cases) are 0."""
    scales = ranges_of(recipe)
    for name in recipe.data.target:
        if name not in scales:
            raise BadInput(
                f"intensity.{name}: expected a window, found {kind_of(recipe.intensity[name])}: without training cases, only a window defines the meaning of the network's numbers. Set one."
            )
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
