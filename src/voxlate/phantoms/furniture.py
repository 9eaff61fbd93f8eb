"""What a head lies on in a CT scanner: table and head holder, in scanner coordinates."""

from dataclasses import dataclass

import numpy as np

from voxlate.phantoms.canvas import Canvas
from voxlate.phantoms.shapes import Points


@dataclass(frozen=True)
class Furniture:
    """The table and head holder of one scan."""


def draw(rng: np.random.Generator) -> Furniture:
    """Draw the table and head holder of a scan."""
    return Furniture()


def paint(canvas: Canvas, furniture: Furniture, points: Points) -> None:
    """Paint table and head holder, before the head; points: scanner coordinates in mm."""
