"""Noise that belongs to items, independent of batches: torch's streams in training, NumPy's in a synthesis."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxlate.base.devices import move_like
from voxlate.base.streams import Streams, have_slices, stream_key

# What a synthesis takes its noise from: standard normal draws in the shape, type and place of a tensor
Draws = Callable[[Tensor], Tensor]


class SynthesisNoise(Streams):
    """The streams of a synthesis as tensors: they are drawn on the CPU, and copied to the device."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, float32 [B, *shape] on the CPU; where items have slices, shape is [..., D, H, W]."""
        return torch.from_numpy(self.draw(shape))

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal draws in the shape, type and place of x: [B, ...]."""
        return move_like(self.normal(x.shape[1:]), x)


class Noise:
    """CPU streams of torch that belong to the slices of a training's items: the same draws in any batch, on any device.

    items: [B, D] stable ids, one a slice, or [B], one an item; equal ids have equal draws. Successive draws go on along
    each stream. torch keeps 32 bits of a seed: of n streams two coincide with probability n²/2³³.
    """

    def __init__(self, seed: int, items: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> None:
        self.seed = seed
        listed = items.tolist() if isinstance(items, Tensor) else items
        self.items = [[*item] if isinstance(item, Sequence) else [item] for item in listed]
        self._streams = {
            stream: torch.Generator().manual_seed(stream_key(seed, stream, 0, size=4))
            for slices in self.items
            for stream in slices
        }

    def __len__(self) -> int:
        return len(self.items)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, float32 [B, *shape] on the CPU; where items have slices, shape is [..., D, H, W]."""
        sliced = have_slices(self.items)
        drawn = [*shape[:-3], *shape[-2:]] if sliced else shape
        draws = {
            key: torch.empty(*drawn).normal_(generator=stream)
            for key, stream in self._streams.items()
        }
        of_items = (torch.stack([draws[key] for key in slices], -3) for slices in self.items)
        if not sliced:
            of_items = (draws[slices[0]] for slices in self.items)
        return torch.stack([*of_items]) if self.items else torch.empty(0, *shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal draws in the shape, type and place of x: [B, ...]."""
        return move_like(self.normal(x.shape[1:]), x)

    def uniform(self) -> Tensor:
        """One draw from (0, 1) an item, float64 [B] on the CPU; never 0 or 1, so every inverse exists."""
        return (
            self._each(
                lambda stream: torch.rand((), generator=stream, dtype=torch.float64)
            ).double()
            + 2.0**-54
        )

    def integers(self, high: int) -> Tensor:
        """One of 0 … high − 1 an item, int64 [B] on the CPU."""
        return self._each(lambda stream: torch.randint(high, (), generator=stream)).long()

    def _each(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """A number an item, from the stream of its first slice; all streams advance by one draw."""
        drawn = {key: draw(stream) for key, stream in self._streams.items()}
        return (
            torch.stack([drawn[slices[0]] for slices in self.items])
            if self.items
            else torch.empty(0)
        )
