"""The batch of items that methods process."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from voxlate.base.devices import may_not_wait


@dataclass(frozen=True)
class Batch:
    """Items in network units ([-1, 1] unless the recipe's intensity map says otherwise).

    source: [B, S, D, H, W], one channel for each name in source_names; present: [B, S] bool, whether they exist;
    target: [B, T, D, H, W], None at inference; target_present: [B, T] bool, whether they exist (None: all do);
    mask: [B, 1, D, H, W], 1 inside the body or brain; target_mask: the mask of targets of other patients (None: that of
    the sources); labels: [B, K, D, H, W] whole numbers, -1 if an item has no such label map; weight: [B, 1, D, H, W],
    the weight of a voxel in the loss (None: 1);
    source_moments, target_moments: [B, S or T, 2 L, D, h, w], mean and log variance of cached latents;
    item: [B, D] int64, a stable id for each slice of each item, the key of its noise stream (see items.stable_id).
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
