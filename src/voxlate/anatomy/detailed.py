"""Anatomy 2: heads of all ages, sizes and positions with a skull base, a face, a neck, diseases and a scanner's table."""

from dataclasses import dataclass, replace

import numpy as np

from voxlate.anatomy import anatomy as body
from voxlate.anatomy import bones, brain, contents, diseases, face, furniture
from voxlate.anatomy.anatomy import Anatomy, LesionKind
from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.contents import Contents
from voxlate.anatomy.diseases import LesionShape
from voxlate.anatomy.face import Face
from voxlate.anatomy.furniture import Furniture
from voxlate.anatomy.shapes import Rng, Space, Triple, triple
from voxlate.base.arrays import AnyArray

# Field of view: its centre in upright coordinates lies between these.
_LOWEST_MM = (-6.0, -14.0, -22.0)
_HIGHEST_MM = (6.0, 12.0, 12.0)
_TURN_DEGREES = np.array([9.0, 3.5, 5.0])  # standard deviations around x (nodding), y and z


@dataclass(frozen=True)
class Detailed:
    """All random numbers of one head; they do not depend on the image's size.

    base: what anatomy 1 has, with other sizes and positions; centre_mm: of the field of view, in upright coordinates.
    """

    base: Anatomy
    face: Face
    contents: Contents
    furniture: Furniture
    centre_mm: Triple


def draw(rng: Rng, kind: LesionKind, lesion: LesionShape | None = None) -> Detailed:
    """Draw a head; lesion: of a label map, in place of one of this kind."""
    base_rng, pose_rng, face_rng, contents_rng, furniture_rng, lesion_rng = rng.spawn(6)
    base = body.anatomy(base_rng, kind if lesion is None else "none")
    base = replace(
        base,
        scale=np.exp(_clip_normal(pose_rng, 3) * (0.035, 0.04, 0.035)),
        tilt=np.radians(_TURN_DEGREES * _clip_normal(pose_rng, 3)),
        skull_mm=float(pose_rng.uniform(4.5, 8.5)),
    )
    inside = contents.draw(contents_rng, base)
    if lesion is not None:
        inside = replace(inside, carried=diseases.carry(lesion_rng, lesion))
    return Detailed(
        base,
        face.draw(face_rng),
        inside,
        furniture.draw(furniture_rng, base.scale),
        triple(pose_rng.uniform(_LOWEST_MM, _HIGHEST_MM)),
    )


def _clip_normal(rng: Rng, count: int) -> AnyArray:
    return np.clip(rng.standard_normal(count), -2, 2)


def paint(canvas: Canvas, shape: Detailed, points: Space, grid: Space) -> AnyArray:
    """Paint a head of anatomy 2; returns the lesion map. points, grid: upright and scanner coordinates in mm."""
    base = shape.base
    outer = brain.envelope(points)
    furniture.paint(canvas, shape.furniture, grid)
    face.paint(canvas, base, shape.face, points, outer.cavity)
    lesion_map = contents.paint(canvas, shape.contents, points, outer)
    face.paint_ridges(canvas, shape.face, points)
    bones.paint_plates(canvas, shape.face.bones, points)
    return lesion_map
