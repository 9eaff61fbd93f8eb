"""Which values of an image are black and white in reports and in the viewer of the pages."""

import math

import numpy as np

from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import Range, floor_and_peak, range_for

# This usual window (width 400, level 40) replaces wider scored ranges.
SOFT_TISSUE_HU = (-160.0, 240.0)
# Windows of the brain and its vessels by the beginning of a modality's name.
WINDOWS_HU = {"ncct": (0.0, 80.0), "cta": (0.0, 200.0)}
# The rest are edges of the skin, which a shift of half a voxel makes uncertain.
TOP_PERCENTILE = 95.0


def shown_range(scale: Range, modality: str) -> tuple[float, float]:
    """The window of images of a range: of a CT one of its usual windows, else the range."""
    if scale.unit != "HU" or scale.width <= 1000:
        return scale.low, scale.high
    windows = (window for name, window in WINDOWS_HU.items() if modality.startswith(name))
    return next(windows, SOFT_TISSUE_HU)


def window_of(volume: Volume) -> tuple[float, float]:
    """The window of an image: floor and peak where its unit is arbitrary."""
    scale = range_for(volume.unit, float(volume.data.max()))
    if scale.own:
        return floor_and_peak(volume.data[0], foreground(volume))
    return shown_range(scale, volume.modality)


def top_of(uncertainty: Volume, image: Volume) -> float:
    """The value of a map that has the brightest colour: a round number that a few voxels of the image's body exceed.

    The window of the image would not do: it has the width of soft tissue, while the intervals of bone are far wider.
    """
    inside = uncertainty.data[0][foreground(image)]
    return nice(float(np.percentile(inside, TOP_PERCENTILE))) if inside.size else 1.0


def nice(value: float) -> float:
    """The next round number, at most half as much again, for the end of a colour bar."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    ends = [step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)]
    return next(end for end in ends if end >= value * (1 - 1e-9))
