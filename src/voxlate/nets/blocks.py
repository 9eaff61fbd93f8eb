"""The blocks that every network is made of: one residual block, its resampling, attention, and what it is told.

A slice-wise network hands its blocks 4-D channels-last maps `[B*D, C, H, W]`, so that norms are per slice; a network
with (3, 3, 3) kernels hands them `[B, C, D, H, W]`. `depth` (D) travels beside the map, because a folded batch no
longer says where one volume ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.nets.norm import Norm

FEWEST_PIXELS = 512  # with fewer, summing the weights costs more than the products it saves


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of one network share.

    dims: 2 (slices folded into the batch) or 3; embedding: length of the embedding, 0 for none;
    volumetric: a (3, 1, 1) convolution after every spatial one (dims 2 only).
    """

    dims: Literal[2, 3] = 2
    groups: int = 32
    embedding: int = 0
    modulation: Literal["add", "scale_shift"] = "add"
    dropout: float = 0.0
    volumetric: bool = False
    zero_init: bool = True


def to_slices(volume: Tensor) -> Tensor:
    """[B, C, D, H, W] -> [B*D, C, H, W]."""
    return volume.transpose(1, 2).flatten(0, 1)


def to_volumes(slices: Tensor, depth: int) -> Tensor:
    """[B*D, C, H, W] -> [B, C, D, H, W]."""
    return slices.reshape(-1, depth, *slices.shape[1:]).transpose(1, 2)


def pad_far(image: Tensor, multiples: Sequence[int]) -> Tensor:
    """Mirror the far sides of [B, C, D, H, W] up to the next multiples (repeat the border of a very small image)."""
    missing = [-size % multiple for size, multiple in zip(image.shape[2:], multiples)]
    if not any(missing):
        return image
    mirror = all(extra < size for extra, size in zip(missing, image.shape[2:]))
    return F.pad(image, (0, missing[2], 0, missing[1], 0, missing[0]), mode="reflect" if mirror else "replicate")


def start_normal(module: nn.Module) -> None:
    """Draw all kernels from N(0, 0.02²), batch norms' factors about 1, and set biases to 0 (Isola et al. 2017, 6.2)."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, mean=1.0, std=0.02)
        if isinstance(bias := getattr(part, "bias", None), nn.Parameter):
            nn.init.zeros_(bias)


def zeroed(module: nn.Module) -> None:
    """Set the weights of a layer, not those of its parts, to zero."""
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


class Volumetric(nn.Module):
    """A convolution along depth that starts as the identity (Zhu et al. 2023, eq. 5-7)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.dirac_(torch.empty(channels, channels, 3)))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor, depth: int) -> Tensor:
        slices, channels, height, width = h.shape
        if slices % depth:
            raise ValueError(f"{slices} slices are not whole volumes of {depth}")
        # channels-last memory [B, D, H*W, C] is a picture D high and H*W wide, so that no line along D is ever copied
        volume = h.permute(0, 2, 3, 1).reshape(-1, depth, height * width, channels).permute(0, 3, 1, 2)
        volume = F.conv2d(volume, self.weight[..., None], self.bias, padding=(1, 0))
        return volume.permute(0, 2, 3, 1).reshape(slices, height, width, channels).permute(0, 3, 1, 2)


class SliceConv(nn.Conv2d):
    """A convolution within slices, followed by one along depth where `volumetric` asks for it."""

    def __init__(self, ins: int, outs: int, size: int, options: BlockOptions, stride: int = 1) -> None:
        super().__init__(ins, outs, size, stride=stride, padding=size // 2)
        self.volumetric = Volumetric(outs) if options.volumetric else None

    def forward(self, h: Tensor, depth: int) -> Tensor:  # type: ignore[override]
        h = super().forward(h)
        return h if self.volumetric is None else self.volumetric(h, depth)


class VolumeConv(nn.Conv3d):
    """A convolution over (3, 3, 3) voxels; `depth` is in the shape of its input."""

    def forward(self, h: Tensor, depth: int) -> Tensor:  # type: ignore[override]
        return super().forward(h)


def conv3(ins: int, outs: int, options: BlockOptions, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Module:
    """A 3x3 (or 3x3x3) convolution that keeps the size, or divides it by `stride` along D, H, W."""
    if options.dims == 2:
        return SliceConv(ins, outs, 3, options, stride=stride[-1])
    return VolumeConv(ins, outs, 3, stride=stride, padding=1)


def conv1(ins: int, outs: int, options: BlockOptions) -> nn.Module:
    return nn.Conv2d(ins, outs, 1) if options.dims == 2 else nn.Conv3d(ins, outs, 1)


def shrink(h: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Average over blocks of `stride` voxels."""
    return F.avg_pool2d(h, stride[1:]) if h.ndim == 4 else F.avg_pool3d(h, stride)


def enlarge(h: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Repeat every voxel `stride` times."""
    factors = [float(factor) for factor in (stride[1:] if h.ndim == 4 else stride)]
    return F.interpolate(h, scale_factor=factors, mode="nearest")


def enlarged_conv(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(enlarge(h, 2), weight, bias, padding=1)` with 4 instead of 9 products a pixel (Shi et al. 2016, sec. 2).

    Two neighbours of an enlarged pixel are copies of one, so the output at each of the four positions inside a
    pixel of h is a 2x2 convolution of h, whose weights are sums of those of the 3x3 one.
    """
    columns = _pair_sums(weight, 3)
    height, width = h.shape[2:]
    out = []
    for row in range(2):
        line = []
        for column in range(2):
            kernel = _pair_sums(columns[column], 2)[row]
            position = F.conv2d(h, kernel.contiguous(memory_format=torch.channels_last), bias, padding=1)
            line.append(position[..., row : row + height, column : column + width].permute(0, 2, 3, 1))
        out.append(torch.stack(line, dim=3))
    return torch.stack(out, dim=2).reshape(h.shape[0], 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def _pair_sums(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps as two, for the first and for the second of two equal pixels."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


class Down(nn.Module):
    """Strided convolution."""

    def __init__(self, channels: int, stride: tuple[int, int, int], options: BlockOptions) -> None:
        super().__init__()
        self.conv = conv3(channels, channels, options, stride)

    def forward(self, h: Tensor, embedding: Tensor | None, depth: int) -> Tensor:
        h = self.conv(h, depth)
        return h


class Up(nn.Module):
    """Nearest enlargement, then a convolution."""

    def __init__(self, channels: int, stride: tuple[int, int, int], options: BlockOptions) -> None:
        super().__init__()
        self.stride = stride
        self.conv = conv3(channels, channels, options)

    def forward(self, h: Tensor, embedding: Tensor | None, depth: int) -> Tensor:
        conv = self.conv
        if isinstance(conv, SliceConv) and h.device.type == "cpu" and h[:, 0].numel() >= FEWEST_PIXELS:
            h = enlarged_conv(h, conv.weight, conv.bias)
            return h if conv.volumetric is None else conv.volumetric(h, depth)
        h = self.conv(enlarge(h, self.stride), depth)
        return h


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside a skip; the embedding enters between them.

    modulation "add": added before the second norm (Ho et al. 2020); "scale_shift": scales and shifts after it
    (Dhariwal and Nichol 2021, sec. 3.1). resample: "down" (average) or "up" (nearest) on both branches, after the
    first norm and SiLU and before the convolution.
    """

    def __init__(
        self,
        ins: int,
        outs: int,
        options: BlockOptions,
        resample: Literal["down", "up"] | None = None,
        stride: tuple[int, int, int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        self.resample, self.stride = resample, stride
        self.scale_shift = options.modulation == "scale_shift"
        self.norm1 = Norm(ins, options.groups, silu=True)
        self.conv1 = conv3(ins, outs, options)
        self.embed = nn.Linear(options.embedding, outs * (1 + self.scale_shift)) if options.embedding else None
        self.norm2 = Norm(outs, options.groups, silu=not self.scale_shift)
        self.dropout = nn.Dropout(options.dropout)
        self.conv2 = conv3(outs, outs, options)
        if options.zero_init:
            zeroed(self.conv2)
        self.skip = conv1(ins, outs, options) if ins != outs else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor | None, depth: int) -> Tensor:
        inner = self.norm1(h)
        if self.resample is not None:
            resample = shrink if self.resample == "down" else enlarge
            inner, h = resample(inner, self.stride), resample(h, self.stride)
        inner = self.conv1(inner, depth)
        inner = self.modulate(inner, embedding)
        h = self.skip(h) + self.conv2(self.dropout(inner), depth)
        return h

    def modulate(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """The second norm and SiLU, with what the block is told."""
        told = None
        if self.embed is not None and embedding is not None:
            told = self.embed(embedding).to(h.dtype)
            told = told.reshape(*told.shape, *(1 for _ in h.shape[2:]))
        if not self.scale_shift:
            h = self.norm2(h if told is None else h + told)
            return h
        h = self.norm2(h)
        if told is not None:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        return F.silu(h, inplace=not h.requires_grad)


class Attention(nn.Module):
    """Self-attention over all pixels of a slice (all voxels, for 3-D maps), with a zero-initialised way out."""

    def __init__(self, channels: int, heads: int, options: BlockOptions) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels, options.groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        if options.zero_init:
            zeroed(self.out)

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(h).flatten(2).transpose(1, 2)  # [N, pixels, C], a view of channels-last memory
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = self.out(mixed.transpose(1, 2).flatten(2)).to(h.dtype)
        h = h + mixed.transpose(1, 2).reshape(h.shape)
        return h
