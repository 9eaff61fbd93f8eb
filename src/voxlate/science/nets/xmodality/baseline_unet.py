"""The U-Net of paper 001: its baseline, a regressor; given the time, it can also denoise."""

from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.nets.blocks import Multipliers, Width
from voxlate.science.nets.interface import Channels, NetSettings
from voxlate.science.nets.xmodality.parts import (
    Backbone,
    Conv,
    Down,
    ExactDense,
    GroupNorm,
    ResNetBlock,
    Up,
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
