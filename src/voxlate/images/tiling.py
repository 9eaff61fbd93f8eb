"""Overlapping tiles of a volume of any size, blended without seams."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """Tiles of size `patch` that cover a volume of `shape`, neighbours sharing at least `overlap` voxels.

    All are (D, H, W). Where the volume is smaller than a tile, the tile is continued by reflection.
    """

    shape: Triple
    patch: Triple
    overlap: Triple = (0, 0, 0)

    def __post_init__(self) -> None:
        if not all(0 <= o < p for o, p in zip(self.overlap, self.patch)):
            raise ValueError(f"overlap must be from 0 to below the patch, got {self.overlap} and {self.patch}")

    def starts(self) -> list[Triple]:
        """The first voxel of every tile, in the order of D, H, W."""
        along = [_starts(n, p, o) for n, p, o in zip(self.shape, self.patch, self.overlap)]
        return [(d, h, w) for d, h, w in product(*along)]

    def uneven(self) -> bool:
        """Whether some tiles overlap although none need to: the volume is no multiple of the patch."""
        return any(n > p and n % p for n, p in zip(self.shape, self.patch))

    def weight(self) -> np.ndarray:
        """The blending weight of a tile: [D, H, W] float32, positive, falling off smoothly where tiles overlap."""
        d, h, w = (_ramp(p, o) for p, o in zip(self.patch, self.overlap))
        return (d[:, None, None] * h[:, None] * w).astype(np.float32)

    def cut(self, volume: np.ndarray, start: Triple) -> np.ndarray:
        """The tile of [C, D, H, W] at `start`, of size `patch`; a view where the volume is large enough."""
        tile = volume[(slice(None), *(slice(s, s + p) for s, p in zip(start, self.patch)))]
        short = [p - n for p, n in zip(self.patch, tile.shape[1:])]
        if not any(short):
            return tile
        # "symmetric" repeats a reflection as often as needed, and works on one voxel
        return np.pad(tile, [(0, 0), *((0, s) for s in short)], mode="symmetric")


def _starts(length: int, patch: int, overlap: int) -> list[int]:
    """As few tiles as possible, evenly spread; the last one ends with the volume."""
    if length <= patch:
        return [0]
    count = 1 + -(-(length - patch) // (patch - overlap))
    return [round(k * (length - patch) / (count - 1)) for k in range(count)]


def _ramp(patch: int, overlap: int) -> np.ndarray:
    """sin² over the overlap at both ends, 1 between: opposite ramps add up to 1, and no weight is 0."""
    distance = np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    return np.sin(np.pi / 2 * np.minimum(1.0, distance / max(overlap, 0.5))) ** 2


class Blend:
    """The weighted mean of tiles, gathered one by one: [C, D, H, W] and one [D, H, W] of weights is all it holds.

    Tiles that do not overlap need no weights.
    """

    def __init__(self, tiling: Tiling, channels: int = 1) -> None:
        self.tiling = tiling
        self._tile_weight = tiling.weight()
        self._total = np.zeros((channels, *tiling.shape), np.float32)
        self._weight = np.zeros(tiling.shape, np.float32) if any(tiling.overlap) or tiling.uneven() else None

    def add(self, tile: np.ndarray, start: Triple) -> None:
        """Add a tile [C, D, H, W] at `start`; what lies beyond the volume is dropped."""
        size = [min(p, n - s) for p, n, s in zip(self.tiling.patch, self.tiling.shape, start)]
        inside = tuple(slice(0, n) for n in size)
        place = tuple(slice(s, s + n) for s, n in zip(start, size))
        if self._weight is None:
            self._total[(slice(None), *place)] = tile[(slice(None), *inside)]
            return
        self._total[(slice(None), *place)] += tile[(slice(None), *inside)] * self._tile_weight[inside]
        self._weight[place] += self._tile_weight[inside]

    def fill(self, z: int, values: Sequence[float]) -> None:
        """Make a slice that no tile reaches one value in each channel."""
        for channel, value in zip(self._total, values):
            channel[z] = value
        if self._weight is not None:
            self._weight[z] = 1

    def result(self) -> np.ndarray:
        """The blended volume [C, D, H, W] in float32; ends the blend, for it is divided in place."""
        if self._weight is not None:
            self._total /= self._weight
        return self._total


def tiled(
    function: Callable[[np.ndarray, list[Triple]], np.ndarray],
    volume: np.ndarray,
    tiling: Tiling,
    channels: int = 1,
    batch: int = 1,
) -> np.ndarray:
    """Apply a function to all tiles of a volume [C, D, H, W], a batch at a time, and blend what it returns.

    function: takes [B, C, *patch] and the tiles' starts (stable ids of their noise), returns [B, channels, *patch].
    """
    blend = Blend(tiling, channels)
    for starts in _batches(tiling.starts(), batch):
        tiles = np.stack([tiling.cut(volume, start) for start in starts])
        for tile, start in zip(function(tiles, starts), starts, strict=True):
            blend.add(np.asarray(tile), start)
    return blend.result()


def _batches(items: list[Triple], size: int) -> Iterator[list[Triple]]:
    for k in range(0, len(items), size):
        yield items[k : k + size]


def seam(volume: np.ndarray, tiling: Tiling) -> float:
    """How much stronger neighbouring voxels differ across the edges of tiles than elsewhere; 1 is seamless.

    volume: [C, D, H, W]. The mean |difference| over the faces where a tile starts or ends, divided by the mean over
    all others, of the worst axis; 1 where an axis has no such face.
    """
    worst = 1.0
    for axis, (length, patch) in enumerate(zip(tiling.shape, tiling.patch)):
        starts = {start[axis] for start in tiling.starts()}
        faces = {s for s in starts if s > 0} | {s + patch for s in starts if s + patch < length}
        if not faces:
            continue
        steps = np.abs(np.diff(volume, axis=axis + 1)).mean(axis=tuple(k for k in range(4) if k != axis + 1))
        at = np.zeros(length - 1, dtype=bool)
        at[[face - 1 for face in faces]] = True
        if at.all() or steps[~at].mean() == 0:
            worst = worst if steps[at].mean() == 0 else float("inf")
            continue
        worst = max(worst, float(steps[at].mean() / steps[~at].mean()))
    return worst
