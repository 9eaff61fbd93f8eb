"""What age does to a brain: lesions of white matter and calcifications.

Orders of magnitude: de Leeuw et al. 2001, J Neurol Neurosurg Psychiatry 70:9 (white-matter lesions by age); Kwak et al. 1988, J Comput Assist Tomogr 12:775
(calcified choroid plexus and pineal gland).
"""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.shapes import Pair, Rng, Space, Triple, bounded_normal, triple
from voxlate.anatomy.tissue import Label
from voxlate.anatomy.vessels import CEREBRUM_AXES, CEREBRUM_CENTRE

Ball = tuple[Triple, Triple]  # centre and half axes in mm
# Sizes in mm, and corners of the boxes of centres: plaques of multiple sclerosis lie near the ventricles.
_PLAQUES = (2.0, 6.0), ((10, -40, 8), (26, 42, 30))
_SPOTS = (1.0, 4.0), ((14, -48, 12), (40, 48, 46))


@dataclass(frozen=True)
class Ageing:
    """The age of a brain and what came with it.

    spots: lesions of white matter; pineal_mm, choroid_mm: radii of calcifications, 0 without; pallidum: whether it
    holds enough calcium for CT; falx_mm: radii of calcified plaques of the falx.
    """

    years: float
    spots: tuple[Ball, ...]
    pineal_mm: float
    choroid_mm: Pair
    pallidum: bool
    falx: tuple[Ball, ...]


def draw(rng: Rng) -> Ageing:
    """Draw an age from 20 to 90, and what came with it."""
    years = float(rng.uniform(20, 90))
    old = (years - 20) / 70
    own = float(np.exp(0.35 * bounded_normal(rng, 1)[0]))  # patients of an age differ
    vascular = max(0.0, (years - 45) / 45) * own
    plaques = years < 55 and rng.random() < 0.15
    count = int(rng.poisson(9)) + 4 if plaques else int(rng.poisson(14 * min(vascular, 1.5)))
    size, place = _PLAQUES if plaques else _SPOTS
    calcified = rng.random(4)
    # The order of the draws decides the heads.
    spots = tuple(_spot(rng, size, place) for _ in range(count))
    pineal = float(rng.uniform(0.8, 3.0)) if calcified[0] < 0.3 + 0.5 * old else 0.0
    common, left, right = rng.uniform((1.2, 0.6, 0.6), (4.0, 1.2, 1.2)).tolist()
    choroid = (common * left, common * right)
    falx = tuple(_plaque(rng) for _ in range(rng.integers(1, 4))) if calcified[3] < 0.15 else ()
    choroid = choroid if calcified[1] < 0.15 + 0.65 * old else (0.0, 0.0)
    pallidum = bool(calcified[2] < 0.02 + 0.1 * old)
    return Ageing(years, spots, pineal, choroid, pallidum, falx)


def _spot(rng: Rng, size: Pair, place: Ball) -> Ball:
    """A lesion of deep white matter; place: the corners of the box of its centre, on the right side."""
    side = rng.choice((-1, 1))
    x, y, z = rng.uniform(*place)
    radius = np.exp(rng.uniform(*np.log(size)))
    return triple((side * x, y, z)), triple(radius * rng.uniform(0.7, 1.5, 3))


def _plaque(rng: Rng) -> Ball:
    """A calcification on the falx, below the vertex."""
    angle = rng.uniform(0.5, 2.3)
    y = 0.9 * CEREBRUM_AXES[1] * np.cos(angle)
    z = CEREBRUM_CENTRE[2] + 0.9 * CEREBRUM_AXES[2] * np.sin(angle)
    return triple((0, y, z)), triple((1.2, *rng.uniform((2, 2), (7, 5))))


def paint(canvas: Canvas, age: Ageing, points: Space) -> None:
    """Paint leukoaraiosis in spots of white matter, and calcium in pallidum, pineal gland, choroid plexus and falx."""
    white = canvas.label == Label.WHITE
    for centre, radii in age.spots:
        canvas.paint_ball(Label.LEUKOARAIOSIS, points, centre, radii, white)
    if age.pallidum:
        half = points.half
        pallidum = Space(half.x + 0.28 * (half.y - 14), half.y, half.z)
        canvas.paint(Label.CALCIFICATION, pallidum.ellipsoid("19.5 12 0 | 4 10 6") + 3.0)
    if age.pineal_mm:
        canvas.paint_ball(Label.CALCIFICATION, points, (0, -27, 1), (age.pineal_mm,) * 3)
    if max(age.choroid_mm) > 0:
        left, right = age.choroid_mm
        radius = np.where(points.x > 0, np.float32(right), np.float32(left))
        canvas.paint(Label.CALCIFICATION, points.half.ellipsoid("23 -33 8 | 1 1 1") + 1 - radius)
    for centre, radii in age.falx:
        canvas.paint_ball(Label.CALCIFICATION, points, centre, radii)
