"""What is painted into the brain of a label map: vessels, calcifications and diseases."""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy import ageing, diseases
from voxlate.anatomy.ageing import Ageing
from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.diseases import Carried, Diseases
from voxlate.anatomy.head_shape import Anatomy
from voxlate.anatomy.shapes import Rng, Space
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray


@dataclass(frozen=True)
class Contents:
    """The random numbers of one brain; base: those of the head, with the lesion of its diseases.

    carried: a lesion of a label map, in place of the one that is drawn.
    """

    base: Anatomy
    ageing: Ageing
    diseases: Diseases
    carried: Carried | None = None


def draw(rng: Rng, base: Anatomy) -> Contents:
    """Draw age and diseases."""
    age_rng, disease_rng = rng.spawn(2)
    age = ageing.draw(age_rng)
    ill, base = diseases.draw(disease_rng, base)
    return Contents(base, age, ill)


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
