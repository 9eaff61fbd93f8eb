"""The bones of the head: vault, facial skeleton, skull base, jaws and teeth."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy import eyes
from voxlate.anatomy.canvas import Canvas, within
from voxlate.anatomy.head_shape import Anatomy
from voxlate.anatomy.shapes import Rng, Space, Triple, Tube, ellipsoid, join, overlap, triple, union
from voxlate.anatomy.tissue import INTRACRANIAL, SKULL, Label
from voxlate.anatomy.vessels import on_cerebrum
from voxlate.base.array_types import AnyArray

LOWEST_VAULT_MM = -62.0
_TEETH = 8  # of a quarter
_OPERATED = 0.06  # share of heads with plates on the vault
_UPPER_MM = -80.0
_LOWER_MM = -91.0
_ROW_CENTRE_Y_MM = 48.0
_ROW_MM = (24.0, 37.0)  # half width and depth of a row of teeth


@dataclass(frozen=True)
class Bones:
    """The random numbers of one skeleton.

    table_mm: thickness of the inner and outer table of the vault; density: how much of the diploe is hard, 0..1;
    forehead_mm: thickening behind the frontal bone (hyperostosis), 0 in most; teeth: for each of the four quarters and
    eight places: 0 lost, 1 sound, 2 with a filling, 3 with a metal crown. plates: centres and radii in mm of the metal that
    holds a flap of bone after an operation; none in most.
    """

    table_mm: float
    density: float
    forehead_mm: float
    teeth: AnyArray
    plates: tuple[tuple[Triple, float], ...] = ()


def draw(rng: Rng) -> Bones:
    """Draw a skeleton."""
    lost = rng.choice((0.03, 0.1, 0.5, 1.0), p=(0.5, 0.3, 0.15, 0.05))
    filled = rng.choice((0.0, 0.1, 0.3))
    chance = rng.random((4, _TEETH))
    teeth = np.where(
        chance < lost, 0, np.where(chance > 1 - filled, 2 + (rng.random((4, _TEETH)) < 0.3), 1)
    )
    return Bones(
        table_mm=float(rng.uniform(1.4, 2.3)),
        density=float(rng.random()),
        forehead_mm=float(rng.uniform(2, 7) if rng.random() < 0.12 else 0.0),
        teeth=teeth,
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


def paint_vault(
    canvas: Canvas, bones: Bones, points: Space, cavity: AnyArray, thick: AnyArray, base: Anatomy
) -> None:
    """Paint the bone around the brain with its diploe; thick: mm of bone."""
    assert points.straight is not None
    half = points.half
    _, y, z = half
    ends = LOWEST_VAULT_MM + 0.15 * np.maximum(-y - 20, 0) - z
    inward = bones.forehead_mm * np.exp(-(((y - 70) / 22) ** 2) - ((z - 22) / 26) ** 2)
    shell = overlap(cavity - thick, -cavity - 3 - inward, ends)
    protuberance = half.ellipsoid("0 -83 -14 | 8 9 8")
    canvas.paint(
        Label.BONE,
        union(shell, overlap(protuberance, -cavity, cavity - thick - 2.5)),
    )
    table = bones.table_mm * (1 + 0.35 * base.rough.on(points.straight))
    diploe = overlap(table - cavity, cavity - thick + table, ends + 2)
    if bones.density > 0.6:
        # Sclerotic islands.
        diploe = overlap(
            diploe, 3 * (base.texture.on(points.straight) - 2.2 * (1 - bones.density) - 0.4)
        )
    canvas.paint(Label.DIPLOE, diploe)


def paint_face(
    canvas: Canvas,
    half: Space,
    cavity: AnyArray,
    inside: AnyArray,
) -> None:
    """Paint the facial skeleton, the jaw and the outer skull base; inside: distance to the subcutaneous fat's depth."""
    outside = cavity > 0.5
    rims = half.tubes(_RIMS, 8)
    spongy = _skull_base(half)
    maxilla = _maxilla(half)
    jaw = half.tubes(_JAW, 8)
    ramus = overlap(half.ellipsoid("49 13 -74 | 5 18 27"), np.abs(half.x - 49) - 3.2)
    jaw = join(jaw, ramus, 3)
    walls = _orbital_walls(half)
    hard = union(walls, rims, half.tubes(_PLATES, 5), maxilla, jaw, spongy)
    canvas.paint(Label.BONE, overlap(hard, inside - 0.5), outside)
    canvas.paint(Label.MARROW, union(jaw + 2.4, rims + 2.2), outside)
    canvas.paint(Label.DIPLOE, union(spongy + 1.8, maxilla + 2.5), outside)


_RIMS = """
46 72 -58, 57 58 -54, 65 34 -48, 67 8 -43, 64 -4 -41 | 4.6 2.4  # Zygomatic arch, frontal process and body of the zygoma.
48 78 -24, 50 74 -40, 46 74 -56 | 3.6 5.5
8 90 -17, 22 94 -16, 38 90 -17, 48 79 -24 | 4.5 4.0  # Upper and lower rim of the orbit.
13 90 -52, 24 88 -56, 38 82 -57, 47 74 -54 | 2.6 4.5
13 90 -54, 8 93 -34, 6 90 -20 | 2.8 3.0  # Frontal process of the maxilla and nasal bone.
2.5 93 -22, 3.5 99 -34, 4.5 104 -46 | 2.2 1.2
"""
# Pterygoid plates, styloid process, vomer.
_PLATES = """
13 34 -50, 11 31 -78 | 1.6 1.1
15 34 -50, 22 24 -76 | 1.8 1.1
13 36 -50, 16 35 -76 | 2.8 2.0
46 -8 -48, 40 4 -76 | 2.2 0.9
"""
_JAW = """
46 2 -48, 60 2 -48 | 4.4 4.4
53 2 -49, 52 2 -60, 49 0 -92 | 3.6 4.0
48 28 -54, 46 28 -90 | 2.2 3.4
48 4 -94, 43 36 -104, 33 64 -108, 16 82 -110, 0 86 -110 | 4.8 6.2
46 22 -92, 40 42 -96, 30 64 -99, 15 80 -100, 0 84 -100 | 4.4 5.0
"""


def _orbital_walls(half: Space) -> AnyArray:
    """Paper-thin towards the nose, thick towards the temple."""
    x, y, _ = half
    lateral = np.clip((x - (14 + 0.42 * (y - 38))) / 14, 0, 1)
    wall = eyes.cone(half) - 1.0 - 2.8 * lateral
    return overlap(wall, y - 86)


# Clivus, petrous bone, mastoid, root of the zygomatic arch, and the occipital condyles.
_BASE = """
0 17 -34, 0 13 -46, 0 6 -60 | 8.5 6.5
6 14 -44, 12 2 -58 | 7.0 5.0
60 -26 -44, 44 -14 -42, 26 -4 -40, 13 7 -38 | 11.0 6.5
56 -28 -50, 54 -22 -66 | 11.0 4.5
68 -2 -42, 56 8 -44, 50 14 -42 | 5.0 4.0
15 -4 -60, 20 -18 -60 | 5.5 5.0
"""


def _skull_base(half: Space) -> AnyArray:
    """Body and wings of the sphenoid, clivus, petrous bone, mastoid, and the occipital condyles."""
    sphenoid = half.ellipsoid("0 26 -38 | 21 18 12")
    wing = Space(half.x, half.y - 0.3 * half.x, half.z).ellipsoid("34 24 -41 | 24 10 7")
    return join(join(sphenoid, wing, 6), half.tubes(_BASE, 10), 4)


def _maxilla(half: Space) -> AnyArray:
    """Floor of the antra, whose walls airways.py paints, the alveolar process and the hard palate."""
    x, y, z = half
    body = half.ellipsoid("26 66 -75 | 17 18 8")
    palate = overlap(np.abs(z + 73.5) - 1.6, x - 22, 38 - y, y - 84)
    return union(body, palate, overlap(_row(half, 5.0), np.abs(z + 78) - 5))


def _row(half: Space, width_mm: float) -> AnyArray:
    """Distance to the curved wall on which a row of teeth stands."""
    wide, deep = _ROW_MM
    curve = Space(half.x, half.y, np.zeros_like(half.z)).ellipsoid(
        f"0 {_ROW_CENTRE_Y_MM} 0 | {wide} {deep} 1e3"
    )
    return overlap(np.abs(curve) - width_mm, _ROW_CENTRE_Y_MM - 14 - half.y)


def paint_teeth(
    canvas: Canvas, bones: Bones, points: Space, jaw_mm: float, where: AnyArray | None = None
) -> None:
    """Paint the teeth of both jaws, with their fillings and crowns; where: voxels that may be painted, by default all."""
    kinds: dict[Label, list[Tube]] = {Label.TOOTH: [], Label.METAL: []}
    for quarter, teeth in enumerate(bones.teeth):
        side, upper = (1, 1, -1, -1)[quarter], quarter % 2 == 0
        for place, kind in enumerate(teeth):
            if kind:
                crown, root = _tooth(side, upper, place, jaw_mm)
                radius = 2.6 + 0.25 * place
                kinds[Label.TOOTH].append(Tube((crown, root), (radius, 1.4)))
                if kind > 1:
                    reach = 0.25 if kind == 2 else 0.45
                    end = triple(c + reach * (r - c) for c, r in zip(crown, root))
                    size = radius - 1.2 if kind == 2 else radius + 0.2
                    kinds[Label.METAL].append(Tube((crown, end), (size, size)))
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


_RIDGES = """
56 -26 -36, 42 -15 -33, 26 -4 -31, 13 5 -30 | 7.5 4.0  # The upper edge of the petrous bone, and the lesser wing of the sphenoid with the anterior clinoid process.
9 24 -20, 18 32 -19, 34 36 -22, 46 34 -22 | 2.6 2.2
0 10 -26, 6 10 -22 | 2.0 1.8  # Dorsum sellae, and the crista galli with the internal frontal crest.
0 62 -16, 0 70 -8, 0 80 6 | 2.2 1.4
"""


def paint_ridges(canvas: Canvas, points: Space) -> None:
    """Paint the ridges between the parts of the brain, each in a coat of fluid, over what is there."""
    canvas, points = within("-65 -40 -48 | 65 90 12", canvas, points)
    ridges = points.half.tubes(_RIDGES, 6)
    canvas.paint(Label.CSF, ridges - 1.0, np.isin(canvas.label, _SOFT))
    canvas.paint(Label.BONE, ridges)


_SOFT = (Label.GREY, Label.WHITE, Label.CSF)
