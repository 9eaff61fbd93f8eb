"""Masks of the body, and of the brain in CT, by thresholds and binary morphology, and what of a head they show."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from voxlate.base.array_types import Bool
from voxlate.base.errors import BadInput
from voxlate.scans.images.grid import Box, Spacing, Volume

Ends = list[tuple[int, int]]  # first and end along D, H, W

SAMPLES = 1_000_000  # voxels that thresholds are estimated from
AIR_HU = -1000.0
BODY_HU = -300.0  # between lung or foam (below -400) and fat (-100)
BONE_HU = 180.0  # above enhanced vessels at their edges, below the thin bone of the temple
# Cerebrospinal fluid to fresh blood: the usual window of the brain, of width 80 and level 40 (Osborn 2012, "Osborn's Brain").
BRAIN_HU = (0.0, 80.0)
TABLE_MM = 3.0  # table tops and head holders are thinner than twice this
SCALP_MM = 4.0  # gaps in the scalp's signal that are closed before the head is filled
SUTURE_MM = 3.0  # gaps in the bone that are closed
FORAMEN_MM = 2.0  # half the width of the bridges (nerves, vessels) that are cut
NOISE_HU = 20.0
RIM_HU = 500.0  # half way from brain to the bone of the inner table: a voxel at the rim is mostly brain below it
CUT_MM2 = 100.0  # of brain in a side face of the volume; less is a stray voxel
EDGE_MM = 8.0
DARK_AIR = 0.25  # of the way from a constant outside to bright tissue, which air does not reach
SPECK = 0.01  # of the largest component
LEAST_BODY = 0.01  # of the image; less is no body
ROUNDS = 4  # at most, of thresholds by a box and boxes by a threshold; two usually suffice
MOSTLY = 0.9  # of a body, which a threshold by its box must show
BEYOND_MM = SCALP_MM + 2 * TABLE_MM
LEAST_BRAIN = 0.05  # of the body; less is no brain


class Background(NamedTuple):
    """The value of a background, a threshold above it (None: there is no background), and whether it is one clean constant."""

    value: float
    threshold: float | None
    clean: bool


def foreground(volume: Volume, air: Background | None = None) -> np.ndarray:
    """The body or head of a volume, without table and noise: bool [D, H, W].

    Hounsfield units are thresholded between foam and fat. Other units: above the background, which is estimated from
    the in-plane border (a constant, also a negative one, or noise); where there is none, everything is body.
    air: the background, where it is known.
    """
    air = air or find_air(volume)
    if air.threshold is not None:
        body = _outline(volume, *find_tissue(volume, air))
        if _draws_outline(volume, body, body.size):
            return body
    return np.ones(volume.grid.shape, bool)


def body_in_any_air(volume: Volume) -> np.ndarray:
    """The foreground, whatever noise lies around the body, and however near the image ends: bool [D, H, W].

    Its threshold is that of the body's own box, unless this one shows much less of it, as where a box holds no air.
    """
    sides = zip(volume.data[0].shape, volume.grid.spacing_mm)
    beyond = [
        (math.ceil(BEYOND_MM / side),) * 2 if length > 2 else (0, 0) for length, side in sides
    ]
    inner = tuple(slice(first, -first or None) for first, _ in beyond)
    body, known, ends = None, None, varied_box(volume.data[0])
    for _ in range(ROUNDS):
        air = find_air(volume, ends)
        if air == known or air.threshold is None:
            break
        tissue, is_constant = find_tissue(volume, air)
        # as if the outermost planes went on: closing a gap keeps what it grows at the edge of an image
        outline = _outline(volume, np.pad(tissue, beyond, mode="edge"), is_constant)[inner]
        box = box_around(outline)
        size = math.prod(end - first for first, end in box)
        shrinks = body is not None and outline.sum() < MOSTLY * body.sum()
        if shrinks or not _draws_outline(volume, outline, size):
            break
        body, known, ends = outline, air, box
    return np.ones(volume.grid.shape, bool) if body is None else body


def _outline(volume: Volume, tissue: np.ndarray, is_constant: bool) -> np.ndarray:
    """The filled outline of tissue in a volume."""
    if is_constant:
        return fill_slices(largest(tissue))
    return _body(tissue, volume.grid.spacing_mm, 0.0 if volume.unit == "HU" else SCALP_MM)


def _draws_outline(volume: Volume, body: np.ndarray, size: int) -> bool:
    """Whether a body is enough of a box of `size` voxels: a few vessels above a threshold (some MRA files) are not."""
    return volume.unit == "HU" or body.sum() > LEAST_BODY * size


def within(ends: Ends) -> tuple[slice, ...]:
    """The slices of an array [D, H, W] that a box holds."""
    return tuple(slice(*along) for along in ends)


def find_air(volume: Volume, ends: Ends | None = None) -> Background:
    """The background of a volume, or of a box of it; not asked of Hounsfield units, whose threshold is known."""
    if volume.unit == "HU":
        return Background(AIR_HU, BODY_HU, False)
    image = volume.data[0]
    return _background(image if ends is None else image[within(ends)])


def find_tissue(volume: Volume, air: Background | None = None) -> tuple[np.ndarray, bool]:
    """Voxels above the background, inside a body or not (bool [D, H, W]), or that differ by as much from a constant one.

    Also whether the background is one constant. Where none can be estimated, it is the lowest value.
    """
    image = volume.data[0]
    air = air or find_air(volume)
    if air.threshold is None:
        return image > image.min(), True
    # a windowed picture has clean air around a whole head
    if not air.clean or volume.unit == "grey":
        return image > air.threshold, False
    away = image - air.value
    np.abs(away, out=away)
    return away > air.threshold - air.value, True


def background_value(volume: Volume, air: Background | None = None) -> float:
    """The value of the air around the body, in the volume's unit: where it is noise of magnitude images, that is 0.

    Where no background can be estimated, it is the lowest value. air: where it is known, but of Hounsfield units.
    """
    if air is None or volume.unit == "HU":
        air = _background(volume.data[0])
    lowest = float(volume.data[0].min())
    if air.threshold is None:
        return lowest
    if air.clean or volume.unit == "HU":
        return air.value
    return lowest if air.value < 0 else max(lowest, 0.0)


def _body(tissue: np.ndarray, spacing: Spacing, gap_mm: float) -> np.ndarray:
    """The filled outline of the body: gaps in its skin closed (in MR, bone is as dark as air), thin objects removed.

    The component with the most tissue is the body: a table top is large too, but hollow.
    """
    tissue = without_specks(tissue)
    shut = fill_slices(close_gaps(tissue, gap_mm, spacing))
    core = dilate(erode(shut, TABLE_MM, spacing), TABLE_MM, spacing)
    core = largest(core if core.any() else shut, tissue)
    outline = shut & dilate(core, TABLE_MM, spacing)
    return fill_slices(largest(outline & (tissue | erode(shut, gap_mm, spacing))))


def _background(image: np.ndarray) -> Background:
    """The background of an image, estimated without planes of one value at its sides where the rest has air, too."""
    inner = image[within(varied_box(image))]
    (found, bright), outside = _border_background(inner), float(image[0, 0, 0])
    has_air = abs(found.value - outside) <= DARK_AIR * abs(bright - outside)
    return found if has_air or inner.shape == image.shape else _border_background(image)[0]


def _border_background(image: np.ndarray) -> tuple[Background, float]:
    """The background of an image, estimated from the in-plane border, and the value of its bright tissue."""
    values = _sample(image)
    border = _sample(np.concatenate([image[:, [0, -1]].ravel(), image[:, :, [0, -1]].ravel()]))
    # A head may touch most of the border (neck, nose, a tight crop): the lower quarter still is air.
    lowest, background = np.percentile(border, [5, 25]).tolist()
    # standard deviation, from two quantiles of the normal law
    spread = (background - lowest) / 0.97
    floor, bright = np.percentile(values, [0.1, 90]).tolist()
    constant = (border == background).mean() > 0.25
    if not constant and background - floor > 0.5 * (bright - floor):
        return Background(background, None, clean=False), bright
    signal = background
    if values.max() > values.min():
        signal = float(values[values > otsu(values)].mean())
    away = np.abs(values - background)
    faint = (away > 0) & (away < 0.05 * (signal - background))
    # next to no voxel is just above it: skull-stripped or masked, not noise cut at zero
    if constant and faint.sum() < 0.05 * (away > 0).sum():
        edge = background + 1e-3 * (signal - background)
        return Background(background, edge, clean=True), bright
    above = max(6 * spread, 0.1 * (signal - background))
    return Background(background, background + above, clean=False), bright


def _sample(array: np.ndarray) -> np.ndarray:
    """Evenly spread values, at most about SAMPLES of them."""
    return array.reshape(-1)[:: max(1, array.size // SAMPLES)]


def otsu(values: np.ndarray) -> float:
    """The threshold between two classes of least variance within. Source: Otsu 1979, eq. 18.

    Without scikit-image, which the page in the browser does not load.
    """
    low, high = np.percentile(values, [0.5, 99.5])
    counts, edges = np.histogram(values.clip(low, high), bins=256)
    middle = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum().astype(np.float64)
    above = below[-1] - below
    sum_below = (counts * middle).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        sum_above = sum_below[-1] - sum_below
        between = below * above * (sum_below / below - sum_above / above) ** 2
    return float(edges[1 + int(np.nan_to_num(between).argmax())])


def brain(volume: Volume) -> np.ndarray:
    """The brain in a CT, the soft tissue inside the bone: bool [D, H, W].

    Raises BadInput for other scans, where no brain is found, and where the field of view cuts the head off at a side
    (slices may begin and end anywhere).
    """
    where = volume.origin or volume.modality
    if volume.unit != "HU":
        raise BadInput(
            f"{where}: expected a CT, whose bone surrounds the brain, found {volume.modality} ({volume.unit}). Give a mask file, as SynthStrip or HD-BET write it, or use the body mask, which is the brain in skull-stripped scans."
        )
    body = foreground(volume)
    inside = _inside_bone(volume, body)
    none = inside.sum() < LEAST_BRAIN * max(1, body.sum())
    _refuse_cut(volume, (volume.data[0] > BONE_HU) & body if none else inside)
    if none:
        raise BadInput(
            f"{where}: expected a head, found no brain in it. Use the body mask, or give a mask file."
        )
    return inside


def clearest(units: Mapping[str, str]) -> str:
    """The modality (given with its unit) in which a brain is found best: plain CT, other CT, else the first."""
    ct = [name for name, unit in units.items() if unit == "HU"]
    plain_ct = [name for name in ("ncct", "ct") if name in ct]
    return [*plain_ct, *ct, *units][0]


def _refuse_cut(volume: Volume, part: np.ndarray) -> None:
    """Raise BadInput where the brain, or the skull of a head without one, reaches a side face of the volume."""
    depth, height, width = volume.grid.spacing_mm
    rows = part[:, [0, -1]].sum() * depth * width
    columns = part[:, :, [0, -1]].sum() * depth * height
    if max(rows, columns) > CUT_MM2:
        side = "left or right" if columns > rows else "front or back"
        raise BadInput(
            f"{volume.origin or volume.modality}: expected a whole head in each slice, found one that the field of view cuts off at the {side}. Reconstruct it wider, or give a mask file."
        )


def _inside_bone(volume: Volume, body: np.ndarray) -> np.ndarray:
    """Soft tissue that bone encloses in some plane; erosion separates it from tissue in the foramina."""
    image = volume.data[0]
    spacing = volume.grid.spacing_mm
    bone = (image > BONE_HU) & body
    closed = close_gaps(bone, SUTURE_MM, spacing)
    filled = fill_slices(closed)
    for axis in (1, 2) if len(bone) > 2 else ():
        # where a sinus or orbit opens one ring, that of another plane is closed
        filled |= fill_slices(closed.swapaxes(0, axis)).swapaxes(0, axis)
    vault = filled & ~bone
    low, high = BRAIN_HU
    soft = vault & (image > low - NOISE_HU) & (image < high + NOISE_HU)
    core = largest(erode(soft, FORAMEN_MM, spacing))
    grown = dilate(core, FORAMEN_MM + max(spacing), spacing) & soft
    filled = fill_slices(close_gaps(grown, SUTURE_MM, spacing) & vault)
    # voxels at the rim are partly bone, and blur brightens them: each goes to the tissue that it has more of
    rim = dilate(filled, 1, (1, 1, 1)) & body
    rim &= (image > low - NOISE_HU) & (image < RIM_HU)
    return fill_slices(filled | rim)


# Boxes instead of balls: they are separable and thus fast on any size.


def dilate(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """Grow a mask by a box of half-width `radius_mm`; axes with wider spacing or one voxel stay as they are."""
    for axis, (length, size) in enumerate(zip(spacing_mm, mask.shape)):
        reach = int(radius_mm / length + 1e-6) if size > 1 else 0
        if reach:
            mask = _spread(mask, reach, axis)
    return mask


def erode(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """Shrink a mask by a box, as `dilate` grows it.

    Voxels beyond the edge of the image have the value of the edge: a head that is cut off keeps its cut.
    """
    return ~dilate(~mask, radius_mm, spacing_mm)


def _spread(mask: np.ndarray, reach: int, axis: int) -> np.ndarray:
    """Where a voxel of a mask is set at most `reach` voxels away along an axis, by a few shifts of all voxels."""
    spread = mask.copy()
    lines = np.moveaxis(spread, axis, 0)
    done = 0
    while done < reach:
        step = min(done + 1, reach - done)  # a wider one would skip voxels beside the edge
        lines[step:] |= lines[:-step]
        lines[:-step] |= lines[step:]
        done += step
    return spread


def box_around(mask: np.ndarray) -> Ends:
    """First and end of the smallest box around a mask along each axis; the whole image around an empty one."""
    box = Ends()
    for axis, length in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        box.append((int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, length))
    return box


def varied_box(image: np.ndarray) -> Ends:
    """The box of an image [D, H, W] without the planes at its sides that are one value; all of it where nothing varies."""
    whole = [(0, length) for length in image.shape]
    ends = [*whole]
    for axis in range(3):
        planes = np.moveaxis(image[within(ends)], axis, 0)
        before, after = _constant(planes), _constant(planes[::-1])
        if before == len(planes):
            return whole
        if before + after < len(planes):  # else two values alone meet
            ends[axis] = (before, len(planes) - after)
    return ends


def _constant(planes: np.ndarray) -> int:
    """How many of the first planes hold nothing but the first value."""
    value = planes[0].flat[0]
    varied = (number for number, plane in enumerate(planes) if (plane != value).any())
    return next(varied, len(planes))


def hard_edges(body: np.ndarray, spacing_mm: Sequence[float], hard: float) -> Bool:
    """Whether a body is cut at the first and the last plane along D, H, W: bool [3, 2].

    There is then more area than the share `hard` of that EDGE_MM further in: a plane u mm below a sphere's pole has
    u / (u + 8) of it.
    """
    cut = np.zeros((3, 2), bool)
    for axis, side in enumerate(spacing_mm):
        areas = body.sum(axis=tuple({0, 1, 2} - {axis}))
        inward = min(len(areas) - 1, max(1, round(EDGE_MM / side)))
        for face, along in enumerate((areas, areas[::-1])):
            cut[axis, face] = along[0] > 0 and along[0] >= hard * along[inward]
    return cut


def body_box_mm(volume: Volume) -> Box:
    """The smallest box along the axes of RAS mm around the body that a volume shows."""
    ends = box_around(foreground(volume))[::-1]
    corners = apply_affine(volume.affine, np.array([*product(*ends)]) - 0.5)
    return corners.min(axis=0), corners.max(axis=0)


def close_gaps(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """Close the gaps of a mask [D, H, W] that are at most twice the radius wide."""
    return erode(dilate(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def largest(mask: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The face-connected component with the most voxels (inside `weight`, if given); an empty mask stays empty."""
    labels, sizes = _components(mask, mask if weight is None else weight)
    return labels == 1 + sizes[1:].argmax() if len(sizes) > 1 else mask


def without_specks(mask: np.ndarray) -> np.ndarray:
    """Drop the components that are smaller than SPECK of the largest: noise and ghosts."""
    labels, sizes = _components(mask, mask)
    return mask & (sizes >= SPECK * sizes.max())[labels]


def _components(mask: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The face-connected components by numbers from 1, and how many voxels of each number are inside `weight`."""
    labels, count = ndimage.label(mask)
    return labels, np.bincount(labels[weight], minlength=count + 1)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes, which do not reach the border of [D, H, W] or [H, W].

    The complement is labelled, because scipy's own binary_fill_holes takes minutes on large volumes.
    """
    labels, count = ndimage.label(~mask)
    is_filled = np.ones(count + 1, bool)
    for axis in range(mask.ndim):
        is_filled[labels.take([0, -1], axis)] = False
    return mask | is_filled[labels]


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of each axial slice, then those of the volume; none reaches the sides of the box around the mask."""
    filled = mask.copy()
    part = filled[within(box_around(mask))]
    for plane in part:
        plane[:] = fill_holes(plane)
    part[:] = fill_holes(part)
    return filled
