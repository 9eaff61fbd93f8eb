"""The mastoid cells and frontal sinuses of a head, which label maps show as solid bone.

How far bones are hollow, and how swollen the lining of their cells is, differs between heads and sides.
"""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.shapes import NoiseField, Rng, Space, ellipsoid, noise, numbers, overlap, union
from voxlate.base.array_types import AnyArray

# Where bone may be hollow, at size 1: of the brow and of the temporal bones.
_FRONTAL = "6 84 4 | 30 32 36"
_MASTOID = "52 -13 -42 | 22 18 26"
_APEX = "34 -8 -40 | 13 5 4.5"  # of the petrous bone, which wide cells reach


@dataclass(frozen=True)
class Airways:
    """The random numbers of one head's cells: relative sizes and the thickness of their lining, left and right.

    cells: distance to the septa.
    """

    mastoid: AnyArray
    frontal: AnyArray
    mucosa_mm: AnyArray
    cells: NoiseField


def draw(rng: Rng) -> Airways:
    """Draw the cells; one head in ten has no frontal sinuses."""
    mastoid, frontal = rng.uniform(0.55, 1.25, (2, 1)) * rng.uniform(0.85, 1.15, (2, 2))
    if rng.random() < 0.1:
        frontal = np.full(2, 0.05)
    swollen = rng.random(2) < 0.25
    mucosa_mm = np.where(swollen, rng.uniform(1.5, 6, 2), rng.uniform(0.1, 1.0, 2))
    cells = noise(rng, 13, 2.5, 64, narrow=True, distance=True)
    return Airways(mastoid, frontal, mucosa_mm, cells)


def hollow(airways: Airways, points: Space) -> tuple[AnyArray, AnyArray]:
    """Distances to the lined cells of mastoids and brow, and to their air, which walls divide; the left side mirrors the right."""
    right = points.x > 0
    half = Space(np.abs(points.x), points.y, points.z)
    size = _by_side(right, airways.mastoid)
    mastoid = _ellipsoid_of_size(half, size, _MASTOID)
    mastoid = union(mastoid, np.where(size > 0.95, half.ellipsoid(_APEX), 9))
    septa = 0.7 - np.abs(airways.cells.at((half.y, half.z, half.x)))
    brow = _ellipsoid_of_size(half, _by_side(right, airways.frontal), _FRONTAL)
    walls = overlap(0.9 - half.x, 0.35 - np.abs(airways.cells.at((points.z, points.x, points.y))))
    lining = 0.3 * _by_side(right, airways.mucosa_mm)
    lined = union(overlap(mastoid, septa), overlap(brow, walls))
    air = union(overlap(mastoid, septa + lining), overlap(brow, walls + lining))
    return lined, air


def _by_side(right: AnyArray, pair: AnyArray) -> AnyArray:
    return np.where(right, np.float32(pair[1]), np.float32(pair[0]))


def _ellipsoid_of_size(half: Space, size: AnyArray, text: str) -> AnyArray:
    """Distance to an ellipsoid "x y z | a b c" whose half axes are multiplied by size."""
    centre, _, axes = text.partition("|")
    scaled = [(p - c) / size for p, c in zip(half, numbers(centre))]
    return ellipsoid(scaled, (0, 0, 0), numbers(axes)) * size
