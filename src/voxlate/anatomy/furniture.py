"""What a head lies on in a CT scanner: table and head holder, in scanner coordinates.

Both are shells of carbon fibre or plastic (`Label.TABLE`); the table has a core of foam, and the holder is lined with it.
The head is painted over them, so foam that it would compress ends at the skin.
"""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.canvas import Canvas
from voxlate.anatomy.shapes import Pair, Rng, Space, overlap
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray

# Half width and half length of the outline of a head of average size, and its centre: `anatomy._turn`.
HALF_WIDTH_MM = 79.0
HALF_LENGTH_MM = 98.0
CENTRE_Y_MM = -6.0
# Shares of scans that show nothing, the holder, the table, or both. The field of view or the preparation of some leaves
# out what lies below the head.
_SHARES = (0.15, 0.45, 0.15, 1 - 0.15 - 0.45 - 0.15)


@dataclass(frozen=True)
class Holder:
    """A shell behind and beside the head: part of an elliptic cylinder along z, whose axis may be inclined.

    half_mm: half width and half depth of its inner surface; top_mm: height (y) up to which it surrounds the head.
    """

    centre_mm: Pair
    half_mm: Pair
    incline: float
    top_mm: float
    shell_mm: float
    foam_mm: float


@dataclass(frozen=True)
class Couch:
    """A couch below the holder. radius_mm: of its curved surface, infinite for a flat board; top_mm: its height (y)."""

    top_mm: float
    radius_mm: float
    half_width_mm: float
    thick_mm: float
    skin_mm: float


@dataclass(frozen=True)
class Furniture:
    """The table and head holder of one scan; None: the scan shows none."""

    holder: Holder | None
    table: Couch | None


def draw(rng: Rng, scale: AnyArray) -> Furniture:
    """Draw the table and head holder of a scan; scale: that of the head in x, y, z, which the holder fits."""
    kind = int(rng.choice(4, p=_SHARES))
    holder, table = _holder(rng, scale), _table(rng, scale)
    return Furniture(holder if kind in (1, 3) else None, table if kind in (2, 3) else None)


def _holder(rng: Rng, scale: AnyArray) -> Holder:
    # Real scans show the arc 10 to 40 mm from the skin.
    beside, behind = rng.uniform((12, 10), (45, 32))
    half_width = float(HALF_WIDTH_MM * scale[0] + beside)
    half_depth = float(HALF_LENGTH_MM * scale[1] + behind)
    lows, highs = (-8, -0.08, -75, 1.8, -6), (8, 0.08, -5, 4.5, 14)
    x, incline, top, shell, foam = rng.uniform(lows, highs).tolist()
    return Holder((x, CENTRE_Y_MM), (half_width, half_depth), incline, top, shell, max(foam, 0.0))


def _table(rng: Rng, scale: AnyArray) -> Couch:
    back = CENTRE_Y_MM - HALF_LENGTH_MM * scale[1]
    flat = rng.random() < 0.4
    lows, highs = (4, 190, 140, 14, 1), (30, 320, 210, 45, 3)
    gap, radius, half_width, thick, skin = rng.uniform(lows, highs).tolist()
    return Couch(float(back - gap), np.inf if flat else radius, half_width, thick, skin)


def paint(canvas: Canvas, furniture: Furniture, points: Space) -> None:
    """Paint table and head holder, before the head; points: scanner coordinates in mm."""
    if furniture.table is not None:
        _paint_table(canvas, furniture.table, points)
    if furniture.holder is not None:
        _paint_holder(canvas, furniture.holder, points)


def _paint_table(canvas: Canvas, table: Couch, points: Space) -> None:
    x, y, _ = points
    if np.isinf(table.radius_mm):
        below = y - table.top_mm
    else:
        # The couch is a trough: its axis runs one radius above its lowest line.
        below = table.radius_mm - np.hypot(x, y - table.top_mm - table.radius_mm)
        below = np.where(y < table.top_mm + table.radius_mm, below, table.radius_mm)
    half = table.thick_mm / 2
    board = overlap(np.abs(below + half) - half, np.abs(x) - table.half_width_mm)
    canvas.paint(Label.TABLE, board)
    canvas.paint(Label.FOAM, board + table.skin_mm)


def _paint_holder(canvas: Canvas, holder: Holder, points: Space) -> None:
    x, y, z = points
    across = x - holder.centre_mm[0]
    down = y - holder.centre_mm[1] - holder.incline * z
    inner = _ellipse(across, down, holder.half_mm)
    open_above = y - holder.top_mm
    middle = holder.shell_mm / 2
    shell = overlap(np.abs(inner - middle) - middle, open_above)
    foam = overlap(inner, -inner - holder.foam_mm, open_above + 6)
    if holder.foam_mm:
        canvas.paint(Label.FOAM, foam)
    canvas.paint(Label.TABLE, shell)


def _ellipse(x: AnyArray, y: AnyArray, half_mm: Pair) -> AnyArray:
    """Distance to an ellipse to first order, as `shapes.ellipsoid`."""
    a, b = x / half_mm[0], y / half_mm[1]
    k0 = np.hypot(a, b)
    k1 = np.hypot(a / half_mm[0], b / half_mm[1])
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, 1e-6))
