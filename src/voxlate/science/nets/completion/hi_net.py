"""Hi-Net: an encoder for each modality that also repeats it, and a path of its own that fuses them at every level."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.science.nets.completion.shared import (
    Fusion,
    Modalities,
    fuse_maps,
    modalities_of,
    slices_of,
)
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output

SLOPE = 0.2  # of LeakyReLU below 0, on the way down; 0 on the way up
FUSIONS: tuple[Fusion, ...] = ("sum", "product", "max")


@settings
class HiNet(NetSettings):
    """Hybrid fusion of modality-specific features: sum, product and maximum (Zhou et al. 2020, TMI 39:2772).

    For two modalities as published; the same three fusions take any number.
    """

    multiple: ClassVar[int] = 8
    extras: ClassVar[tuple[str, ...]] = ("reconstructions",)
    kind: Literal["hi_net"] = "hi_net"
    width: Annotated[
        int,
        setting(
            "Number of channels of an encoder at full size; twice as many at half of it, four times at a quarter.",
            gt=0,
        ),
    ] = 32

    def build(self, channels: Channels) -> "HiNetNet":
        """Raises BadInput where a task is neither completion nor translation."""
        return HiNetNet(self, modalities_of(channels, self))


class HiNetNet(nn.Module):
    """Works slice by slice, on images of any size; extras: reconstructions of the given modalities."""

    def __init__(self, net: HiNet, modalities: Modalities) -> None:
        super().__init__()
        self.net = net
        width, two, four = (net.width * factor for factor in (1, 2, 4))
        self.encoders = nn.ModuleList(
            Encoder((1, width, two, four)) for _ in range(modalities.inputs)
        )
        self.repeaters = nn.ModuleList(
            Repeater((four, two, width)) for _ in range(modalities.inputs)
        )
        self.down = nn.ModuleList(
            [Fuse(width, 0, two), Fuse(two, two, four), Fuse(four, four, four)]
        )
        self.middle = nn.Sequential(_layer(four, 2 * four, SLOPE), _layer(2 * four, four))
        self.up = nn.ModuleList(
            [Fuse(four, four, two, 0.0), Fuse(two, two, width, 0.0), Fuse(width, width, width, 0.0)]
        )
        self.last = _layer(width, width)
        self.head = nn.Conv2d(width, modalities.outputs, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: NetworkInput) -> Output:
        """The images of all targets, and the reconstructions if they are asked for."""
        slices = slices_of(inputs, self.net.multiple)
        features = [encoder(slices.of(number)) for number, encoder in enumerate(self.encoders)]
        levels = [
            list(level) for level in zip(*features)
        ]  # at 1/2, 1/4 and 1/8 of the size, of every modality
        h = None
        for fuse, level in zip(self.down, levels):
            h = fuse(level, slices.available, None if h is None else F.max_pool2d(h, 2))
        h = self.middle(h)
        for number, (fuse, level) in enumerate(zip(self.up, reversed(levels))):
            h = fuse(level, slices.available, F.interpolate(h, scale_factor=2.0) if number else h)
        out = self.head(self.last(F.interpolate(h, scale_factor=2.0))).tanh()
        extras = {}
        if "reconstructions" in inputs.extras:
            repeated = [repeater(level) for repeater, level in zip(self.repeaters, levels[-1])]
            extras["reconstructions"] = slices.volumes(torch.cat(repeated, dim=1))
        return Output(slices.volumes(out), extras)


class Encoder(nn.Module):
    """Three pairs of convolutions, each then pooled: maps at 1/2, 1/4 and 1/8 of the size."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = (
            (_layer(ins, outs, SLOPE), _layer(outs, outs, SLOPE)) for ins, outs in pairwise(widths)
        )
        self.levels = nn.ModuleList(nn.Sequential(*pair) for pair in pairs)

    def forward(self, h: Tensor) -> list[Tensor]:
        """The maps of an image [N, 1, H, W] at 1/2, 1/4 and 1/8 of its size."""
        maps = []
        for level in self.levels:
            h = F.max_pool2d(level(h), 2)
            maps.append(h)
        return maps


class Repeater(nn.Module):
    """From a modality's deepest map back to its image."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        steps = zip(
            widths, (*widths[1:], widths[-1])
        )  # each keeps its width, doubles the size, then narrows
        enlarge = nn.Upsample(scale_factor=2.0)
        self.levels = nn.Sequential(
            *(nn.Sequential(_layer(ins, ins), enlarge, _layer(ins, outs)) for ins, outs in steps)
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """The image [N, 1, 8 h, 8 w] of a map [N, C, h, w]."""
        return self.head(self.levels(h)).tanh()


class Fuse(nn.Module):
    """Mixed fusion block: the modalities' maps to one, which joins the path's own of `before` channels (0: none)."""

    def __init__(self, channels: int, before: int, outs: int, slope: float = SLOPE) -> None:
        super().__init__()
        self.mix = _layer(len(FUSIONS) * channels, channels, slope)
        self.join = _layer(channels + before, outs, slope)

    def forward(self, maps: list[Tensor], available: Tensor, before: Tensor | None) -> Tensor:
        """One map of those of all modalities, [N, C, h, w] each; available: [N, modalities], 0 or 1."""
        h = self.mix(torch.cat([fuse_maps(maps, available, how) for how in FUSIONS], dim=1))
        return self.join(h if before is None else torch.cat([h, before], dim=1))


def _layer(ins: int, outs: int, slope: float = 0.0) -> nn.Sequential:
    """A 3x3 convolution, batch norm and LeakyReLU of this slope below 0."""
    return nn.Sequential(
        nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.LeakyReLU(slope)
    )
