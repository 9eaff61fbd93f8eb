"""What the skull contains: brain, fluid, vessels, membranes and diseases."""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy import ageing, brain, diseases
from voxlate.anatomy import head_shape as body
from voxlate.anatomy.ageing import Ageing
from voxlate.anatomy.brain import Envelope
from voxlate.anatomy.canvas import Canvas, within
from voxlate.anatomy.diseases import Carried, Diseases
from voxlate.anatomy.head_shape import Anatomy
from voxlate.anatomy.shapes import Rng, Space, Tube, join, overlap, union
from voxlate.anatomy.tissue import BRAIN, OTHER_BRAIN, TUMOUR, Label
from voxlate.base.array_types import AnyArray

_ATRIUM = (22.0, -32.0, 8.0)
_LESIONED = (*BRAIN, *TUMOUR, *OTHER_BRAIN)


@dataclass(frozen=True)
class Contents:
    """The random numbers of one brain; base: those of the head, changed by age and diseases.

    carried: a lesion of a label map, in place of the one that is drawn.
    """

    base: Anatomy
    ageing: Ageing
    diseases: Diseases
    carried: Carried | None = None


def draw(rng: Rng, base: Anatomy) -> Contents:
    """Draw age, atrophy and diseases."""
    age_rng, disease_rng = rng.spawn(2)
    age, base = ageing.draw(age_rng, base)
    ill, base = diseases.draw(disease_rng, base)
    return Contents(base, age, ill)


def paint(canvas: Canvas, contents: Contents, points: Space, outer: Envelope) -> AnyArray:
    """Paint all inside the cavity of the skull; returns the lesion map. points: upright coordinates in mm."""
    lesion_map = np.zeros(canvas.label.shape, np.uint8)
    corners = "-74 -94 -110 | 74 94 80"
    canvas, points, outer, part = within(corners, canvas, points, outer, lesion_map)
    base = contents.base
    canvas.paint(Label.CSF, outer.cavity)
    inner = body.before_tumour(base.lesion, points, -outer.cavity)
    brain.paint(canvas, base, inner, outer, contents.ageing.gap_mm)
    _basal_brain(canvas, base, inner)
    _occipital_floor(canvas, contents, inner, outer)
    _membranes(canvas, points, outer)
    _white_matter(canvas, contents, inner)
    _deep_structures(canvas, inner)
    drawn = paint_findings(canvas, contents, points, inner)
    paint_vessels(canvas, base, inner)
    part[...] = drawn * np.isin(canvas.label, _LESIONED)
    return lesion_map


def paint_vessels(
    canvas: Canvas, base: Anatomy, points: Space, where: AnyArray | None = None
) -> None:
    """Paint all vessels, each label over the ones before it; where: voxels that may be painted, by default all."""
    for label, vessels in base.vessels.items():
        if vessels:
            canvas.paint(label, points.tubes(vessels, 4), where)


def paint_findings(canvas: Canvas, contents: Contents, points: Space, inner: Space) -> AnyArray:
    """Paint calcifications and diseases; returns the lesion map. inner: points before the mass effect of a tumour."""
    base = contents.base
    _calcifications(canvas, contents.ageing, inner)
    if contents.carried is not None:
        lesion_map = diseases.paint_carried(canvas, contents.carried, points)
    elif base.lesion.kind == "tumour":
        lesion_map = diseases.paint_tumour(canvas, base, contents.diseases, points)
    else:
        lesion_map = diseases.stroke_map(canvas, base, points)
    diseases.paint_remnant(canvas, base, contents.diseases, points)
    return lesion_map


def paint_spots(canvas: Canvas, age: Ageing, points: Space) -> None:
    """Paint leukoaraiosis in spots of white matter."""
    white = canvas.label == Label.WHITE
    for centre, radii in age.spots:
        canvas.paint_ball(Label.LEUKOARAIOSIS, points, centre, radii, white)


def _basal_brain(canvas: Canvas, base: Anatomy, points: Space) -> None:
    """Uncus, hypothalamus and cerebral peduncles, which leave the cisterns the width that they have in scans."""
    canvas, points = within("-40 -45 -35 | 40 40 12", canvas, points)
    half = points.half
    uncus = half.ellipsoid("20 0 -13 | 10 14 12") + base.ventricle - 1
    parahippocampal = half.ellipsoid("21 -22 -12 | 8 16 9") + base.ventricle - 1
    free = np.isin(canvas.label, (Label.CSF, Label.GREY, Label.WHITE))
    lobe = join(uncus, parahippocampal, 4)
    canvas.paint(Label.GREY, lobe, free)
    canvas.paint(Label.WHITE, lobe + base.cortex_mm, free)
    hypothalamus = half.ellipsoid("0 4 -6 | 9 12 9")
    canvas.paint(Label.GREY, overlap(hypothalamus, 1.2 * base.ventricle - half.x), free)
    peduncle = half.tubes("9 -6 -20, 13 -4 -8, 17 -3 2 | 7.0 7.0", 8)
    collicular = half.ellipsoid("5 -22 -11 | 6.5 5 8")
    canvas.paint(Label.WHITE, union(peduncle, collicular), free)
    tracts = half.tubes("2 16 -14, 9 30 -16 | 2.0 2.0", 4)
    canvas.paint(Label.WHITE, tracts, free)
    nigra = half.ellipsoid("9 -7 -15 | 5 2.2 3")
    canvas.paint(Label.PALLIDUM, nigra, canvas.label == Label.WHITE)


def _occipital_floor(canvas: Canvas, contents: Contents, points: Space, outer: Envelope) -> None:
    """The lower occipital and temporal lobes, which rest on the tentorium down to the cerebellum."""
    canvas, points, outer = within("-65 -95 -25 | 65 -20 12", canvas, points, outer)
    half = points.half
    lobe = half.ellipsoid("26 -58 -6 | 36 34 16")
    gap = 2.4 + contents.ageing.gap_mm
    lobe = overlap(lobe, gap - outer.cerebellum, outer.cavity + gap)
    lobe = overlap(lobe, 1.0 - half.x)
    sulci = np.abs(contents.base.folds.at(points)) - contents.base.sulcus_mm
    free = canvas.label == Label.CSF
    canvas.paint(Label.GREY, overlap(lobe, -sulci), free)
    deep = overlap(lobe, -sulci) + contents.base.cortex_mm
    canvas.paint(Label.WHITE, deep, free | (canvas.label == Label.GREY))


def _membranes(canvas: Canvas, points: Space, outer: Envelope) -> None:
    """Dura along the skull, falx and tentorium."""
    x, y, z = points
    fluid = np.isin(canvas.label, (Label.CSF, Label.GREY))
    canvas.paint(Label.DURA, overlap(-outer.cavity - 0.9, outer.cavity), canvas.label == Label.CSF)
    falx = overlap(np.abs(x) - 0.6, -outer.cavity - 34, 14 - z)
    canvas.paint(Label.DURA, overlap(falx, outer.cavity), fluid)
    sheet = np.abs(z - brain.tentorium(y) + 0.12 * np.abs(x)) - 0.6
    edge = overlap(sheet, y + 24, 15 - np.hypot(x, 0.8 * (y + 28)))
    canvas.paint(Label.DURA, overlap(edge, outer.cavity), fluid)


def _white_matter(canvas: Canvas, contents: Contents, points: Space) -> None:
    """Leukoaraiosis around the ventricles and in spots."""
    age, base = contents.ageing, contents.base
    white = canvas.label == Label.WHITE
    rim = age.cap_mm
    if contents.diseases.remnant == "hydrocephalus":
        rim += 2.5
    if rim > 0.3:
        distance = body.ventricles(base, points)
        ragged = distance - rim * (1 + 0.7 * base.rough.at(points))
        canvas.paint(Label.LEUKOARAIOSIS, ragged, white & (points.z > 0))
    paint_spots(canvas, age, points)


def _deep_structures(canvas: Canvas, points: Space) -> None:
    """Pallidum, dentate nucleus, choroid plexus, pineal gland and pituitary."""
    canvas, points = within("-35 -50 -38 | 35 30 30", canvas, points)
    half = points.half
    canvas.paint(Label.PALLIDUM, _pallidum(half), canvas.label == Label.DEEP_GREY)
    dentate = half.ellipsoid("14 -38 -32 | 6 8 4")
    canvas.paint(Label.PALLIDUM, dentate, canvas.label == Label.WHITE)
    canvas.paint(Label.PITUITARY, half.ellipsoid("0 17 -25 | 6 4.5 3.5"))
    canvas.paint(Label.PITUITARY, points.ellipsoid("0 -27 1 | 3 4 3"))
    fluid = canvas.label == Label.VENTRICLE
    plexus = half.tubes([Tube(((9, -12, 19), _ATRIUM, (28, -24, -3)), (1.2, 3.4))], 5)
    canvas.paint(Label.CHOROID, plexus, fluid)


def _pallidum(half: Space) -> AnyArray:
    return Space(half.x + 0.28 * (half.y - 14), half.y, half.z).ellipsoid("19.5 12 0 | 4 10 6")


def _calcifications(canvas: Canvas, age: Ageing, points: Space) -> None:
    """Calcium in pallidum, pineal gland, choroid plexus and falx."""
    if age.pallidum:
        canvas.paint(Label.CALCIFICATION, _pallidum(points.half) + 3.0)
    if age.pineal_mm:
        canvas.paint_ball(Label.CALCIFICATION, points, (0, -27, 1), (age.pineal_mm,) * 3)
    if max(age.choroid_mm) > 0:
        left, right = age.choroid_mm
        radius = np.where(points.x > 0, np.float32(right), np.float32(left))
        canvas.paint(Label.CALCIFICATION, points.half.ellipsoid("23 -33 8 | 1 1 1") + 1 - radius)
    for centre, radii in age.falx:
        canvas.paint_ball(Label.CALCIFICATION, points, centre, radii)
