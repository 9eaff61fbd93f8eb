"""The misalignment of two scans on one grid: the rigid motion with the most mutual information.

Points and displacements are (D, H, W) in millimetres; a displacement leads from the fixed scan's point to the moving's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np
from numpy.linalg import norm
from numpy.typing import NDArray
from pydantic import StringConstraints
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.base.records import NotNegative, Text
from voxlate.base.similarity import PERCENTILES, RANGE_HU, dice, mutual_information

Image = NDArray[np.floating]
Spacing = tuple[float, float, float]

THICKEST_MM = 3.0  # across slices further apart a shift shows too roughly to be stated
FEWEST_SLICES = 8  # across fewer nothing can be moved
BINS = 32
POINTS = 8_000  # of a half, at which the scans are compared
ROUGH_POINTS = 4_000  # at which shifts are tried
FEWEST_POINTS = 500
FINEST_MM = 2.0  # finer voxels are averaged; half of it within a single slice
BLUR_MM = (4.0, 2.0, 1.0)  # standard deviations, from coarse to fine
REACH_MM, STEP_MM = 20.0, 5.0  # of the shifts that are tried first
ARM_MM = 60.0  # of a rotation: a unit of it moves a head's rim by about a millimetre
TOLERANCE = 0.03  # of the search, in mm
MOST_TRIES = 300  # of one step of the search
BLOCK_MM = 24.0  # the scan is divided into two halves like a chessboard of such cubes
AGREE_MM = 3.0  # between the motions of both halves
SEED = 1
# share of an image that its first voxel's value has, where the background is one constant
CONSTANT = 0.1
CUT_OUT = 0.98  # Dice overlap of two such backgrounds from which on one mask has cut both scans
NO_BODY = "no body was found in the fixed scan"
NOTHING_IN_COMMON = "no single shift fits the whole body: the contrasts differ too much, disease changes them, or they lie more than 20 mm apart"


@dataclass(frozen=True)
class Misalignment:
    """The displacement of a scan from another scan on the same grid.

    median_mm, p95_mm: length of the displacement over the mask, along the axes that are resolved; None where it cannot
    be measured. unseen: the axes ("D") across which slices are too thick or too few; to: the fixed scan's name, where it
    has one; reason: why nothing was measured.
    """

    median_mm: NotNegative | None = None
    p95_mm: NotNegative | None = None
    unseen: Annotated[str, StringConstraints(pattern="^D?H?W?$")] = ""
    to: Text = ""
    reason: Text = ""


def misalignment(
    fixed: Image,
    moving: Image,
    spacing_mm: Spacing,
    mask: Bool,
    units: tuple[str, str] = ("", ""),
) -> Misalignment:
    """Estimate the displacement between two scans [D, H, W] on one grid within a mask; the result is reproducible.

    units: of the two; Hounsfield units have an intensity window of their own.
    """
    resolved = np.array(
        [n >= FEWEST_SLICES and mm <= THICKEST_MM for n, mm in zip(fixed.shape, spacing_mm)]
    )
    unseen = "".join(np.array(list("DHW"))[~resolved])
    if resolved.sum() < 2:
        voxels = "×".join(map(str, reversed(fixed.shape)))
        sides = "×".join(f"{mm:.1f}" for mm in reversed(spacing_mm))
        return Misalignment(
            unseen=unseen,
            reason=f"{voxels} voxels of {sides} mm are too few or too large (at least two directions need {FEWEST_SLICES} voxels of at most {THICKEST_MM:g} mm)",
        )
    if not mask.any():
        return Misalignment(unseen=unseen, reason=NO_BODY)
    finest_mm = FINEST_MM if resolved.all() else FINEST_MM / 2
    factors = [max(1, int(finest_mm / mm)) if seen else 1 for seen, mm in zip(resolved, spacing_mm)]
    pairs, points = _prepare(fixed, moving, np.array(spacing_mm), mask, units, resolved, factors)
    found = _confirmed(pairs, points) if pairs else None
    if found is None:
        return Misalignment(unseen=unseen, reason=NOTHING_IN_COMMON)
    places = np.flatnonzero(mask)
    places = places[:: max(1, len(places) // POINTS)]
    # from the centre of the first block
    shown = np.stack(np.unravel_index(places, mask.shape), axis=1) - (np.array(factors) - 1) / 2
    shown *= spacing_mm
    lengths = norm(pairs[0].displacements(found, shown), axis=1)
    median_mm, p95_mm = np.percentile(lengths, [50, 95]).round(2).tolist()
    return Misalignment(median_mm, p95_mm, unseen)


def _prepare(
    fixed: Image,
    moving: Image,
    spacing_mm: Float64,
    mask: Bool,
    units: tuple[str, str],
    resolved: Bool,
    factors: list[int],
) -> tuple[list["_Pair"], Float64]:
    """The two scans in blocks of so many voxels, from smooth to sharp, and points [N, 3] in mm within the mask.

    None of both where too little is shown.
    """
    nothing = list["_Pair"](), np.zeros((0, 3))
    fixed, moving = _without_cut(fixed, moving)
    inside = mask & np.isfinite(fixed)
    for image, unit in zip((fixed, moving), units):
        # an MR does not show the vessels of lungs, which matched something elsewhere
        if unit == "HU":
            inside &= ~(image <= RANGE_HU[0])
    if not inside.any():
        return nothing
    ranges = _range(fixed, inside, units[0]), _range(moving, inside, units[1])
    fixed, moving, share = (block_means(image, factors) for image in (fixed, moving, inside))
    spacing = spacing_mm * factors
    voxels = np.argwhere((share > 0.5) & np.isfinite(fixed))
    if len(voxels) < FEWEST_POINTS or not all(low < high for low, high in ranges):
        return nothing
    draw = np.random.default_rng(SEED)
    voxels = draw.permutation(voxels)[: 2 * POINTS]
    # beside the voxels' centres: where both scans are interpolated alike, whole shifts of a voxel gain nothing
    points = (voxels + resolved * draw.uniform(-0.5, 0.5, voxels.shape)) * spacing
    # a scan of thick slices turns within them alone
    turns = np.flatnonzero(~resolved) if not resolved.all() else np.arange(3)
    free = [*np.flatnonzero(resolved).tolist(), *(3 + turns).tolist()]
    pairs = []
    for blur_mm in BLUR_MM:
        widths = [blur_mm / mm if seen else 0.0 for seen, mm in zip(resolved, spacing)]
        pair = _blur(fixed, widths), _blur(moving, widths)
        pairs.append(_Pair(*pair, ranges, spacing, points.mean(axis=0), free, blur_mm))
    return pairs, points


def _confirmed(pairs: list["_Pair"], points: Float64) -> Float64 | None:
    """The parameters of all points, where those of two halves agree."""
    black = (points // BLOCK_MM).sum(axis=1) % 2 > 0
    parts = points[black], points[~black]
    if min(map(len, parts)) < FEWEST_POINTS / 2:
        return None
    start = _try_shifts(pairs[0], points)
    found = [_refine(pairs[:-1], part, start) for part in parts]
    one, other = (pairs[0].displacements(parameters, points) for parameters in found)
    if np.median(norm(one - other, axis=1)) > AGREE_MM:
        return None
    return _refine(pairs[1:], points, (found[0] + found[1]) / 2)


def _without_cut(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both scans with NaN outside, where one mask has cut both: its edge would make them seem aligned."""
    outside = [image == image.flat[0] for image in (fixed, moving)]
    if min(part.mean() for part in outside) < CONSTANT or not dice(*outside) > CUT_OUT:
        return fixed, moving
    nan = np.float32(np.nan)
    return np.where(outside[0], nan, fixed), np.where(outside[1], nan, moving)


def _range(image: Image, inside: Bool, unit: str) -> tuple[float, float]:
    if unit == "HU":
        return RANGE_HU
    low, high = np.nanpercentile(image[inside], PERCENTILES).tolist()
    return low, high


def _blur(image: Image, widths: list[float]) -> Image:
    """The image with a Gaussian mean of its finite values; NaN stays NaN."""
    known = np.isfinite(image)
    total, weight = (
        ndimage.gaussian_filter(part, widths, mode="nearest", truncate=3)
        for part in (np.where(known, image, 0), known.astype(np.float32))
    )
    return np.where(known, total / np.maximum(weight, 1e-3), np.float32(np.nan))


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two scans as smooth as one step of the search has them.

    free: which of three shifts and three turns are sought; step_mm: the first step of each.
    """

    fixed: Image
    moving: Image
    ranges: tuple[tuple[float, float], tuple[float, float]]
    spacing: Float64
    middle: Float64
    free: list[int]
    step_mm: float

    def displacements(self, parameters: Float64, points: Float64) -> Float64:
        """The displacements of points [N, 3] by a shift and a rotation about the middle; what is not free is 0."""
        from scipy.spatial.transform import Rotation  # slow to import

        every = np.zeros(6)  # three shifts and three turns in mm
        every[self.free] = parameters
        matrix = Rotation.from_rotvec(every[3:] / ARM_MM).as_matrix()
        offset = self.middle + every[:3] - matrix @ self.middle
        return points @ matrix.T + offset - points

    def score(self, points: Float64) -> Callable[[Float64], float]:
        """Minus the mutual information at points, of the parameters of a motion."""
        still = ndimage.map_coordinates(
            self.fixed, (points / self.spacing).T, order=1, mode="nearest"
        )

        def of(parameters: Float64) -> float:
            places = (points + self.displacements(parameters, points)) / self.spacing
            there = ndimage.map_coordinates(self.moving, places.T, order=1, cval=np.nan)
            both = np.isfinite(there) & np.isfinite(still)
            if both.mean() < 0.5:
                return -1.0
            return -mutual_information(still[both], there[both], *self.ranges, BINS)

        return of


def _try_shifts(pair: _Pair, points: Float64) -> Float64:
    """The parameters of the shift within REACH_MM with the most mutual information."""
    steps = np.arange(-REACH_MM, REACH_MM + 1, STEP_MM)
    tried = product(*(steps if parameter < 3 else (0.0,) for parameter in pair.free))
    return min(map(np.array, tried), key=pair.score(points[:ROUGH_POINTS]))


def _refine(pairs: list[_Pair], points: Float64, start: Float64) -> Float64:
    """The parameters with the most mutual information at some points, found from coarse to fine."""
    best = start
    for pair in pairs:
        steps = np.full(len(best), pair.step_mm)
        best = downhill(pair.score(points), best, steps, TOLERANCE, 1e-6)
    return best


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


def block_means(image: AnyArray, factors: list[int]) -> Float32:
    """Means of blocks of so many voxels along each axis; the remainder at the end is cut off."""
    blocks = image[tuple(slice(n // factor * factor) for n, factor in zip(image.shape, factors))]
    for axis, factor in enumerate(factors):
        if factor > 1:
            before = (slice(None),) * axis
            every = [blocks[(*before, slice(k, None, factor))] for k in range(factor)]
            total = every[0].astype(np.float32)
            for part in every[1:]:
                total += part
            blocks = total / np.float32(factor)
    return blocks.astype(np.float32, copy=False)
