"""The convolutional networks of paper 001: its baseline U-Net, ADM and U-ViT.

The U-Net is a regressor; given the time, it can also denoise. ADM has attention along the rows of every stage (after Dhariwal and
Nichol 2021). U-ViT has ADM's stages on wavelet bands, around a transformer (after Hoogeboom et al. 2023).
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.nets import wavelet
from voxlate.science.nets.blocks import Multipliers, Width
from voxlate.science.nets.interface import Channels, NetSettings
from voxlate.science.nets.xmodality_layers import (
    Attention,
    AttentionLayer,
    Backbone,
    Conv,
    Down,
    ExactDense,
    GroupNorm,
    ResNetBlock,
    RMSNorm,
    SwiGLU,
    Up,
    position_embedding,
)


@settings
class PlainUNet(NetSettings):
    """The published U-Net: one residual block a stage, most without skip, group norm, no attention (paper 001)."""

    kind: Literal["xmodality_unet"] = "xmodality_unet"
    width: Width = 128
    multipliers: Multipliers = (1, 2, 4)
    groups: Annotated[
        int,
        setting("Number of groups of a norm, a divisor of every stage's channels.", gt=0),
    ] = 32

    def build(self, channels: Channels) -> "PlainUNetNet":
        """Raises BadInput where a task gives more than images and their noise level."""
        self.takes_only_images(channels, noise=True)
        return PlainUNetNet(self, channels)


class PlainUNetNet(Backbone):
    """The numbers of its blocks are those of the published file."""

    def __init__(self, net: PlainUNet, channels: Channels) -> None:
        super().__init__(2 ** (len(net.multipliers) - 1), channels, net.width)
        widths = [net.width, *(net.width * factor for factor in net.multipliers)]
        for width in widths:
            if width % net.groups:
                raise BadInput(
                    f"net.groups: expected a divisor of {width} channels, found {net.groups}. Change it."
                )
        block = partial(ResNetBlock, norm=partial(GroupNorm, groups=net.groups))
        embedding = self.embedding
        self.stem = Conv(channels.joined, net.width, 7)
        stages = list(pairwise(widths))
        self.encoder = nn.ModuleList(
            block(below, above, embedding=embedding) for below, above in stages
        )
        self.downs = nn.ModuleList(Down(above) for _, above in stages[:-1])
        self.middle = block(widths[-1], widths[-1], embedding=embedding)
        self.decoder = nn.ModuleList(
            block(2 * above, below, embedding=embedding) for below, above in reversed(stages[1:])
        )
        self.ups = nn.ModuleList(Up(below) for below, _ in reversed(stages[1:]))
        self.final = block(net.width, net.width, ins=widths[1] + net.width)
        self.head = ExactDense(net.width, channels.out)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def slices(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """See Backbone.slices."""
        start = h = self.stem(h)
        skips = []
        for block, down in zip(self.encoder, [*self.downs, nn.Identity()]):
            skips.append(block(h, embedding))
            h = down(skips[-1])
        h = self.middle(h, embedding)
        for block, up in zip(self.decoder, self.ups):
            h = up(
                block(torch.cat([h, skips.pop()], dim=-1), embedding)
            )  # the first stage's skip stays unused
        return self.head(self.final(torch.cat([h, start], dim=-1)))


Block = partial(ResNetBlock, norm=RMSNorm)
MakeAttention = Callable[[int], AttentionLayer]  # of a number of channels


class DownStage(nn.Module):
    """Block, block, attention; gives the first block's map and the last, for the decoder."""

    def __init__(self, below: int, above: int, attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        self.block1 = Block(below, above, embedding=embedding)
        self.block2 = Block(above, above, embedding=embedding)
        self.attention = attention(above)

    def forward(self, h: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The first and the last map of the stage."""
        first = self.block1(h, embedding)
        return first, self.attention(self.block2(first, embedding))


class UpStage(nn.Module):
    """Takes the two maps of its stage in, last first, and doubles the size; only its first block has a skip."""

    def __init__(self, below: int, above: int, attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        self.block1 = Block(2 * above, below, embedding=embedding)
        self.block2 = Block(below, below, embedding=embedding, ins=below + above)
        self.attention = attention(below)
        self.up = Up(below)

    def forward(self, h: Tensor, first: Tensor, last: Tensor, embedding: Tensor | None) -> Tensor:
        """The map of the next stage, at twice the size."""
        h = self.block1(torch.cat([h, last], dim=-1), embedding)
        return self.up(self.attention(self.block2(torch.cat([h, first], dim=-1), embedding)))


class Encoder(nn.Module):
    """Stages with a halving between them: map -> deepest map, and the pairs of maps of each stage."""

    def __init__(self, widths: list[int], attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            DownStage(*pair, attention, embedding) for pair in pairwise(widths)
        )
        self.downs = nn.ModuleList(Down(above) for above in widths[1:-1])

    def forward(
        self, h: Tensor, embedding: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The deepest map, and the pair of maps of each stage."""
        kept = []
        for stage, down in zip(self.stages, [*self.downs, nn.Identity()]):
            kept.append(stage(h, embedding))
            h = down(kept[-1][1])
        return h, kept


class Decoder(nn.Module):
    """The stages back from the deepest to the second; the first stage's maps stay unused, as published."""

    def __init__(self, widths: list[int], attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        pairs = reversed(list(pairwise(widths[1:])))
        self.stages = nn.ModuleList(UpStage(*pair, attention, embedding) for pair in pairs)

    def forward(
        self, h: Tensor, kept: list[tuple[Tensor, Tensor]], embedding: Tensor | None
    ) -> Tensor:
        """The map of the second stage's size; kept: as the encoder gives them."""
        for stage, (first, last) in zip(self.stages, reversed(kept)):
            h = stage(h, first, last, embedding)
        return h


@settings
class ADM(NetSettings):
    """The published ADM: two residual blocks and attention a stage, RMS norms (paper 001)."""

    kind: Literal["adm"] = "adm"
    width: Width = 128
    multipliers: Multipliers = (1, 2, 4)
    heads: Annotated[
        int,
        setting("Number of attention heads, a divisor of every stage's channels.", gt=0),
    ] = 4
    whole: Annotated[
        bool,
        setting(
            "Whether attention is among all pixels of a slice, as the paper describes it, instead of those of a row, as the published weights need it; its cost grows with the fourth power of the patch."
        ),
    ] = False

    def build(self, channels: Channels) -> "ADMNet":
        """Raises BadInput where a task gives more than images and their noise level."""
        self.takes_only_images(channels, noise=True)
        return ADMNet(self, channels)


class ADMNet(Backbone):
    """The order of its parts is that of the published file."""

    def __init__(self, net: ADM, channels: Channels) -> None:
        super().__init__(2 ** (len(net.multipliers) - 1), channels, net.width)
        widths = [net.width, *(net.width * factor for factor in net.multipliers)]
        embedding = self.embedding
        self.stem = Conv(channels.joined, net.width, 7)
        attention = partial(AttentionLayer, heads=net.heads, whole=net.whole)
        self.encoder = Encoder(widths, attention, embedding)
        self.middle1 = Block(widths[-1], widths[-1], embedding=embedding)
        self.attention = attention(widths[-1])
        self.middle2 = Block(widths[-1], widths[-1], embedding=embedding)
        self.decoder = Decoder(widths, attention, embedding)
        self.final = Block(net.width, net.width, ins=widths[1] + net.width)
        self.head = ExactDense(net.width, channels.out)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def slices(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """See Backbone.slices."""
        start = self.stem(h)
        h, kept = self.encoder(start, embedding)
        h = self.middle2(self.attention(self.middle1(h, embedding)), embedding)
        h = self.decoder(h, kept, embedding)
        return self.head(self.final(torch.cat([h, start], dim=-1)))


@settings
class UViT(NetSettings):
    """The published U-ViT: a wavelet transform, ADM's stages, and a transformer at their deepest (paper 001)."""

    kind: Literal["uvit"] = "uvit"
    width: Annotated[
        int,
        setting("Number of channels at the resolution of the wavelets, half of the image's.", gt=0),
    ] = 128
    multipliers: Multipliers = (1, 2, 4)
    heads: Annotated[int, setting("Number of heads of the attention along rows.", gt=0)] = 4
    depth: Annotated[int, setting("Number of layers of the transformer.", gt=0)] = 16
    vit_heads: Annotated[int, setting("Number of heads of the transformer.", gt=0)] = 4

    def build(self, channels: Channels) -> "UViTNet":
        """Raises BadInput where a task gives more than images and their noise level."""
        self.takes_only_images(channels, noise=True)
        if self.width * self.multipliers[-1] % 4:
            raise BadInput(
                f"net.width: expected a transformer of a multiple of 4 channels, found {self.width} · {self.multipliers[-1]}. Change it."
            )
        return UViTNet(self, channels)


class TransformerLayer(nn.Module):
    """Attention among all tokens, then a gated layer, each after a norm and with a skip."""

    def __init__(self, net: UViT, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(channels)
        self.attention = Attention(channels, net.vit_heads)
        self.norm2 = RMSNorm(channels)
        self.mlp = SwiGLU(channels, embedding)

    def forward(self, tokens: Tensor, embedding: Tensor | None) -> Tensor:
        """Tokens [N, T, C] of the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens), embedding)


class Transformer(nn.Module):
    """Layers and a last norm on a map [N, H, W, C]; its tokens stay float32 between the layers."""

    def __init__(self, net: UViT, channels: int, embedding: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(net, channels, embedding) for _ in range(net.depth)
        )
        self.norm = RMSNorm(channels)

    def forward(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """A map of the same shape."""
        _, height, width, channels = h.shape
        tokens = h.flatten(1, 2) + position_embedding(height, width, channels, h.device)
        for layer in self.layers:
            tokens = layer(tokens, embedding)
        return self.norm(tokens).view(h.shape).to(h.dtype)


class UViTNet(Backbone):
    """The order of its parts is that of the published file."""

    def __init__(self, net: UViT, channels: Channels) -> None:
        super().__init__(2 ** len(net.multipliers), channels, net.width)
        ins = channels.joined
        widths = [net.width, *(net.width * factor for factor in net.multipliers)]
        embedding = self.embedding
        self.stem = Conv(4 * ins, net.width, 7)
        attention = partial(AttentionLayer, heads=net.heads)
        self.encoder = Encoder(widths, attention, embedding)
        self.transformer = Transformer(net, widths[-1], embedding)
        self.decoder = Decoder(widths, attention, embedding)
        self.final = Block(net.width, net.width, ins=widths[1] + net.width)
        self.head = ExactDense(net.width, 4 * ins)
        self.mix = ExactDense(ins, channels.out)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def slices(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """See Backbone.slices."""
        start = self.stem(wavelet.analyse(h))
        h, kept = self.encoder(start, embedding)
        h = self.decoder(self.transformer(h, embedding), kept, embedding)
        bands = self.head(self.final(torch.cat([h, start], dim=-1)))
        return self.mix(wavelet.synthesise(bands))
