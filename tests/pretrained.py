"""Random weights in the published layouts of latent diffusion's autoencoders."""

import math
import re
import zlib

import torch
from safetensors.torch import save_file

WIDTHS = (64, 64, 128)  # of each level
LATENT = 3  # channels
SMALL = {"width": 64, "multipliers": (1, 1, 2), "blocks": 1}  # the network of such a file


IN_DIFFUSERS = {  # what is called otherwise there
    r"(down|up)\.(\d)\.block": r"\1_blocks.\2.resnets",
    r"(down|up)\.(\d)\.(\w+sample)": r"\1_blocks.\2.\3rs.0",
    r"mid\.block_1": "mid_block.resnets.0",
    r"mid\.block_2": "mid_block.resnets.1",
    r"mid\.attn_1\.norm": "mid_block.attentions.0.group_norm",
    r"mid\.attn_1\.proj_out": "mid_block.attentions.0.to_out.0",
    r"mid\.attn_1\.([qkv])": r"mid_block.attentions.0.to_\1",
    r"nin_shortcut": "conv_shortcut",
    r"coder\.norm_out": "coder.conv_norm_out",
}


def conv(name, ins, outs, kernel=3):
    return {f"{name}.weight": (outs, ins, kernel, kernel), f"{name}.bias": (outs,)}


def norm(name, channels):
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def residual(name, ins, outs):
    found = norm(f"{name}.norm1", ins) | conv(f"{name}.conv1", ins, outs)
    found |= norm(f"{name}.norm2", outs) | conv(f"{name}.conv2", outs, outs)
    return found if ins == outs else found | conv(f"{name}.nin_shortcut", ins, outs, 1)


def published():
    """The shapes of a file of one residual block a level, by CompVis' keys."""
    widths, latent, last = WIDTHS, LATENT, len(WIDTHS) - 1
    ins, deep = widths[0], widths[-1]
    found = conv("encoder.conv_in", 3, ins) | conv("decoder.conv_in", latent, deep)
    for level, outs in enumerate(widths):
        found |= residual(f"encoder.down.{level}.block.0", ins, outs)
        if level < last:
            found |= conv(f"encoder.down.{level}.downsample.conv", outs, outs)
        ins = outs
    for level in range(last, -1, -1):
        for block in range(2):
            found |= residual(f"decoder.up.{level}.block.{block}", ins, widths[level])
            ins = widths[level]
        if level:
            found |= conv(f"decoder.up.{level}.upsample.conv", ins, ins)
    for part, channels, outs in (("encoder", deep, 2 * latent), ("decoder", widths[0], 3)):
        for block in ("block_1", "block_2"):
            found |= residual(f"{part}.mid.{block}", deep, deep)
        found |= norm(f"{part}.mid.attn_1.norm", deep)
        for name in ("q", "k", "v", "proj_out"):
            found |= conv(f"{part}.mid.attn_1.{name}", deep, deep, 1)
        found |= norm(f"{part}.norm_out", channels) | conv(f"{part}.conv_out", channels, outs)
    found |= conv("quant_conv", 2 * latent, 2 * latent, 1)
    return found | conv("post_quant_conv", latent, latent, 1)


def diffusers_key(key, last):
    """A key in diffusers' layout, which counts the levels of the decoder from the deepest, the last one."""
    for ours, theirs in IN_DIFFUSERS.items():
        key = re.sub(ours, theirs, key)
    return re.sub(r"(?<=up_blocks\.)\d", lambda level: str(last - int(level[0])), key)


def values(key, shape):
    """Random weights of about the size of trained ones, the same everywhere."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if len(shape) > 1:
        return drawn / math.sqrt(math.prod(shape[1:]))
    return 0.1 * drawn + (1 if key.endswith("weight") else 0)


def written(path):
    """A file of such weights; drawn by diffusers' keys, as those of the golden numbers were."""
    last = len(WIDTHS) - 1
    shapes = published().items()
    state = {key: values(diffusers_key(key, last), shape) for key, shape in shapes}
    save_file(state, path)
    return path
