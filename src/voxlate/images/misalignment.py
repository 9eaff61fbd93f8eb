"""How far two scans on one grid are out of register: local windows are shifted to the most mutual information.

Points and displacements are (D, H, W) in millimetres; a displacement leads from the fixed scan's point to the moving's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations_with_replacement, product

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.spatial.transform import Rotation

from voxlate.images.similarity import PERCENTILES, RANGE_HU, class_of, dice, shared_information

Spacing = tuple[float, float, float]
Image = NDArray[np.floating]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Field = Callable[[Floats], Floats]  # displacements at points, [N, 3]

BINS = 16
SAMPLES = 200_000
THICKEST_MM = 3.0  # across slices further apart a shift shows too roughly to be stated
FEWEST_SLICES = 8  # across fewer no window can be moved
FEWEST_WINDOWS = 6  # with a distinct maximum; fewer say nothing of the whole
MOST_WINDOWS = 160  # those with most structure
COVERED = 0.25  # of a window by the mask, at least
LEAST_ENTROPY = 0.35  # nats; a window in which nearly all voxels are of one class has no structure
NOISE_MM = 0.2  # of a window's shift at best; residuals below it get full weight
AGREE_MM = 2.0  # between a window and the field; those further away do not count as found
FOLDS = 4
STEPS = 8  # of a robust fit
STIFFNESS = (10.0, 100.0)  # smoothing of the spline that follows a warp, from soft to nearly affine
SPLINE_MM = 100.0  # a unit of the spline's, so that its system of equations is well scaled
SOFTER = 0.8  # of the rigid motion's error may be left with a spline; edges of two contrasts differ and gain less
CONSTANT = 0.1  # share of an image that its first voxel's value has, where the background is one constant
CUT_OUT = 0.98  # Dice overlap of two such backgrounds from which on one mask has cut both scans
MASK_POINTS = 3000


@dataclass(frozen=True)
class Level:
    """One step from coarse to fine.

    voxel_mm: averaged to about this; window_mm: edge of a window; apart_mm: there is one window in each cube of this
    edge; reach: voxels tried on both sides.
    """

    voxel_mm: float
    window_mm: float
    apart_mm: float
    reach: int

    def scaled(self, factor: float) -> "Level":
        return Level(self.voxel_mm * factor, self.window_mm * factor, self.apart_mm * factor, self.reach)


WHOLE = Level(8.0, 1e6, 1e6, 4)
LEVELS = (Level(4.0, 48.0, 40.0, 3), Level(2.0, 32.0, 34.0, 3), Level(1.0, 24.0, 32.0, 2))
FLAT_LEVELS = (  # a slice has less in a window, and takes little time: larger windows, and each step twice
    Level(4.0, 64.0, 30.0, 3),
    Level(2.0, 48.0, 28.0, 3),
    Level(2.0, 40.0, 26.0, 3),
    Level(1.0, 36.0, 24.0, 2),
    Level(1.0, 32.0, 24.0, 2),
)
HEAD_MM = 150.0  # what the levels were made for; they shrink with a smaller field of view
MOST_POINTS = 2000  # of a window that are compared


@dataclass(frozen=True)
class Misalignment:
    """How far a scan lies from another one on the same grid.

    median_mm, p95_mm: length of the displacement over the mask, along the axes that can be seen; translation_mm
    (D, H, W) at the mask's centre and rotation_deg: of the rigid motion nearest to it; None, all four, where too few
    windows have a distinct shift. windows, left_out: how many have one, and how many lack structure or a maximum;
    unseen: the axes ("D") across which slices are too thick or too few; to: the fixed scan's name, where it has one.
    """

    median_mm: float | None
    p95_mm: float | None
    translation_mm: Spacing | None
    rotation_deg: float | None
    windows: int
    left_out: int
    unseen: str = ""
    to: str = ""


@dataclass(frozen=True, eq=False)
class Shifts:
    """Centres and displacements of windows, [N, 3] each, and how many windows were left out."""

    centres: Floats
    found: Floats
    left_out: int = 0


def misalignment(
    fixed: Image, moving: Image, spacing_mm: Spacing, mask: Mask, units: tuple[str, str] = ("", "")
) -> Misalignment:
    """Estimate the displacement between two scans [D, H, W] on one grid within a mask; the same call gives the same.

    units: of the two; Hounsfield units have an intensity window of their own.
    """
    displacement, shifts, seen = displacement_field(fixed, moving, spacing_mm, mask, units)
    unseen = "".join(name for name, one in zip("DHW", seen) if not one)
    found = Misalignment(None, None, None, None, len(shifts.centres), shifts.left_out, unseen)
    if displacement is None:
        return found
    points = np.argwhere(mask)
    points = points[:: max(1, len(points) // MASK_POINTS)] * np.array(spacing_mm)
    field = displacement(points)
    lengths = np.linalg.norm(field, axis=1)
    translation, turn, _ = rigid_motion(points - points.mean(axis=0), field, seen)
    d, h, w = (round(float(mm), 2) for mm in translation)
    return replace(
        found,
        median_mm=round(float(np.median(lengths)), 2),
        p95_mm=round(float(np.percentile(lengths, 95)), 2),
        translation_mm=(d, h, w),
        rotation_deg=round(float(np.rad2deg(np.linalg.norm(turn))), 2),
    )


def displacement_field(
    fixed: Image, moving: Image, spacing_mm: Spacing, mask: Mask, units: tuple[str, str]
) -> tuple[Field | None, Shifts, Mask]:
    """The displacement as a function of points (None: too few windows), the windows it rests on, and the axes seen."""
    seen = np.array([n >= FEWEST_SLICES and mm <= THICKEST_MM for n, mm in zip(fixed.shape, spacing_mm)])
    if seen.sum() < 2 or not mask.any():
        return None, Shifts(np.zeros((0, 3)), np.zeros((0, 3))), seen
    fixed, moving = without_cut(fixed, moving)
    ranges = [_range(image, mask, unit) for image, unit in zip((fixed, moving), units)]
    factor = min(1.0, float((np.array(fixed.shape) * spacing_mm)[seen].max()) / HEAD_MM)
    pair_at = partial(_Pair, fixed, moving, mask, spacing_mm, ranges, seen)
    whole = pair_at(WHOLE.scaled(factor)).shifts(np.zeros_like).found
    field: Field = partial(np.full_like, fill_value=whole[0] if len(whole) else 0.0)
    for level in LEVELS if seen[0] else FLAT_LEVELS:
        shifts = pair_at(level.scaled(factor)).shifts(field)
        if len(shifts.found) < FEWEST_WINDOWS:
            return None, shifts, seen
        field = fitted(shifts, seen)
    apart = np.linalg.norm(shifts.found - field(shifts.centres), axis=1)
    agree = apart <= AGREE_MM * factor
    shifts = Shifts(shifts.centres[agree], shifts.found[agree], shifts.left_out + int((~agree).sum()))
    return (field if agree.sum() >= max(FEWEST_WINDOWS, len(agree) / 2) else None), shifts, seen


def without_cut(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both scans with NaN outside, where one mask has cut both: its edge would say that they lie on each other."""
    outside = [image == image.flat[0] for image in (fixed, moving)]
    if min(one.mean() for one in outside) < CONSTANT or not dice(*outside) > CUT_OUT:
        return fixed, moving
    cut_fixed, cut_moving = (np.where(one, np.float32(np.nan), image) for one, image in zip(outside, (fixed, moving)))
    return cut_fixed, cut_moving


def _range(image: Image, mask: Mask, unit: str) -> tuple[float, float]:
    if unit == "HU":
        return RANGE_HU
    values = image[mask & np.isfinite(image)]
    low, high = (float(one) for one in np.percentile(values[:: max(1, values.size // SAMPLES)], PERCENTILES))
    return (low, high) if low < high else (low, low + 1.0)


class _Pair:
    """Two scans at one level, in whole classes of intensity, and the windows that are compared in them."""

    def __init__(
        self,
        fixed: Image,
        moving: Image,
        mask: Mask,
        spacing_mm: Spacing,
        ranges: list[tuple[float, float]],
        seen: Mask,
        level: Level,
    ) -> None:
        factors = [min(n, max(1, round(level.voxel_mm / mm))) for n, mm in zip(fixed.shape, spacing_mm)]
        self.spacing = np.array(spacing_mm) * factors
        self.origin = (np.array(factors) - 1) / 2 * spacing_mm
        self.fixed = class_of(averaged(fixed, factors), *ranges[0], BINS)
        self.moving, self.moving_range = averaged(moving, factors), ranges[1]
        self.inside = averaged(mask, factors) > 0.5
        self.level = level
        self.reach = np.where(seen, level.reach, 0)
        self.size = np.array(
            [min(n, max(1, round(level.window_mm / mm))) for n, mm in zip(self.fixed.shape, self.spacing)]
        )
        self.places, self.moves, self.outer = self._compared()

    def shifts(self, field: Field) -> Shifts:
        """The displacement at the centre of each window that has a distinct one; `field`: what is known so far."""
        starts = self._windows()
        centres = self.origin + self.spacing * (starts + (self.size - 1) / 2)
        before, strain = _linearised(field, centres, self.spacing * self.size / 4)
        found = [self._shift(*one) for one in zip(starts, centres, before, strain)]
        kept = [k for k, one in enumerate(found) if one is not None]
        shifts = np.array([found[k] for k in kept]).reshape(-1, 3) * self.spacing
        return Shifts(centres[kept], before[kept] + shifts, len(starts) - len(kept))

    def _shift(self, start: Floats, centre: Floats, before: Floats, strain: Floats) -> Floats | None:
        """The shift of one window in voxels, on top of what is known around it."""
        matrix = (np.eye(3) + strain) * self.spacing / self.spacing[:, None]
        corner = self.origin + self.spacing * (start - self.reach)
        first = (corner + before + strain @ (corner - centre) - self.origin) / self.spacing
        near = scipy.ndimage.affine_transform(self.moving, matrix, first, output_shape=self.outer, order=1, cval=np.nan)
        near_classes = class_of(near, *self.moving_range, BINS)
        box = tuple(slice(int(first), int(first + n)) for first, n in zip(start, self.size))
        here = self.fixed[box].ravel()[self.places[0]]
        information, entropy = shared_information(here, near_classes.ravel()[self.places[1] + self.moves], BINS)
        if entropy < LEAST_ENTROPY:
            return None
        return _peak(information, self.reach)

    def _compared(self) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, ...]]:
        """Places of the compared voxels in a window and in the box around it [2, N], the moves [S, 1], the box's shape.

        The step between the places has no divisor in common with a row's length, so that they spread over all rows.
        """
        outer = tuple(int(n) for n in self.size + 2 * self.reach)
        step = max(1, int(np.prod(self.size)) // MOST_POINTS)
        while math.gcd(step, int(self.size[2])) > 1:
            step += 1
        own = np.arange(0, int(np.prod(self.size)), step)
        around = np.ravel_multi_index(np.unravel_index(own, tuple(self.size)), outer)
        moves = np.ravel_multi_index(np.ix_(*[np.arange(2 * r + 1) for r in self.reach]), outer).reshape(-1, 1)
        return np.stack([own, around]), moves, outer

    def _windows(self) -> NDArray[np.int64]:
        """First voxels of the windows: in each cube of the level's `apart_mm`, the one with the most structure."""
        if (self.size == self.fixed.shape).all():
            return np.zeros((1, 3), np.int64)
        halves = [min(2, n) for n in self.fixed.shape]  # structure is measured on voxels twice as wide: fast enough
        size = np.maximum(1, self.size // halves)
        inside = averaged(self.inside, halves)
        moving = class_of(self.moving, *self.moving_range, BINS)
        edges = [_edges(averaged(one % BINS, halves)) * inside for one in (self.fixed, moving)]
        firsts = [np.arange(0, n - length + 1, max(1, length // 4)) for n, length in zip(inside.shape, size)]
        edges = [_box_means(one, firsts, size) for one in edges]
        structure = np.minimum(*edges)
        covered = _box_means(inside, firsts, size) >= COVERED
        best = dict[tuple[int, ...], tuple[float, tuple[int, ...]]]()
        for place in zip(*np.nonzero(covered & (structure > 0))):
            start = tuple(int(line[k]) * half for line, k, half in zip(firsts, place, halves))
            middle = (np.array(start) + self.size / 2) * self.spacing
            cube = tuple((middle // self.level.apart_mm).astype(int))
            best[cube] = max(best.get(cube, (0.0, start)), (float(structure[place]), start))
        chosen = sorted(best.values(), reverse=True)[:MOST_WINDOWS]
        last = np.array(self.fixed.shape) - self.size
        return np.minimum(np.array([start for _, start in chosen], np.int64).reshape(-1, 3), last)


def averaged(image: NDArray[np.generic], factors: list[int]) -> NDArray[np.float32]:
    """Means of blocks of so many voxels along each axis; what is left over at the end is cut off."""
    whole = [n // factor for n, factor in zip(image.shape, factors)]
    blocks = image[tuple(slice(n * factor) for n, factor in zip(whole, factors))]
    for axis in (2, 1, 0):
        if factors[axis] > 1:
            split = (*blocks.shape[:axis], whole[axis], factors[axis], *blocks.shape[axis + 1 :])
            blocks = blocks.reshape(split).mean(axis + 1, dtype=np.float32)
    return blocks.astype(np.float32)


def _edges(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of the absolute differences between neighbours."""
    steps = [np.abs(np.gradient(image, axis=axis)) for axis in range(3) if image.shape[axis] > 1]
    return np.sum(steps, axis=0, dtype=np.float32)


def _box_means(image: NDArray[np.generic], firsts: list[NDArray[np.int64]], size: NDArray[np.int64]) -> Floats:
    """Means of the boxes that begin at the product of `firsts`, by a summed-volume table."""
    table = np.pad(image.astype(np.float64), ((1, 0),) * 3).cumsum(0).cumsum(1).cumsum(2)
    total = np.zeros([len(line) for line in firsts])
    for far in product((0, 1), repeat=3):
        corner = table[np.ix_(*[line + end * n for line, end, n in zip(firsts, far, size)])]
        total += (-1) ** (3 - sum(far)) * corner
    return total / np.prod(size)


def _linearised(field: Field, centres: Floats, steps: Floats) -> tuple[Floats, Floats]:
    """A field's displacement [N, 3] and its derivative [N, 3, 3] at points, by differences of so many millimetres."""
    ahead = np.diag(steps)
    columns = [(field(centres + one) - field(centres - one)) / (2 * one.sum()) for one in ahead]
    return field(centres), np.stack(columns, axis=-1)


def _peak(score: Floats, reach: NDArray[np.int64]) -> Floats | None:
    """The shift in voxels of the highest score of all shifts, by a quadric through it and its neighbours.

    None where it lies at the end of the reach, or is no maximum along some axis.
    """
    axes = np.flatnonzero(reach)
    table = score.reshape(2 * reach + 1)
    best = np.array(np.unravel_index(int(table.argmax()), table.shape))
    if any(best[axis] in (0, 2 * reach[axis]) for axis in axes):
        return None
    near, pairs, solve = _quadric(tuple(axes.tolist()))
    _, *rest = solve @ table[tuple((best + near).T)]
    slope, curvature = np.array(rest[: len(axes)]), np.zeros((len(axes), len(axes)))
    for (i, j), value in zip(pairs, rest[len(axes) :]):
        curvature[i, j] = curvature[j, i] = value
    if np.linalg.eigvalsh(curvature)[-1] >= 0:
        return None
    offset = -np.linalg.solve(curvature, slope)
    if np.abs(offset).max() > 1:
        return None
    shift = (best - reach).astype(np.float64)
    shift[axes] += offset
    return shift


@cache
def _quadric(axes: tuple[int, ...]) -> tuple[NDArray[np.int64], list[tuple[int, int]], Floats]:
    """A voxel and its neighbours along axes [N, 3], pairs of axes, and the matrix from values there to a quadric."""
    near = np.array([*product(*[(-1, 0, 1) if axis in axes else (0,) for axis in range(3)])])
    pairs = [*combinations_with_replacement(range(len(axes)), 2)]
    x = near[:, axes].astype(np.float64)
    terms = [np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] / (2 if i == j else 1) for i, j in pairs)]
    return near, pairs, np.linalg.pinv(np.stack(terms, axis=1))


def fitted(shifts: Shifts, seen: Mask) -> Field:
    """The field that predicts left-out windows best: a rigid motion alone, or with a spline of some stiffness."""
    centres, found = shifts.centres, shifts.found
    if len(centres) < 4 * FOLDS:
        return _fit(centres, found, seen, None)
    fold, errors = np.arange(len(centres)) % FOLDS, list[float]()
    for stiffness in (None, *STIFFNESS):
        apart = np.zeros(len(centres))
        for one in range(FOLDS):
            out = fold == one
            field = _fit(centres[~out], found[~out], seen, stiffness)
            apart[out] = np.linalg.norm(found[out] - field(centres[out]), axis=1)
        errors.append(float(np.median(apart)))
    best = int(np.argmin(errors))
    return _fit(centres, found, seen, (None, *STIFFNESS)[best] if errors[best] < SOFTER * errors[0] else None)


def _fit(centres: Floats, found: Floats, seen: Mask, stiffness: float | None) -> Field:
    """A rigid motion of what windows were displaced by; with a smoothing spline of the rest where it has a stiffness.

    The spline has the biharmonic kernel of 2 or 3 dimensions.
    """
    middle = centres.mean(axis=0)
    translation, turn, weights = rigid_motion(centres - middle, found, seen)

    def rigid(points: Floats) -> Floats:
        around = points - middle
        return (Rotation.from_rotvec(turn).apply(around) - around + translation) * seen

    if stiffness is None:
        return rigid
    axes = np.flatnonzero(np.ptp(centres, axis=0))
    spline = RBFInterpolator(
        centres[:, axes] / SPLINE_MM,
        (found - rigid(centres)) * seen,
        kernel="linear" if len(axes) == 3 else "thin_plate_spline",
        degree=1,
        smoothing=stiffness / SPLINE_MM / weights,
    )
    return lambda points: rigid(points) + spline(points[:, axes] / SPLINE_MM)


def rigid_motion(around: Floats, found: Floats, seen: Mask) -> tuple[Floats, Floats, Floats]:
    """Translation (mm) and rotation vector (radians) about the origin that fit displacements, and their weights.

    By Gauss-Newton steps with Cauchy's weights: displacements far from the motion hardly count, and those across
    slices (not `seen`) not at all.
    """
    translation, turn, weights = np.zeros(3), np.zeros(3), np.ones(len(around))
    turns = [axis for axis in range(3) if axis == 0 or np.ptp(around[:, 0]) > 0]
    kept = [*np.flatnonzero(seen), *(3 + axis for axis in turns)]
    for _ in range(STEPS):
        turned = Rotation.from_rotvec(turn).apply(around)
        rest = (found - (turned - around + translation)) * seen
        apart = np.linalg.norm(rest, axis=1)
        weights = 1 / (1 + (apart / max(1.48 * float(np.median(apart)), NOISE_MM)) ** 2)
        table = np.zeros((len(around), 3, 6))  # derivative of the displacement by translation and rotation
        table[:, :, :3] = np.eye(3)
        table[:, :, 3:] = np.cross(np.eye(3), turned[:, None]).swapaxes(1, 2)
        table = (table * seen[:, None])[:, :, kept]
        weighted = table * weights[:, None, None]
        normal, right = np.einsum("nai,naj->ij", weighted, table), np.einsum("nai,na->i", weighted, rest)
        step = np.zeros(6)
        step[kept] = np.linalg.lstsq(normal, right)[0]
        translation, turn = translation + step[:3], turn + step[3:]  # turns are small: their vectors add
    return translation, turn, weights
