"""Tasks that need no earlier stage: to translate, and to complete.

A task turns a batch into network inputs and a training target. `stage_tasks` has those that build on earlier stages.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from voxlate.base.config import setting, settings
from voxlate.base.devices import with_doubles
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.method import (
    Problem,
    StageSettings,
    Task,
    TaskSettings,
    channels_by_name,
    require,
)
from voxlate.science.nets.interface import Channels, NetworkInput

Inside = Annotated[
    bool,
    setting("Whether noise and loss are inside the mask only; nothing is synthesised outside."),
]
Strip = Annotated[
    bool,
    setting("Whether sources and targets are background outside the mask (skull stripping)."),
]


@settings
class Translate(TaskSettings, Task):
    """From the source modalities to the target modalities, everywhere or inside the mask."""

    kind: Literal["translate"] = "translate"
    inside: Inside = False
    strip: Strip = False
    range: Annotated[
        tuple[float, float],
        setting("Network values of background and of the brightest voxel; paper 002 has 0 and 1."),
    ] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if not self.range[0] < self.range[1]:
            raise BadInput(
                f"task.range: expected a lower and an upper end, found {list(self.range)}. Swap them."
            )

    def check(self, stage: StageSettings, earlier: Mapping[str, StageSettings], where: str) -> None:
        """Raise BadInput where a target is its own source."""
        both = {*stage.data.source} & {*stage.data.target}
        if both and stage.method.makes_targets:
            raise BadInput(
                f"{where}: expected other modalities in data.target than in data.source, found {min(both)} in both. Leave it out of one, or set task.kind to 'complete'."
            )

    def channels(self, sources: Sequence[str], targets: Sequence[str]) -> Channels:
        """Sources in, targets as the state."""
        count = len(targets)
        return Channels(
            dict.fromkeys(sources, 1), count, state=count, noisy=True, masked=self.needs_mask
        )

    def pose(self, batch: Batch, noise: Noise | None = None, progress: float = 1.0) -> Problem:
        """The batch as a problem."""
        batch = strip_background(batch) if self.strip else batch
        mask = batch.mask if self.inside else torch.ones_like(batch.mask)
        known = self._in_range(torch.full_like(mask, BACKGROUND)) if self.inside else None
        inputs = NetworkInput(channels_by_name(batch.source_names, self._in_range(batch.source)))
        if noise is None:
            return Problem(inputs, mask, known=known)
        x0 = self._in_range(require(batch.target))
        return Problem(inputs, mask, known=known, x0=x0, x0_present=batch.target_present)

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        """The image in the unit of batches, background outside the mask."""
        x0 = x0 if problem.known is None else torch.where(problem.mask > 0, x0, problem.known)
        return (x0 - self._middle) / self._scale

    @property
    def state_range(self) -> tuple[float, float]:
        """The range of network values."""
        return self.range

    @property
    def _scale(self) -> float:
        """Network units over those of batches."""
        return (self.range[1] - self.range[0]) / 2

    @property
    def _middle(self) -> float:
        return (self.range[1] + self.range[0]) / 2

    def _in_range(self, image: Tensor) -> Tensor:
        return image * self._scale + self._middle


def strip_background(batch: Batch) -> Batch:
    """The batch with background outside its mask."""
    outside = batch.mask == 0
    target = None if batch.target is None else batch.target.masked_fill(outside, BACKGROUND)
    return replace(batch, source=batch.source.masked_fill(outside, BACKGROUND), target=target)


@settings
class Complete(TaskSettings, Task):
    """Synthesises missing modalities from those present; sources and targets are the same list.

    Only the channels of missing modalities are noisy. The code has one bit per modality (1: synthesise); with
    `incomplete`, a second bit per modality follows (1: absent).
    Source: Meng et al. 2022 (arXiv 2207.03430), eq. 3 and 7; Sharma and Hamarneh 2020 for the curriculum.
    """

    completes: ClassVar[bool] = True
    known_in_state: ClassVar[bool] = True
    kind: Literal["complete"] = "complete"
    inside: Inside = False
    strip: Strip = False
    incomplete: Annotated[
        bool,
        setting(
            "Whether cases that lack modalities are trained on, too; needs data.allow_missing, and adds one bit for each modality to the code."
        ),
    ] = False
    curriculum: Annotated[
        tuple[tuple[float, float], ...],
        setting(
            "Pairs [until, share]: up to this progress of the training, only the first share of the sets of missing modalities is trained, fewest missing first; after the last pair all sets are."
        ),
    ] = ()

    def __post_init__(self) -> None:
        ends = [0.0, *(until for until, _ in self.curriculum)]
        rising = all(before < after for before, after in itertools.pairwise(ends))
        if not rising or any(not 0 < share <= 1 for _, share in self.curriculum) or ends[-1] > 1:
            raise BadInput(
                f"task.curriculum: expected pairs [until, share] of rising progress up to 1 and shares up to 1, found {[list(pair) for pair in self.curriculum]}. Change them."
            )

    def check(self, stage: StageSettings, earlier: Mapping[str, StageSettings], where: str) -> None:
        """Raise BadInput where the stage's modalities or data do not fit."""
        data = stage.data
        if data.source != data.target:
            raise BadInput(
                f"{where}: expected data.source and data.target to be the same list for task.kind = 'complete', found {data.source} and {data.target}. Make them equal."
            )
        if len(data.target) < 2:
            raise BadInput(
                f"{where}: expected two modalities or more for task.kind = 'complete', found {data.target}. Add at least one other modality."
            )
        if data.allow_missing != self.incomplete:
            found = f"task.incomplete = {self.incomplete} and data.allow_missing = {data.allow_missing}".lower()
            raise BadInput(
                f"{where}: expected task.incomplete and data.allow_missing to be equal, found {found}. Set both to true or both to false."
            )
        if data.stack:
            raise BadInput(
                f"{where}: expected data.stack = 0 for task.kind = 'complete', found {data.stack}: neighbouring slices miss the same modalities. Set it to 0."
            )

    def channels(self, sources: Sequence[str], targets: Sequence[str]) -> Channels:
        """All modalities as the state, with the code of those wanted."""
        count = len(targets)
        code = count * (1 + self.incomplete)
        return Channels(
            images={}, state=count, out=count, code=code, noisy=True, masked=self.needs_mask
        )

    def pose(self, batch: Batch, noise: Noise | None = None, progress: float = 1.0) -> Problem:
        """The batch as a problem; in training, the missing modalities are drawn."""
        batch = strip_background(batch) if self.strip else batch
        share = next((share for until, share in self.curriculum if progress < until), 1.0)
        missing = ~batch.present if noise is None else draw_missing(batch.present, noise, share)
        absent = ~batch.present & ~missing
        bits = [missing, absent] if self.incomplete else [missing]
        images = batch.source if noise is None else require(batch.target)
        hidden = (missing | absent)[:, :, None, None, None]
        mask = missing[:, :, None, None, None].to(images.dtype).expand_as(images)
        return Problem(
            NetworkInput(code=torch.cat(bits, dim=1).to(images.dtype)),
            mask=mask * batch.mask if self.inside else mask,
            known=images.masked_fill(hidden, BACKGROUND),
            x0=None if noise is None else images,
            x0_present=None if noise is None else batch.present,
        )

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        """The given modalities with the synthesised ones."""
        return torch.where(problem.mask > 0, x0, require(problem.known))

    def as_at_inference(self, batch: Batch) -> Batch:
        """Each item misses one of the modalities that it has, in turn; an item of one modality keeps it."""
        count = batch.present.sum(dim=1)
        turn = torch.arange(len(batch), device=batch.present.device) % count.clamp(min=1)
        place = batch.present.cumsum(dim=1) - 1
        hidden = (place == turn[:, None]) & (count > 1)[:, None]
        return replace(batch, present=batch.present & ~hidden)


def draw_missing(present: Tensor, noise: Noise, share: float = 1.0) -> Tensor:
    """For each item, a non-empty proper subset of the modalities present, uniform over such subsets.

    present, returned: [B, C] bool. share: of the subsets, fewest missing first, from which is drawn. With one modality
    present nothing can be left out: that one is drawn.
    """
    known = with_doubles(present)
    count = known.sum(dim=1)
    drawn_from = ((2**count - 2) * share).round().clamp(min=1)
    table = torch.stack([_subsets(number, known.shape[1]) for number in range(known.shape[1] + 1)])
    place = (noise.uniform().to(known.device) * drawn_from).long()
    number = table.to(known.device)[count, place]
    position = (count[:, None] - known.cumsum(dim=1)).clamp(
        min=0
    )  # the bit of each present modality, the last 0
    return present & ((number[:, None] >> position) & 1).bool().to(present.device)


@functools.cache
def _subsets(count: int, most: int) -> Tensor:
    """Non-empty proper subsets of `count` modalities as numbers with a bit for each, fewest first; filled up with 0.

    Among those of as many, the last modalities come first (Sharma and Hamarneh's order, from its end).
    """
    numbers = sorted(
        range(1, max(2**count - 1, 2)), key=lambda number: (number.bit_count(), number)
    )
    return torch.tensor(numbers + [0] * (max(2**most - 2, 1) - len(numbers)))
