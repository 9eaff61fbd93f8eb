"""Pretrained autoencoders of latent diffusion (kl-f4, kl-f8) as runs.

They take colour pictures in [-1, 1]. A grey image would be repeated to three channels, and the three outputs averaged.
This equals the sum over the first kernel's input channels and the mean over the last kernel's outputs, which are stored
here, so that the network has one channel. Source: Rombach et al. 2022, app. G.
"""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from voxlate.base.config import to_tables
from voxlate.base.records import Record
from voxlate.exchange.published import write_imported, wrong_weights
from voxlate.science.nets.autoencoder import AutoencoderNet, KLAutoencoder
from voxlate.science.nets.interface import Channels
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe
from voxlate.training.run import Run
from voxlate.training.weights import read_header

Source = Literal["kl-f4", "kl-f8"]
NETWORKS = {
    source: KLAutoencoder(
        width=128,
        multipliers=multipliers,
        blocks=2,
        latent=latent,
        border="zeros",
        norm_eps=1e-6,
    )
    for source, multipliers, latent in (("kl-f4", (1, 2, 4), 3), ("kl-f8", (1, 2, 4, 4), 4))
}
PREFIX = "first_stage_model."  # prefix of the autoencoder in a file of a whole latent diffusion
# Keys of the network in which pretrained autoencoders differ from ours.
OWN_KEYS = ["width", "multipliers", "blocks", "latent", "middle_attention", "border", "norm_eps"]
# The autoencoder alone knows images in its own range, and no modality.
OF_AUTOENCODER = {
    "data": {"source": ["image"], "target": ["image"], "patch": [1, 256, 256]},
    "intensity": {"image": {"kind": "window", "low": -1, "high": 1}},
    "method": {"kind": "autoencoding"},
}


def import_autoencoder(source: Source, weights: Path, out: Path) -> Run:
    """Write a pretrained autoencoder as a run folder, which `train --reuse` uses instead of training that stage.

    Raises BadInput if the file is no such autoencoder, or if keys are unknown, absent or of another shape.
    """
    net, state = NETWORKS[source], read_autoencoder(source, weights)
    recipe = _recipe(source, net)
    method = recipe.build()
    method.load_state_dict({f"net.{name}": tensor for name, tensor in state.items()})
    return write_imported(out, weights, f"{source} (latent diffusion)", recipe, method, steps=0)


def read_autoencoder(source: Source, path: Path) -> dict[str, Tensor]:
    """The tensors of a pretrained autoencoder with three channels, for our network with one channel."""
    with Record(path, "a pretrained autoencoder", "Download it again.").tensors("pt") as file:
        places = _places(list(file.shapes))
        theirs = {name: file.file.get_tensor(place).float() for name, place in places.items()}
    net = NETWORKS[source]
    with torch.device("meta"):
        built = net.build(Channels(images={"image": 1}, out=1))
    wanted = _names_in_file(net, built)
    names = list(chain.from_iterable(wanted.values()))
    where = f"{path}: expected the weights of {source}"
    if unknown := sorted(places[name] for name in theirs.keys() - names):
        raise wrong_weights(f"{where}, found the unknown key '{unknown[0]}'")
    if missing := [name for name in names if name not in theirs]:
        raise wrong_weights(f"{where}, found no key '{missing[0]}'")
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
        if values.shape != parameter.shape:
            found = tuple(theirs[first].shape)
            raise wrong_weights(
                f"{where} with '{places[first]}' for {tuple(parameter.shape)}, found {found}"
            )
        state[ours] = values.contiguous()
    return state


def _places(keys: Sequence[str]) -> dict[str, str]:
    """The keys of an autoencoder in a file, by their names without the prefix of a whole latent diffusion."""
    prefix = PREFIX if any(key.startswith(PREFIX) for key in keys) else ""
    named = {key.removeprefix(prefix): key for key in keys if key.startswith(prefix)}
    # The loss contains its critic and LPIPS.
    return {name: key for name, key in named.items() if not name.startswith("loss.")}


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


def _recipe(source: Source, net: KLAutoencoder) -> Recipe:
    """A recipe of the autoencoder alone, of images whose values are those of the network."""
    return recipes.from_dict(
        {
            "title": f"{source}, imported",
            **OF_AUTOENCODER,
            "net": {"kind": net.kind, **to_tables(net)},
            "train": {"precision": "float32"},
        },
        source,
    )


def net_changes(run: Run) -> str:
    """The options that set a latent recipe's autoencoder to the network of a pretrained one."""
    net = read_header(run.weights())["recipe"]["net"]
    return " ".join(
        f"--set 'stages.autoencoder.net.{key}={json.dumps(net[key])}'" for key in OWN_KEYS
    )
