"""The generator of MM-GAN: one U-Net from all modalities, missing ones left as background, to all."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import Counts, setting, settings
from voxlate.science.nets.blocks import start_normal
from voxlate.science.nets.completion.shared import Modalities, modalities_of, slices_of
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.science.nets.strided import down_conv, up_conv

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
        widths = (modalities.inputs, *net.widths)
        last = len(net.widths)
        dropouts = [net.dropout * (level >= DROPS_FROM) for level in range(last + 1)]
        self.encoder = nn.ModuleList(
            Stage(
                down_conv(widths[level - 1], widths[level], 4, 2, bias=False),
                nn.Identity() if level in (1, last) else nn.InstanceNorm2d(widths[level]),
                SLOPE,
                dropouts[level],
            )
            for level in range(1, last + 1)
        )
        self.decoder = nn.ModuleList(
            Stage(
                up_conv(widths[level] * (1 if level == last else 2), outs, 4, 2, bias=False),
                nn.InstanceNorm2d(outs),
                0.0,
                dropouts[level - 1],
            )
            for level, outs in zip(range(last, 1, -1), widths[last - 1 : 0 : -1])
        )
        self.head = nn.Conv2d(2 * widths[1], modalities.outputs, 4, padding=1)
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
        return Output(slices.volumes(out))


class Stage(nn.Module):
    """A strided 4x4 convolution to half or twice the size, a norm, LeakyReLU and dropout."""

    def __init__(self, conv: nn.Module, norm: nn.Module, slope: float, dropout: float) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.slope = slope
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """A map [N, C, H, W] at half or twice its size."""
        return self.dropout(F.leaky_relu(self.norm(self.conv(h)), self.slope))
