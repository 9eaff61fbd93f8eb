"""A scan as one vector of named numbers and one coarse picture of its body: what every comparison of scans reads.

The picture shows tissue, dark for air and bone in any MR, in cubic cells below the top of the body, whose side is a share of the
body's own width: neither the voxels nor the field of view change it. numbers.toml says what each number means.
"""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64, UInt8
from voxlate.checks.planes_and_texture import plane_numbers, texture_numbers
from voxlate.scans.cases.case import CaseHeader
from voxlate.scans.formats.io import is_picture
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.mask import (
    Ends,
    Spacing,
    background_value,
    box_around,
    fill_slices,
    find_air,
    find_tissue,
    foreground,
    hard_edges,
    otsu,
    within,
)
from voxlate.scans.images.units import SHOW_ANATOMY

SIDE = 24  # cells of a picture along each axis
ACROSS = 18  # of which the body is wide
UNKNOWN = 255  # a cell beyond the scan
BRIGHTEST = 254  # of a cell, which the median of the body and brighter tissue have
COARSE_MM = 2.0
MOST_CELLS = 64  # along an axis, whose values are counted
UPPER_MM = 100.0  # below the top of the body: necks and shoulders are further down
# Voxels of a body along rows and columns, below which it has no shape, and no picture.
FEWEST, PICTURED = 6, 28
DEPTHS_MM = (10, 30, 60, 90, 120, 150)  # below the top, where areas of the body are compared
CENTRES_MM = (60, 90, 120)  # where its centres are
SKULL_MM, FACE_MM = (30, 60), (120, 150)  # of DEPTHS_MM, where a head has its skull and its face
DARK = 0.25  # of the median of the body: air and bone
LONG = 1.12  # times as long as wide, from which a body has an angle
FOLD_MM = 6.0  # cells in which an outline is compared with its mirror image
# From the lower end of a body, near which no depth is compared, and the share of its largest area that a brain has there.
END_MM, TAPERED = 10.0, 0.45
CUT = 0.2  # area at a border that cuts a body, beside that further in; round heads have less within a voxel
LONGEST_TOUCH_MM = 30.0  # along a border, from which it cuts a body: beyond a tip of nose or ear
TISSUE = 0.3  # of the median of the body: what is darker at a border is its partial volume, or bone
# By name the axis to which a border of slices is normal, and whether it is the first or the last plane.
BORDERS = {"left": (2, 0), "right": (2, -1), "back": (1, 0), "front": (1, -1)}
FAT_HU, BONE_HU = -200.0, 800.0
# The lowest value of a scan may be padding if it is less; soft tissue is at least so much denser than air, lungs are not.
PADDING_HU, ABOVE_AIR_HU = -1100.0, 300.0
AIR_SHARE = 5  # percent of all voxels; in a scan of the head, more is air
# By the way from air to the most frequent value of tissue. CT has 40 HU of 1000 around it, fat and skin before it, bone beyond.
EVEN, BETWEEN, BRIGHTER = 0.04, (0.15, 0.7), 1.2
SLOW_MM, FINE_MM = 20.0, 4.0  # changes over more are coils', over less noise
TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A scan as numbers by name, and its picture [SIDE, SIDE, SIDE]: feet to head, back to front, left to right."""

    numbers: Mapping[str, float]
    picture: UInt8

    @classmethod
    def none(cls) -> "Fingerprint":
        """That of no scan."""
        return cls({}, np.full((SIDE,) * 3, UNKNOWN, np.uint8))

    @property
    def text(self) -> str:
        """The picture as text in a file."""
        return base64.b85encode(zlib.compress(self.picture.tobytes())).decode()

    @classmethod
    def from_text(cls, numbers: Mapping[str, float], text: str) -> "Fingerprint":
        """The fingerprint of numbers and the text of a picture; raises ValueError for another text."""
        whole = zlib.decompressobj().decompress(base64.b85decode(text), SIDE**3)
        return cls(numbers, np.frombuffer(whole, np.uint8).reshape((SIDE,) * 3))


@dataclass(frozen=True, eq=False)
class CoarseBody:
    """A scan in voxels of about COARSE_MM [D, H, W], above its background; clean: whether that is one constant."""

    values: Float32
    body: Bool
    box: Ends
    spacing_mm: Spacing
    background: float
    clean: bool
    unit: str

    @cached_property
    def median(self) -> float:
        """The median of the body above the background."""
        return max(float(np.median(self.values[self.body])), TINY)

    @cached_property
    def upper(self) -> slice:
        """The planes of the upper part of the body."""
        bottom, top = self.box[0]
        return slice(max(bottom, top - max(1, int(UPPER_MM / self.spacing_mm[0]))), top)

    @cached_property
    def upper_mm(self) -> tuple[float, float]:
        """Depth and width of the upper part of the body."""
        _, *sides = np.ptp(box_around(self.body[self.upper]), axis=1) * self.spacing_mm
        depth, width = sides
        return float(depth), float(width)

    @property
    def across_mm(self) -> float:
        """The geometric mean of depth and width."""
        return float(np.sqrt(np.prod(self.upper_mm)))


def stored_fingerprint(header: CaseHeader, name: str) -> Fingerprint | None:
    """The fingerprint of a scan that the header of its case states; None without one."""
    text = header.pictures.get(name)
    return None if text is None else Fingerprint.from_text(header.numbers.get(name, {}), text)


def fingerprint(scan: Volume) -> Fingerprint:
    """The fingerprint of a scan; of one that is too small to show a body its voxels alone, of a map nothing."""
    if scan.unit not in SHOW_ANATOMY:
        return Fingerprint.none()
    straight = canonical_view(scan)
    numbers = value_numbers(straight) | texture_numbers(straight) | plane_numbers(straight)
    numbers["twin"] = _twin(straight.data[0])
    if scan.unit == "HU":
        numbers |= _of_ct(straight.data[0])
    picture = Fingerprint.none().picture
    body = coarse_body(straight)
    if body.body.any() and min(np.ptp(body.box, 1)[1:]) >= FEWEST:
        if min(np.ptp(body.box, 1)[1:]) >= PICTURED and not body.body.all():
            picture = picture_of(body)
        numbers |= _shape(body) | _ends(body) | _profile(body)
        if is_picture(Path(scan.origin)):
            del numbers["height_mm"]  # pictures state no depth
        if max(numbers[f"touch_{side}"] for side in BORDERS) > LONGEST_TOUCH_MM:
            del numbers["turned"]  # what the border cuts has another outline
        if scan.unit != "HU":
            numbers |= _levels(body)
    finite = {name: float(value) for name, value in numbers.items() if np.isfinite(value)}
    return Fingerprint(finite, picture)


def coarse_body(scan: Volume) -> CoarseBody:
    """A canonical scan in coarse voxels, with its first and its last planes."""
    spacing_mm = np.array(scan.grid.spacing_mm)
    last = np.array(scan.grid.shape) - 1
    steps = -(-last // np.rint(COARSE_MM / spacing_mm).clip(1)).astype(int)
    planes = [np.linspace(0, end, count + 1).round().astype(int) for end, count in zip(last, steps)]
    values = scan.data[0][np.ix_(*planes)].astype(np.float32)
    z, y, x = (spacing_mm * last.clip(1) / steps.clip(1)).tolist()
    small = Volume(values[None], np.diag([x, y, z, 1.0]), scan.unit, scan.modality)
    air = find_air(small)
    _, clean = find_tissue(small, air)
    body = foreground(small, air)
    level = background_value(small, air)
    return CoarseBody(values - level, body, box_around(body), (z, y, x), level, clean, scan.unit)


def picture_of(body: CoarseBody) -> UInt8:
    """The tissue of a body in cells; UNKNOWN beyond the scan."""
    cell_mm = body.across_mm / ACROSS
    # the outline does not depend on the contrast, tissue tells head from foot where outlines are alike
    shown = (_tissue(body) + fill_slices(body.body)).astype(np.float32) / 2
    smooth = ndimage.gaussian_filter(
        shown, [cell_mm / 2 / side for side in body.spacing_mm], mode="nearest"
    )
    middle = [sum(ends) / 2 for ends in box_around(body.body[body.upper])[1:]]
    below = (np.arange(-SIDE, 0) + 0.5) * cell_mm
    aside = (np.arange(SIDE) - (SIDE - 1) / 2) * cell_mm
    starts = (body.box[0][1], *middle)
    places = [
        np.floor(start + away / side).astype(int)
        for start, away, side in zip(starts, (below, aside, aside), body.spacing_mm)
    ]
    inside = [(at >= 0) & (at < length) for at, length in zip(places, smooth.shape)]
    picture = np.full((SIDE,) * 3, UNKNOWN, np.uint8)
    cells = smooth[np.ix_(*(at[shown] for at, shown in zip(places, inside)))]
    picture[np.ix_(*inside)] = np.rint(cells * BRIGHTEST)
    return picture


def _tissue(body: CoarseBody) -> Float32:
    """What is no air, from 0 to 1 [D, H, W]; of a CT from fat to bone."""
    if body.unit == "HU":
        shown = (body.values + body.background - FAT_HU) / (BONE_HU - FAT_HU)
    else:
        shown = body.values / body.median
    return shown.clip(0, 1) * body.body


def _shape(body: CoarseBody) -> dict[str, float]:
    """Sizes of a body, how much its left mirrors its right, and how it is turned in the plane of the slices."""
    depth_mm, width_mm = body.upper_mm
    places = np.argwhere(body.body[body.upper])[:, 1:] * np.array(body.spacing_mm[1:])
    spread, vectors = np.linalg.eigh(np.cov(places.T) + 1e-6 * np.eye(2))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))) % 180
    is_long = float(np.sqrt(spread[1] / spread[0])) > LONG
    # the outline of a head that the field of view cuts is long, too, and has another axis
    is_turned = is_long and _folded(places, vectors[:, 1]) >= _folded(places, np.array([1.0, 0]))
    return {
        "across": np.log(body.across_mm),
        "wide": np.log(width_mm / depth_mm),
        "turned": min(angle, 180 - angle) * is_turned,
        "mirror": symmetry(_even(body)),
    }


def _folded(places: Float64, axis: Float64) -> float:
    """The share of places [N, 2] in mm that others mirror, at an axis through their middle."""
    away = places - places.mean(0)
    mirrored = 2 * np.outer(away @ axis, axis) - away
    least = -FOLD_MM - float(max(np.abs(away).max(), np.abs(mirrored).max()))
    side = int(-2 * least / FOLD_MM) + 2
    here, there = (
        np.bincount(((of - least) // FOLD_MM).astype(int) @ [side, 1], minlength=side * side)
        for of in (away, mirrored)
    )
    return float(np.minimum(here, there).sum() / len(places))


def _ends(body: CoarseBody) -> dict[str, float]:
    """How a body ends: its height, whether it tapers below in a constant background, and what the borders of the scan cut.

    foot: the area near its lower end over its largest; lost_mm: depth at which a sphere of the largest area has that of the body's
    last plane, beyond one plane, where there is no more tissue above; touch_SIDE: the longest line of tissue along a border of
    slices that cuts the body.
    """
    side_mm = body.spacing_mm[0]
    bottom, top = body.box[0]
    areas = body.body[bottom:top].sum((1, 2))
    shares = areas / max(areas.max(), 1)
    radius_mm = float(np.sqrt(areas.max() * np.prod(body.spacing_mm[1:]) / np.pi))
    foot = float(shares[min(len(shares) - 1, round(END_MM / side_mm))])
    above = (body.values[top:] > TISSUE * body.median).sum((1, 2)).max(initial=0) / max(
        areas.max(), 1
    )
    lost_mm = radius_mm * (1 - np.sqrt(1 - shares[-1])) - side_mm
    numbers = {
        "height_mm": len(shares) * side_mm,
        "foot": foot,
        "alone": body.clean and foot < TAPERED,
        "upper": float(shares[-1]),
        "lost_mm": lost_mm if above < CUT else 0.0,
    }
    is_cut = hard_edges(body.body, body.spacing_mm, CUT)
    tissue = body.body & (body.values > TISSUE * body.median)
    for side, (axis, face) in BORDERS.items():
        # the border goes along the other axis of slices
        line_mm = tissue.take(face, axis).sum(1).max() * body.spacing_mm[3 - axis]
        numbers[f"touch_{side}"] = float(is_cut[axis, face] * line_mm)
    return numbers


def _profile(body: CoarseBody) -> dict[str, float]:
    """Areas and centres of a body by the depth below its top.

    Areas as the diameter of a circle, relative to the width of the upper part. skull_over_face: by how much the skull is wider
    than the face.
    """
    side_mm = body.spacing_mm[0]
    bottom, top = body.box[0]
    planes = body.body[bottom:top][::-1]
    areas = planes.sum((1, 2))
    diameters = np.sqrt(areas * np.prod(body.spacing_mm[1:]) * 4 / np.pi) / body.across_mm
    along = (planes.sum(2) * np.arange(planes.shape[1])).sum(1)
    centres = along / np.maximum(areas, 1) * body.spacing_mm[1]
    depths_mm = (np.arange(len(planes)) + 0.5) * side_mm
    forward = (centres - np.interp(DEPTHS_MM[1], depths_mm, centres)) / body.across_mm
    shown = {"area": (DEPTHS_MM, diameters), "forward": (CENTRES_MM, forward)}
    numbers = {
        f"{name}_{depth_mm}": float(np.interp(depth_mm, depths_mm, values))
        for name, (asked_mm, values) in shown.items()
        for depth_mm in asked_mm
        if depth_mm < depths_mm[-1] - END_MM
    }
    # a child's face is small for its skull
    skull, face = ([numbers.get(f"area_{at}", np.nan) for at in of] for of in (SKULL_MM, FACE_MM))
    return numbers | {"skull_over_face": float(np.mean(skull) - np.mean(face))}


def value_numbers(scan: Volume) -> dict[str, float]:
    """Numbers of a few voxels of a scan, whatever they show.

    levels: different values; inverted: where the lower quartile of the first and last rows is in the range; air: the value below
    which AIR_SHARE is. By the way from air to the most frequent value of tissue, even: the share of tissue within EVEN of that value;
    brighter: that beyond BRIGHTER; between: the share of all voxels within BETWEEN, which padding has not.
    """
    few = _few(scan.data[0])
    edge = np.percentile(few[:, [0, -1]], 25)
    inverted = float((edge - few.min()) / max(np.ptp(few), TINY))
    air = float(np.percentile(few, AIR_SHARE))
    numbers = {"levels": len(np.unique(few)), "inverted": inverted, "air": air}
    bright = np.sort(few[few > otsu(few)])
    count = len(bright) // 10
    densest = int((bright[count:] - bright[: len(bright) - count]).argmin()) if count else 0
    usual = float(bright[densest : densest + count + 1].mean()) if count else air
    if usual <= air:
        return numbers
    way = (few - air) / (usual - air)
    tissue = way[way > 0.5]
    low, high = BETWEEN
    return numbers | {
        "even": float((np.abs(tissue - 1) < EVEN).mean()),
        "brighter": float((tissue > BRIGHTER).mean()),
        "between": float(((way > low) & (way < high)).mean()),
    }


def _few(values: AnyArray) -> Float32:
    """Voxels at regular steps, at most MOST_CELLS along an axis."""
    z, y, x = (-(-length // MOST_CELLS) for length in values.shape)
    return values[::z, ::y, ::x].astype(np.float32)


def _twin(values: AnyArray) -> float:
    """The correlation of the finest detail of a scan with its mirror image."""
    step = -(-len(values) // MOST_CELLS)
    bends = np.diff(values[::step].astype(np.float32), 2, axis=1)
    most = np.abs(bends).mean() if bends.size else 0  # edges of the body outweigh nothing
    return symmetry(bends.clip(-most, most))


def _of_ct(hu: AnyArray) -> dict[str, float]:
    """Around which HU most of fat and soft tissue lies, up to which a quarter as much, and where values end.

    soft: the most frequent value well above air, whatever the offset; clipped, floored: the shares of voxels that have the highest
    and the lowest value.
    """
    low, high = float(hu.min()), float(hu.max())
    few = _few(hu)
    if low < PADDING_HU < high:
        few = few[few > low]
    above = few[few > np.percentile(few, AIR_SHARE) + ABOVE_AIR_HU]
    solid, ends = np.histogram(above, np.arange(-3000, 4001, 20))
    counts, edges = np.histogram(hu[hu != 0], np.arange(-500, 801, 10))  # 0 may be padding
    counts = np.convolve(counts, np.ones(5), "same")
    middles = edges[:-1] + 5
    top = middles[counts >= max(counts.max() / 4, 1)]
    return {
        "lowest": low,
        "highest": high,
        "clipped": float((hu == high).mean()),
        "floored": float((hu == low).mean()),
        "soft": float(ends[solid.argmax()]) + 10 if solid.any() else np.nan,
        "tissue": float(middles[counts.argmax()]) if top.size else np.nan,
        "tissue_top": float(top.max()) if top.size else np.nan,
    }


def _levels(body: CoarseBody) -> dict[str, float]:
    """How bright parts of a body are relative to its median above the background."""
    below = {"below": float((body.values < -DARK * body.median).mean())}
    inside = body.values[body.body]
    # of negated values, to whose median nothing is relative
    if body.median == TINY and inside.min() < 0:
        return below
    dark, low, bright, brighter, most = np.percentile(inside / body.median, [5, 25, 95, 99.9, 100])
    return below | {
        "dark": dark,
        "low": low,
        "saturated": float((inside == inside.max()).mean()),
        "bright": np.log(max(bright, TINY)),
        "hottest": np.log(max((most - 1) / max(brighter - 1, TINY), TINY)),
        "floor": body.background / max(abs(body.background) + brighter * body.median, TINY),
        "void": _void_mm(body),
    }


def _void_mm(body: CoarseBody) -> float:
    """The radius of the largest region inside a body that is as dark as air."""
    dark = fill_slices(body.body) & (body.values / body.median < DARK)
    dark = dark[within(body.box)]  # all that is inside of the body
    return float(ndimage.distance_transform_edt(np.pad(dark, 1), body.spacing_mm).max())


def _even(body: CoarseBody) -> Float32:
    """The values in a body without what changes slowly, as coils do, and without their mean; 0 outside."""
    values = np.where(body.body, body.values.clip(0, 2 * body.median), 0)
    sigma = [SLOW_MM / mm for mm in body.spacing_mm]
    slow, share = (
        ndimage.gaussian_filter(part.astype(np.float32), sigma, mode="nearest")
        for part in (values, body.body)
    )
    even = np.where(body.body, values * share / np.maximum(slow, TINY), 0)
    mean = even.sum() / max(int(body.body.sum()), 1)
    away = np.where(body.body, even - mean, 0).astype(np.float32)
    return ndimage.gaussian_filter(away, [FINE_MM / mm for mm in body.spacing_mm], mode="nearest")


def symmetry(away: Float32) -> float:
    """The correlation of values [D, H, W] with those of their mirror image from left to right, at the best place of it."""
    # a product of spectra is a convolution: the correlation with the mirror image at each shift
    spectrum = np.fft.rfft(away, 2 * away.shape[2], axis=2)
    correlations = np.fft.irfft((spectrum**2).sum((0, 1)))
    return float(correlations.max() / max(float((away**2).sum()), TINY))
