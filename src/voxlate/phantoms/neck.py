"""The neck of anatomy 2: the first three vertebrae, the spinal canal and the muscles around them."""

import numpy as np

from voxlate.phantoms.canvas import Canvas
from voxlate.phantoms.shapes import Points, Tube, ellipsoid, tube_of, tubes
from voxlate.phantoms.tissue import Label

HIGHEST_MM = -46.0
_CANAL = tube_of("0 -16 -62, 0 -20 -92, 0 -21 -150 | 9.5 8.0")
_CORD = tube_of("0 -16 -62, 0 -20 -92, 0 -21 -150 | 6.0 5.0")


def paint(
    canvas: Canvas, half: Points, points: Points, axes: Points, muscle: float, inside: np.ndarray
) -> None:
    """Paint muscles, vertebrae and spinal canal; inside: distance to the deep surface of the subcutaneous fat."""
    if points[2].min() > HIGHEST_MM:
        return
    _muscles(canvas, half, axes, muscle, inside)
    _vertebrae(canvas, half, axes)
    canvas.paint(Label.SPINAL_FLUID, tubes(points, axes, [_CANAL], 6))
    canvas.paint(Label.CORD, tubes(points, axes, [_CORD], 6))


def _muscles(canvas: Canvas, half: Points, axes: Points, muscle: float, inside: np.ndarray) -> None:
    deep = (
        tube_of("8 12 -62, 9 11 -150 | 4.5 5.5"),
        tube_of("26 -2 -70, 28 -2 -150 | 5.0 9.0"),
    )
    sternomastoid = Tube(((54, -34, -58), (52, -18, -90), (42, 8, -150)), (7 * muscle, 10 * muscle))
    layers = (
        ellipsoid(half, (13, -64, -108), (12.5, 9 * muscle, 58)),
        ellipsoid(half, (33, -56, -106), (14, 10 * muscle, 60)),
        ellipsoid(half, (15, -50, -76), (14, 9, 17)),
        ellipsoid(half, (12, -46, -118), (11, 9, 42)),
        ellipsoid(half, (38, -36, -112), (11, 11, 52)),
    )
    for one in (*layers, tubes(half, axes, deep, 6), tubes(half, axes, [sternomastoid], 6)):
        canvas.paint(Label.MUSCLE, np.maximum(one, inside))


def _vertebrae(canvas: Canvas, half: Points, axes: Points) -> None:
    """Atlas, axis with its dens, and the third; the bodies hold marrow, discs lie between them."""
    atlas = (
        tube_of("0 9 -62, 12 5 -62, 21 -8 -61, 20 -22 -62, 0 -36 -63 | 3.5 4.0"),
        tube_of("21 -9 -57, 20 -9 -67 | 7.5 7.5"),
        tube_of("24 -12 -62, 38 -14 -62 | 5.0 3.5"),
    )
    arches = []
    for height in (-82, -102, -121):
        arches += [
            Tube(
                (
                    (9, -4, height),
                    (19, -12, height - 1),
                    (18, -24, height - 2),
                    (0, -37, height - 4),
                ),
                (4.5, 3.5),
            ),
            Tube(((0, -37, height - 4), (0, -54, height - 9)), (3.5, 3.0)),
            Tube(((19, -9, height + 5), (20, -12, height - 6)), (6.0, 6.0)),
        ]
    dens = tube_of("0 1 -54, 0 0 -74 | 4.5 6.0")
    cortex = tubes(half, axes, (*atlas, *arches, dens), 8)
    canvas.paint(Label.BONE, cortex)
    canvas.paint(Label.MARROW, cortex + 1.8)
    for height in (-82, -102, -121):
        body = ellipsoid(half, (0, 1, height), (11.5, 9, 9.5))
        body = np.maximum(body, np.abs(half[2] - height) - 7.5)
        canvas.paint(Label.BONE, body)
        canvas.paint(Label.MARROW, body + 1.3)
        disc = ellipsoid(half, (0, 1, height - 10), (10.5, 8.5, 4))
        canvas.paint(Label.DISC, np.maximum(disc, np.abs(half[2] - height + 10) - 2.2))
