"""The orbits of anatomy 2: fat, eye, lens, optic nerve, muscles and the lacrimal gland, in bony walls."""

import numpy as np

from voxlate.phantoms.canvas import Canvas
from voxlate.phantoms.shapes import Points, Triple, Tube, ellipsoid, tube_of, tubes
from voxlate.phantoms.tissue import Label

EYE: Triple = (31.0, 76.0, -37.0)
_APEX: Triple = (14.0, 38.0, -31.0)
_RADIUS_MM = 12.0
# The recti leave the apex and touch the globe; offsets from the axis in x and z.
_RECTI = ((9.5, 0.0), (-9.5, 0.0), (0.0, 9.5), (0.0, -9.5))


def cone(half: Points, axes: Points) -> np.ndarray:
    """Distance to the inside of the orbit."""
    cone = tubes(half, axes, [Tube((_APEX, (29, 68, -36), (33, 82, -37)), (4.0, 18.0))], 12)
    return np.maximum(cone, half[1] - 90)


def paint(canvas: Canvas, half: Points, axes: Points, cavity: np.ndarray) -> None:
    """Paint the contents of both orbits; their walls are there (bones.paint_face)."""
    if half[2].min() > 0 or half[2].max() < -70:
        return
    outside = cavity > 1.5
    canvas.paint(Label.FAT, cone(half, axes), outside)
    nerve = tube_of("31 65 -37, 22 50 -33, 9 28 -25 | 1.7 1.9")
    sheath = tube_of("31 65 -37, 22 50 -33 | 2.6 2.6")
    canvas.paint(Label.CSF, tubes(half, axes, [sheath], 4), outside)
    canvas.paint(Label.WHITE, tubes(half, axes, [nerve], 4), outside)
    x, y, z = EYE
    recti = [
        Tube(
            (
                (x + dx, y - 1, z + dz),
                (0.5 * (x + 15) + 0.9 * dx, 58, z + 1 + 0.9 * dz),
                (15, 42, -32),
            ),
            (1.4, 1.8),
        )
        for dx, dz in _RECTI
    ]
    canvas.paint(Label.MUSCLE, tubes(half, axes, recti, 4), outside)
    canvas.paint(Label.GLAND, ellipsoid(half, (43, 80, -29), (4, 6, 5)), outside)
    globe = ellipsoid(half, EYE, (_RADIUS_MM, _RADIUS_MM, _RADIUS_MM))
    canvas.paint(Label.MUSCLE, globe)
    canvas.paint(Label.EYE, globe + 1.1)
    canvas.paint(Label.LENS, ellipsoid(half, (x, y + 7.5, z), (4.6, 2.0, 4.6)))
