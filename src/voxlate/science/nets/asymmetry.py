"""MAP, the multi-scale asymmetry prior of paper 000 (section 2.2): a predictor's features with their mirror images.

Left and right are the two directions of the last axis, as everywhere in this package, and the mid-plane must lie in the
middle of the image: a shifted or rotated head is compared with the wrong places of its other side, silently.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.science.nets.blocks import BlockOptions, Norm, to_slices, zero_weights

Pyramid = dict[
    int, tuple[Tensor, ...]
]  # for each level, its own map, then those of the levels before it


class AsymmetryPrior(nn.Module):
    """Feeds the levels of a denoiser with the predictor's features at 1/2, 1/4, 1/8, … of the image's size.

    widths: channels of each level; channels: of the features, which go to the levels of their sizes, if there are any;
    patch: side, a power of 2, of what one pixel of level 0 stands for. Maps are slices, [N, C, H, W] (features come as
    [B, C, D, H, W]). Source: Cai et al. 2024, eq. 5 to 9.
    """

    def __init__(
        self,
        widths: Sequence[int],
        channels: Sequence[int],
        patch: int,
        options: BlockOptions,
    ) -> None:
        super().__init__()
        scale = patch.bit_length() - 1
        self.numbers = {  # level -> which of the features
            level: number
            for number in range(len(channels))
            if 0 <= (level := number + 1 - scale) < len(widths)
        }
        self.sampled = nn.ModuleDict()
        self.fused = nn.ModuleDict()
        total = 0
        for level, number in self.numbers.items():
            total += channels[number]
            self.sampled[str(level)] = Sampling(channels[number], options.groups)
            self.fused[str(level)] = Fusion(widths[level], total, options)

    def forward(self, features: Sequence[Tensor], size: Sequence[int], width: int) -> Pyramid:
        """The pyramid (eq. 6 and 7) for every level.

        size: height and width of level 0; width: of the image in pixels, whose middle is the mid-plane, without what
        was padded.
        """
        pyramid: Pyramid = {}
        below: tuple[Tensor, ...] = ()
        for level, number in self.numbers.items():
            feature = on_grid(to_slices(features[number]), size[0] >> level, size[1] >> level)
            sampled = self.sampled[str(level)](feature, math.ceil(width / 2 ** (number + 1)))
            pyramid[level] = below = (sampled, *(F.avg_pool2d(lower, 2) for lower in below))
        return pyramid

    def fuse(self, level: int, h: Tensor, pyramid: Pyramid) -> Tensor:
        """z_cond of a level (eq. 8); h as it is at a level without features."""
        return self.fused[str(level)](h, pyramid[level]) if level in pyramid else h


class Sampling(nn.Module):
    """delta: a map and its mirror image, as many channels as the map (eq. 6)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = Norm(2 * channels, groups, silu=True)
        self.conv = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, feature: Tensor, width: int) -> Tensor:
        """A slice's map [N, C, H, W], whose image is `width` columns wide, to a map of the same shape."""
        return self.conv(self.norm(torch.cat([feature, mirror(feature, width)], dim=1)))


class Fusion(nn.Module):
    """The denoiser's map with phi of it and of the maps of its level added; at first, phi is 0 (eq. 8)."""

    def __init__(self, channels: int, maps: int, options: BlockOptions) -> None:
        super().__init__()
        self.norm = Norm(channels + maps, options.groups, silu=True)
        self.conv = nn.Conv2d(channels + maps, channels, 3, padding=1)
        if options.zero_init:
            zero_weights(self.conv)

    def forward(self, h: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """The denoiser's map h [N, C, H, W] with what the maps of its level add; same shape."""
        own, *below = (level.to(h.dtype) for level in maps)
        return h + self.conv(self.norm(torch.cat([own, h, *below], dim=1)))


def mirror(feature: Tensor, width: int) -> Tensor:
    """The first `width` columns mirrored left to right; what was padded beyond them stays."""
    return torch.cat([feature[..., :width].flip(-1), feature[..., width:]], dim=-1)


def on_grid(feature: Tensor, height: int, width: int) -> Tensor:
    """A map cut, or its far borders repeated, to a size: two networks pad their far sides differently."""
    feature = feature[..., :height, :width]
    missing = (0, width - feature.shape[-1], 0, height - feature.shape[-2])
    return F.pad(feature, missing, mode="replicate") if any(missing) else feature
