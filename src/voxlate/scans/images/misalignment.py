"""The misalignment of two scans on one grid: local windows are shifted to the most mutual information.

Points and displacements are (D, H, W) in millimetres; a displacement leads from the fixed scan's point to the moving's.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
from numpy.linalg import norm
from pydantic import StringConstraints

from voxlate.base.records import Count, NotNegative, Number, Text
from voxlate.base.similarity import PERCENTILES, RANGE_HU, dice
from voxlate.scans.images.matching import Image, Matching, MatchingLevel, Spacing
from voxlate.scans.images.motion import (
    RIGID,
    STIFFNESS,
    Field,
    Mask,
    Shifts,
    fit_field,
    rigid_motion,
)

SAMPLES = 200_000
THICKEST_MM = 3.0  # across slices further apart a shift shows too roughly to be stated
FEWEST_SLICES = 8  # across fewer no window can be moved
FEWEST_WINDOWS = 6  # with a distinct maximum; fewer say nothing of the whole
AGREE_MM = 2.0  # between a window and the field; those further away do not count as found
# share of an image that its first voxel's value has, where the background is one constant
CONSTANT = 0.1
CUT_OUT = 0.98  # Dice overlap of two such backgrounds from which on one mask has cut both scans
MASK_POINTS = 3000
NO_BODY = "no body was found in the fixed scan"
NOTHING_IN_COMMON = "too few places have a distinct shift, as between some contrasts, beside disease, or where the two are further apart than some 20 mm"


WHOLE_SCAN = MatchingLevel(8.0, 1e6, 1e6, 4)
LEVELS = (
    MatchingLevel(4.0, 48.0, 40.0, 3),
    MatchingLevel(2.0, 32.0, 34.0, 2),
    MatchingLevel(1.0, 24.0, 32.0, 2),
)
FLAT_LEVELS = (  # a slice has less in a window, and takes little time: larger windows, and each step twice
    MatchingLevel(4.0, 64.0, 30.0, 3),
    MatchingLevel(2.0, 48.0, 28.0, 3),
    MatchingLevel(2.0, 40.0, 26.0, 2),
    MatchingLevel(1.0, 36.0, 24.0, 2),
    MatchingLevel(1.0, 32.0, 24.0, 2),
)
FINEST_MM = 1.0  # left out of a coarse estimate
HEAD_MM = 150.0  # the field of view of the levels; they shrink with a smaller one


@dataclass(frozen=True)
class Misalignment:
    """The displacement of a scan from another scan on the same grid.

    median_mm, p95_mm: length of the displacement over the mask, along the axes that are resolved; translation_mm
    (D, H, W) at the mask's centre and rotation_deg: of the rigid motion nearest to it; None, all four, where too few
    windows have a distinct shift. windows, left_out: how many have one, and how many lack structure or a maximum;
    unseen: the axes ("D") across which slices are too thick or too few; to: the fixed scan's name, where it has one.
    coarse: estimated without the finest voxels, which leaves a larger error; reason: why nothing was measured.
    """

    median_mm: NotNegative | None
    p95_mm: NotNegative | None
    translation_mm: tuple[Number, Number, Number] | None
    rotation_deg: NotNegative | None
    windows: Count
    left_out: Count
    unseen: Annotated[str, StringConstraints(pattern="^D?H?W?$")] = ""
    to: Text = ""
    coarse: bool = False
    reason: Text = ""


def misalignment(
    fixed: Image,
    moving: Image,
    spacing_mm: Spacing,
    mask: Mask,
    units: tuple[str, str] = ("", ""),
    coarse: bool = False,
) -> Misalignment:
    """Estimate the displacement between two scans [D, H, W] on one grid within a mask; the result is reproducible.

    units: of the two; Hounsfield units have an intensity window of their own. coarse: leave the finest voxels out.
    """
    displacement, shifts, resolved = displacement_field(
        fixed, moving, spacing_mm, mask, units, coarse
    )
    unseen = "".join(np.array(list("DHW"))[~resolved])
    unmeasured = Misalignment(None, None, None, None, len(shifts.centres), shifts.left_out, unseen)
    if displacement is None:
        reason = _reason(unmeasured, fixed.shape, spacing_mm)
        if len(unseen) < 2 and not mask.any():
            reason = NO_BODY
        return replace(unmeasured, reason=reason)
    places = np.flatnonzero(mask)
    places = places[:: max(1, len(places) // MASK_POINTS)]
    points = np.stack(np.unravel_index(places, mask.shape), axis=1) * np.array(spacing_mm)
    field = displacement(points)
    median_mm, p95_mm = np.percentile(norm(field, axis=1), [50, 95]).round(2).tolist()
    rigid = rigid_motion(points, field, resolved)
    d, h, w = rigid.translation.round(2).tolist()
    return replace(
        unmeasured,
        coarse=coarse,
        median_mm=median_mm,
        p95_mm=p95_mm,
        translation_mm=(d, h, w),
        rotation_deg=round(float(np.rad2deg(norm(rigid.turn))), 2),
    )


def _reason(found: Misalignment, shape: tuple[int, ...], spacing_mm: Spacing) -> str:
    """Why nothing was measured, to be read after "cannot be measured: "."""
    if len(found.unseen) > 1:
        voxels = "×".join(map(str, reversed(shape)))
        sides = "×".join(f"{mm:.1f}" for mm in reversed(spacing_mm))
        return f"{voxels} voxels of {sides} mm are too few or too large (at least two directions need {FEWEST_SLICES} voxels of at most {THICKEST_MM:g} mm)"
    places = found.windows + found.left_out
    if places < FEWEST_WINDOWS:
        return f"too few places have structure in both (found {places}, at least {FEWEST_WINDOWS} are needed)"
    return NOTHING_IN_COMMON


def displacement_field(
    fixed: Image,
    moving: Image,
    spacing_mm: Spacing,
    mask: Mask,
    units: tuple[str, str],
    coarse: bool = False,
) -> tuple[Field | None, Shifts, Mask]:
    """The displacement as a function of points (None: too few windows), its windows, and the resolved axes."""
    resolved = np.array(
        [n >= FEWEST_SLICES and mm <= THICKEST_MM for n, mm in zip(fixed.shape, spacing_mm)]
    )
    if resolved.sum() < 2 or not mask.any():
        nothing = np.zeros((0, 3))
        return None, Shifts(nothing, nothing), resolved
    fixed, moving = without_cut(fixed, moving)
    scans = [*zip((fixed, moving), units)]
    for image, unit in scans:
        # an MR does not show the vessels of lungs, which matched something elsewhere
        if unit == "HU":
            mask = mask & (image > RANGE_HU[0])
    ranges = [_range(image, mask, unit) for image, unit in scans]
    factor = min(1.0, float((np.array(fixed.shape) * spacing_mm)[resolved].max()) / HEAD_MM)
    pair_at = partial(Matching, fixed, moving, mask, spacing_mm, ranges, resolved)
    whole = pair_at(WHOLE_SCAN.scale(factor)).shifts(np.zeros_like).displacements
    field: Field = partial(np.full_like, fill_value=whole[0] if len(whole) else 0.0)
    levels = LEVELS if resolved[0] else FLAT_LEVELS
    for level in levels:
        if coarse and level.voxel_mm <= FINEST_MM:
            continue
        shifts = pair_at(level.scale(factor)).shifts(field)
        if len(shifts.displacements) < FEWEST_WINDOWS:
            return None, shifts, resolved
        field = fit_field(shifts, resolved, RIGID if level is levels[0] else STIFFNESS)
    apart = norm(shifts.displacements - field(shifts.centres), axis=1)
    agree = apart <= AGREE_MM * factor
    shifts = Shifts(
        shifts.centres[agree],
        shifts.displacements[agree],
        shifts.left_out + int((~agree).sum()),
    )
    if agree.sum() < max(FEWEST_WINDOWS, len(agree) / 2):
        return None, shifts, resolved
    return field, shifts, resolved


def without_cut(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both scans with NaN outside, where one mask has cut both: its edge would make them seem aligned."""
    outside = [image == image.flat[0] for image in (fixed, moving)]
    if min(part.mean() for part in outside) < CONSTANT or not dice(*outside) > CUT_OUT:
        return fixed, moving
    nan = np.float32(np.nan)
    return np.where(outside[0], nan, fixed), np.where(outside[1], nan, moving)


def _range(image: Image, mask: Mask, unit: str) -> tuple[float, float]:
    if unit == "HU":
        return RANGE_HU
    values = image[mask & np.isfinite(image)]
    low, high = np.percentile(values[:: max(1, values.size // SAMPLES)], PERCENTILES).tolist()
    return (low, high) if low < high else (low, low + 1.0)
