"""Which values of an image are black and white in reports and in the viewer of the pages."""

import math
from dataclasses import replace

import numpy as np

from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import body_box_mm, foreground
from voxlate.scans.images.ranges import Range, floor_and_peak, range_for

# These usual windows replace wider scored ranges: of trunks (width 400, level 40), and of heads (width 250, level 75), in
# which the ventricles are darker than the brain, and the skull stands apart from the scalp.
SOFT_TISSUE_HU, HEAD_HU = (-160.0, 240.0), (-50.0, 200.0)
WIDEST_HEAD_MM = 230.0  # from left to right; two trunks have 366 and 400 mm
# Windows of the brain and its vessels by the beginning of a modality's name.
WINDOWS_HU = {"ncct": (0.0, 80.0), "cta": (0.0, 200.0)}
# The rest are edges of the skin, which a shift of half a voxel makes uncertain.
TOP_PERCENTILE = 95.0
TINY = 1e-6
WHITE = 255.0  # the largest grey value, which a window gives to all that it has cut


def shown_range(scale: Range, image: Volume) -> tuple[float, float]:
    """The window of an image of a range: of a CT that of its modality or of the width of its body, else the range."""
    if scale.unit != "HU" or scale.width <= 1000:
        return scale.low, scale.high
    for name, window in WINDOWS_HU.items():
        if image.modality.startswith(name):
            return window
    least, most = body_box_mm(image)
    return HEAD_HU if (most - least)[0] < WIDEST_HEAD_MM else SOFT_TISSUE_HU


def window_of(volume: Volume) -> tuple[float, float]:
    """The window of an image: floor and peak where its unit is arbitrary."""
    scale = range_for(volume.unit, float(volume.data.max()))
    if scale.own:
        return floor_and_peak(volume.data[0], foreground(volume))
    return shown_range(scale, volume)


def picture_window(volume: Volume) -> tuple[float, float]:
    """The window of an image in a picture of 8 bits: grey values stay as they are."""
    return (0.0, WHITE) if volume.unit == "grey" else window_of(volume)


def as_grey(
    volume: Volume, window: tuple[float, float], black: float = 0.0, white: float = WHITE
) -> Volume:
    """A volume, clipped to a window in its unit, as grey values; black, white: those of the window's ends."""
    low, high = window
    gain = np.float32((white - black) / max(high - low, TINY))
    values = (np.clip(volume.data, low, high) - low) * gain + black
    return replace(volume, data=values.astype(np.float32), unit="grey")


def top_of(uncertainty: Volume, image: Volume) -> float:
    """The value of a map that has the brightest colour: a round number that a few voxels of the image's body exceed.

    The window of the image would not do: it has the width of soft tissue, while the intervals of bone are far wider.
    """
    inside = uncertainty.data[0][foreground(image)]
    return nice(float(np.percentile(inside, TOP_PERCENTILE)))


def nice(value: float) -> float:
    """The next round number, at most half as much again, for the end of a colour bar."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    ends = [step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)]
    return next(end for end in ends if end >= value * (1 - 1e-9))
