"""The misalignment of two scans on one grid: the rigid motion with the most mutual information.

Points and displacements are (D, H, W) in millimetres; a displacement leads from the fixed scan's point to the moving's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.linalg import norm
from numpy.typing import NDArray
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.base.records import NotNegative, Text
from voxlate.base.similarity import RANGE_HU, bin_range, dice, mutual_information

Image = NDArray[np.floating]
Spacing = tuple[float, float, float]

THICKEST_MM = 3.0  # across slices further apart a shift shows too roughly to be stated
FEWEST_SLICES = 8  # across fewer nothing can be moved
BINS = 32
POINTS = 8_000  # of a half, at which the scans are compared
ROUGH_POINTS = 4_000  # at which shifts are tried
FEWEST_POINTS = 500
FINEST_MM = 2.0  # finer voxels are averaged; half of it within a single slice
BLUR_MM = (4.0, 2.0, 1.0)  # standard deviations from coarse to fine, and first steps of the search
REACH_MM, STEP_MM = 20.0, 5.0  # of the shifts that are tried first
ARM_MM = 60.0  # of a rotation: a unit of it moves a head's rim by about a millimetre
TOLERANCE = 0.05  # of the search, in mm
# of the search, in mutual information: less moves a shift by less than 0.3 mm
COST_TOLERANCE = 1e-4
MOST_TRIES = 300  # of one step of the search
BLOCK_MM = 24.0  # the scan is divided into two halves like a chessboard of such cubes
AGREE_MM = 3.0  # between the motions of both halves
SEED = 1
# share of an image that its first voxel's value has, where the background is one constant
CONSTANT = 0.1
CUT_OUT = 0.98  # Dice overlap of two such backgrounds from which on one mask has cut both scans
TOO_COARSE = f"at least two directions need {FEWEST_SLICES} voxels of at most {THICKEST_MM:g} mm"
NOTHING_IN_COMMON = "no single shift fits the whole body: the contrasts differ too much, disease changes them, or they lie more than 20 mm apart"


@dataclass(frozen=True)
class Misalignment:
    """The displacement of a scan from the scan `to` on the same grid.

    median_mm: its median length over the mask, along the axes that are resolved; None where it cannot be measured, for
    a reason.
    """

    to: Text
    median_mm: NotNegative | None = None
    reason: Text = ""


def is_resolved(shape: Sequence[int], spacing_mm: Sequence[float]) -> Bool:
    """Along which axes (D, H, W) of a grid a displacement can be seen."""
    return (np.array(shape) >= FEWEST_SLICES) & (np.array(spacing_mm) <= THICKEST_MM)


def median_displacement(
    fixed: Image,
    moving: Image,
    spacing_mm: Spacing,
    mask: Bool,
    units: tuple[str, str] = ("", ""),
) -> float | None:
    """The median displacement (mm) within a mask between two scans [D, H, W] on one grid; the result is reproducible.

    units: of the two; Hounsfield units have an intensity window of their own. At least two axes must be resolved. None
    where two halves of the scans do not agree.
    """
    resolved = is_resolved(fixed.shape, spacing_mm)
    fixed, moving = _without_cut(fixed, moving)
    inside = mask & np.isfinite(fixed)
    for image, unit in zip((fixed, moving), units):
        # an MR does not show the vessels of lungs, which matched something elsewhere
        if unit == "HU":
            inside &= ~(image <= RANGE_HU[0])
    if not inside.any():
        return None
    ranges = bin_range(fixed[inside], units[0]), bin_range(moving[inside], units[1])
    finest_mm = FINEST_MM if resolved.all() else FINEST_MM / 2
    factors = [max(1, int(finest_mm / mm)) if seen else 1 for seen, mm in zip(resolved, spacing_mm)]
    fixed, moving, share = (block_means(image, factors) for image in (fixed, moving, inside))
    spacing = np.multiply(spacing_mm, factors)
    voxels = np.argwhere((share > 0.5) & np.isfinite(fixed))
    if len(voxels) < FEWEST_POINTS or not all(low < high for low, high in ranges):
        return None
    draw = np.random.default_rng(SEED)
    voxels = draw.permutation(voxels)[: 2 * POINTS]
    # beside the voxels' centres: where both scans are interpolated alike, whole shifts of a voxel gain nothing
    points = (voxels + resolved * draw.uniform(-0.5, 0.5, voxels.shape)) * spacing
    # a scan of thick slices turns within them alone
    turns = np.flatnonzero(~resolved) if not resolved.all() else np.arange(3)
    free = [*np.flatnonzero(resolved).tolist(), *(3 + turns).tolist()]
    levels = []
    for blur_mm in BLUR_MM:
        widths = np.where(resolved, blur_mm / spacing, 0.0)
        levels.append((_blur(fixed, widths), _blur(moving, widths)))
    search = _Search(levels, ranges, spacing, points.mean(axis=0), free)
    motion = search.confirmed(points)
    if motion is None:
        return None
    body = np.argwhere(mask)
    body = body[:: max(1, len(body) // POINTS)]
    # from the centre of the first block
    places = (body - (np.array(factors) - 1) / 2) * spacing_mm
    return float(np.median(norm(search.displacements(motion, places), axis=1)).round(2))


def _without_cut(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both scans with NaN outside, where one mask has cut both: its edge would make them seem aligned."""
    outside = [image == image.flat[0] for image in (fixed, moving)]
    if min(part.mean() for part in outside) < CONSTANT or not dice(*outside) > CUT_OUT:
        return fixed, moving
    nan = np.float32(np.nan)
    return np.where(outside[0], nan, fixed), np.where(outside[1], nan, moving)


def _blur(image: Image, widths: Float64) -> Image:
    """The image with a Gaussian mean of its finite values; NaN stays NaN."""
    known = np.isfinite(image)
    total, weight = (
        ndimage.gaussian_filter(part, widths, mode="nearest", truncate=3)
        for part in (np.where(known, image, 0), known.astype(np.float32))
    )
    return np.where(known, total / np.maximum(weight, 1e-3), np.float32(np.nan))


@dataclass(frozen=True, eq=False)
class _Search:
    """Two scans (fixed, moving) at each level of BLUR_MM, whose rigid motion is sought.

    middle: of the rotation; free: which of three shifts and three turns are sought.
    """

    levels: list[tuple[Image, Image]]
    ranges: tuple[tuple[float, float], tuple[float, float]]
    spacing: Float64
    middle: Float64
    free: list[int]

    def displacements(self, motion: Float64, points: Float64) -> Float64:
        """The displacements of points [N, 3] by a shift and a rotation about the middle; what is not free is 0."""
        from scipy.spatial.transform import Rotation  # slow to import

        every = np.zeros(6)  # three shifts and three turns in mm
        every[self.free] = motion
        matrix = Rotation.from_rotvec(every[3:] / ARM_MM).as_matrix()
        offset = self.middle + every[:3] - matrix @ self.middle
        return points @ matrix.T + offset - points

    def cost(self, level: int, points: Float64) -> Callable[[Float64], float]:
        """Minus the mutual information at points, of a motion."""
        fixed, moving = self.levels[level]
        axes = [axis for axis, length in enumerate(fixed.shape) if length > 1]  # of a slice two
        fixed, moving = fixed.squeeze(), moving.squeeze()
        places = (points / self.spacing).T[axes]
        still = ndimage.map_coordinates(fixed, places, order=1, mode="nearest")

        def of(motion: Float64) -> float:
            places = ((points + self.displacements(motion, points)) / self.spacing).T[axes]
            there = ndimage.map_coordinates(moving, places, order=1, cval=np.nan)
            both = np.isfinite(there) & np.isfinite(still)
            if both.mean() < 0.5:
                return -1.0
            return -mutual_information(still[both], there[both], *self.ranges, BINS)

        return of

    def refined(self, levels: Sequence[int], points: Float64, motion: Float64) -> Float64:
        """The motion with the most mutual information at some points, found from coarse to fine."""
        for level in levels:
            steps = np.full(len(motion), BLUR_MM[level])
            motion = downhill(self.cost(level, points), motion, steps, TOLERANCE, COST_TOLERANCE)
        return motion

    def confirmed(self, points: Float64) -> Float64 | None:
        """The motion of all points, where those of two halves agree."""
        black = (points // BLOCK_MM).sum(axis=1) % 2 > 0
        parts = points[black], points[~black]
        if min(map(len, parts)) < FEWEST_POINTS / 2:
            return None
        steps = np.arange(-REACH_MM, REACH_MM + 1, STEP_MM)
        tried = product(*(steps if parameter < 3 else (0.0,) for parameter in self.free))
        start = min(map(np.array, tried), key=self.cost(0, points[:ROUGH_POINTS]))
        found = [self.refined([0, 1], part, start) for part in parts]
        one, other = (self.displacements(motion, points) for motion in found)
        if np.median(norm(one - other, axis=1)) > AGREE_MM:
            return None
        return self.refined([1, 2], points, (found[0] + found[1]) / 2)


def downhill(
    cost: Callable[[Float64], float],
    start: Float64,
    steps: Float64,
    tolerance: float,
    cost_tolerance: float,
) -> Float64:
    """The parameters of the least cost near a start, by a simplex of these first steps."""
    from scipy.optimize import minimize

    options = {
        "initial_simplex": start + np.vstack([np.zeros(len(start)), np.diag(steps)]),
        "xatol": tolerance,
        "fatol": cost_tolerance,
        "maxfev": MOST_TRIES,
    }
    found: Float64 = minimize(cost, start, method="Nelder-Mead", options=options).x
    return found


def block_means(image: AnyArray, factors: Sequence[int]) -> Float32:
    """Means of blocks of so many voxels along each axis; the remainder at the end is cut off."""
    means = image
    for axis, factor in enumerate(factors):
        if factor > 1:
            count = image.shape[axis] // factor
            whole = means.take(np.arange(count * factor), axis)
            shape = [*whole.shape[:axis], count, factor, *whole.shape[axis + 1 :]]
            means = whole.reshape(shape).mean(axis + 1, dtype=np.float32)
    return means.astype(np.float32, copy=False)
