"""What the skull of anatomy 2 contains: brain, fluid, vessels, membranes and diseases."""

from dataclasses import dataclass

import numpy as np

from voxlate.phantoms import simple
from voxlate.phantoms.anatomy import Anatomy
from voxlate.phantoms.brain import Envelope
from voxlate.phantoms.canvas import Canvas
from voxlate.phantoms.shapes import Points


@dataclass(frozen=True)
class Contents:
    """The random numbers of one brain beyond those of anatomy 1."""


def draw(rng: np.random.Generator, base: Anatomy, asymmetry: float) -> Contents:
    """Draw age, atrophy and diseases."""
    return Contents()


def paint(
    canvas: Canvas,
    base: Anatomy,
    contents: Contents,
    points: Points,
    axes: Points,
    outer: Envelope,
) -> np.ndarray:
    """Paint all inside the cavity of the skull; returns the lesion map. points: upright coordinates in mm."""
    return simple.contents(canvas, base, points, axes, outer)
