"""The batch of items that methods process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from voxlate.base.devices import may_not_wait


@dataclass(frozen=True)
class Batch:
    """Items in network units ([-1, 1] unless the recipe's intensity map says otherwise).

    Args:
        source: [B, S, D, H, W], one channel for each name in source_names.
        mask: [B, 1, D, H, W], 1 inside the body or brain.
        present: [B, S] bool, whether the sources exist.
        item: [B, D] int64, a stable id for each slice of each item, the key of its noise stream (see items.stable_id).
        target: [B, T, D, H, W], None at inference.
        target_mask: the mask of targets of other patients (None: that of the sources).
        target_present: [B, T] bool, whether they exist (None: all do).
        labels: [B, K, D, H, W] whole numbers, -1 if an item has no such label map.
        weight: [B, 1, D, H, W], the weight of a voxel in the loss (None: 1).
        source_moments: [B, S, 2 L, D, h, w], mean and log variance of cached latents.
        target_moments: [B, T, 2 L, D, h, w], as source_moments.
        source_names: names of the channels of source.
        target_names: names of the channels of target.

    Example:
        >>> import torch
        >>> from voxlate.science.batch import Batch
        >>> image = torch.zeros(2, 1, 1, 24, 20)
        >>> batch = Batch(image, torch.ones_like(image), torch.ones(2, 1, dtype=bool), torch.zeros(2, 1, dtype=int))
        >>> len(batch)
        2
    """

    source: Tensor
    mask: Tensor
    present: Tensor
    item: Tensor
    target: Tensor | None = None
    target_mask: Tensor | None = None
    target_present: Tensor | None = None
    labels: Tensor | None = None
    weight: Tensor | None = None
    source_moments: Tensor | None = None
    target_moments: Tensor | None = None
    source_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.source.shape[0])

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device; item stays where it is."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=may_not_wait(torch.device(device)))
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "item"
        }
        return replace(self, **moved)


def collate(batches: Sequence[Batch]) -> Batch:
    """Several batches of the same settings as one."""
    first = batches[0]
    joined: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name, value in vars(first).items()
        if isinstance(value, Tensor)
    }
    return replace(first, **joined)
