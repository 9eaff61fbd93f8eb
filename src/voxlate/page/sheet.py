"""What the sheet of a result shows: three planes of each image, and the error to expect by tissue and height."""

import numpy as np

from voxlate.evaluation.intervals.bounds import mean_error
from voxlate.evaluation.scoring.intervals import Interval
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.pictures import data_uri, pixel_mm, plane_of, shades, square_pixels
from voxlate.scans.images.tissues_hu import TISSUES_HU
from voxlate.synthesis.pictures import PLANES

TISSUES = ("soft_tissue", "bone")
HEIGHTS = ("lower third", "middle third", "upper third")
FEWEST = 1000  # voxels of a region of which a mean is stated
SMALL = 64  # pixels along a side of the queue's picture


def plane_pictures(
    volume: Volume, low: float, high: float, colours: str = "gray", most: int = 0
) -> list[str]:
    """The middle axial, coronal and sagittal slice as PNGs in data URIs; most: pixels along a side, 0 for any number."""
    upright = canonical_view(volume)
    data, found = upright.data[0], list[str]()
    for axis, plane in enumerate(PLANES):
        middle = shades(plane_of(data, plane, data.shape[axis] // 2), low, max(high, low + 1e-6))
        picture = square_pixels(middle, pixel_mm(upright.grid.spacing_mm, plane))
        step = -(-max(picture.shape) // most) if most else 1
        found.append(data_uri(picture[::step, ::step], colours))
    return found


def errors_by_region(width: Volume, image: Volume, interval: Interval) -> list[tuple[str, float]]:
    """The mean error that the intervals let expect by tissue and third of the body's height, the least first.

    Air outside of soft tissue and bone is left out: its intervals hold the skin, which a shift of half a voxel moves.
    """
    factor = mean_error({float(level): by for level, by in interval.levels.items()})
    upright = canonical_view(image)
    values, half = upright.data[0], canonical_view(width).data[0] / 2
    inside = foreground(upright)
    tissues = TISSUES if image.unit == "HU" else ("body",)
    found = list[tuple[str, float]]()
    levels = np.array_split(np.flatnonzero(inside.any(axis=(1, 2))), len(HEIGHTS))
    for tissue in tissues if factor else ():
        low, high = TISSUES_HU.get(tissue, (-np.inf, np.inf))
        for height, slices in zip(HEIGHTS, levels):
            there = inside[slices] & (values[slices] >= low) & (values[slices] < high)
            if there.sum() >= FEWEST:
                error = factor * float(half[slices][there].mean())
                found.append((f"{tissue.replace('_', ' ')}, {height}", float(f"{error:.2g}")))
    return sorted(found, key=lambda region: region[1])
