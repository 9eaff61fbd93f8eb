"""Noise streams of slices, independent of batches; a volume's slices may share or mix them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxlate.base.devices import move_like
from voxlate.base.streams import Stream, Streams, Tile


class Noise(Streams):
    """CPU streams that belong to slices of items: the same draws in any batch, slab or window, on any device.

    items: [B, D] stable ids, one a slice, or [B], one an item; in place of an id {id: weight}, of a slice whose draws
    are a sum over several streams: squared weights that add up to 1 keep it standard normal, and slices with ids in
    common are correlated. tiles: where items are parts of their slices; tiles of one slice then have the slice's own
    noise in their places, and so the same where they overlap. Successive draws go on along each stream; samples:
    the number of each item's sample, which has streams of its own.
    torch keeps 32 bits of a seed: of n streams two coincide with probability n²/2³³.
    """

    def __init__(
        self,
        seed: int,
        items: Tensor | Sequence[Stream | Sequence[Stream]],
        samples: int | Sequence[int] = 0,
        tiles: Sequence[Tile] | None = None,
    ) -> None:
        super().__init__(seed, items, samples, tiles)
        self._streams = {
            key: torch.Generator().manual_seed(own) for key, own in self._seeds().items()
        }

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, float32 [B, *shape] on the CPU; where items have slices, shape is [..., D, H, W]."""
        out = torch.zeros(len(self), *shape)
        sliced, drawn, parts = self._parts(shape)
        draw = torch.empty(drawn)
        for key, generator in self._streams.items():
            draw.normal_(generator=generator)
            for item, depth, weight in self._places[key]:
                place = out[item].select(-3, depth) if sliced else out[item]
                place.add_(draw[parts[item]], alpha=weight)
        return out

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal draws in the shape, type and place of x: [B, ...]."""
        return move_like(self.normal(x.shape[1:]), x)

    __call__ = normal_like

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
        """A number an item, from the heaviest stream of its first slice; all streams advance by one draw."""
        drawn = {key: draw(stream) for key, stream in self._streams.items()}
        own = [
            (max(item[0], key=item[0].__getitem__), sample)
            for item, sample in zip(self.items, self.samples)
        ]
        return torch.stack([drawn[key] for key in own]) if own else torch.empty(0)
