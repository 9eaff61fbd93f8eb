"""Anatomy 1: a head that is painted on a grid, slab by slab."""

import numpy as np

from voxlate.phantoms import anatomy as body
from voxlate.phantoms import brain
from voxlate.phantoms.anatomy import Anatomy
from voxlate.phantoms.canvas import Canvas
from voxlate.phantoms.shapes import Points, ellipsoid, join, tube_of, tubes
from voxlate.phantoms.tissue import BRAIN, TUMOUR, Label


def slab(shape: Anatomy, axes: Points, voxel_mm: float) -> tuple[np.ndarray, ...]:
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    points = body.upright(shape, (x, y, z))
    canvas = Canvas(x.shape, voxel_mm)
    outer = brain.envelope(points, axes)
    face_and_skull(canvas, shape, points, axes, outer.cavity)
    lesion_map = contents(canvas, shape, points, axes, outer)
    across = points[0] if shape.asymmetry else np.abs(points[0])
    texture = shape.texture.at((across, points[1], points[2]))
    return (
        canvas.label,
        canvas.second,
        canvas.share,
        lesion_map,
        texture.astype(np.float16),
    )


def contents(
    canvas: Canvas, shape: Anatomy, points: Points, axes: Points, outer: brain.Envelope
) -> np.ndarray:
    """Paint brain, fluid, vessels and lesions; returns the lesion map."""
    canvas.paint(Label.CSF, outer.cavity)
    inner = body.displaced_by_tumour(shape.lesion, points, -outer.cavity)
    paint_brain(canvas, shape, inner, axes, outer)
    lesion_map = paint_lesions(canvas, shape, points)
    paint_vessels(canvas, shape, inner, axes)
    return lesion_map * np.isin(canvas.label, (*BRAIN, *TUMOUR))


def paint_vessels(canvas: Canvas, shape: Anatomy, points: Points, axes: Points) -> None:
    for label, vessels in shape.vessels.items():
        if vessels:
            canvas.paint(label, tubes(points, axes, vessels, 4))


def face_and_skull(
    canvas: Canvas, shape: Anatomy, points: Points, axes: Points, cavity: np.ndarray
) -> None:
    x, y, z = points
    half: Points = (np.abs(x), y, z)
    rough = shape.rough.at(half)
    thick = shape.skull_mm + 0.5 * rough
    face = ellipsoid(points, (0, 38, -50), (64, 58, 62))
    face = join(face, ellipsoid(points, (0, -14, -90), (58, 62, 80)), 20)
    face = join(face, ellipsoid(points, (0, 99, -50), (12, 14, 22)), 10)
    outline = join(cavity - thick - 6.0, face, 14)
    ear = np.maximum(ellipsoid(half, (82, -12, -32), (9, 15, 26)), 0.5 * rough - 1)
    canvas.paint(Label.SKIN, join(outline, ear, 2))
    canvas.paint(Label.FAT, outline + 2.0)
    canvas.paint(Label.MUSCLE, np.maximum(outline + 4.6 + 0.8 * rough, z - 12 + 0.2 * y))
    canvas.paint(Label.MUSCLE, outline + 9 + rough)
    _orbits(canvas, half, axes, cavity)
    canvas.paint(Label.BONE, np.maximum(cavity - thick, -cavity - 3))
    canvas.paint(Label.DIPLOE, np.maximum(1.9 - cavity, cavity - thick + 1.9))
    frontal = ellipsoid(half, (9, 90, -6), (11, 4.5, 10)) + 1.2 * rough
    frontal = np.maximum(frontal, outline + 5)
    canvas.paint(Label.SINUS, np.maximum(frontal, 1.6 - cavity))
    cells = ellipsoid(half, (50, -32, -42), (11, 14, 15))
    canvas.paint(Label.BONE, cells, cavity > 0)
    holes = np.maximum(cells + 1.5, 2.5 * shape.texture.at(half))
    canvas.paint(Label.SINUS, holes, cavity > 1.5)


def _orbits(canvas: Canvas, half: Points, axes: Points, cavity: np.ndarray) -> None:
    """Orbits with eyes, the airy spaces of the middle face, cheek bones and jaw."""
    x, y, z = half
    outside = cavity > 2
    orbit = ellipsoid((x + 0.35 * (y - 68), y, z), (31, 66, -37), (17, 27, 16))
    maxillary = ellipsoid(half, (29, 62, -66), (13, 15, 14))
    ethmoid = ellipsoid(half, (0, 64, -50), (11, 25, 20))
    sphenoid = ellipsoid(half, (6, 28, -40), (8, 10, 7))
    pharynx = ellipsoid(half, (0, 22, -76), (11, 10, 18))
    cavities = np.minimum(maxillary, orbit)
    walls = np.minimum(cavities, np.minimum(ethmoid, sphenoid)) - 1.6
    arch = tube_of("44 66 -54, 58 44 -47, 66 20 -43, 67 0 -42 | 4.0 3.0")
    jaw = tube_of("56 10 -50, 50 16 -76, 47 22 -100 | 4.5 5.5")
    jaw_front = tube_of("47 22 -86, 36 62 -88, 0 84 -90 | 5.5 6.0")
    bones = tubes(half, axes, (arch, jaw, jaw_front), 6)
    canvas.paint(Label.BONE, np.minimum(walls, bones), outside)
    lids = ellipsoid(half, (31, 88, -37), (14, 10, 12))
    canvas.paint(Label.FAT, np.minimum(orbit, lids), outside)
    optic_nerve = tube_of("30 64 -36, 20 44 -32, 9 26 -24 | 1.6 1.6")
    canvas.paint(Label.WHITE, tubes(half, axes, [optic_nerve], 4), outside)
    rectus = (
        tube_of("40 78 -37, 38 60 -37, 24 44 -34 | 1.3 1.6"),
        tube_of("20 78 -37, 19 60 -37, 18 44 -34 | 1.3 1.6"),
    )
    canvas.paint(Label.MUSCLE, tubes(half, axes, rectus, 4), outside)
    canvas.paint(Label.MUSCLE, ellipsoid(half, (31, 76, -37), (12.2, 12.2, 12.2)))
    canvas.paint(Label.EYE, ellipsoid(half, (31, 76, -37), (11.2, 11.2, 11.2)))
    canvas.paint(Label.MUSCLE, ellipsoid(half, (31, 84, -37), (4.5, 2.2, 4.5)))
    sinuses = np.minimum(maxillary, sphenoid)
    canvas.paint(Label.SINUS, np.minimum(sinuses, pharynx), outside)
    # The shells lie between septum and turbinates.
    shells = np.abs(x - 5.5) - 1.1
    meatus = np.maximum(-shells, 1.0 - x)
    canvas.paint(Label.SINUS, np.maximum(ethmoid, meatus), outside)


def paint_brain(
    canvas: Canvas,
    shape: Anatomy,
    points: Points,
    axes: Points,
    outer: brain.Envelope,
    gap_mm: float = 0.0,
) -> None:
    """Paint the brain; gap_mm: by which its surface lies deeper than in the young."""
    cortex = brain.cortex_depth(shape, points, brain.cerebrum(points) + gap_mm)
    canvas.paint(Label.GREY, -cortex)
    canvas.paint(Label.WHITE, shape.cortex_mm - cortex)
    canvas.paint(Label.CSF, np.maximum(outer.cerebellum - 1.6, -cortex - 0.5), cortex < 1)
    folia = brain.folia_depth(points, outer.cerebellum)
    canvas.paint(Label.GREY, -folia)
    canvas.paint(Label.WHITE, 2.0 - folia)
    canvas.paint(Label.WHITE, np.maximum(outer.stem, points[2] - 2))
    half: Points = (np.abs(points[0]), points[1], points[2])
    canvas.paint(Label.WHITE, ellipsoid(half, (15, -22, -33), (9, 15, 8)))
    canvas.paint(Label.DEEP_GREY, body.deep_grey(points), cortex > 1)
    canvas.paint(Label.VENTRICLE, body.ventricles(shape, points, axes))


def paint_lesions(canvas: Canvas, shape: Anatomy, points: Points) -> np.ndarray:
    """Paint a tumour, or map a stroke (its tissue keeps its labels); returns the lesion map."""
    lesion_map = np.zeros(canvas.label.shape, dtype=np.uint8)
    if shape.lesion.kind == "stroke":
        core, whole = body.territory(shape, points)
        lesion_map[whole < 0] = 2
        lesion_map[core < 0] = 1
        lesion_map *= np.isin(canvas.label, BRAIN) & (points[2] > -14)
    if shape.lesion.kind == "tumour":
        necrosis, rim, oedema = body.tumour(shape, points)
        soft = np.isin(canvas.label, (*BRAIN, Label.CSF, Label.VENTRICLE))
        inside = soft & (np.abs(points[0]) > 2)
        canvas.paint(Label.OEDEMA, oedema, canvas.label == Label.WHITE)
        canvas.paint(Label.ENHANCING, rim, inside)
        canvas.paint(Label.NECROSIS, np.maximum(necrosis, rim + 2.5), inside)
        for value, label in enumerate(TUMOUR, start=1):
            lesion_map[canvas.label == label] = value
    return lesion_map
