"""Networks that make missing modalities from those available: what these baselines of paper 003 share, and two U-Nets.

MM-GAN is one U-Net from all modalities, missing ones left as background, to all. Hi-Net has an encoder for each modality that
also repeats it, and a path of its own that fuses them at every level.

Networks with instance norms, which give contiguous maps, take no channels-last memory: a training step is then 20 to
30 % shorter on a CPU (UcDGAN, CocaGAN).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import Counts, kind_of, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.blocks import start_normal, to_slices, to_volumes
from voxlate.science.nets.interface import (
    Channels,
    NetSettings,
    NetworkInput,
    Output,
    modality_images,
)
from voxlate.science.nets.strided import down_conv, up_conv

LEAK = 0.2  # slope of LeakyReLU below 0, on the way down; on the way up it is 0
Fusion = Literal["max", "mean", "sum", "product"]


@dataclass(frozen=True)
class Modalities:
    """The numbers of a network's input and output modalities; completes: whether both are the same modalities."""

    inputs: int
    outputs: int
    completes: bool


def modalities_of(channels: Channels, net: NetSettings) -> Modalities:
    """Modalities of a task's channels; raises BadInput where it is neither completion nor translation at once."""
    if channels.noisy or channels.features:
        found = "a noise level" if channels.noisy else "feature maps"
        raise BadInput(
            f"net.kind: expected method.kind 'regression' of task 'complete' or 'translate' for '{kind_of(net)}', found {found} in the network's input. Change method or task, or set net.kind to 'unet'."
        )
    if channels.code:
        return Modalities(channels.state, channels.out, completes=True)
    if channels.state or any(width != 1 for width in channels.images.values()):
        raise BadInput(
            f"net.kind: expected images of one channel for '{kind_of(net)}', found others. Set net.kind to 'unet'."
        )
    return Modalities(len(channels.images), channels.out, completes=False)


@dataclass(frozen=True)
class Slices:
    """Volumes as slices: images [B*D, N, h, w], padded, and available [B*D, N], 0 or 1; size: D, H, W before."""

    images: Tensor
    available: Tensor
    size: tuple[int, int, int]

    def of(self, modality: int) -> Tensor:
        """The images of one modality, [B*D, 1, h, w]."""
        return self.images[:, modality : modality + 1]

    def volumes(self, maps: Tensor) -> Tensor:
        """Maps of the padded size, [B*D, C, h, w], as [B, C, D, H, W] in the images' precision."""
        depth, height, width = self.size
        return to_volumes(maps, depth)[..., :height, :width].to(self.images.dtype)


def slices_of(inputs: NetworkInput, multiple: int) -> Slices:
    """All modalities slice by slice, height and width padded with background to a multiple.

    Mirrored far sides would be parts of a second brain where the first one lies near them.
    """
    images, available = modality_images(inputs)
    depth, height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % multiple, 0, -height % multiple), value=BACKGROUND)
    return Slices(
        to_slices(padded), available.repeat_interleave(depth, dim=0), (depth, height, width)
    )


def fuse_maps(maps: list[Tensor], available: Tensor, how: Fusion) -> Tensor:
    """Maps of each modality, [B, C, H, W], pixel by pixel over those available; 0 where none is.

    available: [B, N], 0 or 1.
    """
    there = available.to(maps[0].dtype).T[:, :, None, None, None].unbind()
    lowest = torch.finfo(maps[0].dtype).min
    neutral, join = {"product": (1.0, torch.mul), "max": (lowest, torch.maximum)}.get(
        how, (0.0, torch.add)
    )
    total = reduce(
        join, [torch.where(is_there > 0, h, neutral) for h, is_there in zip(maps, there)]
    )
    if how in ("product", "max"):
        return total * available.amax(dim=1)[:, None, None, None].to(total.dtype)
    return total if how == "sum" else total / reduce(torch.add, there).clamp(min=1)


def layers_down(widths: Sequence[int], kernel: int) -> list[nn.Module]:
    """A convolution of one image at full size, then 3x3 convolutions, each to half the size, with norm and ReLU."""
    first = nn.Conv2d(1, widths[0], kernel, padding=kernel // 2)
    return [
        _with_norm(first, widths[0]),
        *(_with_norm(down_conv(ins, outs, 3, 2), outs) for ins, outs in pairwise(widths)),
    ]


def layers_up(widths: Sequence[int]) -> list[nn.Module]:
    """Transposed 3x3 convolutions from the last width to the first, each to twice the size, with norm and ReLU."""
    falling = pairwise(reversed(widths))
    return [_with_norm(up_conv(ins, outs, 3, 2), outs) for ins, outs in falling]


def _with_norm(conv: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(conv, nn.InstanceNorm2d(channels), nn.ReLU())


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
                LEAK,
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
            HiNetEncoder((1, width, two, four)) for _ in range(modalities.inputs)
        )
        self.repeaters = nn.ModuleList(
            Repeater((four, two, width)) for _ in range(modalities.inputs)
        )
        self.down = nn.ModuleList(
            [Fuse(width, 0, two), Fuse(two, two, four), Fuse(four, four, four)]
        )
        self.middle = nn.Sequential(_layer(four, 2 * four, LEAK), _layer(2 * four, four))
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


class HiNetEncoder(nn.Module):
    """Three pairs of convolutions, each then pooled: maps at 1/2, 1/4 and 1/8 of the size."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = (
            (_layer(ins, outs, LEAK), _layer(outs, outs, LEAK)) for ins, outs in pairwise(widths)
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

    def __init__(self, channels: int, before: int, outs: int, slope: float = LEAK) -> None:
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
