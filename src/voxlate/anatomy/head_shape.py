"""The anatomy of one head as signed distances: the deformation of space, the ventricles, deep nuclei and lesions.

Upright coordinates are in mm: x right, y anterior, z superior. Their origin is the centre of the brain's base.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxlate.anatomy.shapes import (
    NoiseField,
    Points,
    Rng,
    Space,
    Triple,
    Tube,
    bounded_normal,
    ellipsoid,
    interpolate,
    noise,
    overlap,
    tubes_of,
    union,
)
from voxlate.anatomy.tissue import Label
from voxlate.anatomy.vessels import vessels
from voxlate.base.array_types import AnyArray

LesionKind = Literal["none", "tumour", "stroke"]
# Standard deviations: turns around x (nodding), y and z, and logarithms of sizes along them.
_TURN_DEGREES = np.array([9.0, 3.5, 5.0])
_SCALE = np.array([0.035, 0.04, 0.035])
_PITCH_MM = 8.0  # of stored displacements, whose noise has wavelengths of 70 mm and more


@dataclass(frozen=True)
class Lesion:
    """A lesion in upright coordinates.

    side: -1 left, 1 right, 0 none; reach: size of the hypoperfused tissue relative to the artery's territory.
    """

    kind: LesionKind
    side: int = 0
    centre_mm: Triple = (0.0, 0.0, 0.0)
    radius_mm: float = 0.0
    reach: float = 0.0
    collateral_delay_s: float = 0.0


@dataclass(frozen=True)
class Anatomy:
    """All random numbers of one head's shape; they do not depend on the image's size."""

    scale: AnyArray
    tilt: AnyArray
    bend: tuple[NoiseField, ...]
    sway: tuple[NoiseField, ...]
    folds: NoiseField
    rough: NoiseField
    texture: NoiseField
    fold_shift: AnyArray
    skull_mm: float
    cortex_mm: float
    sulcus_mm: float
    ventricle: float
    vessels: dict[Label, list[Tube]]
    lesion: Lesion


def anatomy(rng: Rng, kind: LesionKind) -> Anatomy:
    """Draw the shape of a head."""
    rng, lesion_rng, vessel_rng = rng.spawn(3)
    lesion = _lesion(lesion_rng, kind)
    return Anatomy(
        scale=np.exp(_SCALE * bounded_normal(rng, 3)),
        tilt=np.radians(_TURN_DEGREES * bounded_normal(rng, 3)),
        bend=tuple(noise(rng, 90, 10, 32) for _ in range(3)),
        sway=tuple(noise(rng, 70, 10, 32) for _ in range(3)),
        folds=noise(rng, 23, 3, 72, narrow=True, distance=True),
        rough=noise(rng, 16, 4, 64),
        texture=noise(rng, 9, 3, 84),
        fold_shift=30 * rng.standard_normal(3),
        skull_mm=float(rng.uniform(4.5, 8.5)),
        cortex_mm=float(rng.uniform(2.7, 3.2)),
        sulcus_mm=float(rng.uniform(0.35, 0.75)),
        ventricle=float(np.exp(0.2 * bounded_normal(rng))),
        vessels=vessels(vessel_rng, lesion.side if kind == "stroke" else 0),
        lesion=lesion,
    )


def _lesion(rng: Rng, kind: LesionKind) -> Lesion:
    side = int(rng.choice((-1, 1)))
    if kind == "tumour":
        x, y, z, radius = rng.uniform((26, -38, 12, 11), (38, 42, 42, 19)).tolist()
        return Lesion(kind, side, (side * x, y, z), radius)
    if kind == "stroke":
        lows, highs = (-14, 4, 0.75, 5.5, 14), (18, 22, 1.15, 8.5, 24)
        y, z, reach, delay, radius = rng.uniform(lows, highs).tolist()
        return Lesion(kind, side, (side * 40.0, y, z), radius, reach, delay)
    return Lesion("none")


@dataclass(frozen=True)
class Bending:
    """How a head bends space: displacements in mm on a grid of points up to _PITCH_MM apart, [3, D, H, W] (x, y, z)."""

    axes: Points
    shifts: AnyArray


def bending(head: Anatomy, axes: Points) -> Bending:
    """The bending of the space over a grid; axes: x [W], y [H], z [D] in scanner coordinates."""
    x, y, z = map(_coarse, axes)
    coarse = (x, y, z)
    turned = _turn(head, coarse)
    # Both sides get the same noise; rounding |x| keeps the mid-plane free of a crease.
    half = (np.sqrt(turned[0] ** 2 + 400), turned[1], turned[2])
    shifts = np.stack([1.9 * field.at(half) for field in head.bend])
    # A sideways bend must vanish in the mid-plane to stay symmetric.
    shifts[0] *= np.tanh(turned[0] / 20)
    shifts += [0.9 * field.on(coarse) for field in head.sway]
    return Bending(coarse, shifts)


def _coarse(axis: AnyArray) -> AnyArray:
    """An axis with points up to _PITCH_MM apart, or itself where its points are further apart."""
    points = int(np.ceil((axis[-1] - axis[0]) / _PITCH_MM)) + 1
    return axis if points >= len(axis) else np.linspace(axis[0], axis[-1], points, dtype=np.float32)


def _turn(head: Anatomy, axes: Points) -> list[AnyArray]:
    """The points of a grid, [D, H, W] each, turned and scaled to the average head."""
    matrix = (rotation(head.tilt) / head.scale[:, None]).astype(np.float32)
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij", sparse=True)
    return [row[0] * x + row[1] * (y + 6) + row[2] * z for row in matrix]


def upright(head: Anatomy, bent: Bending, straight: Points) -> Space:
    """Upright coordinates of a grid with axes x [W], y [H], z [D], in which the head has the average shape."""
    places = [
        (axis - coarse[0]) / np.float32(coarse[1] - coarse[0])
        for axis, coarse in zip(straight, bent.axes)
    ]
    shifts = (interpolate(shift, places[::-1], "clip") for shift in bent.shifts)
    x, y, z = (at + shift for at, shift in zip(_turn(head, straight), shifts))
    return Space(x, y, z, straight)


def rotation(angles: AnyArray) -> AnyArray:
    """The product of turns around x, y and z by angles in radians, 3 × 3."""
    turn = np.eye(3)
    for (i, j), angle in zip([(1, 2), (0, 2), (0, 1)], angles):
        matrix = np.eye(3)
        matrix[[i, j], [i, j]] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ matrix
    return turn


def before_tumour(lesion: Lesion, points: Space, depth: AnyArray) -> Space:
    """Points before the mass effect of a tumour, which displaces tissue away from it but not the skull."""
    if lesion.kind != "tumour":
        return points
    offset = [p - c for p, c in zip(points, lesion.centre_mm)]
    squared = sum(d * d for d in offset)
    spread = 1.5 * lesion.radius_mm
    push = 0.42 * np.exp(-squared / (2 * spread**2)) * np.clip(depth / 14, 0, 1)
    x, y, z = (p - push * d for p, d in zip(points, offset))
    return Space(x, y, z, points.straight)


def deep_grey(points: Space) -> AnyArray:
    """Caudate, lentiform nucleus and thalamus of both sides."""
    half = points.half
    x, y, z = half
    caudate = Space(x - 0.10 * (24 - y), y, z + 0.16 * (y - 24)).ellipsoid("14 22 10 | 5 17 8")
    lentiform = half.at(x=x + 0.28 * (y - 16)).ellipsoid("26 16 2 | 6.5 16 9.5")
    thalamus = half.at(x=x + 0.30 * (y + 2)).ellipsoid("11.5 -3 7 | 8 13 8.5")
    return union(caudate, lentiform, thalamus)


_LATERAL = tubes_of("""
6.5 36 5, 7 30 10, 6.5 20 15.5, 7 8 20, 9.5 -10 22, 16 -24 18, 24 -33 9 | 4.6 6.6
24 -33 9, 31 -22 -8, 33 -4 -18, 32 8 -20 | 4.6 1.8
24 -33 9, 23 -48 6, 20 -58 4 | 4.6 1.5
""")


def ventricles(head: Anatomy, points: Space) -> AnyArray:
    """Distance to the lateral, third and fourth ventricles and the aqueduct."""
    x = points.half.x
    grow = head.ventricle
    sides = []
    for part in _LATERAL:
        tube = Tube(part.path, (part.radius_mm[0] * grow, part.radius_mm[1] * grow))
        sides += [tube, tube.mirror()]
    # The septum pellucidum separates the lateral ventricles.
    lateral = overlap(points.tubes(sides, 8), 0.7 - x)
    midline = points.at(x=np.zeros_like(x)).ellipsoid("0 2 2 | 1e3 13 9")
    third = overlap(midline, x - 1.9 * grow)
    fourth = points.ellipsoid(f"0 -25 -32 | {6.0 * grow} 4.0 9")
    aqueduct = points.tubes("0 -14 -4, 0 -20 -16, 0 -24 -28 | 0.9 0.9", 8)
    return union(lateral, third, fourth, aqueduct)


def territory(head: Anatomy, points: Space) -> tuple[AnyArray, AnyArray]:
    """Distances to the core and to all hypoperfused tissue of a stroke of the middle cerebral artery."""
    lesion = head.lesion
    sided = points.at(x=points.x * lesion.side)
    rough = head.rough.at(points)
    radius = lesion.radius_mm
    reach = lesion.reach
    whole = sided.ellipsoid(f"50 -2 16 | {31 * reach} {50 * reach} {34 * reach}")
    whole = overlap(whole + 3 * rough, 14 - sided.x)
    core = ellipsoid(points, lesion.centre_mm, (0.9 * radius, 1.2 * radius, 0.9 * radius))
    return overlap(core + 2.5 * rough, whole + 4), whole


def tumour(head: Anatomy, points: Space) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Distances to necrosis, necrosis with its enhancing rim, and the oedema around them."""
    rough = head.rough.at(points)
    radius = head.lesion.radius_mm
    ball = ellipsoid(points, head.lesion.centre_mm, (radius, 1.1 * radius, 0.95 * radius))
    ball = ball + 0.12 * radius * rough
    finger = head.rough.at((points.y, points.z, points.x))
    oedema = ball - 0.75 * radius - 0.35 * radius * finger
    return ball + 0.27 * radius + finger, ball, oedema
