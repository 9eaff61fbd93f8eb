"""Convolutions that halve and double volumes, along depth only while there are slices enough."""

import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_SLICES = 4  # that a layer halves: fewer would be nearly all padding


class HalvingConv(nn.Conv3d):
    """Halves height and width, which must be even, and a depth of FEWEST_SLICES or more, rounded up; else keeps it."""

    def __init__(self, ins: int, outs: int, kernel: int, bias: bool = True) -> None:
        super().__init__(ins, outs, kernel, stride=2, bias=bias)

    def forward(self, h: Tensor) -> Tensor:
        halves, odd = h.shape[2] >= FEWEST_SLICES, h.shape[2] % 2
        after = self.kernel_size[0] - 3 + (odd if halves else 1)
        h = F.pad(h, (1, 1, 1, 1, 1, after))
        return F.conv3d(h, self.weight, self.bias, (2 if halves else 1, 2, 2))


class DoublingConv(nn.ConvTranspose3d):
    """Doubles height and width, and makes the depth what a HalvingConv with this kernel was given."""

    def __init__(self, ins: int, outs: int, kernel: int, bias: bool = True) -> None:
        super().__init__(ins, outs, kernel, stride=2, bias=bias)

    def forward(self, h: Tensor, depth: int) -> Tensor:  # type: ignore[override]
        stride, more = 1 if h.shape[2] == depth else 2, 4 - self.kernel_size[0]
        # the depth is cut by hand: where it pads two slices itself, torch 2.13 (oneDNN) gives bfloat16 gradients of nan
        h = F.conv_transpose3d(
            h, self.weight, self.bias, (stride, 2, 2), padding=(0, 1, 1), output_padding=(0, more, more)
        )
        return h[:, :, 1 : 1 + depth]
