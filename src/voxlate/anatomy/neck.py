"""The neck: the first three vertebrae, the spinal canal and the muscles around them."""

import numpy as np

from voxlate.anatomy.canvas import Canvas, within
from voxlate.anatomy.shapes import Space, overlap
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray


def paint(canvas: Canvas, points: Space, muscle: float, inside: AnyArray) -> None:
    """Paint muscles, vertebrae and spinal canal; inside: distance to the deep surface of the subcutaneous fat."""
    canvas, points, inside = within("-100 -130 -200 | 100 60 -46", canvas, points, inside)
    half = points.half
    _muscles(canvas, half, muscle, inside)
    _vertebrae(canvas, half)
    canvas.paint(Label.SPINAL_FLUID, points.tubes("0 -16 -62, 0 -20 -92, 0 -21 -150 | 9.5 8.0", 6))
    canvas.paint(Label.CORD, points.tubes("0 -16 -62, 0 -20 -92, 0 -21 -150 | 6.0 5.0", 6))


def _muscles(canvas: Canvas, half: Space, muscle: float, inside: AnyArray) -> None:
    layers = (
        half.ellipsoid(f"13 -64 -108 | 12.5 {9 * muscle} 58"),
        half.ellipsoid(f"33 -56 -106 | 14 {10 * muscle} 60"),
        half.ellipsoid("15 -50 -76 | 14 9 17"),
        half.ellipsoid("12 -46 -118 | 11 9 42"),
        half.ellipsoid("38 -36 -112 | 11 11 52"),
        half.tubes("8 12 -62, 9 11 -150 | 4.5 5.5\n26 -2 -70, 28 -2 -150 | 5.0 9.0", 6),
        half.tubes(f"54 -34 -58, 52 -18 -90, 42 8 -150 | {7 * muscle} {10 * muscle}", 6),
    )
    for distance in layers:
        canvas.paint(Label.MUSCLE, overlap(distance, inside))


# The atlas, and the arches and joints of the next three vertebrae, and the dens.
_VERTEBRAE = """
0 9 -62, 12 5 -62, 21 -8 -61, 20 -22 -62, 0 -36 -63 | 3.5 4.0
21 -9 -57, 20 -9 -67 | 7.5 7.5
24 -12 -62, 38 -14 -62 | 5.0 3.5
9 -4 -82, 19 -12 -83, 18 -24 -84, 0 -37 -86 | 4.5 3.5
0 -37 -86, 0 -54 -91 | 3.5 3.0
19 -9 -77, 20 -12 -88 | 6.0 6.0
9 -4 -102, 19 -12 -103, 18 -24 -104, 0 -37 -106 | 4.5 3.5
0 -37 -106, 0 -54 -111 | 3.5 3.0
19 -9 -97, 20 -12 -108 | 6.0 6.0
9 -4 -121, 19 -12 -122, 18 -24 -123, 0 -37 -125 | 4.5 3.5
0 -37 -125, 0 -54 -130 | 3.5 3.0
19 -9 -116, 20 -12 -127 | 6.0 6.0
0 1 -54, 0 0 -74 | 4.5 6.0
"""


def _vertebrae(canvas: Canvas, half: Space) -> None:
    """Atlas, axis with its dens, and the next two; the bodies hold marrow, discs lie between them."""
    cortex = half.tubes(_VERTEBRAE, 8)
    canvas.paint(Label.BONE, cortex)
    canvas.paint(Label.MARROW, cortex + 1.8)
    for height in (-82, -102, -121):
        body = half.ellipsoid(f"0 1 {height} | 11.5 9 9.5")
        body = overlap(body, np.abs(half.z - height) - 7.5)
        canvas.paint(Label.BONE, body)
        canvas.paint(Label.MARROW, body + 1.3)
        disc = half.ellipsoid(f"0 1 {height - 10} | 10.5 8.5 4")
        canvas.paint(Label.DISC, overlap(disc, np.abs(half.z - height + 10) - 2.2))
