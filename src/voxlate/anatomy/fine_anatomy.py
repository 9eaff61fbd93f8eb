"""What label maps do not show of a head: its vessels, and what its bones hold.

Arteries and veins are centrelines in the phantom's upright coordinates (mm). Their courses follow any atlas of the circle of
Willis (sources of radii: Kamath 1981, J Anat 133:419; Krejza et al. 2007, Stroke 38:1178: internal carotid 2.3 mm, middle
cerebral 1.4-1.6, anterior 1.2, basilar 1.6).

Bones hold mastoid cells and frontal sinuses, teeth with their fillings, and the plates of operations. Label maps show bones solid.
How far they are hollow, and how swollen the lining of their cells is, differs between heads and sides.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy.shapes import (
    Canvas,
    Space,
    Triple,
    Tube,
    ellipsoid,
    noise,
    numbers,
    triple,
    tube,
    tubes_of,
)
from voxlate.anatomy.tissue import INTRACRANIAL, SKULL, Label, Rng
from voxlate.base.array_types import AnyArray

CEREBRUM_CENTRE: Triple = (0.0, 0.0, 18.0)
CEREBRUM_AXES: Triple = (64.0, 83.0, 54.0)
_MIRRORED = (-1.0, 1.0, 1.0, 1.0)  # x, y, z and radius of the other side


def vessels(rng: Rng, occluded: int) -> dict[Label, list[Tube]]:
    """All vessels by label, in the order in which they are painted.

    occluded: the side whose middle cerebral artery is closed by a clot (-1 left, 1 right, 0 neither).
    """
    shared = rng.integers(2**32)
    seeds = {side: rng.integers(2**32) for side in (-1, 1)}
    parts_of = {
        Label.VEIN: _midline_veins(),
        Label.ARTERY_BEYOND_CLOT: [],
        Label.ARTERY: list(_MIDLINE_ARTERIES),
        Label.CLOT: [],
    }
    for side in (-1, 1):
        walk = _Walk(np.random.default_rng(shared), np.random.default_rng(seeds[side]))
        closed = side == occluded
        near = [*(_BEFORE_CLOT if closed else _M1), *_anterior(walk)]
        far = _middle(walk)
        near += _posterior(walk)
        sided = {
            Label.VEIN: _drainage(walk),
            Label.ARTERY_BEYOND_CLOT: far if closed else [],
            Label.ARTERY: near if closed else near + far,
            Label.CLOT: list(_CLOT) if closed else [],
        }
        for label, parts in sided.items():
            parts_of[label] += parts if side == 1 else [part * _MIRRORED for part in parts]
    return parts_of


@dataclass(frozen=True)
class _Walk:
    """Random numbers of one side: those that both sides share, plus the side's own."""

    shared: Rng
    own: Rng

    def jitter(self, size: int = 1) -> AnyArray:
        """Normal numbers [size] of which both sides share a part."""
        return self.shared.standard_normal(size) + self.own.standard_normal(size)


def on_cerebrum(azimuth: float, height: float, scale: float) -> Triple:
    """A point of the cerebrum's envelope; azimuth 0 is lateral and pi/2 anterior, height -pi/2..pi/2 (radians)."""
    y = CEREBRUM_AXES[1] * scale * np.cos(height) * np.sin(azimuth)
    x = CEREBRUM_AXES[0] * scale * np.cos(height) * np.cos(azimuth) * (1 - 0.0008 * y)
    return triple((x, y, CEREBRUM_CENTRE[2] + CEREBRUM_AXES[2] * scale * np.sin(height)))


# The first part (M1) of the middle cerebral artery: open, or closed by a clot in its distal half.
_M1 = tubes_of("11 16 -15, 17 17.5 -13.5, 24 17 -13.5, 32 14 -11 | 1.6 1.45")
_BEFORE_CLOT = tubes_of("11 16 -15, 17 17.5 -13.5, 24 17 -13.5 | 1.6 1.5")
_CLOT = tubes_of("24.5 17 -13.4, 32 14 -11 | 1.5 1.45")


_CAROTID = tubes_of("""
25 -4 -80, 24 2 -62, 22 3 -50, 13 12 -42, 11 22 -36, 11 27 -27, 11 16 -15 | 2.4 2.0
11 16 -15, 7 21 -14, 2.6 25 -13 | 1.3 1.2
""")


def _anterior(walk: _Walk) -> list[Tube]:
    """Internal carotid and anterior cerebral artery of one side, with branches on the medial surface."""
    parts = list(_CAROTID)
    arch = [(2.6, 25.0, -13.0), (2.4, 33.0, -6.0)]
    arch += [(2.2, 47 * np.cos(a), 6 + 29 * np.sin(a)) for a in np.linspace(-0.1, 2.35, 9)]
    parts.append(tube(arch, (1.2, 0.6)))
    for index in (2, 4, 6, 7, 8):
        root = arch[index]
        angle = np.arctan2(root[2] - 6, root[1]) + 0.1 * walk.jitter()[0]
        steps = [
            (
                2.0,
                root[1] + r * np.cos(angle + 0.006 * r),
                root[2] + r * np.sin(angle + 0.006 * r),
            )
            for r in (9, 18)
        ]
        parts.append(tube((root, *steps), (0.8, 0.5)))
    return parts


def _middle(walk: _Walk) -> list[Tube]:
    """Branches of the middle cerebral artery: through the Sylvian fissure, then over the convexity."""
    parts = list(_FORK)
    for stem, courses in zip(_FORK, (_UPPER_BRANCHES, _LOWER_BRANCHES)):
        root = triple(stem[-1, 1, :3])
        for azimuth, rising in map(numbers, courses.split(",")):
            parts += _convexity_branch(walk, root, azimuth, rising)
    return parts


_FORK = tubes_of("""
32 14 -11, 37 12 -5 | 1.3 1.2
32 14 -11, 38 6 -8 | 1.3 1.2
""")
# Azimuth and rise (radians) of each branch over the convexity.
_UPPER_BRANCHES = "0.75 0.9, 0.42 1.0, 0.12 1.0, -0.2 0.95, -0.5 0.75"
_LOWER_BRANCHES = "0.1 -0.35, -0.45 -0.25, -0.75 0.2"


def _convexity_branch(walk: _Walk, root: Triple, azimuth: float, rising: float) -> list[Tube]:
    azimuth += 0.06 * walk.jitter()[0]
    start = -0.42 + 0.1 * abs(azimuth - 0.1)
    surface = []
    for step, wobble in zip(np.linspace(0, 1, 7), walk.jitter(7)):
        height = start + rising * step
        surface.append(on_cerebrum(azimuth * (1 + 0.35 * step) + 0.05 * wobble, height, 0.985))
    depth = (
        0.55 * root[0] + 0.45 * surface[0][0],
        0.5 * (root[1] + surface[0][1]),
        0.5 * (root[2] + surface[0][2]),
    )
    parts = [tube((root, depth, *surface), (1.15, 0.5))]
    for index in (2, 4):
        turn = (1 if walk.jitter()[0] > 0 else -1) * 0.16
        twig = [
            on_cerebrum(
                azimuth * (1 + 0.06 * index) + turn * k,
                start + rising * (index / 6 + 0.13 * k),
                0.985,
            )
            for k in (1, 2)
        ]
        parts.append(tube((surface[index], *twig), (0.75, 0.45)))
    return parts


def _posterior(walk: _Walk) -> list[Tube]:
    """Vertebral, posterior communicating and posterior cerebral artery of one side."""
    sway = 1.5 * walk.jitter(3)
    far = ((15 + sway[0], -44, -3), (13, -58 + sway[1], 2), (11, -72, 6 + sway[2]))
    cerebral = tube(((0, 3, -22), (9, 1, -19.5), (17, -10, -15), (18, -27, -9), *far), (1.3, 0.6))
    return [cerebral, *_VERTEBRAL]


_VERTEBRAL = tubes_of("""
13 -14 -80, 11 -10 -66, 6 -1 -54, 0 1.5 -46 | 1.8 1.5
11 17 -16.5, 10 8 -18, 9 1 -19.5 | 0.7 0.7
18 -27 -9, 30 -42 -12, 38 -52 -8 | 0.8 0.5
0 2 -27, 10 -5 -25, 19 -20 -20, 22 -40 -14 | 0.9 0.5
""")
_MIDLINE_ARTERIES = tubes_of("""
0 1.5 -46, 0 2.5 -34, 0 3 -22 | 1.8 1.6
-2.6 25 -13, 2.6 25 -13 | 0.9 0.9
""")


def _crest(angle: float) -> Triple:
    """A point of the sinus along the mid-line, above the brain; 0 is anterior, pi/2 the vertex (radians)."""
    y = (CEREBRUM_AXES[1] - 0.5) * np.cos(angle)
    z = 18 + (CEREBRUM_AXES[2] - 0.5) * np.sin(angle)
    return triple((0, y, z))


_CONFLUENCE = " ".join(map(str, _crest(3.5)))


def _midline_veins() -> list[Tube]:
    arc = [_crest(angle) for angle in np.linspace(0.35, 3.5, 26)]
    straight = tubes_of(f"0 -36 9, 0 -50 6, 0 -64 0, {_CONFLUENCE} | 1.8 2.3")
    lower = tube(
        tuple((0.0, 44 * np.cos(a), 8 + 30 * np.sin(a)) for a in np.linspace(0.5, 2.6, 9)),
        (0.7, 1.0),
    )
    return [tube(arc, (2.0, 4.2)), *straight, lower]


def _drainage(walk: _Walk) -> list[Tube]:
    """Veins of one side: deep, transverse and sigmoid sinus, bridging and Sylvian veins."""
    sinuses = f"{_CONFLUENCE}, 20 -74 -7, 40 -58 -12, 52 -38 -18, 50 -28 -32, 36 -22 -46, 29 -12 -80 | 3.4 3.0"
    parts = [*tubes_of("2 18 12, 2.2 0 13.5, 2 -22 12, 0 -36 9 | 0.8 1.3"), *tubes_of(sinuses)]
    for azimuth in (1.15, 0.75, 0.3, -0.2, -0.65, -1.1):
        azimuth += 0.08 * walk.jitter()[0]
        heights = np.linspace(0.45 + 0.1 * walk.jitter()[0], 1.42, 5)
        path = [on_cerebrum(azimuth * (1 - 0.06 * k), float(h), 1.0) for k, h in enumerate(heights)]
        top = np.arctan2((path[-1][2] - 18) / CEREBRUM_AXES[2], path[-1][1] / CEREBRUM_AXES[1])
        parts.append(tube((*path, _crest(top)), (0.6, 1.1)))
    return parts


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


Plate = tuple[Triple, float]  # centre and radius in mm


def draw_teeth(rng: Rng) -> dict[Label, list[Tube]]:
    """Draw the teeth of both jaws, with their fillings and crowns, in the order in which they are painted."""
    lost = rng.choice((0.03, 0.1, 0.5, 1.0), p=(0.5, 0.3, 0.15, 0.05))
    filled = rng.choice((0.0, 0.1, 0.3))
    chance = rng.random((4, _TEETH))
    has_crown = rng.random((4, _TEETH)) < 0.3
    jaw_mm = rng.uniform(-5, 4)
    parts: dict[Label, list[Tube]] = {Label.TOOTH: [], Label.METAL: []}
    for quarter, place in np.argwhere(chance >= lost).tolist():
        crown, root = _tooth((1, 1, -1, -1)[quarter], quarter % 2 == 0, place, jaw_mm)
        radius = 2.6 + 0.25 * place
        parts[Label.TOOTH].append(tube((crown, root), (radius, 1.4)))
        if chance[quarter, place] > 1 - filled:
            reach, more = (0.45, 0.2) if has_crown[quarter, place] else (0.25, -1.2)
            end = triple(c + reach * (r - c) for c, r in zip(crown, root))
            parts[Label.METAL].append(tube((crown, end), (radius + more, radius + more)))
    return parts


def draw_plates(rng: Rng) -> list[Plate]:
    """Draw the metal that holds a flap of bone on one side of the vault after an operation; most heads have none."""
    if rng.random() >= _OPERATED:
        return []
    side = int(rng.choice((-1, 1)))
    azimuth, height = rng.uniform((-0.9, 0.1), (0.9, 0.9))
    plates = []
    for turn in np.arange(rng.integers(3, 5)) * 1.7:
        x, y, z = on_cerebrum(azimuth + 0.45 * np.sin(turn), height + 0.4 * np.cos(turn), 1.12)
        plates.append(((side * x, y, z), rng.uniform(4, 9)))
    return plates


def paint_plates(canvas: Canvas, plates: list[Plate], points: Space) -> None:
    """Paint the metal of plates on the outer surface of the skull, one voxel thick."""
    for centre, radius_mm in plates:
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


def _tooth(side: int, upper: bool, place: int, jaw_mm: float) -> tuple[Triple, Triple]:
    """Crown and root of one tooth; place 0 is the front one."""
    angle = 0.09 + 0.235 * place
    wide, deep = _ROW_MM
    x = side * (wide - 1.5 * (not upper)) * np.sin(angle)
    y = _ROW_CENTRE_Y_MM + (deep - 2.5 * (not upper)) * np.cos(angle)
    crown = _UPPER_MM - 5 if upper else _LOWER_MM + 4 + 0.4 * jaw_mm
    root = crown + (17 if upper else -16)
    return (float(x), float(y), crown), (float(0.94 * x), float(y - 1.5), root)


def hollow(rng: Rng, points: Space) -> tuple[AnyArray, AnyArray]:
    """Draw the cells of a head: distances to the lined cells of mastoids and brow, and to their air, which walls divide.

    Sizes and the thickness of the lining differ between the sides; the septa of the left side mirror those of the right. One
    head in ten has no frontal sinuses.
    """
    mastoid_sizes, frontal_sizes = rng.uniform(0.55, 1.25, (2, 1)) * rng.uniform(0.85, 1.15, (2, 2))
    if rng.random() < 0.1:
        frontal_sizes = np.full(2, 0.05)
    swollen = rng.random(2) < 0.25
    mucosa_mm = np.where(swollen, rng.uniform(1.5, 6, 2), rng.uniform(0.1, 1.0, 2))
    cells = noise(rng, 13, 2.5, 64, cells=True)

    right = points.x > 0
    half = points.half
    size = _by_side(right, mastoid_sizes)
    mastoid = half.ellipsoid(_MASTOID, size)
    mastoid = np.minimum(mastoid, np.where(size > 0.95, half.ellipsoid(_APEX), 9))
    septa = 0.7 - np.abs(cells.at((half.y, half.z, half.x)))
    brow = half.ellipsoid(_FRONTAL, _by_side(right, frontal_sizes))
    walls = np.maximum(0.9 - half.x, 0.35 - np.abs(cells.at((points.z, points.x, points.y))))
    lining = 0.3 * _by_side(right, mucosa_mm)
    lined = np.minimum(np.maximum(mastoid, septa), np.maximum(brow, walls))
    air = np.minimum(np.maximum(mastoid, septa + lining), np.maximum(brow, walls + lining))
    return lined, air


def _by_side(right: AnyArray, pair: AnyArray) -> AnyArray:
    return np.where(right, np.float32(pair[1]), np.float32(pair[0]))
