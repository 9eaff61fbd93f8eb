"""U-ViT of paper 001: ADM's stages on wavelet bands, around a transformer (after Hoogeboom et al. 2023)."""

from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.nets.blocks import Multipliers
from voxlate.science.nets.interface import Channels, NetSettings
from voxlate.science.nets.xmodality import wavelet
from voxlate.science.nets.xmodality.adm import Block, Decoder, Encoder
from voxlate.science.nets.xmodality.parts import (
    Attention,
    AttentionLayer,
    Backbone,
    Conv,
    ExactDense,
    RMSNorm,
    SwiGLU,
    position_embedding,
)


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
