"""Anatomy 1: a head that is painted on a grid, slab by slab."""

import numpy as np

from voxlate.anatomy import anatomy as body
from voxlate.anatomy import brain
from voxlate.anatomy.anatomy import Anatomy
from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.shapes import Space, join, overlap, union
from voxlate.anatomy.tissue import BRAIN, TUMOUR, Label
from voxlate.base.arrays import AnyArray


def paint(canvas: Canvas, shape: Anatomy, points: Space, grid: Space) -> AnyArray:
    """Paint a head of anatomy 1; returns the lesion map. points: upright coordinates in mm; grid: unused here."""
    outer = brain.envelope(points)
    _face_and_skull(canvas, shape, points, outer.cavity)
    canvas.paint(Label.CSF, outer.cavity)
    inner = body.before_tumour(shape.lesion, points, -outer.cavity)
    paint_brain(canvas, shape, inner, outer)
    lesion_map = paint_lesions(canvas, shape, points)
    paint_vessels(canvas, shape, inner)
    return lesion_map * np.isin(canvas.label, (*BRAIN, *TUMOUR))


def paint_vessels(
    canvas: Canvas, shape: Anatomy, points: Space, where: AnyArray | None = None
) -> None:
    """Paint all vessels, each label over the ones before it; where: voxels that may be painted, by default all."""
    for label, vessels in shape.vessels.items():
        if vessels:
            canvas.paint(label, points.tubes(vessels, 4), where)


def _face_and_skull(canvas: Canvas, shape: Anatomy, points: Space, cavity: AnyArray) -> None:
    _, y, z = points
    half = points.half
    rough = shape.rough.at(half)
    thick = shape.skull_mm + 0.5 * rough
    face = points.ellipsoid("0 38 -50 | 64 58 62")
    face = join(face, points.ellipsoid("0 -14 -90 | 58 62 80"), 20)
    face = join(face, points.ellipsoid("0 99 -50 | 12 14 22"), 10)
    outline = join(cavity - thick - 6.0, face, 14)
    ear = overlap(half.ellipsoid("82 -12 -32 | 9 15 26"), 0.5 * rough - 1)
    canvas.paint(Label.SKIN, join(outline, ear, 2))
    canvas.paint(Label.FAT, outline + 2.0)
    canvas.paint(Label.MUSCLE, overlap(outline + 4.6 + 0.8 * rough, z - 12 + 0.2 * y))
    canvas.paint(Label.MUSCLE, outline + 9 + rough)
    _orbits(canvas, half, cavity)
    canvas.paint(Label.BONE, overlap(cavity - thick, -cavity - 3))
    canvas.paint(Label.DIPLOE, overlap(1.9 - cavity, cavity - thick + 1.9))
    frontal = half.ellipsoid("9 90 -6 | 11 4.5 10") + 1.2 * rough
    frontal = overlap(frontal, outline + 5)
    canvas.paint(Label.SINUS, overlap(frontal, 1.6 - cavity))
    cells = half.ellipsoid("50 -32 -42 | 11 14 15")
    canvas.paint(Label.BONE, cells, cavity > 0)
    holes = overlap(cells + 1.5, 2.5 * shape.texture.at(half))
    canvas.paint(Label.SINUS, holes, cavity > 1.5)


# Cheek bone, and both parts of the jaw.
_FACE_BONES = """
44 66 -54, 58 44 -47, 66 20 -43, 67 0 -42 | 4.0 3.0
56 10 -50, 50 16 -76, 47 22 -100 | 4.5 5.5
47 22 -86, 36 62 -88, 0 84 -90 | 5.5 6.0
"""
_RECTI = """
40 78 -37, 38 60 -37, 24 44 -34 | 1.3 1.6
20 78 -37, 19 60 -37, 18 44 -34 | 1.3 1.6
"""


def _orbits(canvas: Canvas, half: Space, cavity: AnyArray) -> None:
    """Orbits with eyes, the airy spaces of the middle face, cheek bones and jaw."""
    x, y, _ = half
    outside = cavity > 2
    orbit = half.at(x=x + 0.35 * (y - 68)).ellipsoid("31 66 -37 | 17 27 16")
    maxillary = half.ellipsoid("29 62 -66 | 13 15 14")
    ethmoid = half.ellipsoid("0 64 -50 | 11 25 20")
    sphenoid = half.ellipsoid("6 28 -40 | 8 10 7")
    pharynx = half.ellipsoid("0 22 -76 | 11 10 18")
    cavities = union(maxillary, orbit)
    walls = union(cavities, ethmoid, sphenoid) - 1.6
    canvas.paint(Label.BONE, union(walls, half.tubes(_FACE_BONES, 6)), outside)
    lids = half.ellipsoid("31 88 -37 | 14 10 12")
    canvas.paint(Label.FAT, union(orbit, lids), outside)
    canvas.paint(Label.WHITE, half.tubes("30 64 -36, 20 44 -32, 9 26 -24 | 1.6 1.6", 4), outside)
    canvas.paint(Label.MUSCLE, half.tubes(_RECTI, 4), outside)
    canvas.paint(Label.MUSCLE, half.ellipsoid("31 76 -37 | 12.2 12.2 12.2"))
    canvas.paint(Label.EYE, half.ellipsoid("31 76 -37 | 11.2 11.2 11.2"))
    canvas.paint(Label.MUSCLE, half.ellipsoid("31 84 -37 | 4.5 2.2 4.5"))
    sinuses = union(maxillary, sphenoid)
    canvas.paint(Label.SINUS, union(sinuses, pharynx), outside)
    # The shells lie between septum and turbinates.
    shells = np.abs(x - 5.5) - 1.1
    meatus = overlap(-shells, 1.0 - x)
    canvas.paint(Label.SINUS, overlap(ethmoid, meatus), outside)


def paint_brain(
    canvas: Canvas,
    shape: Anatomy,
    points: Space,
    outer: brain.Envelope,
    gap_mm: float = 0.0,
) -> None:
    """Paint the brain; gap_mm: by which its surface lies deeper than in the young."""
    cortex = brain.cortex_depth(shape, points, brain.cerebrum(points) + gap_mm)
    canvas.paint(Label.GREY, -cortex)
    canvas.paint(Label.WHITE, shape.cortex_mm - cortex)
    canvas.paint(Label.CSF, overlap(outer.cerebellum - 1.6, -cortex - 0.5), cortex < 1)
    folia = brain.folia_depth(points, outer.cerebellum)
    canvas.paint(Label.GREY, -folia)
    canvas.paint(Label.WHITE, 2.0 - folia)
    canvas.paint(Label.WHITE, overlap(outer.stem, points.z - 2))
    half = points.half
    canvas.paint(Label.WHITE, half.ellipsoid("15 -22 -33 | 9 15 8"))
    canvas.paint(Label.DEEP_GREY, body.deep_grey(points), cortex > 1)
    canvas.paint(Label.VENTRICLE, body.ventricles(shape, points))


def paint_lesions(canvas: Canvas, shape: Anatomy, points: Space) -> AnyArray:
    """Paint a tumour, or map a stroke (its tissue keeps its labels); returns the lesion map."""
    lesion_map = np.zeros(canvas.label.shape, dtype=np.uint8)
    if shape.lesion.kind == "stroke":
        core, whole = body.territory(shape, points)
        lesion_map[whole < 0] = 2
        lesion_map[core < 0] = 1
        lesion_map *= np.isin(canvas.label, BRAIN) & (points.z > -14)
    if shape.lesion.kind == "tumour":
        necrosis, rim, oedema = body.tumour(shape, points)
        soft = np.isin(canvas.label, (*BRAIN, Label.CSF, Label.VENTRICLE))
        inside = soft & (points.half.x > 2)
        canvas.paint(Label.OEDEMA, oedema, canvas.label == Label.WHITE)
        canvas.paint(Label.ENHANCING, rim, inside)
        canvas.paint(Label.NECROSIS, overlap(necrosis, rim + 2.5), inside)
        for value, label in enumerate(TUMOUR, start=1):
            lesion_map[canvas.label == label] = value
    return lesion_map
