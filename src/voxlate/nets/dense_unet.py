"""A U-Net of dense skips (U-Net++, Zhou et al. 2018) on an encoder in the shape of ResNet-34 (He et al. 2016)."""

from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxlate.config import Counts, settings
from voxlate.nets.blocks import BlockOptions, Norm, SliceConv, enlarge, pad_far, to_slices, to_volumes, zeroed
from voxlate.nets.interface import Channels, NetSettings, NetworkInput, Output

STEM = 7  # pixels a side of the first kernel: He et al. 2016, table 1
TWICE = (1, 2, 2)


@settings
class DenseUNet(NetSettings):
    """ResNet-34's stages going down; going up, every node takes all earlier nodes of its row and the one below."""

    kind: Literal["dense_unet"] = "dense_unet"
    width: Annotated[int, Field(gt=0, multiple_of=4, description="channels of the first stage; each doubles them")] = 64
    blocks: Annotated[Counts, Field(min_length=1, description="residual blocks of each stage, at 1/4, 1/8, … size")] = (
        *(3, 4, 6, 3),
    )
    dense: Annotated[bool, Field(description="nodes between encoder and decoder; else a plain U-Net's skips")] = True
    groups: Annotated[int, Field(gt=0, description="groups of a norm; fewer where under two channels share one")] = 32

    @property
    def multiple(self) -> int:
        return int(2 ** (len(self.blocks) + 1))

    def build(self, channels: Channels) -> "DenseUNetNet":
        """Raises BadInput where a task gives more than images."""
        self.takes_only_images(channels)
        return DenseUNetNet(self, channels)


class DenseUNetNet(nn.Module):
    """Works on images of any size, slice by slice.

    Row 0 is at half the size (the stem's map), row i at 1/2^(i+1). Node (i, j) of row i is made of the nodes (i, 0) to
    (i, j - 1) and of (i + 1, j - 1), enlarged (Zhou et al. 2018, eq. 1); row i ends at j = rows - 1 - i. The image is
    made of the last node of row 0, four pixels of each of its.
    """

    def __init__(self, net: DenseUNet, channels: Channels) -> None:
        super().__init__()
        self.net = net
        options = BlockOptions(groups=net.groups, repeat=not channels.masked)
        widths = [net.width, *(net.width * 2**stage for stage in range(len(net.blocks)))]
        self.rows = len(widths)
        self.stem = SliceConv(channels.joined, net.width, STEM, options, stride=2)
        self.stem_norm = Norm(net.width, net.groups, silu=True)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(ins if first else outs, outs, options, 2 if first and number else 1)
                for first in [True, *[False] * (count - 1)]
            )
            for number, (ins, outs, count) in enumerate(zip(widths, widths[1:], net.blocks))
        )
        made = [width // 2 for width in widths[:-1]]
        self.nodes = nn.ModuleDict()
        for column in range(1, self.rows):
            for row in range(self.rows - column):
                if net.dense or row == self.rows - 1 - column:
                    kept = column - 1 if net.dense else 0
                    below = widths[row + 1] if column == 1 else made[row + 1]
                    ins = widths[row] + kept * made[row] + below
                    self.nodes[f"{row}_{column}"] = Node(ins, made[row], options)
        self.head = SliceConv(made[0], 4 * channels.out, 3, options)
        zeroed(self.head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: NetworkInput) -> Output:
        image = inputs.joined
        multiple = self.net.multiple
        padded = pad_far(image, (1, multiple, multiple))
        h = to_slices(padded).contiguous(memory_format=torch.channels_last)
        out = to_volumes(F.pixel_shuffle(self._slices(h), 2), image.shape[2])
        return Output(out[..., : image.shape[3], : image.shape[4]].to(image.dtype))

    def _slices(self, h: Tensor) -> Tensor:
        h = self.stem_norm(self.stem(h, 1))
        columns = [[h]]  # of every row, its nodes so far
        h = F.max_pool2d(h, 3, 2, 1)
        for stage in self.stages:
            for block in cast(nn.ModuleList, stage):
                h = block(h)
            columns.append([h])
        for column in range(1, self.rows):
            for row in range(self.rows - column):
                name = f"{row}_{column}"
                if name in self.nodes:
                    below = enlarge(columns[row + 1][-1], TWICE)
                    columns[row].append(self.nodes[name](torch.cat([*columns[row], below], dim=1)))
        h = self.head(columns[0][-1], 1)
        return h


class Block(nn.Module):
    """Two convolutions and a skip, as in He et al. 2016, fig. 5; the last norm starts at 0, so that it is the skip."""

    def __init__(self, ins: int, outs: int, options: BlockOptions, stride: int) -> None:
        super().__init__()
        self.conv1 = SliceConv(ins, outs, 3, options, stride=stride)
        self.norm1 = Norm(outs, options.groups, silu=True)
        self.conv2 = SliceConv(outs, outs, 3, options)
        self.norm2 = Norm(outs, options.groups)
        nn.init.zeros_(self.norm2.weight)
        self.skip = nn.Conv2d(ins, outs, 1, stride=stride) if stride > 1 or ins != outs else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.norm1(self.conv1(h, 1)), 1))
        return F.silu(self.skip(h) + inner)


class Node(nn.Module):
    """Two convolutions of the maps that a node joins."""

    def __init__(self, ins: int, outs: int, options: BlockOptions) -> None:
        super().__init__()
        self.conv1 = SliceConv(ins, outs, 3, options)
        self.norm1 = Norm(outs, options.groups, silu=True)
        self.conv2 = SliceConv(outs, outs, 3, options)
        self.norm2 = Norm(outs, options.groups, silu=True)

    def forward(self, h: Tensor) -> Tensor:
        h = self.norm2(self.conv2(self.norm1(self.conv1(h, 1)), 1))
        return h
