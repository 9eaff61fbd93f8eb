"""The outer shape of the brain as signed distances: envelope, cerebellum, cavity of the skull, and folded cortex."""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.canvas import Canvas, within
from voxlate.anatomy.head_shape import Anatomy, deep_grey, ventricles
from voxlate.anatomy.shapes import Box, Space, cut, ellipsoid, join, overlap, union
from voxlate.anatomy.tissue import Label
from voxlate.anatomy.vessels import CEREBRUM_AXES, CEREBRUM_CENTRE
from voxlate.base.array_types import AnyArray


def tentorium(y: AnyArray) -> AnyArray:
    """Height of the tentorium, the membrane between cerebrum and cerebellum."""
    return np.clip(-6 + 0.14 * (y + 45), -8, 0)


def cerebrum(points: Space) -> AnyArray:
    """Distance to the surface of the cerebrum without its folds."""
    # The posterior half is widened, because a head is broadest behind its middle.
    egg = points.at(x=points.half.x / (1 - 0.0008 * np.clip(points.y, -100, 100)))
    _, y, z = egg
    vault = ellipsoid(egg, CEREBRUM_CENTRE, CEREBRUM_AXES)
    floor = np.where(y > 10, -15, tentorium(y)).astype(np.float32)
    temporal = egg.at(y=y - 0.12 * z).ellipsoid("42 4 -18 | 21.5 40 21")
    frontal = egg.ellipsoid("20 44 6 | 29 36 25")
    hippocampal = egg.ellipsoid("24 -15 -11 | 11 24 9")
    upper = join(cut(vault, floor - z, 5), frontal, 8)
    return join(upper, join(temporal, hippocampal, 5), 5)


def cerebellum(points: Space) -> AnyArray:
    """Distance to the surface of the cerebellum without its folia."""
    lobe = points.half.ellipsoid("21 -46 -31 | 30 28 24")
    whole = join(lobe, points.ellipsoid("0 -48 -31 | 16 24 23"), 6)
    return cut(whole, points.z + 2 - tentorium(points.y), 3)


BRAINSTEM = """
0 -12 -8, 0 -11 -22 | 13.0 13.0
0 -11 -22, 0 -11 -36 | 13.5 12.5
0 -12 -36, 0 -20 -90 | 10.0 6.5
"""


def cavity(brain: AnyArray, points: Space) -> AnyArray:
    """The cavity of the skull: the brain, a gap for CSF, and the cisterns at the base."""
    cisterns = join(
        points.ellipsoid("0 15 -17 | 15 17 10"),
        points.ellipsoid("0 -4 -34 | 17 12 24"),
        6,
    )
    ambient = join(
        points.half.ellipsoid("15 -10 -19 | 11 17 10"),
        points.ellipsoid("0 -13 -11 | 33 28 12"),
        6,
    )
    inner = join(brain - 2.2, join(cisterns, ambient, 6), 10)
    tentorial = points.ellipsoid("0 -42 -9 | 42 22 5")
    # The cistern over the cerebellum exists only next to the brain.
    return join(inner, overlap(tentorial, 3 * (inner - 7)), 10)


@dataclass(frozen=True)
class Envelope:
    """Distances [D, H, W] in mm to the parts of the brain's outer shape and to the cavity of the skull."""

    cerebellum: AnyArray
    stem: AnyArray
    cavity: AnyArray

    def __getitem__(self, box: Box) -> "Envelope":
        return Envelope(self.cerebellum[box], self.stem[box], self.cavity[box])


def envelope(points: Space) -> Envelope:
    """The outer shape of the brain at points."""
    lower = cerebellum(points)
    stem = points.tubes(BRAINSTEM, 40)
    whole = join(join(cerebrum(points), lower, 6), stem, 8)
    return Envelope(lower, stem, cavity(whole, points))


def cortex_depth(head: Anatomy, points: Space, envelope: AnyArray) -> AnyArray:
    """Depth below the pial surface in mm (negative in CSF), with mid-line fissure, sulci and Sylvian fissure.

    Sulci are the zero surfaces of noise that hardly changes in the radial direction, so they are radial sheets.
    """
    x, y, z = points
    half = np.abs(x)
    # The hemispheres are connected below the corpus callosum.
    callosum = Space(np.zeros_like(x), y, z).ellipsoid("0 -2 7 | 1e3 42 25")
    apart = -overlap(callosum, -12 - z)
    fissure = overlap(half - (0.5 + head.sulcus_mm / 2), apart)
    outer = union(-envelope, fissure)
    wide = np.where(half < 18, 20, 50).astype(np.float32)
    ray = ((half - 18) / wide, y / 84, (z - 10) / 60)
    radius = np.clip(np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2), 0.35, 1.5)
    inward = radius**-0.7
    shift = (x < 0).astype(np.float32)
    centred = (half - 18, y, z - 10)
    at = [c * inward + shift * np.float32(s) for c, s in zip(centred, head.fold_shift)]
    across = head.folds.at((at[0], at[1], at[2])) / inward
    length = np.clip(12 + 4 * head.rough.at((at[1], at[2], at[0])), 6, 19)
    sulci = np.sqrt(np.maximum(outer - length, 0) ** 2 + across**2) - head.sulcus_mm
    # Sulci end before the deep nuclei.
    nuclei = Space(half, y, z).ellipsoid("0 4 8 | 37 46 27")
    sulci = overlap(sulci, -nuclei)
    return union(outer, sulci, _sylvian(half, y, z, head.sulcus_mm))


def _sylvian(half: AnyArray, y: AnyArray, z: AnyArray, sulcus_mm: float) -> AnyArray:
    course = -6 - 0.3 * (y - 12)
    beyond = overlap(37 - half, y - 24, -30 - y)
    return np.hypot(np.maximum(beyond, 0), (z - course) * 0.94) - (0.9 + sulcus_mm)


def folia_depth(points: Space, envelope: AnyArray) -> AnyArray:
    """Depth below the surface of the cerebellum; its folia are sheets that diverge from the fourth ventricle."""
    x, y, z = points
    up = z + 31
    back = -(y + 20) + x * x / 90
    radius = np.hypot(up, back)
    angle = np.arctan2(up, back)
    pitch = np.pi / 13
    across = np.abs((angle / pitch + 0.5) % 1 - 0.5) * pitch * radius
    sheets = np.hypot(np.maximum(-envelope - 15, 0), across) - 0.25
    return union(-envelope, sheets)


def paint(canvas: Canvas, base: Anatomy, points: Space, outer: Envelope, gap_mm: float) -> None:
    """Paint the brain; gap_mm: by which its surface lies deeper than in the young."""
    cortex = cortex_depth(base, points, cerebrum(points) + gap_mm)
    canvas.paint(Label.GREY, -cortex)
    canvas.paint(Label.WHITE, base.cortex_mm - cortex)
    _paint_hindbrain(*within("-55 -85 -100 | 55 20 8", canvas, points, outer, cortex))
    low, near, depth = within("-45 -20 -10 | 45 45 25", canvas, points, cortex)
    low.paint(Label.DEEP_GREY, deep_grey(near), depth > 1)
    canvas.paint(Label.VENTRICLE, ventricles(base, points))


def _paint_hindbrain(canvas: Canvas, points: Space, outer: Envelope, cortex: AnyArray) -> None:
    canvas.paint(Label.CSF, overlap(outer.cerebellum - 1.6, -cortex - 0.5), cortex < 1)
    folia = folia_depth(points, outer.cerebellum)
    canvas.paint(Label.GREY, -folia)
    canvas.paint(Label.WHITE, 2.0 - folia)
    canvas.paint(Label.WHITE, overlap(outer.stem, points.z - 2))
    canvas.paint(Label.WHITE, points.half.ellipsoid("15 -22 -33 | 9 15 8"))
