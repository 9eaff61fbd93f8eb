"""Pretrained autoencoders of latent diffusion (kl-f4, kl-f8) as runs, from CompVis' layout and from diffusers'.

They take colour pictures in [-1, 1]. A grey image would be repeated to three channels, and the three outputs averaged.
This equals the sum over the first kernel's input channels and the mean over the last kernel's outputs, which are stored
here, so that the network has one channel. Sources: Rombach et al. 2022, app. G; diffusers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from voxlate import recipe as recipes
from voxlate.nets.autoencoder import AutoencoderNet, KLAutoencoder
from voxlate.nets.blocks import Attention, ResBlock
from voxlate.nets.interface import Channels
from voxlate.recipe import FullStage, Recipe
from voxlate.system.config import to_tables
from voxlate.system.errors import BadInput
from voxlate.system.files import read_json
from voxlate.system.records import Record
from voxlate.training.changes import first_change
from voxlate.training.imported import write_imported, wrong_weights
from voxlate.training.run import Run
from voxlate.training.weights import read_header

Source = Literal["kl-f4", "kl-f8"]
LEVELS = {"kl-f4": 3, "kl-f8": 4}
PREFIX = "first_stage_model."  # prefix of the autoencoder in a file of a whole latent diffusion
LEAST_WIDTH = 64  # norms of 32 groups then have at least two channels in each, as ours
GROUPS = 32
NORM_EPS = 1e-6


def import_autoencoder(source: Source, weights: Path | str, out: Path | str) -> Run:
    """Write a pretrained autoencoder as a run folder, which `train --reuse` uses instead of training that stage.

    Raises BadInput if the file is no such autoencoder, or if keys are unknown, absent or of another shape.
    """
    weights = Path(weights)
    net, state = read_autoencoder(source, weights)
    recipe = _recipe(source, net)
    method = recipe.build()
    method.load_state_dict({f"net.{name}": tensor for name, tensor in state.items()})
    return write_imported(
        Path(out), weights, f"{source} (latent diffusion)", recipe, method, steps=0
    )


def read_autoencoder(source: Source, path: Path) -> tuple[KLAutoencoder, dict[str, Tensor]]:
    """The settings of a pretrained autoencoder with three channels, and its tensors for our network with one channel."""
    with Record(path, "a pretrained autoencoder", "Download it again.").tensors("pt") as file:
        names = list(file.shapes)
        prefix = PREFIX if any(name.startswith(PREFIX) for name in names) else ""
        own = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
        # The loss contains its critic and LPIPS.
        own = {ours: name for ours, name in own.items() if not ours.startswith("loss.")}
        theirs = {ours: file.file.get_tensor(name).float() for ours, name in own.items()}
    net = _detected(
        source,
        {name: tuple(tensor.shape) for name, tensor in theirs.items()},
        str(path),
    )
    with torch.device("meta"):
        built = net.build(Channels(images={"image": 1}, out=1))
    wanted = _names(net, built, theirs)
    if unknown := sorted(theirs.keys() - {name for names in wanted.values() for name in names}):
        raise wrong_weights(
            f"{path}: expected the weights of {source}, found the unknown key '{unknown[0]}'"
        )
    # The scale is set from a cohort's latents later (see Autoencoding.finish).
    state = {"scale": torch.ones(())}
    for ours, place in built.named_parameters():
        for name in wanted[ours]:
            if name not in theirs:
                raise wrong_weights(
                    f"{path}: expected the weights of {source}, found no key '{name}'"
                )
        values = _grey(
            ours,
            torch.cat([theirs[name] for name in wanted[ours]]),
            len(built.decoder) - 1,
        )
        # Published attention has kernels of one pixel.
        values = values.flatten(1) if place.ndim == 2 else values
        if values.shape != place.shape:
            found = tuple(theirs[wanted[ours][0]].shape)
            raise wrong_weights(
                f"{path}: expected '{wanted[ours][0]}' of the size of its neighbours, found {found}"
            )
        state[ours] = values.contiguous()
    return net, state


def _grey(ours: str, values: Tensor, last: int) -> Tensor:
    """A tensor of the colour network, converted to one grey channel."""
    if ours == "encoder.0.weight":
        return values.sum(1, keepdim=True)
    return values.mean(0, keepdim=True) if ours.startswith(f"decoder.{last}.") else values


def _detected(source: Source, shapes: Mapping[str, tuple[int, ...]], where: str) -> KLAutoencoder:
    """The settings of an autoencoder; raises BadInput if they cannot be read, or are not those of the source."""
    diffusers = any(".resnets." in name for name in shapes)
    down, block = ("down_blocks", "resnets") if diffusers else ("down", "block")
    firsts = list[int]()
    while (key := f"encoder.{down}.{len(firsts)}.{block}.0.conv1.weight") in shapes:
        firsts.append(shapes[key][0])
    stem, latent = (
        shapes.get(f"{name}.weight", ()) for name in ("encoder.conv_in", "post_quant_conv")
    )
    if len(stem) != 4 or len(latent) != 4 or not firsts:
        raise BadInput(
            f"{where}: expected an autoencoder in the layout of latent diffusion or of diffusers' AutoencoderKL, found other weights ({', '.join(list(shapes)[:2]) or 'none'}, …). Choose another file."
        )
    if len(firsts) != LEVELS[source]:
        right = next(
            (name for name, levels in LEVELS.items() if levels == len(firsts)),
            "none that can be imported",
        )
        raise BadInput(
            f"{where}: expected {source}, which halves the sides {LEVELS[source] - 1} times, found {len(firsts) - 1} halvings ({right}). Name that one, or choose another file."
        )
    width, colours = stem[:2]
    if (
        width % GROUPS
        or width < LEAST_WIDTH
        or colours != 3
        or any(channels % width for channels in firsts)
    ):
        raise wrong_weights(
            f"{where}: expected channels in multiples of {GROUPS} from {LEAST_WIDTH} and three colours, found {firsts} and {colours}"
        )
    blocks = sum(
        f"encoder.{down}.0.{block}.{number}.conv1.weight" in shapes for number in range(len(shapes))
    )
    multipliers = tuple(channels // width for channels in firsts)
    return KLAutoencoder(
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        latent=latent[1],
        border="zeros",
        norm_eps=NORM_EPS,
    )


def _names(
    net: KLAutoencoder, built: AutoencoderNet, theirs: Mapping[str, Tensor]
) -> dict[str, list[str]]:
    """The published names of each of our parameters; ours of queries, keys and values has three of them."""
    diffusers = any(".resnets." in name for name in theirs)
    published = dict[str, list[str]]()
    for part, scopes in (
        ("encoder", _encoder_scopes(net, diffusers)),
        ("decoder", _decoder_scopes(net, diffusers)),
    ):
        for number, scope in enumerate(scopes):
            module = getattr(built, part)[number]
            for leaf, _ in module.named_parameters():
                names = _leaves(
                    leaf,
                    scope,
                    module,
                    diffusers,
                    f"{part}.{scope}.query.weight" in theirs,
                )
                published[f"{part}.{number}.{leaf}"] = [f"{part}.{scope}.{name}" for name in names]
    for ours, name in (("quant", "quant_conv"), ("post_quant", "post_quant_conv")):
        published |= {f"{ours}.{leaf}": [f"{name}.{leaf}"] for leaf in ("weight", "bias")}
    return published


def _leaves(leaf: str, scope: str, module: nn.Module, diffusers: bool, old: bool) -> list[str]:
    """The published names of a layer's parameter; old: diffusers before 0.17."""
    if isinstance(module, ResBlock):
        return [leaf.replace("skip.", "conv_shortcut." if diffusers else "nin_shortcut.")]
    if not isinstance(module, Attention):
        return [leaf]
    part, _, kind = leaf.partition(".")
    if part == "qkv":
        names = (
            ("query", "key", "value")
            if old
            else ("to_q", "to_k", "to_v")
            if diffusers
            else ("q", "k", "v")
        )
        return [f"{name}.{kind}" for name in names]
    if part == "norm":
        return [f"{'group_norm' if diffusers else 'norm'}.{kind}"]
    return [f"{'proj_attn' if old else 'to_out.0' if diffusers else 'proj_out'}.{kind}"]


def _encoder_scopes(net: KLAutoencoder, diffusers: bool) -> list[str]:
    """The published scope of each layer of our encoder, in its order."""
    down, block, halving = (
        ("down_blocks", "resnets", "downsamplers.0")
        if diffusers
        else ("down", "block", "downsample")
    )
    scopes = ["conv_in"]
    last = len(net.multipliers) - 1
    for level in range(last + 1):
        scopes += [f"{down}.{level}.{block}.{number}" for number in range(net.blocks)]
        scopes += [f"{down}.{level}.{halving}"] if level < last else []
    return [
        *scopes,
        *_middle_scopes(diffusers),
        "conv_norm_out" if diffusers else "norm_out",
        "conv_out",
    ]


def _decoder_scopes(net: KLAutoencoder, diffusers: bool) -> list[str]:
    """The published scopes of our decoder; diffusers numbers levels in running order, CompVis by size."""
    up, block, doubling = (
        ("up_blocks", "resnets", "upsamplers.0") if diffusers else ("up", "block", "upsample")
    )
    scopes = ["conv_in", *_middle_scopes(diffusers)]
    last = len(net.multipliers) - 1
    for level in range(last, -1, -1):
        place = last - level if diffusers else level
        scopes += [f"{up}.{place}.{block}.{number}" for number in range(net.blocks + 1)]
        scopes += [f"{up}.{place}.{doubling}"] if level else []
    return [*scopes, "conv_norm_out" if diffusers else "norm_out", "conv_out"]


def _middle_scopes(diffusers: bool) -> list[str]:
    if diffusers:
        return ["mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"]
    return ["mid.block_1", "mid.attn_1", "mid.block_2"]


def _recipe(source: Source, net: KLAutoencoder) -> Recipe:
    """A recipe of the autoencoder alone, of images whose values are those of the network."""
    values = {
        "title": f"{source}, imported",
        "data": {"source": ["image"], "target": ["image"], "patch": [1, 256, 256]},
        "intensity": {"image": {"kind": "window", "low": -1, "high": 1}},
        "method": {"kind": "autoencoding"},
        "net": {"kind": net.kind, **to_tables(net)},
        "train": {"precision": "float32"},
    }
    return recipes.from_dict(values, source)


def is_imported(run: Run) -> bool:
    """Whether a run holds a pretrained autoencoder."""
    return run.provenance.is_file() and "imported" in read_json(run.provenance).get("data", {})


def unfit(run: Run, stage: FullStage) -> str:
    """The reason why a pretrained autoencoder cannot replace that of a stage; "" if it can."""
    theirs = read_header(run.weights())["recipe"]
    ours = {"kind": stage.net.kind, **to_tables(stage.net)}
    return first_change(theirs["net"], ours, "net")


def net_changes(run: Run) -> str:
    """The options that set a latent recipe's autoencoder to the network of a pretrained one."""
    net = read_header(run.weights())["recipe"]["net"]
    own = (
        "width",
        "multipliers",
        "blocks",
        "latent",
        "middle_attention",
        "border",
        "norm_eps",
    )
    return " ".join(f"--set 'stages.autoencoder.net.{key}={json.dumps(net[key])}'" for key in own)
