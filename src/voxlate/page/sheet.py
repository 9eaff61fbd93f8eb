"""The error that a result lets expect by tissue and height."""

import numpy as np

from voxlate.evaluation.intervals.expected import mean_error
from voxlate.evaluation.scoring.intervals import Interval
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.regions import TISSUES_HU

TISSUES = ("soft_tissue", "bone")
HEIGHTS = ("lower third", "middle third", "upper third")
FEWEST_VOXELS = 1000  # voxels of a region of which a mean is stated


def errors_by_region(width: Volume, image: Volume, interval: Interval) -> list[tuple[str, float]]:
    """The mean error that the intervals let expect by tissue and third of the body's height, the least first.

    Air outside of soft tissue and bone is left out: its intervals hold the skin, which a shift of half a voxel moves.
    """
    factor = mean_error({float(level): by for level, by in interval.levels.items()})
    upright = canonical_view(image)
    values = upright.data[0]
    half = canonical_view(width).data[0] / 2
    inside = foreground(upright)
    tissues = TISSUES if image.unit == "HU" else ("body",)
    found = []
    levels = np.array_split(np.flatnonzero(inside.any(axis=(1, 2))), len(HEIGHTS))
    for tissue in tissues if factor else ():
        low, high = TISSUES_HU.get(tissue, (-np.inf, np.inf))
        for height, slices in zip(HEIGHTS, levels):
            there = inside[slices] & (values[slices] >= low) & (values[slices] < high)
            if there.sum() >= FEWEST_VOXELS:
                error = factor * float(half[slices][there].mean())
                found.append((f"{tissue.replace('_', ' ')}, {height}", float(f"{error:.2g}")))
    return sorted(found, key=lambda region: region[1])
