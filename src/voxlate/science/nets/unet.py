"""One residual U-Net whose settings reach the networks of four papers (see docs/design/decisions.md).

`narrow` makes a network of fewer channels from one whose further inputs are constant: a translation from a network that completes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.asymmetry import AsymmetryPrior, Pyramid
from voxlate.science.nets.blocks import (
    Attention,
    BlockOptions,
    Blocks,
    Down,
    Embedding,
    Fourier,
    Groups,
    Multipliers,
    Norm,
    Repeat,
    ResBlock,
    Sinusoidal,
    SliceConv,
    Up,
    Width,
    cut_far,
    pad_far,
    to_slices,
    to_volumes,
    zero_weights,
)
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output


@settings
class UNet(NetSettings):
    """Residual U-Net over slices, stacks of slices or volumes of any size."""

    compares_sides: ClassVar[bool] = True
    kind: Literal["unet"] = "unet"
    width: Width = 64
    multipliers: Multipliers = (1, 2, 3, 4)
    blocks: Blocks = 2
    patch: Annotated[
        Literal[1, 2, 4],
        setting(
            "Factor of a pixel-unshuffle before the first convolution, which is undone after the last one."
        ),
    ] = 1
    refine: Annotated[
        int,
        setting(
            "Channels of two convolutions of full size after the patches are undone, which see the images, too, and remove the grid of the patches; 0: none.",
            ge=0,
        ),
    ] = 0
    attention: Annotated[
        tuple[int, ...],
        setting("Levels with self-attention after each block; level 0 has full size."),
    ] = ()
    middle_attention: Annotated[
        bool, setting("Whether self-attention is between the two middle blocks.")
    ] = True
    head_width: Annotated[
        int,
        setting(
            "Largest number of channels of an attention head; fewer where it does not divide those of a level.",
            gt=0,
        ),
    ] = 32
    resampling: Annotated[
        Literal["conv", "block"],
        setting(
            "Change of resolution: conv has a strided convolution, and nearest-neighbour interpolation with a convolution; block has an average, and nearest-neighbour interpolation within a block."
        ),
    ] = "conv"
    modulation: Annotated[
        Literal["add", "scale_shift"],
        setting("Effect of the embedding on a block: it is added, or it scales and shifts."),
    ] = "add"
    time: Annotated[
        Sinusoidal | Fourier,
        setting("Embedding of the noise level.", discriminator="kind"),
    ] = Sinusoidal()
    inject: Annotated[
        Literal["all", "decoder"],
        setting("Blocks that get the embedding: all, or those of the middle and the decoder."),
    ] = "all"
    groups: Groups = 32
    dropout: Annotated[float, setting("Share of features dropped in each block.", ge=0, lt=1)] = 0.0
    volumetric: Annotated[
        bool,
        setting(
            "Whether convolutions along depth follow those of slices; they start as the identity."
        ),
    ] = False
    border: Annotated[
        Literal["zeros", "repeat"] | None,
        setting(
            "Padding of convolutions in training and synthesis (zeros where data.patch is the whole slice); unset: zeros in training, and in synthesis the repeated border, except where everything outside the mask is background."
        ),
    ] = None
    zero_init: Annotated[
        bool,
        setting("Whether the last convolution of every block and of the network starts at zero."),
    ] = True

    @property
    def multiple(self) -> int:
        """Of what height and width must be, for nothing to be padded."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    @property
    def joins_slices(self) -> bool:
        """Whether convolutions along depth follow those of slices."""
        return self.volumetric

    def build(self, channels: Channels) -> "ResidualUNet":
        """Feature maps go to the encoder levels of their sizes, after the first block.

        Raises BadInput where the settings contradict each other.
        """
        last = len(self.multipliers) - 1
        if any(not 0 <= level <= last for level in self.attention):
            raise BadInput(
                f"net.attention: expected levels from 0 to {last}, found {list(self.attention)}. Leave the others out."
            )
        return ResidualUNet(self, channels)


def _repeat(net: UNet, channels: Channels) -> Repeat:
    if net.border is None:
        return "never" if channels.masked else "synthesis"
    return "always" if net.border == "repeat" else "never"


class LevelStage(nn.Module):
    """A residual block and, at some levels, attention."""

    def __init__(self, ins: int, outs: int, heads: int, options: BlockOptions) -> None:
        super().__init__()
        self.block = ResBlock(ins, outs, options)
        self.attention = Attention(outs, heads, options) if heads else None

    def forward(self, h: Tensor, embedding: Tensor | None, depth: int) -> Tensor:
        """A map [N, ins, ...] to [N, outs, ...]; embedding: [N, size]."""
        h = self.block(h, embedding, depth)
        return h if self.attention is None else self.attention(h)


class UNetLevel(nn.Module):
    """The blocks of one resolution, then the resampling to the next one, if there is one."""

    def __init__(self, stages: list[LevelStage], resample: nn.Module | None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.resample = resample


class Refinement(nn.Module):
    """Corrects an image at full size, from features of that size and the images that the network saw."""

    def __init__(self, joined: int, out: int, features: int, options: BlockOptions) -> None:
        super().__init__()
        self.out = out
        self.first = SliceConv(joined + out + features, features, options)
        self.last = SliceConv(features, out, options)
        zero_weights(self.last)

    def forward(self, h: Tensor, image: Tensor, depth: int) -> Tensor:
        """Slices [N, out + features, H, W] of an image and features, and those seen [N, joined, H, W], to the image."""
        seen = F.silu(self.first(torch.cat([h, image], dim=1), depth))
        return h[:, : self.out] + self.last(seen, depth)


class ResidualUNet(nn.Module):
    """Takes images of any size; see `UNet` for its settings. Its first convolution sees the state, then the images."""

    def __init__(self, net: UNet, channels: Channels) -> None:
        super().__init__()
        self.net = net
        self.embedding = Embedding(net.time, net.width, channels.noisy, channels.code)
        conditioned = BlockOptions(
            net.groups,
            self.embedding.size,
            net.modulation,
            net.dropout,
            net.volumetric,
            net.zero_init,
            repeat=_repeat(net, channels),
        )
        plain = replace(conditioned, embedding=0)
        widths = [net.width * factor for factor in net.multipliers]
        self.stem = SliceConv(channels.joined * net.patch**2, net.width, conditioned)
        self.encoder, skips = self._encoder(widths, conditioned if net.inject == "all" else plain)
        deepest = widths[-1]
        heads = self._heads(deepest) if net.middle_attention else 0
        middle = [LevelStage(deepest, deepest, count, conditioned) for count in (heads, 0)]
        self.middle = UNetLevel(middle, None)
        self.decoder = self._decoder(widths, skips, conditioned)
        self.norm = Norm(widths[0], net.groups, silu=True)
        self.head = SliceConv(widths[0], (channels.out + net.refine) * net.patch**2, conditioned)
        full = (channels.joined, channels.out, net.refine, conditioned)
        self.refinement = Refinement(*full) if net.refine else None
        prior = (widths, channels.features, net.patch, conditioned)
        self.asymmetry = AsymmetryPrior(*prior) if channels.features else None
        if net.zero_init:
            zero_weights(self.head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _heads(self, channels: int) -> int:
        """The number of heads of an attention."""
        return channels // math.gcd(channels, self.net.head_width)

    def _encoder(self, widths: list[int], options: BlockOptions) -> tuple[nn.ModuleList, list[int]]:
        skips = [widths[0]]
        levels = nn.ModuleList()
        ins = widths[0]
        for level, outs in enumerate(widths):
            heads = self._heads(outs) if level in self.net.attention else 0
            stages = [
                LevelStage(ins if block == 0 else outs, outs, heads, options)
                for block in range(self.net.blocks)
            ]
            last = level == len(widths) - 1
            levels.append(
                UNetLevel(
                    stages,
                    None if last else self._resample("down", outs, options),
                )
            )
            skips += [outs] * (self.net.blocks + (not last))
            ins = outs
        return levels, skips

    def _decoder(self, widths: list[int], skips: list[int], options: BlockOptions) -> nn.ModuleList:
        levels = nn.ModuleList()
        ins = widths[-1]
        for level, outs in reversed(list(enumerate(widths))):
            heads = self._heads(outs) if level in self.net.attention else 0
            stages = []
            for _ in range(self.net.blocks + 1):
                stages.append(LevelStage(ins + skips.pop(), outs, heads, options))
                ins = outs
            levels.append(
                UNetLevel(
                    stages,
                    self._resample("up", outs, options) if level else None,
                )
            )
        return levels

    def _resample(
        self,
        way: Literal["down", "up"],
        channels: int,
        options: BlockOptions,
    ) -> nn.Module:
        if self.net.resampling == "block":
            return ResBlock(channels, channels, options, resample=way)
        return (Down if way == "down" else Up)(channels, options)

    def forward(self, inputs: NetworkInput) -> Output:
        """The image."""
        image = inputs.joined
        depth = image.shape[2]
        seen = to_slices(pad_far(image, self.net.multiple))
        h = self._fold(seen)
        embedding = self.embedding(inputs.log_snr, inputs.code)
        if embedding is not None:
            embedding = embedding.repeat_interleave(depth, dim=0)
        pyramid = (
            self.asymmetry(inputs.features, h.shape[2:], image.shape[-1])
            if self.asymmetry is not None
            else {}
        )
        out = self._unfold(self._blocks(h, embedding, depth, pyramid))
        if self.refinement is not None:
            out = self.refinement(out, seen, depth)
        return Output(cut_far(to_volumes(out, depth), image))

    def _blocks(self, h: Tensor, embedding: Tensor | None, depth: int, pyramid: Pyramid) -> Tensor:
        h = self.stem(h, depth)
        skips = [h]
        for index, level in enumerate(_levels(self.encoder)):
            for position, stage in enumerate(level.stages):
                h = stage(h, embedding, depth)
                skips.append(h)
                if (
                    position == 0 and self.asymmetry is not None
                ):  # the decoder sees the map without it, as published
                    h = self.asymmetry.fuse(index, h, pyramid)
            if level.resample is not None:
                h = level.resample(h, embedding, depth)
                skips.append(h)
        for stage in self.middle.stages:
            h = stage(h, embedding, depth)
        for level in _levels(self.decoder):
            for stage in level.stages:
                h = stage(torch.cat([h, skips.pop()], dim=1), embedding, depth)
            if level.resample is not None:
                h = level.resample(h, embedding, depth)
        return self.head(self.norm(h), depth)

    @torch.no_grad()
    def rescale(self, channel: int, factor: float, offset: float) -> None:
        """Let the network give factor · y + offset where an output channel gave y, with the same features."""
        pixels = self.net.patch**2
        rows = slice(channel * pixels, (channel + 1) * pixels)
        last = self.head
        for parameter in self.head.parameters():
            parameter[rows] *= factor
        if self.refinement is not None:
            # It sees the factor undone, and adds the offset at its end: zeros beyond the border stay zeros.
            self.refinement.first.get_parameter("weight")[:, channel] /= factor
            last, rows = self.refinement.last, slice(channel, channel + 1)
            for parameter in last.parameters():
                parameter[rows] *= factor
        last.get_parameter("bias")[rows] += offset

    def _fold(self, h: Tensor) -> Tensor:
        """Slices to channels-last patches."""
        if self.net.patch > 1:
            h = F.pixel_unshuffle(h, self.net.patch)
        return h.contiguous(memory_format=torch.channels_last)

    def _unfold(self, h: Tensor) -> Tensor:
        return F.pixel_shuffle(h, self.net.patch) if self.net.patch > 1 else h


def _levels(modules: nn.ModuleList) -> Iterable[UNetLevel]:
    return cast(Iterable[UNetLevel], modules)


@torch.no_grad()
def narrow(
    whole: ResidualUNet, ins: Sequence[int], outs: Sequence[int], code: Tensor, bits: Sequence[int]
) -> ResidualUNet:
    """A network with some channels of another, and its images where the other's further inputs are constant.

    ins, outs: channels of the other that are kept, of which inputs that are not are background; code: configuration of
    the other, [K], empty for a network without one; bits: its places that stay inputs, none for a network without one.
    At the border of an image both differ, because background is padded by zeros.
    """
    channels = Channels(images={}, state=len(ins), out=len(outs), code=len(bits))
    part = ResidualUNet(whole.net, channels)
    tensors = dict(part.state_dict())
    tensors |= {name: tensor for name, tensor in whole.state_dict().items() if name in tensors}
    pixels = whole.net.patch**2
    air = torch.full((whole.stem.get_parameter("weight").shape[1],), BACKGROUND)
    tensors |= _fewer_inputs(whole, "stem", _pixels(ins, pixels), air)
    kept = _pixels(outs, pixels)
    tensors |= {f"head.{name}": tensor[kept] for name, tensor in whole.head.named_parameters()}
    if bits:
        tensors |= _fewer_inputs(whole, "embedding.code.0", bits, code)
    elif len(code):
        tensors |= _without_code(whole, code)
    part.load_state_dict(tensors)
    return part.train(whole.training)


def _pixels(channels: Sequence[int], count: int) -> list[int]:
    """The places of the pixels of channels after a pixel-unshuffle, in which those of a channel follow each other."""
    return [channel * count + pixel for channel in channels for pixel in range(count)]


def _fewer_inputs(
    whole: nn.Module, name: str, kept: Sequence[int], constant: Tensor
) -> Mapping[str, Tensor]:
    """The tensors of a layer with some of its inputs, whose bias contains the others; constant: a value for each input."""
    layer = whole.get_submodule(name)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    others = [place for place in range(weight.shape[1]) if place not in {*kept}]
    summed = weight[:, others].flatten(2).sum(2) if weight.ndim > 2 else weight[:, others]
    return {
        f"{name}.weight": weight[:, [*kept]],
        f"{name}.bias": bias + summed @ constant.to(bias)[others],
    }


def _without_code(whole: ResidualUNet, code: Tensor) -> Mapping[str, Tensor]:
    """The biases of the blocks' first convolutions with what the blocks add for a constant code."""
    embedding = whole.embedding(None, code[None])
    biases = {}
    for name, block in whole.named_modules():
        if isinstance(block, ResBlock) and block.embed is not None:
            bias = block.conv1.get_parameter("bias")
            biases[f"{name}.conv1.bias"] = bias + block.embed(embedding)[0]
    return biases
