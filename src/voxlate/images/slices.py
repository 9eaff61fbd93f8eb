"""How a model of slices is shown a volume: slices as they are, in tiles, or resized to the network's own grid."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from voxlate.config import settings
from voxlate.images.spool import release, zeros
from voxlate.images.tiling import Tiling, Triple
from voxlate.images.volume import Volume

Size = tuple[int, int]


@settings
class Whole:
    """Slices as they are, of any size: nothing is resampled."""

    kind: Literal["whole"] = "whole"


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
    """

    shape: Triple
    seen: Tiling
    drawn: Tiling
    first: int = 0
    size: Size | None = None

    def starts(self) -> list[Triple]:
        """Where the pieces that are seen start; none where every slice was left out."""
        return self.seen.starts() if self.seen.shape[0] else []

    def beside(self) -> list[int]:
        """The slices at both ends that the network is not shown."""
        return [z for z in range(self.shape[0]) if not 0 <= z - self.first < self.seen.shape[0]]

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
    flat = bool(np.isclose(plane, plane.min()).all())
    release(array)
    return flat


def _resized(volume: Volume, first: int, shape: Triple) -> Volume:
    data = zeros((len(volume.data), *shape))
    for z in range(shape[0]):
        data[:, z] = zoomed(volume.data[:, first + z], shape[1:])
        release(data)
        release(volume.data)
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
