"""The airways of a head: nose, paranasal sinuses, mastoid cells, ears' canals and pharynx.

How far sinuses are pneumatised, and how much mucosa or fluid they hold, differs between heads and between sides.
"""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.canvas import Canvas, within
from voxlate.anatomy.shapes import (
    NoiseField,
    Rng,
    Space,
    join,
    noise,
    numbers,
    overlap,
    union,
)
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray

_FRONTAL = "6 84 4 | 30 32 36"  # where bone of the brow may be hollow
_APEX = "34 -8 -40 | 13 5 4.5"  # of the petrous bone, which wide cells reach
SINUSES = ("frontal", "maxillary", "ethmoid", "sphenoid", "mastoid")


@dataclass(frozen=True)
class Airways:
    """The random numbers of one head's airways.

    size: for each of SINUSES its relative size, left and right; mucosa_mm: thickness of its lining, likewise; level:
    height of fluid above the sinus' posterior wall as a share of its depth, 0 in most; cells: distance to the septa of
    cells; deviation_mm: of the nasal septum; cycle: swelling of the turbinates, left and right; mouth_mm: by which the mouth
    is open.
    """

    size: dict[str, AnyArray]
    mucosa_mm: dict[str, AnyArray]
    level: dict[str, AnyArray]
    cells: NoiseField
    deviation_mm: float
    cycle: AnyArray
    pharynx: float
    mouth_mm: float


def draw(rng: Rng) -> Airways:
    """Draw the airways."""
    size, mucosa, level = {}, {}, {}
    for name in SINUSES:
        common = rng.uniform(0.55, 1.12)
        size[name] = common * rng.uniform(0.85, 1.15, 2)
        swollen = rng.random(2) < 0.25
        mucosa[name] = np.where(swollen, rng.uniform(1.5, 6, 2), rng.uniform(0.1, 1.0, 2))
        wet = rng.random(2) < 0.06
        level[name] = np.where(wet, rng.uniform(0.2, 1.3, 2), 0.0)
    if rng.random() < 0.1:
        size["frontal"] = np.zeros(2)
    return Airways(
        size=size,
        mucosa_mm=mucosa,
        level=level,
        cells=noise(rng, 13, 2.5, 64, narrow=True, distance=True),
        deviation_mm=float(rng.normal(0, 1.5)),
        cycle=rng.uniform(0.7, 1.25, 2),
        pharynx=float(rng.uniform(0.6, 1.3)),
        mouth_mm=float(rng.uniform(2, 10) if rng.random() < 0.35 else 0.0),
    )


def paint(
    canvas: Canvas,
    airways: Airways,
    points: Space,
    cavity: AnyArray,
    outline: AnyArray,
) -> None:
    """Paint the air spaces of the face, with their bony walls and mucosa."""
    outside = (cavity > 1.2) & (outline < -3)
    canvas, points, outside = within("-60 0 -200 | 60 120 30", canvas, points, outside)
    half = points.half
    right = points.x > 0
    _frontal(canvas, airways, half, right, outside)
    _ethmoid(canvas, airways, half, right, outside)
    _nose(canvas, airways, points)
    _sinus(canvas, airways, "sphenoid", _sphenoid(half, right, airways), half, right, outside, 15)
    _sinus(canvas, airways, "maxillary", _maxillary(half, right, airways), half, right, outside, 45)
    _pharynx(canvas, airways, points)


def _by_side(right: AnyArray, pair: AnyArray) -> AnyArray:
    return np.where(right, np.float32(pair[1]), np.float32(pair[0]))


def _sinus(
    canvas: Canvas,
    airways: Airways,
    name: str,
    wall: AnyArray,
    half: Space,
    right: AnyArray,
    outside: AnyArray,
    back_mm: float,
) -> None:
    """Paint one sinus: bone around it, mucosa on its wall, fluid at its back, air; wall: distance to its bone."""
    canvas.paint(Label.BONE, wall - 1.2, outside)
    canvas.paint(Label.MUCOSA, wall, outside)
    air = wall + _by_side(right, airways.mucosa_mm[name])
    canvas.paint(Label.SINUS, air, outside)
    if max(airways.level[name]) > 0:
        level = _by_side(right, airways.level[name])
        fluid = overlap(air, half.y - (back_mm + 34 * level))
        canvas.paint(Label.SINUS_FLUID, fluid, outside & (level > 0))


def _ellipsoid_of_size(half: Space, size: AnyArray, text: str) -> AnyArray:
    """Distance to an ellipsoid "x y z | a b c" whose half axes are multiplied by size."""
    centre, _, axes = text.partition("|")
    x, y, z = ((p - c) / size for p, c in zip(half, numbers(centre)))
    return Space(x, y, z).ellipsoid(f"0 0 0 | {axes}") * size


def _maxillary(half: Space, right: AnyArray, airways: Airways) -> AnyArray:
    size = _by_side(right, airways.size["maxillary"])
    box = _ellipsoid_of_size(half, size, "29 63 -65 | 14.5 18 17")
    # The roof is the floor of the orbit, the inner wall that of the nose.
    return overlap(box, half.z + 54 - 0.12 * (half.y - 63), 15 - half.x)


def _sphenoid(half: Space, right: AnyArray, airways: Airways) -> AnyArray:
    size = _by_side(right, airways.size["sphenoid"])
    return overlap(_ellipsoid_of_size(half, size, "8 29 -39 | 9.5 13 9.5"), 0.7 - half.x)


def _frontal(
    canvas: Canvas, airways: Airways, half: Space, right: AnyArray, outside: AnyArray
) -> None:
    size = _by_side(right, airways.size["frontal"])
    if size.max(initial=0) == 0:
        return
    x, y, z = half
    wide = np.maximum(size, 0.05)
    scaled = Space((x - 10 * wide) / wide, (y - 88 + 0.004 * x * x), (z + 10 - 6 * wide) / wide)
    wall = scaled.ellipsoid("0 0 0 | 13 5.0 14")
    wall = overlap(wall, 0.8 - x)
    canvas.paint(Label.BONE, overlap(wall - 2.2, -14 - z), outside)
    _sinus(canvas, airways, "frontal", wall, half, right, outside, 80)


def _ethmoid(
    canvas: Canvas, airways: Airways, half: Space, right: AnyArray, outside: AnyArray
) -> None:
    """Cells between nose and orbit, whose septa are thinner than a voxel."""
    x, y, z = half
    narrow = 12.5 - 0.05 * np.abs(y - 62)
    box = overlap(x - narrow, 3.5 - x, np.abs(y - 62) - 22, np.abs(z + 34) - 11)
    cells = np.abs(airways.cells.at(half)) - 0.55
    canvas.paint(Label.BONE, box - 0.8, outside)
    swollen = _by_side(right, airways.mucosa_mm["ethmoid"])
    canvas.paint(Label.MUCOSA, overlap(box, -cells), outside)
    canvas.paint(Label.SINUS, overlap(box, 0.35 * swollen - cells), outside)


def _nose(canvas: Canvas, airways: Airways, points: Space) -> None:
    """The nasal cavity with its septum and turbinates, open to the pharynx and to the nostrils."""
    x, y, z = points
    bent = x - airways.deviation_mm * np.exp(-(((y - 66) / 20) ** 2) - ((z + 54) / 16) ** 2)
    side = np.abs(bent)
    half = points.at(x=side)
    lower = half.ellipsoid("0 60 -62 | 15 36 12")
    upper = half.ellipsoid("0 64 -44 | 5.5 28 22")
    cavity = join(lower, upper, 6)
    canvas.paint(Label.BONE, overlap(cavity - 1.2, y - 84))
    canvas.paint(Label.MUCOSA, cavity)
    canvas.paint(Label.SINUS, cavity + 1.0)
    swelling = _by_side(x > 0, airways.cycle)
    inferior = half.tubes("10 82 -66, 9 34 -65 | 4.0 4.0", 6) - 4 * (swelling - 1)
    middle = half.tubes("6.5 74 -53, 6.5 34 -55 | 2.6 2.6", 6) - 3 * (swelling - 1)
    canvas.paint(Label.MUCOSA, overlap(union(inferior, middle), cavity))
    canvas.paint(Label.BONE, overlap(union(inferior + 3.2, middle + 1.9), cavity))
    septum = overlap(side - 0.8, cavity)
    canvas.paint(Label.MUCOSA, overlap(side - 1.9, cavity))
    canvas.paint(Label.CARTILAGE, overlap(septum, 66 - y))
    canvas.paint(Label.BONE, overlap(septum, y - 66))
    canvas.paint(Label.SINUS, half.tubes("6 106 -68, 6 92 -66, 7 80 -66 | 3.6 4.4", 6))


def _pharynx(canvas: Canvas, airways: Airways, points: Space) -> None:
    wide = airways.pharynx
    x, y, _ = points
    nasal = points.ellipsoid(f"0 22 -62 | 11 {9 * wide} 12")
    flat = points.at(y=20 + (y - 20) / wide)
    oral = flat.tubes("0 20 -70, 0 18 -92, 0 20 -150 | 7.5 8.0", 8)
    oral = overlap(oral, np.abs(y - 20) - 6.5 * wide)
    half_mm = 1.2 * wide + airways.mouth_mm / 2
    mouth = points.ellipsoid(f"0 56 {-75.5 - airways.mouth_mm / 2} | 17 26 {half_mm}")
    wall = union(nasal, oral)
    canvas.paint(Label.MUSCLE, overlap(wall - 3.0, y - 40))
    canvas.paint(Label.SINUS, union(wall, mouth))
    plate = points.at(x=x / 3).tubes("0 38 -73, 0 29 -78, 0 27 -86 | 3.2 2.6", 5)
    canvas.paint(Label.MUSCLE, plate)


def mastoid_cells(airways: Airways, points: Space, region: str) -> tuple[AnyArray, AnyArray]:
    """Distances to the lined cells and to their air in a region of the right side, and of the left one as its mirror image.

    region: "x y z | a b c", the centre and half axes of an ellipsoid of size 1.
    """
    right = points.x > 0
    half = Space(np.abs(points.x), points.y, points.z)
    size = _by_side(right, airways.size["mastoid"])
    within_mm = _ellipsoid_of_size(half, size, region)
    within_mm = union(within_mm, np.where(size > 0.95, half.ellipsoid(_APEX), 9))
    septa = 0.7 - np.abs(airways.cells.at((half.y, half.z, half.x)))
    lining = 0.3 * _by_side(right, airways.mucosa_mm["mastoid"])
    return overlap(within_mm, septa), overlap(within_mm, septa + lining)


def frontal_cells(airways: Airways, points: Space) -> tuple[AnyArray, AnyArray]:
    """Distances to the lined frontal sinuses and to their air, which a septum and a few walls divide."""
    half = Space(np.abs(points.x), points.y, points.z)
    size = _by_side(points.x > 0, np.maximum(airways.size["frontal"], 0.05))
    within_mm = _ellipsoid_of_size(half, size, _FRONTAL)
    walls = overlap(0.9 - half.x, 0.35 - np.abs(airways.cells.at((points.z, points.x, points.y))))
    lining = 0.3 * _by_side(points.x > 0, airways.mucosa_mm["frontal"])
    return overlap(within_mm, walls), overlap(within_mm, walls + lining)


def paint_mastoid(canvas: Canvas, airways: Airways, points: Space) -> None:
    """Paint mastoid cells, the middle ear and the ear's canal into the temporal bone."""
    canvas, points = within("-95 -60 -75 | 95 15 -15", canvas, points)
    half = points.half
    bone = np.isin(canvas.label, (Label.BONE, Label.DIPLOE))
    lined, air = mastoid_cells(airways, points, "55 -28 -46 | 10.5 15 17")
    canvas.paint(Label.MUCOSA, lined, bone)
    canvas.paint(Label.SINUS, air, bone)
    canal = half.tubes("88 -10 -38, 68 -11 -38, 50 -9 -37 | 4.2 3.2", 5)
    canvas.paint(Label.SINUS, union(canal, half.ellipsoid("44 -8 -37 | 4 5 6")))
    inner = half.tubes("17 -6 -35, 28 -9 -36 | 2.6 2.4", 4)
    canvas.paint(Label.CSF, union(inner, half.ellipsoid("38 -7 -38 | 3 3 3")))
