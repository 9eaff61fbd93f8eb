"""The head and neck outside the brain: outline, muscles and glands; bones and airways have their own files.

Positions are those of an average adult in any anatomical atlas, in upright coordinates (mm).
"""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy import airways, bones, eyes, neck
from voxlate.anatomy.airways import Airways
from voxlate.anatomy.bones import Bones
from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.head_shape import Anatomy
from voxlate.anatomy.shapes import Box, NoiseField, Rng, Space, join, noise, overlap, union
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray

# Face and temples end below this height, with the vault alone above it.
HIGHEST_MM = 50.0
_FAR_MM = 500.0


@dataclass(frozen=True)
class Face:
    """The random numbers of one skull and face.

    scalp_mm: thickness of the scalp; fat: of the subcutaneous fat of face and neck, relative to the average; muscle: of
    the muscles, likewise; nose: relative length; jaw_mm: height of the jaw; planes: noise whose zeros are
    planes of fat between muscles.
    """

    scalp_mm: float
    fat: float
    muscle: float
    nose: float
    jaw_mm: float
    planes: NoiseField
    bones: Bones
    airways: Airways


def draw(rng: Rng) -> Face:
    """Draw a skull and face."""
    own, bone_rng, air_rng = rng.spawn(3)
    lows, highs = (3.5, 0.5, 0.75, 0.8, -5), (8.5, 1.7, 1.15, 1.25, 4)
    scalp, fat, muscle, nose, jaw = own.uniform(lows, highs).tolist()
    planes = noise(own, 15, 3, 64)
    skull = bones.draw(bone_rng)
    return Face(scalp, fat, muscle, nose, jaw, planes, skull, airways.draw(air_rng))


def paint(canvas: Canvas, base: Anatomy, face: Face, points: Space, cavity: AnyArray) -> None:
    """Paint all outside the cavity of the skull; points: upright coordinates in mm."""
    assert points.straight is not None
    half = points.half
    rough = base.rough.on(points.straight)
    # Bone is thicker at the forehead and the back of the head, and thin at the temples.
    thick = base.skull_mm * (1 - 0.3 * _temple(half)) * (1 - 0.65 * _floor(half)) + 0.6 * rough
    outline = cavity - thick - face.scalp_mm - 0.4 * rough
    box = _below(points, HIGHEST_MM)
    low = points[box].half
    outline[box] = join(outline[box], _outline(face, low), 10)
    skin = outline.copy()
    skin[box] = union(outline[box], _ear(low, rough[box]))
    canvas.paint(Label.SKIN, skin)
    inside = outline + 1.8 + 0.3 * rough
    canvas.paint(Label.FAT, inside)
    _scalp_muscle(canvas, face, half, outline, cavity - thick)
    inside += 1.5 * face.fat
    _deep_tissue(canvas[box], face, points[box], inside[box])
    box = _below(points, 0)
    low = points[box].half
    _muscles(canvas[box], face, low, inside[box])
    neck.paint(canvas, points, face.muscle, inside)
    bones.paint_face(canvas[box], low, cavity[box], inside[box])
    bones.paint_vault(canvas, face.bones, points, cavity, thick, base)
    lids = overlap(low.ellipsoid("31 80 -37 | 19 14 14"), outline[box] + 1.6)
    canvas[box].paint(Label.MUSCLE, lids)
    eyes.paint(canvas, points, cavity)
    airways.paint(canvas, face.airways, points, cavity, outline)
    box = _below(points, -60)
    bones.paint_teeth(canvas[box], face.bones, points[box], face.jaw_mm)


def _below(points: Space, height_mm: float) -> Box:
    """The voxels below a height."""
    return points.box((-_FAR_MM,) * 3, (_FAR_MM, _FAR_MM, height_mm), 8.0)


def paint_ridges(canvas: Canvas, face: Face, points: Space) -> None:
    """Paint the ridges of the skull base that stand between the parts of the brain, after the brain."""
    bones.paint_ridges(canvas, points)
    airways.paint_mastoid(canvas, face.airways, points)


def _temple(half: Space) -> AnyArray:
    """1 at the temples, 0 far from them."""
    x, y, z = half
    squared = ((x - 66) / 26) ** 2 + ((y - 26) / 30) ** 2 + ((z + 6) / 30) ** 2
    return np.exp(-squared)


def _floor(half: Space) -> AnyArray:
    """1 at the floor of the anterior and middle fossa, whose bone is thin; 0 at the vault."""
    x, y, z = half
    below = 1 / (1 + np.exp((z + 10) / 3))
    front = 1 / (1 + np.exp(-(y + 4) / 5))
    middle = 1 / (1 + np.exp((x - 56) / 4))
    return below * front * middle


def _outline(face: Face, half: Space) -> AnyArray:
    """Distance to the skin of face and neck."""
    wide = 2.5 * (face.fat - 1)
    whole = half.ellipsoid(f"0 34 -56 | {66 + wide} 59 60")
    jaw = half.ellipsoid(f"0 32 {-84 + face.jaw_mm} | {60 + wide} 54 34")
    chin = half.ellipsoid(f"0 66 {-98 + face.jaw_mm} | 30 29 20")
    whole = join(join(whole, jaw, 16), chin, 16)
    around = half.ellipsoid(f"0 -14 -128 | {55 + 2 * wide} {58 + wide} 96")
    whole = join(whole, around, 18)
    temples = half.ellipsoid(f"59 20 -8 | {20 * face.muscle} 46 48")
    whole = join(whole, temples, 6)
    lids = half.ellipsoid("31 77 -37 | 17 14 14")
    lips = half.ellipsoid("0 88 -82 | 24 9 12")
    whole = join(join(whole, lids, 8), lips, 8)
    length = face.nose
    tip = half.ellipsoid(f"0 96 -58 | 12 {17 * length} 13")
    bridge = half.at(y=half.y + 0.3 * (half.z + 44)).ellipsoid(f"0 95 -44 | 7 {10 * length} 24")
    return join(whole, join(tip, bridge, 6), 8)


def _ear(half: Space, rough: AnyArray) -> AnyArray:
    """The pinna: a thin plate that stands off backwards, with its folds."""
    x, y, z = half
    along = 0.3 * (x - 80) - 0.95 * (y + 20)
    across = 0.95 * (x - 80) + 0.3 * (y + 20) + 1.5 * rough
    plate = Space(across, along, z + 36).ellipsoid("0 0 0 | 3.2 15 29")
    base = half.ellipsoid("76 -12 -40 | 8 8 18")
    canal = half.ellipsoid("84 -10 -38 | 9 6 8")
    return overlap(join(plate, base, 4), -canal)


def _scalp_muscle(
    canvas: Canvas, face: Face, half: Space, outline: AnyArray, skull: AnyArray
) -> None:
    """The thin muscles of forehead and occiput and the galea, close to the bone."""
    z = half.z
    thin = overlap(skull - 1.6 * face.muscle, outline + 2.6)
    canvas.paint(Label.MUSCLE, overlap(thin, z - 30))
    temporal = half.ellipsoid(f"60 20 -4 | {18 * face.muscle} 43 44")
    canvas.paint(Label.MUSCLE, overlap(temporal, outline + 3.2))


def _deep_tissue(canvas: Canvas, face: Face, points: Space, inside: AnyArray) -> None:
    """Small muscles with planes of fat between them fill what the named organs leave free."""
    assert points.straight is not None
    planes = face.planes.on(points.straight)
    deep = overlap(inside + 5 * face.fat + 3 * planes, points.z - 45)
    buccal = points.half.ellipsoid("42 50 -72 | 11 17 17") - 2 * planes
    canvas.paint(Label.MUSCLE, overlap(deep, -buccal))
    canvas.paint(Label.FAT, overlap(np.abs(planes) - 0.28 * face.fat, deep))


def _muscles(canvas: Canvas, face: Face, half: Space, inside: AnyArray) -> None:
    """Muscles of mastication and of the face, tongue and salivary glands."""
    big = face.muscle
    down = face.jaw_mm
    masseter = half.ellipsoid(f"56 24 {-76 + down / 2} | {7 * big} 15 25")
    temporal = half.ellipsoid(f"57 34 -40 | {9 * big} 18 26")
    lateral = Space(half.x + 0.5 * (half.y - 20), half.y, half.z).ellipsoid(
        f"38 20 -58 | {8 * big} 17 9"
    )
    medial = half.ellipsoid(f"34 18 {-76 + down / 2} | {6.5 * big} 10 20")
    cheek = np.abs(half.ellipsoid("0 40 -76 | 44 46 40")) - 1.8
    cheek = overlap(cheek, 34 - half.y, np.abs(half.z + 76) - 22)
    for muscle in (masseter, temporal, lateral, medial, cheek):
        canvas.paint(Label.MUSCLE, overlap(muscle, inside))
    floor = half.ellipsoid(f"0 50 {-100 + down} | 28 32 10")
    tongue = half.ellipsoid(f"0 50 {-88 + down / 2} | 23 31 15")
    strands = 4 * (np.abs(face.planes.at((half.y, half.z, half.x))) - 0.12)
    tongue = join(floor, tongue, 4)
    canvas.paint(Label.MUSCLE, tongue)
    canvas.paint(Label.FAT, overlap(tongue, strands))
    parotid = half.ellipsoid("57 2 -72 | 9 14 22")
    canvas.paint(Label.GLAND, overlap(parotid, inside))
    canvas.paint(Label.GLAND, half.ellipsoid(f"34 36 {-108 + down} | 8 13 10"))
    canvas.paint(
        Label.MUSCLE, overlap(half.tubes("0 93 -82, 16 88 -82, 24 78 -82 | 5.0 3.0", 6), inside)
    )
