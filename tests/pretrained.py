"""Random weights in the published layouts of latent diffusion's autoencoders."""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from voxlate.exchange.pretrained import LEVELS, Source

WIDTHS = {"kl-f4": (64, 64, 128), "kl-f8": (64, 64, 128, 128)}  # of each level
LATENT = {"kl-f4": 3, "kl-f8": 4}  # channels


def conv(name: str, ins: int, outs: int, kernel: int = 3) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outs, ins, kernel, kernel)
    yield f"{name}.bias", (outs,)


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def residual(
    name: str, ins: int, outs: int, diffusers: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from norm(f"{name}.norm1", ins)
    yield from conv(f"{name}.conv1", ins, outs)
    yield from norm(f"{name}.norm2", outs)
    yield from conv(f"{name}.conv2", outs, outs)
    if ins != outs:
        yield from conv(f"{name}.{'conv_shortcut' if diffusers else 'nin_shortcut'}", ins, outs, 1)


def middle(part: str, channels: int, diffusers: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    blocks = (
        ("mid_block.resnets.0", "mid_block.resnets.1")
        if diffusers
        else ("mid.block_1", "mid.block_2")
    )
    for block in blocks:
        yield from residual(f"{part}.{block}", channels, channels, diffusers)
    if diffusers:
        yield from norm(f"{part}.mid_block.attentions.0.group_norm", channels)
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            yield f"{part}.mid_block.attentions.0.{name}.weight", (channels, channels)
            yield f"{part}.mid_block.attentions.0.{name}.bias", (channels,)
        return
    yield from norm(f"{part}.mid.attn_1.norm", channels)
    for name in ("q", "k", "v", "proj_out"):
        yield from conv(f"{part}.mid.attn_1.{name}", channels, channels, 1)


def published(source: Source, diffusers: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of a file of one residual block a level, by key."""
    widths, latent, last = WIDTHS[source], LATENT[source], LEVELS[source] - 1
    found = dict(conv("encoder.conv_in", 3, widths[0])) | dict(
        conv("decoder.conv_in", latent, widths[-1])
    )
    ins = widths[0]
    for level, outs in enumerate(widths):
        down = f"encoder.down_blocks.{level}" if diffusers else f"encoder.down.{level}"
        found |= dict(
            residual(f"{down}.{'resnets' if diffusers else 'block'}.0", ins, outs, diffusers)
        )
        if level < last:
            found |= dict(
                conv(f"{down}.{'downsamplers.0' if diffusers else 'downsample'}.conv", outs, outs)
            )
        ins = outs
    for level in range(last, -1, -1):
        up = f"decoder.up_blocks.{last - level}" if diffusers else f"decoder.up.{level}"
        for block in range(2):
            name = f"{up}.{'resnets' if diffusers else 'block'}.{block}"
            found |= dict(residual(name, ins, widths[level], diffusers))
            ins = widths[level]
        if level:
            found |= dict(
                conv(f"{up}.{'upsamplers.0' if diffusers else 'upsample'}.conv", ins, ins)
            )
    ends = {"encoder": (widths[-1], 2 * latent), "decoder": (widths[0], 3)}
    for part, (channels, outs) in ends.items():
        found |= dict(middle(part, widths[-1], diffusers)) | dict(
            conv(f"{part}.conv_out", channels, outs)
        )
        found |= dict(norm(f"{part}.{'conv_norm_out' if diffusers else 'norm_out'}", channels))
    return (
        found
        | dict(conv("quant_conv", 2 * latent, 2 * latent, 1))
        | dict(conv("post_quant_conv", latent, latent, 1))
    )


def values(key: str, shape: tuple[int, ...]) -> Tensor:
    """Random weights of about the size of trained ones, the same everywhere."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if len(shape) > 1:
        return drawn / math.sqrt(math.prod(shape[1:]))
    return 0.1 * drawn + (1 if key.endswith("weight") else 0)


def in_compvis(source: Source) -> dict[str, str]:
    """diffusers' key: CompVis' key, in the order in which both list the same layers."""
    return dict(zip(published(source, True), published(source, False), strict=True))


def written(path: Path, source: Source, diffusers: bool = True, prefix: str = "") -> Path:
    """A file with the same weights in either layout."""
    shapes, other = published(source, False), in_compvis(source)
    state = {name: values(name, shape) for name, shape in published(source, True).items()}
    if not diffusers:
        state = {
            f"{prefix}{other[name]}": one.reshape(shapes[other[name]])
            for name, one in state.items()
        }
    save_file(state, path)
    return path
