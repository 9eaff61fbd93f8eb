"""Noise streams of slices, independent of batches; a volume's slices may share or mix them."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxlate.system.config import setting, settings
from voxlate.system.devices import move_like

Stream = int | Mapping[int, float]  # a stream's id, or the weights of several whose sum is drawn


@dataclass(frozen=True)
class Tile:
    """Which part of its slices an item is: first row and column, rows and columns, and those of the whole slice."""

    corner: tuple[int, int]
    size: tuple[int, int]
    plane: tuple[int, int]

    def within(self, size: Sequence[int]) -> tuple[list[int], tuple[slice, slice]]:
        """The whole slice's size and the item's part of it for a state of this size: a latent's is another."""
        corner = [start * new // old for start, new, old in zip(self.corner, size, self.size)]
        plane = [-(-whole * new // old) for whole, new, old in zip(self.plane, size, self.size)]
        rows, columns = (slice(start, start + length) for start, length in zip(corner, size))
        return [max(whole, part.stop) for whole, part in zip(plane, (rows, columns))], (
            rows,
            columns,
        )


class Noise:
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
        self.seed = seed
        self.tiles = tiles
        listed = items.tolist() if isinstance(items, Tensor) else items
        self.items = [
            list(map(_weights, item if isinstance(item, Sequence) else [item])) for item in listed
        ]
        self.samples = [samples] * len(self.items) if isinstance(samples, int) else list(samples)
        places: dict[
            tuple[int, int], list[tuple[int, int, float]]
        ] = {}  # stream and sample: item, slice, weight
        for number, (slices, sample) in enumerate(zip(self.items, self.samples)):
            for depth, weights in enumerate(slices):
                for stream, weight in weights.items():
                    places.setdefault((stream, sample), []).append((number, depth, weight))
        # sorted, so that a slice's sum is rounded alike in every batch
        self._places = dict(sorted(places.items()))
        self._streams = {
            key: torch.Generator().manual_seed(_key(seed, *key)) for key in self._places
        }

    def __len__(self) -> int:
        return len(self.items)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, float32 [B, *shape] on the CPU; where items have slices, shape is [..., D, H, W]."""
        out = torch.zeros(len(self), *shape)
        sliced = any(len(slices) > 1 for slices in self.items)
        if sliced and any(len(slices) != shape[-3] for slices in self.items):
            raise ValueError(
                f"noise for {len(self.items[0])} slices an item cannot fill the shape {tuple(shape)}"
            )
        whole: list[int] = list(shape[-2:])
        parts: list[Any] = [...] * len(self)
        if self.tiles is not None:
            found = [tile.within(shape[-2:]) for tile in self.tiles]
            planes = [plane for plane, _ in found]
            whole = [max(lengths) for lengths in zip(*planes)]
            parts = [(..., *part) for _, part in found]
        draw = torch.empty([*(shape[:-3] if sliced else shape[:-2]), *whole])
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


def _weights(stream: Stream) -> Mapping[int, float]:
    return stream if isinstance(stream, Mapping) else {int(stream): 1.0}


def _key(seed: int, item: int, sample: int) -> int:
    text = f"{seed} {item} {sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


@settings
class Independent:
    """Each slice of a volume has noise of its own, as in training."""

    kind: Literal["independent"] = "independent"
    for_volumes: ClassVar[bool] = True

    def streams(self, z: int, spacing_mm: float) -> dict[int, float]:
        """The slices whose streams slice z draws from, with weights whose squares add up to 1."""
        return {z: 1.0}


@settings
class Shared:
    """All slices of a volume have the same noise."""

    kind: Literal["shared"] = "shared"
    for_volumes: ClassVar[bool] = False

    def streams(self, z: int, spacing_mm: float) -> dict[int, float]:
        """The stream of slice 0, for all."""
        return {0: 1.0}


@settings
class Correlated:
    """Neighbouring slices have correlated noise: a moving sum over the streams of all slices.

    Its weights are half a wave of a cosine, which of all sums over as many slices correlates neighbours most: over n
    slices (length n + 1 spacings, n odd) their correlation is cos(π/(n + 1)). At half the length it is about 1/π.
    """

    kind: Literal["correlated"] = "correlated"
    for_volumes: ClassVar[bool] = False
    length_mm: Annotated[
        float,
        setting("Distance from which on the noise of two slices is independent.", gt=0, le=1000),
    ] = 20.0

    def streams(self, z: int, spacing_mm: float) -> dict[int, float]:
        """The slices nearer than half the length."""
        reach = max(math.ceil(self.length_mm / spacing_mm / 2) - 1, 0)
        weights = {
            k: math.cos(math.pi * k * spacing_mm / self.length_mm) for k in range(-reach, reach + 1)
        }
        norm = math.hypot(*weights.values())
        return {z + k: weight / norm for k, weight in weights.items()}


SliceNoise = Annotated[Independent | Shared | Correlated, Field(discriminator="kind")]
