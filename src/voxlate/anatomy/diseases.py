"""Diseases: tumours of several kinds, strokes, what strokes, bleedings and operations leave behind, and what age does to a brain.

Orders of magnitude of ageing: de Leeuw et al. 2001, J Neurol Neurosurg Psychiatry 70:9 (white-matter lesions by age); Kwak et al.
1988, J Comput Assist Tomogr 12:775 (calcified choroid plexus and pineal gland).

Upright coordinates are in mm: x right, y anterior, z superior. Their origin is the centre of the brain's base.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from voxlate.anatomy.fine_anatomy import CEREBRUM_AXES, CEREBRUM_CENTRE
from voxlate.anatomy.shapes import (
    Canvas,
    NoiseField,
    Pair,
    Space,
    Triple,
    bounded_normal,
    ellipsoid,
    triple,
    tubes_of,
)
from voxlate.anatomy.tissue import BRAIN, HAEMORRHAGE, Label, Rng
from voxlate.base.array_types import AnyArray

Ball = tuple[Triple, Triple]  # centre and half axes in mm
# Sizes in mm, and corners of the boxes of centres: plaques of multiple sclerosis lie near the ventricles.
_PLAQUES = (2.0, 6.0), ((10, -40, 8), (26, 42, 30))
_SPOTS = (1.0, 4.0), ((14, -48, 12), (40, 48, 46))

LesionKind = Literal["none", "tumour", "stroke"]
Tumour = Literal["glioblastoma", "low grade", "meningioma", "metastases"]
Remnant = Literal["none", "infarct", "haemorrhage", "resection", "hydrocephalus"]
_SOFT = (*BRAIN, Label.CSF, Label.VENTRICLE, Label.LEUKOARAIOSIS, Label.PALLIDUM, Label.OEDEMA)
# Of a tumour's tissues: 1 necrosis, 2 oedema and tissue without enhancement, 3 enhancing.
_LESION_MAP = np.zeros(256, np.uint8)
_LESION_MAP[[Label.NECROSIS, Label.OEDEMA, Label.LOW_GRADE, Label.ENHANCING]] = 1, 2, 2, 3
_SHUNT = tubes_of("-36 -62 66, -24 -36 38, -8 8 20 | 1.3 1.3")


@dataclass(frozen=True)
class Lesion:
    """A lesion in upright coordinates.

    side: -1 left, 1 right, 0 none; reach: size of the hypoperfused tissue relative to the artery's territory.
    """

    kind: LesionKind
    side: int = 0
    centre_mm: Triple = (0.0, 0.0, 0.0)
    radius_mm: float = 0.0
    reach: float = 0.0
    collateral_delay_s: float = 0.0


@dataclass(frozen=True)
class Diseases:
    """The diseases of a brain: its lesion, the kind of its tumour, metastases, what an old disease left, and a shunt.

    rough: of the borders.
    """

    lesion: Lesion
    rough: NoiseField
    tumour: Tumour
    metastases: tuple[Ball, ...]
    remnant: Remnant
    remnant_at: Ball
    bleeding: Label
    has_shunt: bool


def draw(lesion_rng: Rng, rng: Rng, wanted: LesionKind, rough: NoiseField) -> Diseases:
    """Draw the diseases of a head; lesion_rng: of its lesion, rng: of all else."""
    lesion = _lesion(lesion_rng, wanted)
    tumour: Tumour = get_args(Tumour)[rng.choice(4, p=(0.5, 0.2, 0.15, 0.15))]
    chance, which = rng.random(), rng.integers(1, 5)
    remnant: Remnant = get_args(Remnant)[which] if chance < 0.25 else "none"
    if wanted != "none":
        remnant = "infarct" if wanted == "stroke" and chance < 0.2 else "none"
    at = _ball(rng, (7, 18))
    metastases = tuple(_ball(rng, (3, 9)) for _ in range(rng.integers(2, 6)))
    bleeding = HAEMORRHAGE[rng.integers(3)]
    shunted = rng.random() < 0.4 and remnant == "hydrocephalus"
    lesion = _place(rng, lesion, tumour)
    return Diseases(lesion, rough, tumour, metastases, remnant, at, bleeding, shunted)


def _lesion(rng: Rng, kind: LesionKind) -> Lesion:
    side = int(rng.choice((-1, 1)))
    if kind == "tumour":
        x, y, z, radius = rng.uniform((26, -38, 12, 11), (38, 42, 42, 19)).tolist()
        return Lesion(kind, side, (side * x, y, z), radius)
    if kind == "stroke":
        lows, highs = (-14, 4, 0.75, 5.5, 14), (18, 22, 1.15, 8.5, 24)
        y, z, reach, delay, radius = rng.uniform(lows, highs).tolist()
        return Lesion(kind, side, (side * 40.0, y, z), radius, reach, delay)
    return Lesion("none")


def _ball(rng: Rng, radii: Pair) -> Ball:
    """An ellipsoid anywhere in the cerebrum."""
    direction = rng.standard_normal(3)
    direction *= rng.uniform(0.35, 0.85) / np.linalg.norm(direction)
    x, y, z = direction * (58, 76, 46) + (0, 0, 20)
    axes = np.exp(rng.uniform(*np.log(radii))) * rng.uniform(0.75, 1.3, 3)
    return triple((np.sign(x) * max(abs(x), 8), y, max(z, -4))), triple(axes)


def _place(rng: Rng, lesion: Lesion, tumour: Tumour) -> Lesion:
    """A meningioma grows from the dura; metastases displace nothing."""
    x, y, z = rng.uniform((-0.9, -0.9, 0.0), (0.9, 0.9, 1.0))
    if lesion.kind != "tumour" or tumour in ("glioblastoma", "low grade"):
        return lesion
    if tumour == "metastases":
        return replace(lesion, radius_mm=1e-3)
    length = np.sqrt(x * x + y * y + z * z) / 0.93
    return replace(lesion, centre_mm=(64 * x / length, 83 * y / length, 18 + 54 * z / length))


def before_tumour(lesion: Lesion, points: Space, soft: AnyArray) -> Space:
    """Points before the mass effect of a tumour, which displaces soft tissue away from it but not the skull."""
    if lesion.kind != "tumour":
        return points
    offset = [p - c for p, c in zip(points, lesion.centre_mm)]
    squared = sum(d * d for d in offset)
    spread = 1.5 * lesion.radius_mm
    push = 0.42 * np.exp(-squared / (2 * spread**2)) * soft
    x, y, z = (p - push * d for p, d in zip(points, offset))
    return Space(x, y, z)


def paint(canvas: Canvas, diseases: Diseases, points: Space) -> AnyArray:
    """Paint diseases; returns the lesion map."""
    if diseases.lesion.kind == "tumour":
        paint_tumour(canvas, diseases, points)
    if diseases.lesion.kind == "stroke":
        lesion_map = stroke_map(canvas, diseases, points)
    else:
        lesion_map = _LESION_MAP[canvas.label]
    paint_remnant(canvas, diseases, points)
    return lesion_map


def stroke_map(canvas: Canvas, diseases: Diseases, points: Space) -> AnyArray:
    """The lesion map of a stroke of the middle cerebral artery, whose tissue keeps its labels: 1 core, 2 penumbra."""
    lesion = diseases.lesion
    sided = Space(points.x * lesion.side, points.y, points.z)
    rough = diseases.rough.at(points)
    radius, reach = lesion.radius_mm, lesion.reach
    whole = sided.ellipsoid(f"50 -2 16 | {31 * reach} {50 * reach} {34 * reach}")
    whole = np.maximum(whole + 3 * rough, 14 - sided.x)
    core = ellipsoid(points, lesion.centre_mm, (0.9 * radius, 1.2 * radius, 0.9 * radius))
    core = np.maximum(core + 2.5 * rough, whole + 4)
    lesion_map = np.zeros(canvas.label.shape, np.uint8)
    lesion_map[whole < 0] = 2
    lesion_map[core < 0] = 1
    lesion_map *= np.isin(canvas.label, BRAIN) & (points.z > -14)
    return lesion_map


def paint_tumour(canvas: Canvas, diseases: Diseases, points: Space) -> None:
    """Paint a tumour or metastases."""
    soft = np.isin(canvas.label, _SOFT)
    white = np.isin(canvas.label, (Label.WHITE, Label.LEUKOARAIOSIS))
    rough = diseases.rough.at(points)
    if diseases.tumour == "metastases":
        for centre, axes in diseases.metastases:
            ball = ellipsoid(points, centre, axes) + 0.1 * axes[0] * rough
            canvas.paint(Label.OEDEMA, ball - 0.8 * axes[0] - 0.3 * axes[0] * rough, white)
            canvas.paint(Label.ENHANCING, ball, soft)
            if axes[0] > 5:
                canvas.paint(Label.NECROSIS, ball + 2.2, soft)
        return
    radius = diseases.lesion.radius_mm
    axes = (radius, 1.1 * radius, 0.95 * radius)
    ball = ellipsoid(points, diseases.lesion.centre_mm, axes) + 0.12 * radius * rough
    finger = diseases.rough.at((points.y, points.z, points.x))
    oedema = ball - 0.75 * radius - 0.35 * radius * finger
    off_midline = soft & (points.half.x > 2)
    if diseases.tumour == "low grade":
        canvas.paint(Label.LOW_GRADE, np.minimum(ball, oedema + 5), off_midline)
    else:
        canvas.paint(Label.OEDEMA, oedema, white)
        canvas.paint(Label.ENHANCING, ball, off_midline)
    if diseases.tumour == "glioblastoma":
        necrosis = ball + 0.27 * radius + finger
        canvas.paint(Label.NECROSIS, np.maximum(necrosis, ball + 2.5), soft)


def paint_remnant(canvas: Canvas, diseases: Diseases, points: Space) -> None:
    """Paint what an old disease left: a cavity with its scar, blood of an age, or a shunt."""
    if diseases.has_shunt:
        canvas.paint(Label.SHUNT, points.tubes(_SHUNT, 3))
    if diseases.remnant in ("none", "hydrocephalus"):
        return
    soft = np.isin(canvas.label, _SOFT)
    centre, radii = diseases.remnant_at
    rough = diseases.rough.at((points.y, points.z, points.x))
    place = ellipsoid(points, centre, radii) + 0.18 * radii[0] * rough
    around, rim_mm, inner = {
        "infarct": (Label.GLIOSIS, 3.5, Label.OLD_CAVITY),
        "resection": (Label.GLIOSIS, 2.0, Label.RESECTION),
        "haemorrhage": (Label.HAEMOSIDERIN, 1.8, diseases.bleeding),
    }[diseases.remnant]
    if inner == Label.HAEMORRHAGE_ACUTE:
        around, rim_mm = Label.OEDEMA, 4.0
    canvas.paint(around, place - rim_mm, soft)
    canvas.paint(inner, place, soft)
    if inner == Label.HAEMOSIDERIN:
        canvas.paint(Label.OLD_CAVITY, place + 0.6 * radii[0], soft)


@dataclass(frozen=True)
class Ageing:
    """What came with the age of a brain.

    spots: lesions of white matter; calcium: calcifications of pineal gland and falx; choroid_mm: radii of those of the choroid
    plexus, left and right, 0 without; pallidum: whether it holds enough calcium for CT.
    """

    spots: Sequence[Ball]
    calcium: Sequence[Ball]
    choroid_mm: Pair
    pallidum: bool


def draw_age(rng: Rng) -> Ageing:
    """Draw an age from 20 to 90, and what came with it."""
    years = rng.uniform(20, 90)
    old = (years - 20) / 70
    own = float(np.exp(0.35 * bounded_normal(rng, 1)[0]))  # patients of an age differ
    vascular = max(0.0, (years - 45) / 45) * own
    plaques = years < 55 and rng.random() < 0.15
    count = rng.poisson(9) + 4 if plaques else rng.poisson(14 * min(vascular, 1.5))
    size, place = _PLAQUES if plaques else _SPOTS
    pineal, choroid, pallidum, falx = rng.random(4)  # below its share there is calcium
    # The order of the draws decides the heads.
    spots = [_spot(rng, size, place) for _ in range(count)]
    calcium = list[Ball]()
    if pineal < 0.3 + 0.5 * old:
        calcium.append(((0, -27, 1), (rng.uniform(0.8, 3.0),) * 3))
    common, left, right = rng.uniform((1.2, 0.6, 0.6), (4.0, 1.2, 1.2)).tolist()
    radii = (common * left, common * right) if choroid < 0.15 + 0.65 * old else (0.0, 0.0)
    if falx < 0.15:
        calcium += [_plaque(rng) for _ in range(rng.integers(1, 4))]
    return Ageing(spots, calcium, radii, bool(pallidum < 0.02 + 0.1 * old))


def _spot(rng: Rng, size: Pair, place: Ball) -> Ball:
    """A lesion of deep white matter; place: the corners of the box of its centre, on the right side."""
    side = rng.choice((-1, 1))
    x, y, z = rng.uniform(*place)
    radius = np.exp(rng.uniform(*np.log(size)))
    return triple((side * x, y, z)), triple(radius * rng.uniform(0.7, 1.5, 3))


def _plaque(rng: Rng) -> Ball:
    """A calcification on the falx, below the vertex."""
    angle = rng.uniform(0.5, 2.3)
    y = 0.9 * CEREBRUM_AXES[1] * np.cos(angle)
    z = CEREBRUM_CENTRE[2] + 0.9 * CEREBRUM_AXES[2] * np.sin(angle)
    return triple((0, y, z)), triple((1.2, *rng.uniform((2, 2), (7, 5))))


def paint_age(canvas: Canvas, age: Ageing, points: Space) -> None:
    """Paint leukoaraiosis in spots of white matter, and calcium in pallidum, pineal gland, choroid plexus and falx."""
    white = canvas.label == Label.WHITE
    for centre, radii in age.spots:
        canvas.paint_ball(Label.LEUKOARAIOSIS, points, centre, radii, white)
    if age.pallidum:
        half = points.half
        pallidum = Space(half.x + 0.28 * (half.y - 14), half.y, half.z)
        canvas.paint(Label.CALCIFICATION, pallidum.ellipsoid("19.5 12 0 | 4 10 6") + 3.0)
    if max(age.choroid_mm) > 0:
        left, right = age.choroid_mm
        radius = np.where(points.x > 0, np.float32(right), np.float32(left))
        canvas.paint(Label.CALCIFICATION, points.half.ellipsoid("23 -33 8 | 1 1 1") + 1 - radius)
    for centre, radii in age.calcium:
        canvas.paint_ball(Label.CALCIFICATION, points, centre, radii)
