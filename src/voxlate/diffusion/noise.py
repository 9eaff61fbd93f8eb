"""Random numbers that belong to items, not to batches."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """One CPU stream an item, keyed by (seed, item, sample): the same whatever the batch, its order or the device.

    items: [B] stable ids. Successive draws go on along each item's stream; `sample(k)` starts the streams of the k-th
    sample of the same items. torch keeps 32 bits of a seed: of n streams two coincide with probability n²/2³³.
    """

    def __init__(self, seed: int, items: Tensor | Sequence[int], samples: int | Sequence[int] = 0) -> None:
        self.seed = seed
        self.items = [int(item) for item in items]
        self.samples = [samples] * len(self.items) if isinstance(samples, int) else list(samples)
        self._streams = [
            torch.Generator().manual_seed(_key(seed, item, sample)) for item, sample in zip(self.items, self.samples)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, k: int) -> "Noise":
        """Fresh streams for the k-th sample of each item; sample(0) are those that Noise(seed, items) starts."""
        return Noise(self.seed, self.items, k)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, float32 [B, *shape] on the CPU."""
        out = torch.empty(len(self), *shape)
        for row, stream in zip(out, self._streams):
            row.normal_(generator=stream)
        return out

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal draws in the shape, type and place of x: [B, ...]."""
        return self.normal(x.shape[1:]).to(x.device, x.dtype, non_blocking=True)

    __call__ = normal_like

    def uniform(self) -> Tensor:
        """One draw from (0, 1) an item, float64 [B] on the CPU; never 0 or 1, so every inverse exists."""
        draws = [torch.rand((), generator=stream, dtype=torch.float64) for stream in self._streams]
        return torch.stack(draws) + 2.0**-54 if draws else torch.empty(0, dtype=torch.float64)

    def integers(self, high: int) -> Tensor:
        """One of 0 … high − 1 an item, int64 [B] on the CPU."""
        draws = [torch.randint(high, (), generator=stream) for stream in self._streams]
        return torch.stack(draws) if draws else torch.empty(0, dtype=torch.int64)


def _key(seed: int, item: int, sample: int) -> int:
    text = f"{seed} {item} {sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
