"""The variation of a label map: where each voxel of a new head lies in it.

Turned, mirrored, scaled, bent by smooth noise; the vault of the skull is thicker or thinner, most of all above the nose, where
its sinuses are, and the ventricles are wider or narrower.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy.label_map import LabelMap
from voxlate.anatomy.shapes import (
    NoiseField,
    Points,
    Rng,
    Space,
    Triple,
    bounded_normal,
    noise,
    triple,
)
from voxlate.anatomy.tissue import Label
from voxlate.anatomy.vessels import CEREBRUM_AXES, CEREBRUM_CENTRE
from voxlate.base.array_types import AnyArray
from voxlate.scans.images.mask import box_around

_TURN_DEGREES = np.array([9.0, 4.0, 5.0])  # standard deviations around x (nodding), y and z
_VAULT_MM = 7.0  # average thickness, over which a displacement grows
_SCALP_MM = 12.0  # beyond the vault, over which it fades
_FADE_MM = 10.0  # around the ventricles
_PITCH_MM = 4.0  # of stored displacements
_BROW = "0 80 4 | 40 30 36"  # centre and half axes of the bone that holds the frontal sinuses


@dataclass(frozen=True)
class HeadGrid:
    """The phantoms' upright coordinates in a map: upright = (map - origin) * scale, in x, y, z."""

    origin_mm: Triple
    scale: Triple

    def upright(self, points: Points) -> Points:
        """Upright coordinates of points of the map."""
        x, y, z = (
            (p - np.float32(o)) * np.float32(s)
            for p, o, s in zip(points, self.origin_mm, self.scale)
        )
        return x, y, z


def frame_of(body: LabelMap) -> HeadGrid:
    """The frame in which the brain's box is that of the phantoms' cerebrum."""
    spacing = body.spacing_mm[::-1]
    sides = zip(box_around(body.brain)[::-1], spacing)
    ends = [(first * step, (end - 1) * step) for (first, end), step in sides]
    half = [(last - first) / 2 for first, last in ends]
    x, y = CEREBRUM_AXES[0] / half[0], CEREBRUM_AXES[1] / half[1]
    z = (x + y) / 2
    top = CEREBRUM_CENTRE[2] + CEREBRUM_AXES[2]
    origin = (sum(ends[0]) / 2, sum(ends[1]) / 2, ends[2][1] - top / z)
    return HeadGrid(triple(origin), triple((x, y, z)))


@dataclass(frozen=True)
class Variation:
    """The random numbers of one variation.

    turn: 3 × 3; mirror: whether left and right change places; scale: of x, y, z; bend_mm: standard deviation of the
    displacement by the noise `bend`; vault_mm: by which the vault is thicker, modulated by `bend`; brow_mm: by which it is
    thicker still around the frontal sinuses; ventricle_mm: by which the ventricles' walls lie further out.
    """

    turn: AnyArray
    mirror: bool
    scale: AnyArray
    bend: tuple[NoiseField, ...]
    bend_mm: float
    vault_mm: float
    brow_mm: float
    ventricle_mm: float


def draw(rng: Rng) -> Variation:
    """Draw a variation."""
    # The order of the draws decides the bodies.
    return Variation(
        turn=_rotation(np.radians(_TURN_DEGREES * bounded_normal(rng, 3))),
        mirror=bool(rng.random() < 0.5),
        scale=np.exp(0.05 * bounded_normal(rng, 3)),
        bend=tuple(noise(rng, 80, 10, 32) for _ in range(3)),
        bend_mm=float(rng.uniform(1.0, 4.5)),
        # 20 label maps have a vault of 6.0 mm, two real CTs of 7.8 and 9.0
        vault_mm=float(rng.uniform(-1.0, 3.0)),
        brow_mm=float(rng.uniform(0, 10)) if rng.random() < 0.7 else 0.0,
        ventricle_mm=float(rng.uniform(-1.5, 1.5) if rng.random() < 0.6 else rng.uniform(0, 5)),
    )


def _rotation(angles: AnyArray) -> AnyArray:
    """The product of turns around x, y and z by angles in radians, 3 × 3."""
    turn = np.eye(3)
    for (i, j), angle in zip([(1, 2), (0, 2), (0, 1)], angles):
        matrix = np.eye(3)
        matrix[[i, j], [i, j]] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ matrix
    return turn


@dataclass(frozen=True)
class Places:
    """Where voxels of the new head lie in the map; middle_mm: the point (x, y, z) of the map that stays in place.

    inner: displacement of the map's points by vault and ventricles, [3, D, H, W] (x, y, z) on points _PITCH_MM apart.
    """

    variation: Variation
    middle_mm: Triple
    inner: AnyArray | None

    def on(self, axes: Points) -> Points:
        """Coordinates in mm from the map's first voxel, [D, H, W] each, of a grid with axes x, y, z in mm from the middle."""
        drawn = self.variation
        points = np.meshgrid(*axes[::-1], indexing="ij", sparse=True)[::-1]
        bent = [p + drawn.bend_mm * field.on(axes) for p, field in zip(points, drawn.bend)]
        matrix = (drawn.turn / drawn.scale[:, None]).astype(np.float32)
        turned = [sum(a * p for a, p in zip(row, bent)) for row in matrix]
        placed = [p + np.float32(c) for p, c in zip(turned, self.middle_mm)]
        if self.inner is None:
            return placed[0], placed[1], placed[2]
        index = np.stack(placed[::-1]) / np.float32(_PITCH_MM)
        moved = [
            p + ndimage.map_coordinates(field, index, order=1, mode="nearest", output=np.float32)
            for p, field in zip(placed, self.inner)
        ]
        return moved[0], moved[1], moved[2]


def places_of(body: LabelMap, tissues: AnyArray, drawn: Variation) -> Places:
    """The places of a variation of a map, whose bones stay as they are where it has no brain."""
    spacing = body.spacing_mm[::-1]
    x, y, z = ((n - 1) / 2 * step for n, step in zip(tissues.shape[::-1], spacing))
    inner = _inner(body, tissues, drawn) if body.brain.any() else None
    return Places(drawn, (x, y, z), inner)


def _inner(body: LabelMap, tissues: AnyArray, drawn: Variation) -> AnyArray:
    """Displacements that thicken the vault and widen the ventricles: of the map's points, so against the growth."""
    lengths = list(zip(tissues.shape, body.spacing_mm))
    axes = [np.arange(0, n * step, _PITCH_MM) for n, step in lengths]
    index = [
        np.minimum(np.rint(axis / step).astype(int), n - 1)
        for axis, (n, step) in zip(axes, lengths)
    ]
    coarse = np.ix_(*index)
    fluid = tissues[coarse] == Label.CSF
    cavity = body.brain[coarse] | fluid | (tissues[coarse] == Label.DURA)
    cavity = ndimage.binary_closing(np.pad(cavity, 2), iterations=2)[2:-2, 2:-2, 2:-2]
    outside, away = _signed(cavity)
    rise = np.clip(outside / _VAULT_MM, 0, 1) * np.clip(1 + (_VAULT_MM - outside) / _SCALP_MM, 0, 1)
    z, y, x = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij")
    thicker = drawn.vault_mm * (1 + 0.3 * drawn.bend[0].at((y, z, x)))
    if drawn.brow_mm:
        from_brow = Space(*frame_of(body).upright((x, y, z))).ellipsoid(_BROW)
        thicker = thicker + drawn.brow_mm * np.clip(-from_brow / 10, 0, 1)
    displacement = -rise * thicker * away
    ventricles = tissues[coarse] == Label.VENTRICLE
    if ventricles.any():
        outside, away = _signed(ventricles)
        fade = np.exp(-np.abs(outside) / _FADE_MM)
        displacement = displacement - drawn.ventricle_mm * fade * away
    return displacement.astype(np.float32)


def _signed(mask: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Distance in mm to the surface of a mask, negative inside, and its direction [3, D, H, W] (x, y, z)."""
    far = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    far = ndimage.gaussian_filter(far * _PITCH_MM, 1)
    slope = np.stack(np.gradient(far, _PITCH_MM)[::-1])
    return far, slope / np.maximum(np.sqrt((slope**2).sum(0)), 0.3)
