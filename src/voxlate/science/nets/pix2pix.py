"""The U-Net generator of pix2pix (Isola et al. 2017, sec. 6.1.1), as its authors' PyTorch repository builds it."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import nn

from voxlate.base.config import setting, settings
from voxlate.science.nets.blocks import cut_far, pad_far, start_normal, to_slices, to_volumes
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.science.nets.strided import down_conv, norm, up_conv

SLOPE = 0.2  # of LeakyReLU below 0
WIDEST = 8  # times the width, from the fourth halving on
DROPPED = 0.5  # share of the features between the widest levels that training drops


@settings
class Pix2PixUNet(NetSettings):
    """Strided 4x4 convolutions down to one pixel of 256, and back with skips; tanh."""

    kind: Literal["pix2pix_unet"] = "pix2pix_unet"
    width: Annotated[int, setting("Number of channels after the first halving.", gt=0)] = 64
    halvings: Annotated[int, setting("Number of halvings of the size.", ge=5, le=12)] = 8
    norm: Annotated[
        Literal["batch", "instance"],
        setting("Norms: over batches, with the training's statistics in synthesis, or each slice."),
    ] = "batch"

    @property
    def multiple(self) -> int:
        """What height and width are padded to a multiple of."""
        return int(2**self.halvings)

    def build(self, channels: Channels) -> "Pix2PixUNetNet":
        """Raises BadInput where a task gives more than images."""
        self.takes_only_images(channels)
        return Pix2PixUNetNet(self, channels.joined, channels.out)


class Pix2PixUNetNet(nn.Module):
    """Works slice by slice."""

    def __init__(self, net: Pix2PixUNet, ins: int, outs: int) -> None:
        super().__init__()
        self.net = net
        last = net.halvings - 1
        widths = [net.width * min(2**level, WIDEST) for level in range(net.halvings)]
        bias = net.norm == "instance"  # batch norms have one of their own
        self.down = nn.ModuleList(
            down_conv(below, above, 4, 2, bias) for below, above in zip([ins, *widths], widths)
        )
        self.up = nn.ModuleList(
            up_conv(
                widths[level] * (1 if level == last else 2),
                widths[level - 1] if level else outs,
                4,
                2,
                bias or not level,
            )
            for level in range(net.halvings)
        )
        self.down_norms = nn.ModuleDict(
            {str(level): norm(net.norm, widths[level], 2) for level in range(1, last)}
        )
        self.up_norms = nn.ModuleDict(
            {str(level): norm(net.norm, widths[level - 1], 2) for level in range(1, net.halvings)}
        )
        start_normal(self)

    def forward(self, inputs: NetworkInput) -> Output:
        """The image."""
        image = inputs.joined
        h = to_slices(pad_far(image, (1, self.net.multiple, self.net.multiple)))
        maps = []
        for level, conv in enumerate(self.down):
            h = conv(F.leaky_relu(h, SLOPE) if level else h)
            h = self.down_norms[str(level)](h) if str(level) in self.down_norms else h
            maps.append(h)
        last = self.net.halvings - 1
        for level in range(last, -1, -1):
            h = self.up[level](F.relu(h))
            if level:
                h = self.up_norms[str(level)](h)
                h = F.dropout(h, DROPPED, self.training and 4 <= level < last)
                h = torch.cat([maps[level - 1], h], dim=1)
        return Output(cut_far(to_volumes(h.tanh(), image.shape[2]), image))
