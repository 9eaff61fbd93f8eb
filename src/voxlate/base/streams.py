"""Which noise each slice has: its streams, and torch's stream of normal numbers in NumPy."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from voxlate.base.arrays import Float32
from voxlate.base.config import setting, settings
from voxlate.base.schema import Field

Stream = int | Mapping[int, float]  # a stream's id, or the weights of several whose sum is drawn
Place = tuple[int, int, float]  # item, slice, weight
BLOCK = 16  # numbers that torch draws at a time: eight radii, then eight angles


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
    """The streams that the slices of items draw from; see noise.Noise for the arguments."""

    def __init__(
        self,
        seed: int,
        items: Any,
        samples: int | Sequence[int] = 0,
        tiles: Sequence[Tile] | None = None,
    ) -> None:
        self.seed = seed
        self.tiles = tiles
        listed = items.tolist() if hasattr(items, "tolist") else items
        slices_of = [item if isinstance(item, Sequence) else [item] for item in listed]
        self.items = [
            [stream if isinstance(stream, Mapping) else {int(stream): 1.0} for stream in slices]
            for slices in slices_of
        ]
        self.samples = [samples] * len(self.items) if isinstance(samples, int) else list(samples)
        places: dict[tuple[int, int], list[Place]] = {}  # by stream and sample
        for number, (slices, sample) in enumerate(zip(self.items, self.samples)):
            for depth, weights in enumerate(slices):
                for stream, weight in weights.items():
                    places.setdefault((stream, sample), []).append((number, depth, weight))
        # sorted, so that a slice's sum is rounded alike in every batch
        self._places = dict(sorted(places.items()))

    def __len__(self) -> int:
        return len(self.items)

    def _seeds(self) -> dict[tuple[int, int], int]:
        """The seed of each stream and sample."""
        return {key: _key(self.seed, *key) for key in self._places}

    def _parts(self, shape: Sequence[int]) -> tuple[bool, list[int], list[Any]]:
        """Whether each slice draws by itself, the shape of a draw, and the part of it that each item has."""
        sliced = any(len(slices) > 1 for slices in self.items)
        if sliced and any(len(slices) != shape[-3] for slices in self.items):
            raise ValueError(
                f"noise for {len(self.items[0])} slices an item cannot fill the shape {tuple(shape)}"
            )
        whole: list[int] = list(shape[-2:])
        parts: list[Any] = [...] * len(self)
        if self.tiles is not None:
            planes, places = zip(*(tile.within(shape[-2:]) for tile in self.tiles))
            whole = [max(lengths) for lengths in zip(*planes)]
            parts = [(..., *place) for place in places]
        return sliced, [*(shape[:-3] if sliced else shape[:-2]), *whole], parts


class ArrayNoise(Streams):
    """The draws of noise.Noise on a CPU without torch, equal to them but for rounding."""

    @cached_property
    def _streams(self) -> dict[tuple[int, int], "NormalStream"]:
        return {key: NormalStream(own) for key, own in self._seeds().items()}

    def normal(self, shape: Sequence[int]) -> Float32:
        """Standard normal draws, float32 [B, *shape]; where items have slices, shape is [..., D, H, W]."""
        out = np.zeros((len(self), *shape), np.float32)
        sliced, drawn, parts = self._parts(shape)
        for key, stream in self._streams.items():
            draw = stream(math.prod(drawn)).reshape(drawn)
            for item, depth, weight in self._places[key]:
                place = out[item][..., depth, :, :] if sliced else out[item]
                place += np.float32(weight) * draw[parts[item]]
        return out


class NormalStream:
    """torch's normal numbers on a CPU, from torch.Generator().manual_seed(seed), but for rounding.

    Mersenne twister (Matsumoto and Nishimura 1998), 24 bits a number, and Box and Muller 1958; torch uses this method
    for 16 or more numbers. RandomState seeds the twister as torch does.
    """

    def __init__(self, seed: int) -> None:
        self._twister = np.random.RandomState(seed)

    def __call__(self, count: int) -> Float32:
        """The next numbers, float32 [count]; count: at least 16."""
        if count < BLOCK:
            raise ValueError(f"a draw has at least {BLOCK} numbers, got {count}")
        whole = count // BLOCK * BLOCK
        uniform = self._uniform(count)
        out = np.empty(count, np.float32)
        out[:whole] = _box_muller(uniform[:whole])
        if whole < count:  # torch draws the last block again, so that it is whole
            out[-BLOCK:] = _box_muller(self._uniform(BLOCK))
        return out

    def _uniform(self, count: int) -> Float32:
        words = np.frombuffer(self._twister.bytes(4 * count), "<u4")
        return (words & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)


def _box_muller(uniform: Float32) -> Float32:
    pairs = uniform.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(-2 * np.log(1 - pairs[:, 0]))
    angle = np.float32(2 * np.pi) * pairs[:, 1]
    both: Float32 = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return both.reshape(-1)


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
