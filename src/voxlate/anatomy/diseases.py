"""Diseases: tumours of several kinds, and what strokes, bleedings and operations leave behind."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from voxlate.anatomy import head_shape as body
from voxlate.anatomy.ageing import Ball
from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.head_shape import Anatomy, Lesion
from voxlate.anatomy.shapes import (
    Pair,
    Rng,
    Space,
    Triple,
    ellipsoid,
    overlap,
    triple,
    tubes_of,
    union,
)
from voxlate.anatomy.tissue import BRAIN, HAEMORRHAGE, Label
from voxlate.base.array_types import AnyArray

Tumour = Literal["glioblastoma", "low grade", "meningioma", "metastases"]
Remnant = Literal["none", "infarct", "haemorrhage", "resection", "hydrocephalus"]
_SOFT = (*BRAIN, Label.CSF, Label.VENTRICLE, Label.LEUKOARAIOSIS, Label.PALLIDUM, Label.OEDEMA)
_OEDEMA, _ENHANCING, _OTHER = 2, 3, 4  # of the lesion map of a tumour
_SHUNT = tubes_of("-36 -62 66, -24 -36 38, -8 8 20 | 1.3 1.3")
OTHER_LESIONS = (Label.INFARCT, Label.GLIOSIS, *HAEMORRHAGE, Label.OLD_CAVITY, Label.RESECTION)


@dataclass(frozen=True)
class Diseases:
    """What else a brain has: the kind of its tumour, metastases, what an old disease left, and a shunt."""

    tumour: Tumour
    metastases: tuple[Ball, ...]
    remnant: Remnant
    remnant_at: Ball
    bleeding: Label
    has_shunt: bool


def draw(rng: Rng, base: Anatomy) -> tuple[Diseases, Anatomy]:
    """Draw the diseases of a head, and change its lesion accordingly."""
    tumour: Tumour = get_args(Tumour)[int(rng.choice(4, p=(0.5, 0.2, 0.15, 0.15)))]
    chance, which = rng.random(), int(rng.integers(1, 5))
    remnant: Remnant = get_args(Remnant)[which] if chance < 0.25 else "none"
    if base.lesion.kind != "none":
        remnant = "infarct" if base.lesion.kind == "stroke" and chance < 0.2 else "none"
    at = _ball(rng, (7, 18))
    metastases = tuple(_ball(rng, (3, 9)) for _ in range(int(rng.integers(2, 6))))
    bleeding = HAEMORRHAGE[int(rng.integers(3))]
    shunted = bool(rng.random() < 0.4) and remnant == "hydrocephalus"
    diseases = Diseases(tumour, metastases, remnant, at, bleeding, shunted)
    return diseases, replace(base, lesion=_place(rng, base.lesion, tumour))


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


def paint(
    canvas: Canvas, base: Anatomy, diseases: Diseases, carried: "Carried | None", points: Space
) -> AnyArray:
    """Paint diseases; returns the lesion map. carried: a lesion of a label map, in place of the one that is drawn."""
    if carried is not None:
        lesion_map = paint_carried(canvas, carried, points)
    elif base.lesion.kind == "tumour":
        lesion_map = paint_tumour(canvas, base, diseases, points)
    else:
        lesion_map = stroke_map(canvas, base, points)
    paint_remnant(canvas, base, diseases, points)
    return lesion_map


def stroke_map(canvas: Canvas, base: Anatomy, points: Space) -> AnyArray:
    """The lesion map of a stroke, whose tissue keeps its labels: 1 core, 2 penumbra; 0 without a stroke."""
    lesion_map = np.zeros(canvas.label.shape, np.uint8)
    if base.lesion.kind == "stroke":
        core, whole = body.territory(base, points)
        lesion_map[whole < 0] = 2
        lesion_map[core < 0] = 1
        lesion_map *= np.isin(canvas.label, BRAIN) & (points.z > -14)
    return lesion_map


def paint_tumour(canvas: Canvas, base: Anatomy, diseases: Diseases, points: Space) -> AnyArray:
    """Paint a tumour; returns the lesion map: 1 necrosis, 2 oedema and tissue without enhancement, 3 enhancing."""
    soft = np.isin(canvas.label, _SOFT)
    white = np.isin(canvas.label, (Label.WHITE, Label.LEUKOARAIOSIS))
    if diseases.tumour == "metastases":
        rough = base.rough.at(points)
        for centre, axes in diseases.metastases:
            ball = ellipsoid(points, centre, axes) + 0.1 * axes[0] * rough
            canvas.paint(Label.OEDEMA, ball - 0.8 * axes[0] - 0.3 * axes[0] * rough, white)
            canvas.paint(Label.ENHANCING, ball, soft)
            if axes[0] > 5:
                canvas.paint(Label.NECROSIS, ball + 2.2, soft)
    else:
        necrosis, rim, oedema = body.tumour(base, points)
        if diseases.tumour == "low grade":
            canvas.paint(Label.LOW_GRADE, union(rim, oedema + 5), soft & (points.half.x > 2))
        else:
            canvas.paint(Label.OEDEMA, oedema, white)
            canvas.paint(Label.ENHANCING, rim, soft & (points.half.x > 2))
        if diseases.tumour == "glioblastoma":
            canvas.paint(Label.NECROSIS, overlap(necrosis, rim + 2.5), soft)
    return tumour_map(canvas)


def tumour_map(canvas: Canvas) -> AnyArray:
    """The lesion map of a canvas: 1 necrosis, 2 oedema and tissue without enhancement, 3 enhancing, 4 other lesions."""
    lesion_map = np.zeros(canvas.label.shape, np.uint8)
    lesion_map[np.isin(canvas.label, OTHER_LESIONS)] = _OTHER
    lesion_map[canvas.label == Label.NECROSIS] = 1
    lesion_map[np.isin(canvas.label, (Label.OEDEMA, Label.LOW_GRADE))] = _OEDEMA
    lesion_map[canvas.label == Label.ENHANCING] = _ENHANCING
    return lesion_map


@dataclass(frozen=True)
class LesionShape:
    """The lesion of a label map: its tissues [D, H, W], the size of its voxels in mm, and the middle of its largest part."""

    tissues: AnyArray
    spacing_mm: Triple
    middle: Triple


@dataclass(frozen=True)
class Carried:
    """A lesion of a label map with its middle in upright coordinates; mirror: whether left and right are exchanged."""

    shape: LesionShape
    centre_mm: Triple
    mirror: bool


def carry(rng: Rng, shape: LesionShape) -> Carried:
    """Draw where a lesion is carried to."""
    centre, _ = _ball(rng, (7, 18))
    return Carried(shape, centre, bool(rng.random() < 0.5))


def paint_carried(canvas: Canvas, lesion: Carried, points: Space) -> AnyArray:
    """Paint a lesion of a label map into the brain; returns the lesion map."""
    shape = lesion.shape
    offset = [p - np.float32(c) for p, c in zip(points, lesion.centre_mm)]
    if lesion.mirror:
        offset[0] = -offset[0]
    inside = np.isin(canvas.label, _SOFT)
    index = []
    sizes = zip(shape.tissues.shape, shape.spacing_mm, shape.middle)
    for distance, (n, step, middle) in zip(offset[::-1], sizes):
        at = np.rint(distance / np.float32(step) + middle).astype(int)
        inside &= (at >= 0) & (at < n)
        index.append(at)
    painted = np.zeros(canvas.label.shape, np.uint8)
    painted[inside] = shape.tissues[tuple(at[inside] for at in index)]
    there = painted > 0
    canvas.label[there] = painted[there]
    canvas.share[there] = 1
    return tumour_map(canvas)


def paint_remnant(canvas: Canvas, base: Anatomy, diseases: Diseases, points: Space) -> None:
    """Paint what an old disease left: a cavity with its scar, blood of an age, or a shunt."""
    if diseases.has_shunt:
        canvas.paint(Label.SHUNT, points.tubes(_SHUNT, 3))
    if diseases.remnant not in ("infarct", "resection", "haemorrhage"):
        return
    soft = np.isin(canvas.label, _SOFT)
    centre, radii = diseases.remnant_at
    rough = base.rough.at((points.y, points.z, points.x))
    place = ellipsoid(points, centre, radii) + 0.18 * radii[0] * rough
    if diseases.remnant != "haemorrhage":
        is_infarct = diseases.remnant == "infarct"
        canvas.paint(Label.GLIOSIS, place - (3.5 if is_infarct else 2.0), soft)
        canvas.paint(Label.OLD_CAVITY if is_infarct else Label.RESECTION, place, soft)
    else:
        fresh = diseases.bleeding == Label.HAEMORRHAGE_ACUTE
        canvas.paint(
            Label.OEDEMA if fresh else Label.HAEMOSIDERIN, place - (4.0 if fresh else 1.8), soft
        )
        canvas.paint(diseases.bleeding, place, soft)
        if diseases.bleeding == Label.HAEMOSIDERIN:
            canvas.paint(Label.OLD_CAVITY, place + 0.6 * radii[0], soft)
