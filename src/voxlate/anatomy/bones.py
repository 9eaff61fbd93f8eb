"""What bones hold: mastoid cells and frontal sinuses, teeth with their fillings, and the plates of operations.

Label maps show bones solid. How far they are hollow, and how swollen the lining of their cells is, differs between heads and
sides.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy.shapes import (
    Canvas,
    NoiseField,
    Rng,
    Space,
    Triple,
    Tube,
    ellipsoid,
    noise,
    triple,
    tube,
)
from voxlate.anatomy.tissue import INTRACRANIAL, SKULL, Label
from voxlate.anatomy.vessels import on_cerebrum
from voxlate.base.array_types import AnyArray

# Where bone may be hollow, at size 1: of the brow and of the temporal bones.
_FRONTAL = "6 84 4 | 30 32 36"
_MASTOID = "52 -13 -42 | 22 18 26"
_APEX = "34 -8 -40 | 13 5 4.5"  # of the petrous bone, which wide cells reach
_TEETH = 8  # of a quarter
_OPERATED = 0.06  # share of heads with plates on the vault
_UPPER_MM = -80.0
_LOWER_MM = -91.0
_ROW_CENTRE_Y_MM = 48.0
_ROW_MM = (24.0, 37.0)  # half width and depth of a row of teeth


@dataclass(frozen=True)
class Bones:
    """The random numbers of one head's teeth and plates.

    teeth: for each of the four quarters and eight places: 0 lost, 1 sound, 2 with a filling, 3 with a metal crown. plates:
    centres and radii in mm of the metal that holds a flap of bone after an operation; none in most. jaw_mm: height of the jaw.
    """

    teeth: AnyArray
    jaw_mm: float
    plates: tuple[tuple[Triple, float], ...]


def draw(rng: Rng) -> Bones:
    """Draw teeth and plates."""
    lost = rng.choice((0.03, 0.1, 0.5, 1.0), p=(0.5, 0.3, 0.15, 0.05))
    filled = rng.choice((0.0, 0.1, 0.3))
    chance = rng.random((4, _TEETH))
    teeth = np.where(
        chance < lost, 0, np.where(chance > 1 - filled, 2 + (rng.random((4, _TEETH)) < 0.3), 1)
    )
    return Bones(
        teeth=teeth,
        jaw_mm=float(rng.uniform(-5, 4)),
        plates=_draw_plates(rng) if rng.random() < _OPERATED else (),
    )


def _draw_plates(rng: Rng) -> tuple[tuple[Triple, float], ...]:
    """Three or four plates around a flap of bone on one side of the vault."""
    side = int(rng.choice((-1, 1)))
    azimuth, height = rng.uniform((-0.9, 0.1), (0.9, 0.9))
    plates = []
    for turn in np.arange(rng.integers(3, 5)) * 1.7:
        x, y, z = on_cerebrum(azimuth + 0.45 * np.sin(turn), height + 0.4 * np.cos(turn), 1.12)
        plates.append(((side * x, y, z), float(rng.uniform(4, 9))))
    return tuple(plates)


def paint_plates(canvas: Canvas, bones: Bones, points: Space) -> None:
    """Paint the metal of plates on the outer surface of the skull, one voxel thick."""
    for centre, radius_mm in bones.plates:
        near = ellipsoid(points, centre, (radius_mm + 8,) * 3) < 0
        if not near.any():
            continue
        bone = np.isin(canvas.label, SKULL)
        beside = ndimage.binary_dilation(bone) & ~bone & ~np.isin(canvas.label, INTRACRANIAL)
        x, y, z = (p - c for p, c in zip(points, centre))
        outward = [c / np.linalg.norm(centre) for c in centre]
        along = x * outward[0] + y * outward[1] + z * outward[2]
        across = np.sqrt(np.maximum(x * x + y * y + z * z - along * along, 0))
        plate = near & beside & (across < radius_mm)
        canvas.label[plate] = Label.PLATE
        canvas.share[plate] = 1


def paint_teeth(canvas: Canvas, bones: Bones, points: Space, where: AnyArray) -> None:
    """Paint the teeth of both jaws, with their fillings and crowns; where: voxels that may be painted."""
    kinds: dict[Label, list[Tube]] = {Label.TOOTH: [], Label.METAL: []}
    for quarter, teeth in enumerate(bones.teeth):
        side, upper = (1, 1, -1, -1)[quarter], quarter % 2 == 0
        for place, kind in enumerate(teeth):
            if kind:
                crown, root = _tooth(side, upper, place, bones.jaw_mm)
                radius = 2.6 + 0.25 * place
                kinds[Label.TOOTH].append(tube((crown, root), (radius, 1.4)))
                if kind > 1:
                    reach = 0.25 if kind == 2 else 0.45
                    end = triple(c + reach * (r - c) for c, r in zip(crown, root))
                    size = radius - 1.2 if kind == 2 else radius + 0.2
                    kinds[Label.METAL].append(tube((crown, end), (size, size)))
    for label, parts in kinds.items():
        if parts:
            canvas.paint(label, points.tubes(parts, 4), where)


def _tooth(side: int, upper: bool, place: int, jaw_mm: float) -> tuple[Triple, Triple]:
    """Crown and root of one tooth; place 0 is the front one."""
    angle = 0.09 + 0.235 * place
    wide, deep = _ROW_MM
    x = side * (wide - 1.5 * (not upper)) * np.sin(angle)
    y = _ROW_CENTRE_Y_MM + (deep - 2.5 * (not upper)) * np.cos(angle)
    crown = _UPPER_MM - 5 if upper else _LOWER_MM + 4 + 0.4 * jaw_mm
    root = crown + (17 if upper else -16)
    return (float(x), float(y), crown), (float(0.94 * x), float(y - 1.5), root)


@dataclass(frozen=True)
class Airways:
    """The random numbers of one head's cells: relative sizes and the thickness of their lining, left and right.

    cells: distance to the septa.
    """

    mastoid: AnyArray
    frontal: AnyArray
    mucosa_mm: AnyArray
    cells: NoiseField


def draw_airways(rng: Rng) -> Airways:
    """Draw the cells; one head in ten has no frontal sinuses."""
    mastoid, frontal = rng.uniform(0.55, 1.25, (2, 1)) * rng.uniform(0.85, 1.15, (2, 2))
    if rng.random() < 0.1:
        frontal = np.full(2, 0.05)
    swollen = rng.random(2) < 0.25
    mucosa_mm = np.where(swollen, rng.uniform(1.5, 6, 2), rng.uniform(0.1, 1.0, 2))
    cells = noise(rng, 13, 2.5, 64, cells=True)
    return Airways(mastoid, frontal, mucosa_mm, cells)


def hollow(airways: Airways, points: Space) -> tuple[AnyArray, AnyArray]:
    """Distances to the lined cells of mastoids and brow, and to their air, which walls divide; the left side mirrors the right."""
    right = points.x > 0
    half = Space(np.abs(points.x), points.y, points.z)
    size = _by_side(right, airways.mastoid)
    mastoid = half.ellipsoid(_MASTOID, size)
    mastoid = np.minimum(mastoid, np.where(size > 0.95, half.ellipsoid(_APEX), 9))
    septa = 0.7 - np.abs(airways.cells.at((half.y, half.z, half.x)))
    brow = half.ellipsoid(_FRONTAL, _by_side(right, airways.frontal))
    walls = np.maximum(
        0.9 - half.x, 0.35 - np.abs(airways.cells.at((points.z, points.x, points.y)))
    )
    lining = 0.3 * _by_side(right, airways.mucosa_mm)
    lined = np.minimum(np.maximum(mastoid, septa), np.maximum(brow, walls))
    air = np.minimum(np.maximum(mastoid, septa + lining), np.maximum(brow, walls + lining))
    return lined, air


def _by_side(right: AnyArray, pair: AnyArray) -> AnyArray:
    return np.where(right, np.float32(pair[1]), np.float32(pair[0]))
