"""The generator of MM-GAN: one U-Net from all modalities, missing ones left as background, to all."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.nets.blocks import start_normal
from voxlate.nets.completion.shared import Modalities, modalities_of, slices_of
from voxlate.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.system.config import Counts, setting, settings

SLOPE = 0.2  # of LeakyReLU below 0
DROPS_FROM = 4  # halvings from which features are dropped, down and up


@settings
class MMGAN(NetSettings):
    """U-Net of strided 4x4 convolutions with instance norms (Sharma and Hamarneh 2020, TMI 39:1170)."""

    kind: Literal["mm_gan"] = "mm_gan"
    widths: Annotated[
        Counts,
        setting("Numbers of channels after each halving of the size.", min_length=2),
    ] = (
        64,
        128,
        256,
        512,
        512,
        512,
        512,
        512,
    )
    dropout: Annotated[
        float,
        setting("Share of features dropped at 1/16 of the size and below.", ge=0, lt=1),
    ] = 0.2
    tanh: Annotated[bool, setting("Whether outputs are limited to -1 to 1 by tanh.")] = False

    @property
    def multiple(self) -> int:
        """What height and width are padded to a multiple of."""
        return 2 ** len(self.widths)

    def build(self, channels: Channels) -> "MMGANNet":
        """Raises BadInput where a task is neither completion nor translation."""
        return MMGANNet(self, modalities_of(channels, self))


class MMGANNet(nn.Module):
    """Works slice by slice, on images of any size."""

    def __init__(self, net: MMGAN, modalities: Modalities) -> None:
        super().__init__()
        self.net = net
        widths = net.widths
        last = len(net.widths)
        self.encoder = nn.ModuleList(
            Down(below, above, net, level)
            for level, (below, above) in enumerate(pairwise((modalities.inputs, *widths)), start=1)
        )
        self.decoder = nn.ModuleList(
            Up(
                widths[level] * (1 if level == last - 1 else 2),
                widths[level - 1],
                net.dropout * (level >= DROPS_FROM),
            )
            for level in range(last - 1, 0, -1)
        )
        self.head = nn.Conv2d(2 * widths[0], modalities.outputs, 4, padding=1)
        start_normal(self)

    def forward(self, inputs: NetworkInput) -> Output:
        """The images of all targets."""
        slices = slices_of(inputs, self.net.multiple)
        h = slices.images
        skips = []
        for down in self.encoder:
            h = down(h)
            skips.append(h)
        skips.pop()
        for up in self.decoder:
            h = torch.cat([up(h), skips.pop()], dim=1)
        # 4x4 pixels of twice the size, and one side more on the near edges, keep the size
        out = self.head(F.pad(F.interpolate(h, scale_factor=2.0), (1, 0, 1, 0)))
        return Output(slices.volumes(out.tanh() if self.net.tanh else out))


class Down(nn.Module):
    """To half the size."""

    def __init__(self, ins: int, outs: int, net: MMGAN, level: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, 4, stride=2, padding=1, bias=False)
        plain = level in (1, len(net.widths))
        self.norm = nn.Identity() if plain else nn.InstanceNorm2d(outs)
        self.dropout = nn.Dropout(net.dropout * (level >= DROPS_FROM))

    def forward(self, h: Tensor) -> Tensor:
        """A map [N, ins, H, W] at half the size."""
        return self.dropout(F.leaky_relu(self.norm(self.conv(h)), SLOPE))


class Up(nn.Module):
    """To twice the size."""

    def __init__(self, ins: int, outs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(ins, outs, 4, stride=2, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(outs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """A map [N, ins, H, W] at twice the size."""
        return self.dropout(F.relu(self.norm(self.conv(h))))
