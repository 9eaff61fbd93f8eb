"""Convolutions that halve and double slices or volumes, these along depth only while there are slices enough."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_SLICES = 4  # that a layer halves: fewer would be nearly all padding
Dimensions = Literal[2, 3]


def down_conv(
    ins: int, outs: int, kernel: int, dimensions: Dimensions, bias: bool = True
) -> nn.Module:
    """A strided convolution of slices [N, C, H, W], or of volumes, whose height and width are even."""
    if dimensions == 3:
        return HalvingConv(ins, outs, kernel, stride=2, bias=bias)
    return nn.Conv2d(ins, outs, kernel, stride=2, padding=1, bias=bias)


def up_conv(
    ins: int, outs: int, kernel: int, dimensions: Dimensions, bias: bool = True
) -> nn.Module:
    """A transposed convolution of slices [N, C, H, W], or of volumes, which also takes the depth to reach."""
    if dimensions == 3:
        return DoublingConv(ins, outs, kernel, stride=2, bias=bias)
    return nn.ConvTranspose2d(
        ins, outs, kernel, stride=2, padding=1, output_padding=4 - kernel, bias=bias
    )


def norm(kind: Literal["batch", "instance"], channels: int, dimensions: Dimensions) -> nn.Module:
    """A norm over a batch, or over each slice or volume by itself."""
    if kind == "batch":
        return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)
    return nn.InstanceNorm2d(channels) if dimensions == 2 else nn.InstanceNorm3d(channels)


class HalvingConv(nn.Conv3d):
    """Halves height and width, which must be even, and a depth of FEWEST_SLICES or more, rounded up; else keeps it."""

    def forward(self, h: Tensor) -> Tensor:
        """Volumes [B, C, D, H, W] at half the size."""
        halves = h.shape[2] >= FEWEST_SLICES
        odd = h.shape[2] % 2
        after = self.kernel_size[0] - 3 + (odd if halves else 1)
        h = F.pad(h, (1, 1, 1, 1, 1, after))
        return F.conv3d(h, self.weight, self.bias, (2 if halves else 1, 2, 2))


class DoublingConv(nn.ConvTranspose3d):
    """Doubles height and width, and makes the depth what a HalvingConv with this kernel was given."""

    def forward(self, h: Tensor, depth: int) -> Tensor:  # type: ignore[override]
        """Volumes at twice the height and width, with this depth."""
        stride = 1 if h.shape[2] == depth else 2
        more = 4 - self.kernel_size[0]
        # the depth is cut by hand: where it pads two slices itself, torch 2.13 (oneDNN) gives bfloat16 gradients of nan
        h = F.conv_transpose3d(
            h,
            self.weight,
            self.bias,
            (stride, 2, 2),
            padding=(0, 1, 1),
            output_padding=(0, more, more),
        )
        return h[:, :, 1 : 1 + depth]
