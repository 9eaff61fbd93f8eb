"""Which noise each slice has in a synthesis: streams of NumPy, so that it is the same at every door."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from voxlate.base.array_types import Float32
from voxlate.base.config import setting, settings

Stream = int | Mapping[int, float]  # a stream's id, or the weights of several whose sum is drawn
Place = tuple[int, int, float]  # item, slice, weight


@dataclass(frozen=True)
class Tile:
    """Which part of its slices an item is: first row and column, rows and columns, and those of the whole slice."""

    corner: tuple[int, int]
    size: tuple[int, int]
    plane: tuple[int, int]

    def within(self, size: Sequence[int]) -> tuple[list[int], list[slice]]:
        """The whole slice's size and the item's part of it for a state of this size: a latent's is another."""
        corner = [start * new // old for start, new, old in zip(self.corner, size, self.size)]
        plane = [-(-whole * new // old) for whole, new, old in zip(self.plane, size, self.size)]
        parts = [slice(start, start + length) for start, length in zip(corner, size)]
        return [max(whole, part.stop) for whole, part in zip(plane, parts)], parts


class Streams:
    """Standard normal noise that belongs to slices of items: the same draws in any batch, slab, window or tile.

    A stream is a Philox generator (Salmon et al. 2011) whose key is a hash of the seed, the slice's id and the sample.

    seed: of the synthesis. items: [B, D] stable ids, one a slice, or [B], one an item; in place of an id {id: weight},
    of a slice whose draws are a sum over several streams: squared weights that add up to 1 keep it standard normal, and
    slices with ids in common are correlated. samples: the number of each item's sample, which has streams of its own.
    tiles: where items are parts of their slices; tiles of one slice then have the slice's own noise in their places, and
    so the same where they overlap. Successive draws go on along each stream.
    """

    def __init__(
        self,
        seed: int,
        items: Any,
        samples: int | Sequence[int] = 0,
        tiles: Sequence[Tile] | None = None,
    ) -> None:
        self.tiles = tiles
        listed = items.tolist() if hasattr(items, "tolist") else items
        slices_of = [item if isinstance(item, Sequence) else [item] for item in listed]
        self.items = [
            [stream if isinstance(stream, Mapping) else {int(stream): 1.0} for stream in slices]
            for slices in slices_of
        ]
        numbers = [samples] * len(self.items) if isinstance(samples, int) else list(samples)
        places: dict[tuple[int, int], list[Place]] = {}  # by stream and sample
        for number, (slices, sample) in enumerate(zip(self.items, numbers)):
            for depth, weights in enumerate(slices):
                for stream, weight in weights.items():
                    places.setdefault((stream, sample), []).append((number, depth, weight))
        # sorted, so that a slice's sum is rounded alike in every batch
        self._places = dict(sorted(places.items()))
        self._generators = {
            key: np.random.Generator(np.random.Philox(key=stream_key(seed, *key, size=16)))
            for key in self._places
        }

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, shape: Sequence[int]) -> Float32:
        """The next draws, float32 [B, *shape]; where items have slices, shape is [..., D, H, W]."""
        out = np.zeros((len(self), *shape), np.float32)
        sliced, drawn, parts = self._parts(shape)
        for key, generator in self._generators.items():
            draw = generator.standard_normal(drawn, np.float32)
            for item, depth, weight in self._places[key]:
                place = out[item][..., depth, :, :] if sliced else out[item]
                place += np.float32(weight) * draw[parts[item]]
        return out

    def _parts(self, shape: Sequence[int]) -> tuple[bool, list[int], list[Any]]:
        """Whether each slice draws by itself, the shape of a draw, and the part of it that each item has."""
        sliced = have_slices(self.items)
        whole: list[int] = list(shape[-2:])
        parts: list[Any] = [...] * len(self)
        if self.tiles is not None:
            planes, places = zip(*(tile.within(shape[-2:]) for tile in self.tiles))
            whole = [max(lengths) for lengths in zip(*planes)]
            parts = [(..., *place) for place in places]
        return sliced, [*(shape[:-3] if sliced else shape[:-2]), *whole], parts


def have_slices(items: Sequence[Sequence[Any]]) -> bool:
    """Whether items have several slices, which draw by themselves."""
    return any(len(slices) > 1 for slices in items)


def stream_key(seed: int, item: int, sample: int, size: int) -> int:
    """A hash of so many bytes, which keys the stream of an item and sample."""
    text = f"{seed} {item} {sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=size).digest(), "big")


@settings
class Independent:
    """Each slice of a volume has noise of its own, as in training."""

    kind: Literal["independent"] = "independent"
    for_volumes: ClassVar[bool] = True

    def streams(self, z: int, spacing_mm: float) -> dict[int, float]:
        """The slices whose streams slice z draws from, with weights whose squares add up to 1."""
        return {z: 1.0}


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


SliceNoise = Annotated[Independent | Correlated, Field(discriminator="kind")]
