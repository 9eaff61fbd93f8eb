"""Anatomy 2: heads of all ages, sizes and positions with a skull base, a face, a neck, diseases and a scanner's table."""

from dataclasses import dataclass, replace

import numpy as np

from voxlate.phantoms import anatomy as body
from voxlate.phantoms import brain, contents, face, furniture
from voxlate.phantoms.anatomy import Anatomy, Lesion, LesionKind
from voxlate.phantoms.canvas import Canvas
from voxlate.phantoms.contents import Contents
from voxlate.phantoms.face import Face
from voxlate.phantoms.furniture import Furniture
from voxlate.phantoms.shapes import Points, Triple

# Field of view: its centre in upright coordinates lies between these.
_LOWEST_MM = (-6.0, -14.0, -22.0)
_HIGHEST_MM = (6.0, 12.0, 12.0)
_TURN_DEGREES = (9.0, 3.5, 5.0)  # standard deviations around x (nodding), y and z


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

    @property
    def lesion(self) -> Lesion:
        return self.contents.base.lesion


def draw(rng: np.random.Generator, kind: LesionKind, asymmetry: float = 1.0) -> Detailed:
    """Draw a head; asymmetry 0 gives a head that is symmetric except for its lesions."""
    base_rng, pose_rng, face_rng, contents_rng, furniture_rng = rng.spawn(5)
    base = body.anatomy(base_rng, kind, asymmetry)
    degrees = np.array(_TURN_DEGREES) * (1, asymmetry, asymmetry)
    base = replace(
        base,
        scale=np.exp(_clipped(pose_rng, 3) * (0.035, 0.04, 0.035)),
        tilt=np.radians(degrees * _clipped(pose_rng, 3)),
        skull_mm=float(pose_rng.uniform(4.5, 8.5)),
    )
    x, y, z = pose_rng.uniform(_LOWEST_MM, _HIGHEST_MM)
    return Detailed(
        base,
        face.draw(face_rng, asymmetry),
        contents.draw(contents_rng, base),
        furniture.draw(furniture_rng, base.scale, asymmetry),
        (float(x * asymmetry), float(y), float(z)),
    )


def _clipped(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.clip(rng.standard_normal(count), -2, 2)


def slab(shape: Detailed, axes: Points, voxel_mm: float) -> tuple[np.ndarray, ...]:
    """Labels, second labels, shares, lesion map and texture of a few slices; axes: x [W], y [H], z [D] in mm."""
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    base = shape.base
    points = body.upright(base, (x, y, z))
    canvas = Canvas(x.shape, voxel_mm)
    outer = brain.envelope(points, axes)
    furniture.paint(canvas, shape.furniture, (x, y, z))
    face.paint(canvas, base, shape.face, points, axes, outer.cavity)
    lesion_map = contents.paint(canvas, shape.contents, points, axes, outer)
    face.paint_ridges(canvas, shape.face, points, axes)
    across = points[0] if base.asymmetry else np.abs(points[0])
    texture = base.texture.at((across, points[1], points[2])).astype(np.float16)
    return canvas.label, canvas.second, canvas.share, lesion_map, texture
