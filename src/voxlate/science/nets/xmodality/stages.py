"""Encoder and decoder of ADM and U-ViT: two blocks and attention in every stage."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from voxlate.science.nets.xmodality.parts import AttentionLayer, Down, ResNetBlock, RMSNorm, Up

Block = partial(ResNetBlock, norm=RMSNorm)
MakeAttention = Callable[[int], AttentionLayer]  # of a number of channels


class DownStage(nn.Module):
    """Block, block, attention; gives the first block's map and the last, for the decoder."""

    def __init__(self, below: int, above: int, attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        self.block1 = Block(below, above, embedding=embedding)
        self.block2 = Block(above, above, embedding=embedding)
        self.attention = attention(above)

    def forward(self, h: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The first and the last map of the stage."""
        first = self.block1(h, embedding)
        return first, self.attention(self.block2(first, embedding))


class UpStage(nn.Module):
    """Takes the two maps of its stage in, last first, and doubles the size; only its first block has a skip."""

    def __init__(self, below: int, above: int, attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        self.block1 = Block(2 * above, below, embedding=embedding)
        self.block2 = Block(below, below, embedding=embedding, ins=below + above)
        self.attention = attention(below)
        self.up = Up(below)

    def forward(self, h: Tensor, first: Tensor, last: Tensor, embedding: Tensor | None) -> Tensor:
        """The map of the next stage, at twice the size."""
        h = self.block1(torch.cat([h, last], dim=-1), embedding)
        return self.up(self.attention(self.block2(torch.cat([h, first], dim=-1), embedding)))


class Encoder(nn.Module):
    """Stages with a halving between them: map -> deepest map, and the pairs of maps of each stage."""

    def __init__(self, widths: list[int], attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            DownStage(*pair, attention, embedding) for pair in pairwise(widths)
        )
        self.downs = nn.ModuleList(Down(above) for above in widths[1:-1])

    def forward(
        self, h: Tensor, embedding: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The deepest map, and the pair of maps of each stage."""
        kept = []
        for stage, down in zip(self.stages, [*self.downs, nn.Identity()]):
            kept.append(stage(h, embedding))
            h = down(kept[-1][1])
        return h, kept


class Decoder(nn.Module):
    """The stages back from the deepest to the second; the first stage's maps stay unused, as published."""

    def __init__(self, widths: list[int], attention: MakeAttention, embedding: int) -> None:
        super().__init__()
        pairs = reversed(list(pairwise(widths[1:])))
        self.stages = nn.ModuleList(UpStage(*pair, attention, embedding) for pair in pairs)

    def forward(
        self, h: Tensor, kept: list[tuple[Tensor, Tensor]], embedding: Tensor | None
    ) -> Tensor:
        """The map of the second stage's size; kept: as the encoder gives them."""
        for stage, (first, last) in zip(self.stages, reversed(kept)):
            h = stage(h, first, last, embedding)
        return h
