"""Batches of two cohorts: the items of a new one, and a stated share of items of an earlier one (replay)."""

import math
from dataclasses import KW_ONLY, dataclass

from torch.utils.data import Dataset

from voxlate.science.batch import Batch, collate
from voxlate.training.batches.batches import Batches, Planes


@dataclass(eq=False)
class Mixed(Dataset[Batch]):
    """Batches whose item k, over all steps and processes, is of the replayed cohort as often as the share states.

    Of the first n items, floor(n * share) are replayed, evenly spread. new, replayed: items one by one (batch 1, one
    process). The number of an item alone decides which it is, hence workers and restarts give identical batches.
    """

    new: Batches | Planes
    replayed: Batches | Planes
    _: KW_ONLY
    share: float
    batch: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return len(self.new) // (self.batch * self.world)

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        first = (step * self.world + self.rank) * self.batch
        return collate([self._item(number) for number in range(first, first + self.batch)])

    def _item(self, number: int) -> Batch:
        before = math.floor(number * self.share)
        if math.floor((number + 1) * self.share) > before:
            return self.replayed[before]
        return self.new[number - before]
