"""ADM of paper 001: a U-Net with attention along the rows of every stage (after Dhariwal and Nichol 2021)."""

from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor

from voxlate.base.config import setting, settings
from voxlate.science.nets.blocks import Multipliers, Width
from voxlate.science.nets.interface import Channels, NetSettings
from voxlate.science.nets.xmodality.parts import (
    AttentionLayer,
    Backbone,
    Conv,
    ExactDense,
)
from voxlate.science.nets.xmodality.stages import Block, Decoder, Encoder


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
