"""The skull, face and neck of anatomy 2."""

from dataclasses import dataclass

import numpy as np

from voxlate.phantoms import simple
from voxlate.phantoms.anatomy import Anatomy
from voxlate.phantoms.canvas import Canvas
from voxlate.phantoms.shapes import Points


@dataclass(frozen=True)
class Face:
    """The random numbers of one skull and face."""


def draw(rng: np.random.Generator, asymmetry: float) -> Face:
    """Draw a skull and face."""
    return Face()


def paint(
    canvas: Canvas, base: Anatomy, face: Face, points: Points, axes: Points, cavity: np.ndarray
) -> None:
    """Paint all outside the cavity of the skull; points: upright coordinates in mm."""
    simple.face_and_skull(canvas, base, points, axes, cavity)
