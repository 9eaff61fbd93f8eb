"""How a model of slices is shown a volume: slices as they are, in tiles, or resized to the network's own grid."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from voxlate.config import settings
from voxlate.images.tiling import Tiling, Triple
from voxlate.images.volume import Volume

Size = tuple[int, int]
Edges = tuple[int, int, int, int]


@settings
class Whole:
    """Slices as they are, of any size: nothing is resampled."""

    kind: Literal["whole"] = "whole"
    crop: Annotated[
        int | None,
        Field(
            ge=0,
            description="draw only in the box of the volume's mask and so many voxels around it, never in less than a "
            "patch of the training; for methods that work inside a mask; unset: everywhere",
        ),
    ] = None


@settings
class Tiled:
    """Tiles of the recipe's patch, blended where they overlap: for slices that are larger than memory or training."""

    kind: Literal["tiled"] = "tiled"


@settings
class Resized:
    """Slices brought to one size by cubic splines before they are scaled, and the drawn ones back again (paper 001)."""

    kind: Literal["resized"] = "resized"
    size: Annotated[
        tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]],
        Field(description="height and width that the network sees, whatever the shape of the slice"),
    ] = (256, 256)


Slices = Annotated[Whole | Tiled | Resized, Field(discriminator="kind")]


@dataclass(frozen=True)
class View:
    """What the network sees of volumes of `shape`: the pieces of `seen`; what it draws becomes pieces of `drawn`.

    first: the slice of the volumes that is the first one seen; size: what slices were brought to, None: their own.
    edges: left, right, top and bottom of the pieces that are seen, background that is added or (below 0) what is cut
    off; the network's pieces have that size. empty: slices of `seen` in which there is nothing to draw.
    """

    shape: Triple
    seen: Tiling
    drawn: Tiling
    first: int = 0
    size: Size | None = None
    edges: Edges = (0, 0, 0, 0)
    empty: frozenset[int] = frozenset()

    def starts(self) -> list[Triple]:
        """Where the pieces that are seen start; none where every slice was left out."""
        starts = self.seen.starts() if self.seen.shape[0] else []
        return [start for start in starts if start[0] not in self.empty]

    def beside(self) -> list[int]:
        """The slices that the network is not shown: at both ends, and the empty ones."""
        seen = {z + self.first for z in range(self.seen.shape[0]) if z not in self.empty}
        return [z for z in range(self.shape[0]) if z not in seen]

    def place(self, start: Triple) -> Triple:
        """Where in the volumes a piece that starts at `start` of what is seen belongs."""
        return (start[0] + self.first, *start[1:])


def view(slices: Slices, shape: Triple, patch: Triple, overlap: float) -> View:
    """Overlapping patches for a model of volumes; for one of slices, whole ones or tiles of them."""
    if patch[0] == 1 and isinstance(slices, Whole):
        tiling = Tiling(shape, (1, *shape[1:]))
    else:
        size = patch if patch[0] > 1 else (1, min(patch[1], shape[1]), min(patch[2], shape[2]))
        d, h, w = (min(round(overlap * p), p - 1) if n > p else 0 for n, p in zip(shape, size))
        tiling = Tiling(shape, size, (d, h, w))
    return View(shape, tiling, tiling)


def framed(sight: View, mask: np.ndarray | None, multiple: int, centred: bool, crop: int | None, patch: Size) -> View:
    """A view of whole slices without those that the mask [D, H, W] leaves empty, with the edges that a method wants.

    centred: the middle column stays in the middle (or half a voxel right of it, where widths are odd). crop: cut to the
    box of the whole mask and so many voxels around it, but not below `patch`: norms over a slice should see as much
    background as in training. Sides that change become multiples of `multiple`.
    """
    _, height, width = sight.seen.shape
    if sight.seen.patch != (1, height, width):
        return sight
    rows, columns, empty = (0, height), (0, width), frozenset[int]()
    if mask is not None:
        filled, tall, wide = _shadows(mask)
        empty = frozenset(np.flatnonzero(~filled).tolist())
        if crop is not None:
            rows, columns = _reach(tall, crop), _reach(wide, crop)
    beside = _even if centred else _rounded
    left, right = beside(columns, width, multiple, min(patch[1], width))
    top, bottom = _rounded(rows, height, multiple, min(patch[0], height))
    return replace(sight, edges=(left, right, top, bottom), empty=empty)


def _shadows(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which slices, rows and columns of [D, H, W] hold anything."""
    filled, tall, wide = (np.zeros(length, dtype=bool) for length in mask.shape)
    for z, plane in enumerate(mask):
        rows = plane.any(axis=1)
        filled[z] = rows.any()
        tall |= rows
        wide |= plane.any(axis=0)
    return filled, tall, wide


def _reach(line: np.ndarray, margin: int) -> tuple[int, int]:
    """The first and the end of what holds anything, with a margin inside the axis; of nothing, its middle."""
    there = np.flatnonzero(line)
    if not len(there):
        return len(line) // 2, len(line) // 2
    return max(0, int(there[0]) - margin), min(len(line), int(there[-1]) + 1 + margin)


def _rounded(reach: Size, length: int, multiple: int, least: int) -> Size:
    """What to add on both sides of an axis, so that a multiple with `reach` inside is left; nothing for all of it.

    least: of what is left. It begins at a multiple, so that a network halves it where it halves the whole.
    """
    if reach == (0, length):
        return 0, 0
    more = max(0, least - (reach[1] - reach[0]))
    first = min(max(0, reach[0] - more // 2), length - least) if more else reach[0]
    first = first // multiple * multiple
    side = _up(max(least, reach[1] - first), multiple)
    return -first, first + side - length


def _even(reach: Size, length: int, multiple: int, least: int) -> Size:
    """The same about the middle of the axis, even if all of it is seen."""
    odd = length % 2  # then the column right of the middle of an even side is the axis' middle
    side = _up(max(least, length - 2 * reach[0] - odd, 2 * reach[1] - length + odd), multiple)
    first = (length - side) // 2
    return -first, first + side - length


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def resize(volumes: dict[str, Volume], size: Size) -> tuple[dict[str, Volume], View]:
    """Volumes of one grid without the constant slices at their ends, their slices brought to `size`.

    A slice is left out where it is constant in all volumes. Constant ones in between stay exactly constant.
    """
    shape = next(iter(volumes.values())).grid.shape
    first, last = _ends([volume.data for volume in volumes.values()])
    seen = (last - first, *size)
    tilings = Tiling(seen, (1, *size)), Tiling(shape, (1, *shape[1:]))
    made = {name: _resized(volume, first, seen) for name, volume in volumes.items()} if last > first else {}
    return made, View(shape, *tilings, first, size)


def _ends(arrays: list[np.ndarray]) -> tuple[int, int]:
    """The first slice that differs within itself in any array, and the one after the last; equal where none does."""
    depth = arrays[0].shape[1]

    def varied(z: int) -> bool:
        return not all(_is_flat(array, z) for array in arrays)

    first = next(filter(varied, range(depth)), 0)
    return first, next(filter(varied, reversed(range(first, depth))), first - 1) + 1


def _is_flat(array: np.ndarray, z: int) -> bool:
    """Whether a slice of [C, D, H, W] is one value, but for rounding (numpy.isclose's)."""
    plane = array[:, z]
    return bool(np.isclose(plane, plane.min()).all())


def _resized(volume: Volume, first: int, shape: Triple) -> Volume:
    data = np.empty((len(volume.data), *shape), np.float32)
    for z in range(shape[0]):
        data[:, z] = zoomed(volume.data[:, first + z], shape[1:])
    affine = volume.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    for column, (old, new) in enumerate(zip(volume.grid.shape[:0:-1], shape[:0:-1])):
        affine[:3, column] *= (old - 1) / (new - 1) if old > 1 else 1 / new  # the corner voxels keep their places
    return replace(volume, data=data, affine=affine)


def zoomed(images: np.ndarray, size: Size) -> np.ndarray:
    """Planes [..., H, W] at another size by cubic splines, corner on corner; constant ones stay exactly so.

    scipy's default mode gives the same bits, except where rounding puts the last row or column beyond the edge (256 to
    45 voxels, say): there it leaves zeros.
    """
    import scipy.ndimage

    planes = images.reshape(-1, *images.shape[-2:])
    factors = (size[0] / planes.shape[1], size[1] / planes.shape[2])
    out = np.empty((len(planes), *size), np.float32)
    for plane, made in zip(planes, out):
        low, high = plane.min(), plane.max()
        made[:] = low if low == high else scipy.ndimage.zoom(plane, factors, order=3, mode="mirror")
    return out.reshape(*images.shape[:-2], *size)
