"""The pose of a head or brain in a scan, by comparison with a mean head in all poses; bone and air are dark in any MR.

mean_head.npy and mean_brain.npy hold tissue (0 to 255) in cells of CELL_MM below the crown, [feet to head, back to front,
left to right]; benchmarks/mean_head.py makes them of drawn label maps.
"""

import functools
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from voxlate.base.array_types import Bool, Float32, Float64
from voxlate.scans.images.mask import box_around

Kind = Literal["head", "brain"]
CELL_MM = 8.0
SHAPE = (25, 30, 24)
UPPER_MM = 100.0  # below the crown, whose middle is that of the mean head
LOWER, ASIDE = 14, 2  # cells by which a scan's crown may be missing, and its middle be elsewhere
FEWEST_CELLS = 2000  # cells that are compared
TINY = 1e-9
# What a scan was read as, by the order of its axes and those that are mirrored.
AS_READ = (0, 1, 2)
POSES: Mapping[str, Sequence[tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "upright": [(AS_READ, ())],
    "backwards": [(AS_READ, (1,))],
    "upside": [(AS_READ, (0,)), (AS_READ, (0, 1))],
    "exchanged": [
        *product([(0, 2, 1)], [(), (1,)]),
        *product([(1, 0, 2), (2, 1, 0)], [(), (0,)]),
    ],
}


def pose_of(kind: Kind, tissue: Float32, body: Bool, spacing_mm: Float64) -> dict[str, float]:
    """How alike a scan is to the mean head or brain as it lies (upright), in the pose that fits best (otherwise), and their difference.

    tissue: [D, H, W], 0 for air and 1 from the median of the body on, smoothed for cells.
    """
    likeness = {}
    for name, ways in POSES.items():
        cells = (
            cells_of(
                np.flip(tissue.transpose(order), mirrored),
                np.flip(body.transpose(order), mirrored),
                spacing_mm[list(order)],
            )
            for order, mirrored in ways
        )
        likeness[name] = max(likeness_of(kind, one) for one in cells)
    upright = likeness.pop("upright")
    best = max(likeness, key=likeness.__getitem__)
    otherwise = likeness[best]
    return {"upright": upright, "otherwise": otherwise, best: otherwise - upright}


def cells_of(tissue: Float32, body: Bool, spacing_mm: Float64) -> Float32:
    """The tissue of a scan [D, H, W] in cells below its crown, NaN beyond the scan and in slices below the body."""
    lowest, top = box_around(body)[0]
    upper = slice(max(0, top - max(1, int(UPPER_MM / spacing_mm[0]))), top)
    middle = [sum(ends) / 2 for ends in box_around(body[upper])[1:]]
    below_mm = (np.arange(-SHAPE[0], 0) + 0.5) * CELL_MM
    aside_mm = [(np.arange(n) - (n - 1) / 2) * CELL_MM for n in SHAPE[1:]]
    out = np.full(SHAPE, np.nan, np.float32)
    places = [
        np.floor(at + mm / side).astype(int)
        for at, mm, side in zip((top, *middle), (below_mm, *aside_mm), spacing_mm)
    ]
    known = [(p >= low) & (p < n) for p, low, n in zip(places, (lowest, 0, 0), tissue.shape)]
    out[np.ix_(*known)] = tissue[np.ix_(*(place[there] for place, there in zip(places, known)))]
    return out


def likeness_of(kind: Kind, cells: Float32) -> float:
    """The correlation of cells with the mean at the place where it is largest, over the cells that both have."""
    heads, squared, there = _means(kind)
    seen = np.isfinite(cells).ravel()
    values = np.where(seen, cells.ravel(), 0)
    seen = seen.astype(np.float32)
    count = np.maximum(there @ seen, 1)
    means = (there @ values) / count, (heads @ seen) / count
    squares = [
        product - count * mean**2
        for product, mean in zip((there @ values**2, squared @ seen), means)
    ]
    shared = heads @ values - count * means[0] * means[1]
    alike = shared / np.sqrt(np.maximum(squares[0] * squares[1], TINY))
    return float(np.where(count >= FEWEST_CELLS, alike, -1).max())


@functools.cache
def _means(kind: Kind) -> tuple[Float32, Float32, Float32]:
    """The mean head or brain [places, cells] at each place that a scan may have, its square, and where it is known (0 or 1)."""
    stored = np.load(Path(__file__).with_name(f"mean_{kind}.npy"), allow_pickle=False)
    head = stored.astype(np.float32) / 255
    ways = [*product(range(LOWER), range(-ASIDE, ASIDE + 1))]
    heads, there = np.zeros((2, len(ways), *SHAPE), np.float32)
    for moved, known, (lower, aside) in zip(heads, there, ways):
        moved[lower:] = np.roll(head, aside, 1)[: SHAPE[0] - lower]
        known[lower:] = 1
    heads = heads.reshape(len(ways), -1)
    there = there.reshape(len(ways), -1)
    return heads, heads**2, there
