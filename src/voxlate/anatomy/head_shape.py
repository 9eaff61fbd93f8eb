"""The random shape of what a head holds beside the tissues of its label map: vessels, a lesion, roughness.

Upright coordinates are in mm: x right, y anterior, z superior. Their origin is the centre of the brain's base.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxlate.anatomy.shapes import (
    NoiseField,
    Rng,
    Space,
    Triple,
    Tube,
    ellipsoid,
    noise,
    overlap,
)
from voxlate.anatomy.tissue import Label
from voxlate.anatomy.vessels import vessels
from voxlate.base.array_types import AnyArray

LesionKind = Literal["none", "tumour", "stroke"]


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
    """The random numbers of one head; they do not depend on the image's size."""

    rough: NoiseField
    texture: NoiseField
    vessels: dict[Label, list[Tube]]
    lesion: Lesion


def anatomy(rng: Rng, kind: LesionKind) -> Anatomy:
    """Draw the shape of a head."""
    rng, lesion_rng, vessel_rng = rng.spawn(3)
    lesion = _lesion(lesion_rng, kind)
    return Anatomy(
        rough=noise(rng, 16, 4, 64),
        texture=noise(rng, 9, 3, 84),
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


def territory(head: Anatomy, points: Space) -> tuple[AnyArray, AnyArray]:
    """Distances to the core and to all hypoperfused tissue of a stroke of the middle cerebral artery."""
    lesion = head.lesion
    sided = Space(points.x * lesion.side, points.y, points.z)
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
