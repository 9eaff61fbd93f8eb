"""What networks of completion share: which modalities are available, slices in and out, and fusion over those alone.

Networks with instance norms, which give contiguous maps, take no channels-last memory: a training step is then 20 to
30 % shorter on a CPU (UcDGAN, CocaGAN).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import kind_of
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.blocks import to_slices, to_volumes
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput
from voxlate.science.nets.strided import down_conv, up_conv

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


def modality_images(inputs: NetworkInput) -> tuple[Tensor, Tensor]:
    """The images of all modalities, [B, N, D, H, W], and which are available, [B, N], 0 or 1.

    Of a completion (with a code) those of the state, background where not available; else all images given.
    """
    if inputs.code is None:
        images = torch.cat(list(inputs.images.values()), dim=1)
        return images, images.new_ones(images.shape[:2])
    assert inputs.state is not None
    hidden = inputs.code.unflatten(1, (-1, inputs.state.shape[1])).amax(dim=1) > 0
    return inputs.state.masked_fill(hidden[:, :, None, None, None], BACKGROUND), (~hidden).to(
        inputs.state.dtype
    )


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
