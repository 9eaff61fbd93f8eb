"""The residual network of Johnson et al. 2016 that CycleGAN's generators are: two halvings, blocks, two doublings."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxlate.config import settings
from voxlate.nets.blocks import pad_far, start_normal, to_slices, to_volumes
from voxlate.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.nets.strided import DoublingConv, HalvingConv

HALVINGS = 2


@settings
class ResNet(NetSettings):
    """c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-out, tanh (Zhu et al. 2017, sec. 7.2)."""

    kind: Literal["resnet"] = "resnet"
    width: Annotated[int, Field(gt=0, description="channels at full size; each of two halvings doubles them")] = 64
    blocks: Annotated[int, Field(ge=1, description="residual blocks at a quarter of the size")] = 9
    dimensions: Annotated[
        Literal[2, 3],
        Field(description="2: each slice by itself; 3: volumes, kernels of 3 slices, depth halved where 4 are left"),
    ] = 2

    def build(self, channels: Channels) -> "ResNetNet":
        """Raises BadInput where a task gives more than images."""
        self.takes_only_images(channels)
        return ResNetNet(self, channels.joined, channels.out)


class ResNetNet(nn.Module):
    """Works on images of any size from 8 pixels on, slice by slice or, with three dimensions, on volumes."""

    def __init__(self, net: ResNet, ins: int, outs: int) -> None:
        super().__init__()
        self.volumes = net.dimensions == 3
        widths = [net.width * 2**level for level in range(HALVINGS + 1)]
        normed = partial(_normed, volumes=self.volumes)
        layers = [*_mirrored(ins, widths[0], 7, self.volumes), *normed(widths[0])]
        for below, above in pairwise(widths):
            layers += [_halving(below, above, self.volumes), *normed(above)]
        layers += [Block(widths[-1], self.volumes) for _ in range(net.blocks)]
        for above, below in pairwise(reversed(widths)):
            layers += [_doubling(above, below, self.volumes), *normed(below)]
        layers += [*_mirrored(widths[0], outs, 7, self.volumes), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        start_normal(self)
        if self.volumes:
            self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, inputs: NetworkInput) -> Output:
        image = inputs.joined
        depth, height, width = image.shape[2:]
        padded = pad_far(image, (1, 2**HALVINGS, 2**HALVINGS))
        out = self._volume(padded) if self.volumes else to_volumes(self.layers(to_slices(padded)), depth)
        return Output(out[:, :, :depth, :height, :width].to(image.dtype))

    def _volume(self, h: Tensor) -> Tensor:
        if h.shape[2] == 1:  # cannot be mirrored
            h = F.pad(h, (0, 0, 0, 0, 0, 1), mode="replicate")
        h = h.contiguous(memory_format=torch.channels_last_3d)  # twice as fast on a CPU with 8 channels in bfloat16
        depths: list[int] = []
        for layer in self.layers:
            if isinstance(layer, HalvingConv):
                depths.append(h.shape[2])
            h = layer(h, depths.pop()) if isinstance(layer, DoublingConv) else layer(h)
        return h


class Block(nn.Module):
    """Two convolutions and a skip; nothing after the sum."""

    def __init__(self, channels: int, volumes: bool) -> None:
        super().__init__()
        first = [*_mirrored(channels, channels, 3, volumes), *_normed(channels, volumes)]
        second = [*_mirrored(channels, channels, 3, volumes), _normed(channels, volumes)[0]]
        self.layers = nn.Sequential(*first, *second)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.layers(h)


def _mirrored(ins: int, outs: int, size: int, volumes: bool) -> list[nn.Module]:
    """A convolution over `size` pixels each way, and 3 slices of volumes, that sees the image mirrored beyond it."""
    half = size // 2
    if volumes:
        return [nn.ReflectionPad3d((half, half, half, half, 1, 1)), nn.Conv3d(ins, outs, (3, size, size))]
    return [nn.ReflectionPad2d(half), nn.Conv2d(ins, outs, size)]


def _halving(ins: int, outs: int, volumes: bool) -> nn.Module:
    return HalvingConv(ins, outs, 3) if volumes else nn.Conv2d(ins, outs, 3, stride=2, padding=1)


def _doubling(ins: int, outs: int, volumes: bool) -> nn.Module:
    return DoublingConv(ins, outs, 3) if volumes else nn.ConvTranspose2d(ins, outs, 3, 2, padding=1, output_padding=1)


def _normed(channels: int, volumes: bool) -> list[nn.Module]:
    norm: Callable[[int], nn.Module] = nn.InstanceNorm3d if volumes else nn.InstanceNorm2d
    return [norm(channels), nn.ReLU()]
