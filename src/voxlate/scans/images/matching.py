"""Windows of a scan, shifted to the most mutual information with another scan, at one size of voxels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations_with_replacement, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Float32
from voxlate.base.similarity import class_of, information_of_rows
from voxlate.scans.images.motion import Field, Floats, Mask, Shifts

Image = NDArray[np.floating]
Spacing = tuple[float, float, float]
Whole = NDArray[np.int64]

BINS = 16
COVERED = 0.25  # of a window by the mask, at least
LEAST_ENTROPY = 0.35  # nats; a window in which nearly all voxels are of one class has no structure
MOST_POINTS = 2000  # of a window, at which scans are compared
PAIRS_AT_ONCE = 400_000  # pairs of classes that are counted together: they fit a core's cache


@dataclass(frozen=True)
class MatchingLevel:
    """One step from coarse to fine.

    voxel_mm: averaged to about this; window_mm: edge of a window; apart_mm: there is one window in each cube of this
    edge; reach: voxels tried on both sides; most: windows, those with most structure.
    """

    voxel_mm: float
    window_mm: float
    apart_mm: float
    reach: int
    most: int = 160

    def scale(self, factor: float) -> "MatchingLevel":
        """The level with lengths that are multiplied by a factor."""
        lengths = ("voxel_mm", "window_mm", "apart_mm")
        return replace(self, **{name: getattr(self, name) * factor for name in lengths})


class Matching:
    """Two scans at one level, in whole classes of intensity, and the windows that are compared in them."""

    def __init__(
        self,
        fixed: Image,
        moving: Image,
        mask: Mask,
        spacing_mm: Spacing,
        ranges: list[tuple[float, float]],
        resolved: Mask,
        level: MatchingLevel,
    ) -> None:
        factors = _voxels(level.voxel_mm, fixed.shape, spacing_mm)
        self.spacing = np.array(spacing_mm) * factors
        self.origin = (np.array(factors) - 1) / 2 * spacing_mm
        self.fixed = class_of(block_means(fixed, factors), *ranges[0], BINS)
        self.moving = block_means(moving, factors)
        self.moving_range = ranges[1]
        self.inside = block_means(mask, factors) > 0.5
        self.level = level
        self.reach = np.where(resolved, level.reach, 0)
        self.size = np.array(_voxels(level.window_mm, self.fixed.shape, self.spacing))
        self.places, self.around, self.outer = self._compare_places()

    def shifts(self, field: Field) -> Shifts:
        """The displacement at the centre of each window that has a distinct one; field: the estimate so far."""
        starts = self._windows()
        centres = self.origin + self.spacing * (starts + (self.size - 1) / 2)
        before, strain = _linearise(field, centres, self.spacing * self.size / 4)
        share = max(1, PAIRS_AT_ONCE // self.around.size)
        moves = np.zeros((len(starts), 3))
        for first in range(0, len(starts), share):
            part = slice(first, first + share)
            moves[part] = self._moves(starts[part], centres[part], before[part], strain[part])
        kept = np.isfinite(moves).all(axis=1)
        displacements = before[kept] + moves[kept] * self.spacing
        return Shifts(centres[kept], displacements, int((~kept).sum()))

    def _moves(self, starts: Whole, centres: Floats, before: Floats, strain: Floats) -> Floats:
        """The shifts of some windows in voxels, in addition to the estimate so far, [N, 3]; NaN: none is distinct."""
        near = np.stack([self._near(*window) for window in zip(starts, centres, before, strain)])
        near_classes = class_of(near, *self.moving_range, BINS)
        corners = np.asarray(np.ravel_multi_index(tuple(starts.T), self.fixed.shape))
        here = self.fixed.ravel()[corners[:, None] + self.places]
        shifted = near_classes.take(self.around, axis=1)
        information, entropy = information_of_rows(here, shifted, BINS)
        moves = peaks(information, self.reach)
        moves[entropy < LEAST_ENTROPY] = np.nan
        return moves

    def _near(
        self,
        start: Whole,
        centre: Floats,
        before: Floats,
        strain: Floats,
    ) -> Float32:
        """The moving scan around a window, displaced and bent by the estimate so far."""
        matrix = (np.eye(3) + strain) * self.spacing / self.spacing[:, None]
        corner = self.origin + self.spacing * (start - self.reach)
        first = (corner + before + strain @ (corner - centre) - self.origin) / self.spacing
        return ndimage.affine_transform(
            self.moving, matrix, first, output_shape=self.outer, order=1, cval=np.nan
        ).ravel()

    def _compare_places(self) -> tuple[Whole, Whole, tuple[int, ...]]:
        """The compared voxels: places from a window's first voxel in the scan [N], in the box around it for each shift
        [S, N], and that box's shape.

        The step between the places has no divisor in common with a row's length, so that they spread over all rows.
        """
        size = self.size
        outer = tuple(int(n) for n in size + 2 * self.reach)
        count = int(np.prod(size))
        step = max(1, count // MOST_POINTS)
        while math.gcd(step, int(size[2])) > 1:
            step += 1
        compared = np.arange(0, count, step)
        own = np.unravel_index(compared, tuple(size))
        tried = np.ix_(*[np.arange(2 * reach + 1) for reach in self.reach])
        moves = np.ravel_multi_index(tried, outer).reshape(-1, 1)
        places = np.ravel_multi_index(own, self.fixed.shape)
        return places, np.ravel_multi_index(own, outer) + moves, outer

    def _windows(self) -> Whole:
        """First voxels of the windows: in each cube of the level's `apart_mm`, the one with the most structure."""
        shape = self.fixed.shape
        if (self.size == shape).all():
            return np.zeros((1, 3), np.int64)
        # structure is measured on voxels twice as wide: fast enough
        halves = [min(2, n) for n in shape]
        size = np.maximum(1, self.size // halves)
        inside = block_means(self.inside, halves)
        moving = class_of(self.moving, *self.moving_range, BINS)
        edges = [
            _edges(block_means(classes % BINS, halves)) * inside for classes in (self.fixed, moving)
        ]
        steps = np.maximum(1, size // 4)
        firsts = [
            np.arange(0, n - length + 1, step) for n, length, step in zip(inside.shape, size, steps)
        ]
        structure = np.minimum(*(_box_means(image, firsts, size) for image in edges))
        structure[_box_means(inside, firsts, size) < COVERED] = 0
        places = np.argwhere(structure > 0)
        starts = np.stack(
            [line[place] * half for line, place, half in zip(firsts, places.T, halves)], axis=1
        )
        cubes = ((starts + self.size / 2) * self.spacing // self.level.apart_mm).astype(np.int64)
        order = np.lexsort((*-starts.T[::-1], -structure[tuple(places.T)]))  # most structure first
        _, best = np.unique(cubes[order], axis=0, return_index=True)
        chosen = starts[order[np.sort(best)[: self.level.most]]]
        return np.minimum(chosen.reshape(-1, 3), np.array(shape) - self.size)


def _voxels(length_mm: float, shape: tuple[int, ...], spacing_mm: Iterable[float]) -> list[int]:
    """A length in voxels along each axis: at least 1, at most the axis."""
    return [min(n, max(1, round(length_mm / mm))) for n, mm in zip(shape, spacing_mm)]


def block_means(image: AnyArray, factors: list[int]) -> Float32:
    """Means of blocks of so many voxels along each axis; the remainder at the end is cut off."""
    blocks = image[tuple(slice(n // factor * factor) for n, factor in zip(image.shape, factors))]
    for axis, factor in enumerate(factors):
        if factor > 1:
            before = (slice(None),) * axis
            every = [blocks[(*before, slice(k, None, factor))] for k in range(factor)]
            total = every[0].astype(np.float32)
            for name in every[1:]:
                total += name
            blocks = total / np.float32(factor)
    return blocks.astype(np.float32, copy=False)


def _edges(image: Float32) -> Float32:
    """Sum of the absolute differences between neighbours."""
    total = np.zeros_like(image)
    for axis in range(3):
        if image.shape[axis] > 1:
            total += np.abs(np.gradient(image, axis=axis))
    return total


def _box_means(image: AnyArray, firsts: list[Whole], size: Whole) -> Floats:
    """Means of the boxes that begin at the product of `firsts`, by a summed-volume table."""
    table = np.pad(image.astype(np.float64), ((1, 0),) * 3).cumsum(0).cumsum(1).cumsum(2)
    total = np.zeros([len(line) for line in firsts])
    for far in product((0, 1), repeat=3):
        places = [line + end * n for line, end, n in zip(firsts, far, size)]
        total += (-1) ** (3 - sum(far)) * table[np.ix_(*places)]
    return total / np.prod(size)


def _linearise(field: Field, centres: Floats, steps: Floats) -> tuple[Floats, Floats]:
    """A field's displacement [N, 3] and its derivative [N, 3, 3] at points, by differences of so many millimetres."""
    ahead = np.diag(steps)
    points = np.concatenate(
        [centres, *(centres + step for step in ahead), *(centres - step for step in ahead)]
    )
    values = field(points).reshape(7, -1, 3)
    derivative = (values[1:4] - values[4:]) / (2 * steps[:, None, None])
    return values[0], np.moveaxis(derivative, 0, -1)


def peaks(scores: Floats, reach: Whole) -> Floats:
    """The shift in voxels of the highest score of all shifts, by a quadric through it and its neighbours.

    scores: [N, S]; gives [N, 3], NaN where the highest is at the end of the reach, or is no maximum along some axis.
    """
    axes = np.flatnonzero(reach)
    count = len(axes)
    shape = tuple(2 * reach + 1)
    shifts = np.full((len(scores), 3), np.nan)
    best = np.stack(np.unravel_index(scores.argmax(axis=1), shape), axis=1)
    within_reach = (best > 0) & (best < 2 * reach)
    inside = np.flatnonzero(within_reach[:, axes].all(axis=1))
    near, pairs, solve = _quadric(tuple(axes.tolist()))
    neighbours = np.ravel_multi_index((best[inside, None] + near).T, shape).T
    terms = scores[inside[:, None], neighbours] @ solve.T
    slope = terms[:, 1 : 1 + count]
    curvature = np.zeros((len(inside), count, count))
    for k, (i, j) in enumerate(pairs):
        curvature[:, i, j] = curvature[:, j, i] = terms[:, 1 + count + k]
    peaked = np.linalg.eigvalsh(curvature)[:, -1] < 0
    inside = inside[peaked]
    offset = -np.linalg.solve(curvature[peaked], slope[peaked][..., None])[..., 0]
    within = np.abs(offset).max(axis=1, initial=0) <= 1
    shifts[inside[within]] = (best - reach)[inside[within]]
    shifts[np.ix_(inside[within], axes)] += offset[within]
    return shifts


@cache
def _quadric(axes: tuple[int, ...]) -> tuple[Whole, list[tuple[int, int]], Floats]:
    """A voxel and its neighbours along axes [N, 3], pairs of axes, and the matrix from values there to a quadric."""
    along = [(-1, 0, 1) if axis in axes else (0,) for axis in range(3)]
    near = np.array([*product(*along)])
    pairs = [*combinations_with_replacement(range(len(axes)), 2)]
    x = near[:, axes].astype(np.float64)
    squares = [x[:, i] * x[:, j] / (2 if i == j else 1) for i, j in pairs]
    terms = [np.ones(len(x)), *x.T, *squares]
    return near, pairs, np.linalg.pinv(np.stack(terms, axis=1))
