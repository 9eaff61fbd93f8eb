"""The orbits: fat, eye, lens, optic nerve, muscles and the lacrimal gland, in bony walls."""

from voxlate.anatomy.canvas import Canvas, within
from voxlate.anatomy.shapes import Space, overlap
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray


def cone(half: Space) -> AnyArray:
    """Distance to the inside of the orbit."""
    return overlap(half.tubes("14 38 -31, 29 68 -36, 33 82 -37 | 4.0 18.0", 12), half.y - 90)


# The recti leave the apex and touch the globe.
_RECTI = """
40.5 75 -37, 31.55 58 -36, 15 42 -32 | 1.4 1.8
21.5 75 -37, 14.45 58 -36, 15 42 -32 | 1.4 1.8
31 75 -27.5, 23 58 -27.45, 15 42 -32 | 1.4 1.8
31 75 -46.5, 23 58 -44.55, 15 42 -32 | 1.4 1.8
"""


def paint(canvas: Canvas, points: Space, cavity: AnyArray) -> None:
    """Paint the contents of both orbits; their walls are there (bones.paint_face)."""
    canvas, points, cavity = within("-60 15 -60 | 60 95 -10", canvas, points, cavity)
    half, outside = points.half, cavity > 1.5
    canvas.paint(Label.FAT, cone(half), outside)
    canvas.paint(Label.CSF, half.tubes("31 65 -37, 22 50 -33 | 2.6 2.6", 4), outside)
    canvas.paint(Label.WHITE, half.tubes("31 65 -37, 22 50 -33, 9 28 -25 | 1.7 1.9", 4), outside)
    canvas.paint(Label.MUSCLE, half.tubes(_RECTI, 4), outside)
    canvas.paint(Label.GLAND, half.ellipsoid("43 80 -29 | 4 6 5"), outside)
    globe = half.ellipsoid("31 76 -37 | 12 12 12")
    canvas.paint(Label.MUSCLE, globe)
    canvas.paint(Label.EYE, globe + 1.1)
    canvas.paint(Label.LENS, half.ellipsoid("31 83.5 -37 | 4.6 2.0 4.6"))
