"""Cuts volumes into patches for a network, and blends the images that it synthesises into volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from voxlate.base.config import settings
from voxlate.scans.images.grid import Volume

Triple = tuple[int, int, int]
Size = tuple[int, int]
Margins = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tiling:
    """Tiles of size `patch` that cover a volume of `shape`, neighbours sharing at least `overlap` voxels.

    All are (D, H, W). Where the volume is smaller than a tile, the tile reaches beyond it.
    """

    shape: Triple
    patch: Triple
    overlap: Triple = (0, 0, 0)

    def starts(self) -> list[Triple]:
        """The first voxel of every tile, in the order of D, H, W."""
        along = [_starts(n, p, o) for n, p, o in zip(self.shape, self.patch, self.overlap)]
        return [(d, h, w) for d, h, w in product(*along)]

    def weight(self) -> np.ndarray:
        """The blending weight of a tile: [D, H, W] float32, positive, falling off smoothly where tiles overlap."""
        ramps = []
        for patch, overlap in zip(self.patch, self.overlap):
            # sin² over the overlap at both ends, 1 between: opposite ramps add up to 1, and no weight is 0
            distance = np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
            ramps.append(np.sin(np.pi / 2 * np.minimum(1.0, distance / max(overlap, 0.5))) ** 2)
        d, h, w = ramps
        return (d[:, None, None] * h[:, None] * w).astype(np.float32)


def _starts(length: int, patch: int, overlap: int) -> list[int]:
    """As few tiles as possible, evenly spread; the last one ends with the volume."""
    if length <= patch:
        return [0]
    count = 1 + -(-(length - patch) // (patch - overlap))
    return [round(k * (length - patch) / (count - 1)) for k in range(count)]


class Blend:
    """The weighted mean of tiles that are added one by one; it holds one [C, D, H, W] and one [D, H, W] of weights.

    background: the value of each channel where there is no tile.
    """

    def __init__(self, tiling: Tiling, background: Sequence[float]) -> None:
        self.tiling = tiling
        self._tile_weight = tiling.weight()
        self._background = np.array(background, np.float32)[:, None, None, None]
        self._total = np.zeros((len(background), *tiling.shape), np.float32)
        self._weight = np.zeros(tiling.shape, np.float32)

    def add(self, tile: np.ndarray, start: Triple) -> None:
        """Add a tile [C, D, H, W] at `start`; its voxels outside the volume are dropped."""
        size = [min(p, n - s) for p, n, s in zip(self.tiling.patch, self.tiling.shape, start)]
        inside = tuple(slice(0, n) for n in size)
        place = tuple(slice(s, s + n) for s, n in zip(start, size))
        weight = self._tile_weight[inside]
        self._total[(slice(None), *place)] += tile[(slice(None), *inside)] * weight
        self._weight[place] += weight

    def result(self) -> np.ndarray:
        """The blended volume [C, D, H, W] in float32. The sum is divided in place: add no tile afterwards."""
        np.divide(self._total, self._weight, out=self._total, where=self._weight > 0)
        np.copyto(self._total, self._background, where=self._weight == 0)
        return self._total


@dataclass(frozen=True)
class SlicePlan:
    """The patches of a case that a network reads, and the places of its images in the volumes of `shape`.

    input_tiling: of the case that is read; output_tiling: of the volumes that are synthesised. first: the index of the
    case's first slice in these volumes; resized: whether images must be resized to the volumes' own slices.
    margins: voxels at the left, right, top and bottom of a patch that are read beyond the tile, or (below 0) left out.
    empty: slices of the case in which nothing is synthesised.
    """

    input_tiling: Tiling
    output_tiling: Tiling
    first: int = 0
    resized: bool = False
    margins: Margins = (0, 0, 0, 0)
    empty: frozenset[int] = frozenset()

    def starts(self) -> list[Triple]:
        """The tiles of the case; none where every slice is left out."""
        starts = self.input_tiling.starts() if self.input_tiling.shape[0] else []
        return [start for start in starts if start[0] not in self.empty]

    def place(self, start: Triple) -> Triple:
        """The first voxel of a tile in the volumes that are synthesised."""
        return (start[0] + self.first, *start[1:])

    def patch_at(self, start: Triple) -> tuple[Triple, Triple]:
        """The first voxel and the size of the patch that is read for a tile, its margins included."""
        left, right, top, bottom = self.margins
        depth, height, width = self.input_tiling.patch
        z, y, x = start
        size = (depth, height + top + bottom, width + left + right)
        return (z, y - top, x - left), size


@settings
class Whole:
    """Slices as they are, of any size: nothing is resampled. Models of volumes see overlapping patches."""

    resize_to: ClassVar[Size | None] = None
    kind: Literal["whole"] = "whole"


@settings
class Tiled:
    """Tiles of the recipe's patch, blended where they overlap: for slices that are larger than memory or training."""

    resize_to: ClassVar[Size | None] = None
    kind: Literal["tiled"] = "tiled"


@settings
class Resized:
    """Slices resized to one size by cubic splines before they are scaled, and the images resized back (paper 001)."""

    kind: Literal["resized"] = "resized"
    size: Annotated[
        tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]],
        Field(
            description="height and width that the network sees, whatever the shape of the slice"
        ),
    ] = (256, 256)

    @property
    def resize_to(self) -> Size:
        """The height and width that every slice is resized to."""
        return self.size


AnySlices = Annotated[Whole | Tiled | Resized, Field(discriminator="kind")]


def whole_slices(shape: Triple) -> Tiling:
    """Tiles of a slice each."""
    return Tiling(shape, (1, *shape[1:]))


def plan_slices(slices: AnySlices, shape: Triple, patch: Triple, overlap: float) -> SlicePlan:
    """The patches of a case of `shape`; patch: of the training; overlap: the share of neighbouring ones."""
    _, height, width = shape
    size = (1, height, width)
    if slices.kind == "tiled":
        size = (1, min(patch[1], height), min(patch[2], width))
    elif slices.kind == "whole" and patch[0] > 1:
        size = patch
    shared = [min(round(overlap * length), length - 1) for length in size]
    d, h, w = (voxels if n > length else 0 for voxels, n, length in zip(shared, shape, size))
    tiling = Tiling(shape, size, (d, h, w))
    return SlicePlan(tiling, tiling, resized=slices.kind == "resized")


def fit_to_mask(
    plan: SlicePlan, mask: np.ndarray | None, multiple: int, centred: bool
) -> SlicePlan:
    """A plan of whole slices, without those that the mask [D, H, W] leaves empty, with the margins of a method.

    centred: columns become a multiple of `multiple`, and the middle column stays in the middle (or half a voxel right of
    it, where widths are odd).
    """
    _, height, width = plan.input_tiling.shape
    if plan.input_tiling.patch != (1, height, width):
        return plan
    if mask is not None:
        plan = replace(plan, empty=frozenset(np.flatnonzero(~mask.any(axis=(1, 2))).tolist()))
    if not centred:
        return plan
    # the column right of the middle of an even side is the middle of an odd one
    added = _up(width + width % 2, multiple) - width
    left = -(-added // 2)
    return replace(plan, margins=(left, added - left, 0, 0))


def fit_to_frame(
    plan: SlicePlan, box: Sequence[Size], margins: Size, multiple: int, least: Size
) -> SlicePlan:
    """A plan whose whole slices are windows around the middle of a body's box [H, W], as patches of the training were.

    A window holds the box and a margin on each side, and at least `least`; its sides are multiples of `multiple`.
    """
    _, *sides = plan.input_tiling.shape
    if plan.input_tiling.patch != (1, *sides):
        return plan
    reach = []
    for ends, margin, length, side in zip(box, margins, sides, least):
        window = _up(max(side, ends[1] - ends[0] + 2 * margin), multiple)
        first = centre_on(ends, window)
        reach += [-first, first + window - length]
    top, bottom, left, right = reach
    return replace(plan, margins=(left, right, top, bottom))


def centre_on(ends: Size, length: int) -> int:
    """The start of a window of this length around the middle of a box's ends along an axis."""
    return (ends[0] + ends[1] - length) // 2


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def range_of_varied_slices(arrays: Sequence[np.ndarray]) -> tuple[int, int]:
    """The first slice of [D, H, W] that differs within itself in any array, and the one after the last.

    Values count as equal up to rounding (numpy.isclose's). Both are equal where no slice differs.
    """
    varied = np.zeros(len(arrays[0]), bool)
    for array in arrays:
        varied |= [not np.isclose(plane, plane.min()).all() for plane in array]
    slices = np.flatnonzero(varied)
    if not len(slices):
        return 0, 0
    return int(slices[0]), int(slices[-1]) + 1


def resize_slices(
    volumes: Mapping[str, Volume],
    size: Size,
    first: int,
    last: int,
) -> dict[str, Volume]:
    """The slices from first to last - 1 of volumes, resized to `size`; the corner voxels keep their places."""
    resized = {}
    for name, volume in volumes.items():
        affine = volume.affine.copy()
        affine[:3, 3] += first * affine[:3, 2]
        _, height, width = volume.grid.shape
        for column, (old, new) in enumerate(((width, size[1]), (height, size[0]))):
            affine[:3, column] *= (old - 1) / (new - 1) if old > 1 else 1 / new
        resized[name] = replace(volume, data=zoom(volume.data[:, first:last], size), affine=affine)
    return resized


def zoom(images: np.ndarray, size: Size) -> np.ndarray:
    """Planes [..., H, W] at another size by cubic splines, corner on corner; constant planes stay exactly constant.

    scipy's default mode gives the same bits, except where rounding puts the last row or column beyond the edge (256 to
    45 voxels, say): there it leaves zeros.
    """
    planes = images.reshape(-1, *images.shape[-2:])
    factors = (size[0] / planes.shape[1], size[1] / planes.shape[2])
    out = np.empty((len(planes), *size), np.float32)
    for plane, zoomed_plane in zip(planes, out):
        if plane.min() == plane.max():
            zoomed_plane[:] = plane.min()
        else:
            zoomed_plane[:] = ndimage.zoom(plane, factors, order=3, mode="mirror")
    return out.reshape(*images.shape[:-2], *size)
