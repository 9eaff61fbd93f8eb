"""What flows from the data to a method and from a method to a network."""

import dataclasses
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = -1.0  # network units: where the intensity maps put air


def stable_id(*parts: str | int) -> int:
    """A 63-bit number that names an item the same on every machine, in every batch (key of its noise stream)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Batch:
    """Items in network units ([-1, 1] unless the recipe's intensity map says otherwise).

    source: [B, S, D, H, W]; target: [B, T, D, H, W], None at inference; mask: [B, 1, D, H, W], 1 inside the
    body or brain; present: [B, S], which source modalities exist; item: [B] int64, stable ids (see stable_id);
    target_mask: [B, 1, D, H, W], where the targets are of other bodies than the sources (None: mask is theirs too).
    """

    source: Tensor
    mask: Tensor
    present: Tensor
    item: Tensor
    target: Tensor | None = None
    target_mask: Tensor | None = None

    def __len__(self) -> int:
        return int(self.source.shape[0])

    def to(self, device: torch.device | str) -> "Batch":
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor) and field.name != "item"
        }
        return dataclasses.replace(self, **moved)


@dataclass(frozen=True)
class Condition:
    """What a network is told beside the noisy state.

    images: [B, C, D, H, W], concatenated to the state at the input; features: one [B, C_l, D, H_l, W_l] a level,
    for networks that take them; code: [B, K], a configuration (which modalities to synthesise, say).
    """

    images: Tensor | None = None
    features: tuple[Tensor, ...] = ()
    code: Tensor | None = None
