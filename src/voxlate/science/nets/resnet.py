"""The residual network of Johnson et al. 2016 that CycleGAN's generators are: two halvings, blocks, two doublings."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.science.nets.blocks import cut_far, pad_far, start_normal, to_slices, to_volumes
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.science.nets.strided import (
    Dimensions,
    DoublingConv,
    HalvingConv,
    down_conv,
    norm,
    up_conv,
)

HALVINGS = 2


@settings
class ResNet(NetSettings):
    """c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-out, tanh (Zhu et al. 2017, sec. 7.2)."""

    kind: Literal["resnet"] = "resnet"
    width: Annotated[
        int,
        setting("Number of channels at full size; each of two halvings doubles them.", gt=0),
    ] = 64
    blocks: Annotated[int, setting("Number of residual blocks at a quarter of the size.", ge=1)] = 9
    dimensions: Annotated[
        Literal[2, 3],
        setting(
            "Dimensions of convolutions: 2 for single slices, 3 for volumes with kernels of 3 slices, whose depth is halved while 4 slices are left."
        ),
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
        dims = net.dimensions
        widths = [net.width * 2**level for level in range(HALVINGS + 1)]
        layers = [*_mirror_conv(ins, widths[0], 7, dims), *_norm_relu(widths[0], dims)]
        for below, above in pairwise(widths):
            layers += [down_conv(below, above, 3, dims), *_norm_relu(above, dims)]
        layers += [Block(widths[-1], dims) for _ in range(net.blocks)]
        for above, below in pairwise(reversed(widths)):
            layers += [up_conv(above, below, 3, dims), *_norm_relu(below, dims)]
        layers += [*_mirror_conv(widths[0], outs, 7, dims), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        start_normal(self)
        if self.volumes:
            self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, inputs: NetworkInput) -> Output:
        """The image."""
        image = inputs.joined
        padded = pad_far(image, 2**HALVINGS)
        out = (
            self._volume(padded)
            if self.volumes
            else to_volumes(self.layers(to_slices(padded)), image.shape[2])
        )
        return Output(cut_far(out, image))

    def _volume(self, h: Tensor) -> Tensor:
        if h.shape[2] == 1:  # cannot be mirrored
            h = F.pad(h, (0, 0, 0, 0, 0, 1), mode="replicate")
        h = h.contiguous(
            memory_format=torch.channels_last_3d
        )  # twice as fast on a CPU with 8 channels in bfloat16
        depths = []
        for layer in self.layers:
            if isinstance(layer, HalvingConv):
                depths.append(h.shape[2])
            h = layer(h, depths.pop()) if isinstance(layer, DoublingConv) else layer(h)
        return h


class Block(nn.Module):
    """Two convolutions and a skip; nothing after the sum."""

    def __init__(self, channels: int, dims: Dimensions) -> None:
        super().__init__()
        first = [*_mirror_conv(channels, channels, 3, dims), *_norm_relu(channels, dims)]
        second = [*_mirror_conv(channels, channels, 3, dims), norm("instance", channels, dims)]
        self.layers = nn.Sequential(*first, *second)

    def forward(self, h: Tensor) -> Tensor:
        """A map of the same shape."""
        return h + self.layers(h)


def _mirror_conv(ins: int, outs: int, size: int, dims: Dimensions) -> list[nn.Module]:
    """A convolution over `size` pixels each way, and 3 slices of volumes, that sees the image mirrored beyond it."""
    half = size // 2
    if dims == 3:
        return [
            nn.ReflectionPad3d((half, half, half, half, 1, 1)),
            nn.Conv3d(ins, outs, (3, size, size)),
        ]
    return [nn.ReflectionPad2d(half), nn.Conv2d(ins, outs, size)]


def _norm_relu(channels: int, dims: Dimensions) -> list[nn.Module]:
    return [norm("instance", channels, dims), nn.ReLU()]
