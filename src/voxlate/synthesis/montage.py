"""One picture of the images of a case, for notebooks and the command line."""

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image as Picture

from voxlate.base.messages import Message
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.pictures import (
    Plane,
    palette,
    pixel_mm,
    plane_of,
    shades,
    sheet_with_labels,
    square_pixels,
    with_lines,
)
from voxlate.scans.images.ranges import top_of, window_of

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")


def show_case(
    volumes: Mapping[str, Volume],
    std: Mapping[str, Volume],
    mark: str,
    warnings: Iterable[Message],
    tile: int,
) -> Picture.Image:
    """The middle axial, coronal and sagittal slice of each image and of its spread, with what is more than a note.

    mark: the beginning of the names; tile: pixels along each side of a slice.
    """
    shown = []
    for name, volume in volumes.items():
        ends = window_of(volume)
        text = f"{mark}{name}, {ends[0]:.4g} to {ends[1]:.4g} {volume.unit}"
        shown.append((text, volume, ends, "gray"))
        if name in std:
            ends = (0.0, top_of(std[name], volume))
            text = f"{mark}{name}: standard deviation, 0 to {ends[1]:.4g} {volume.unit}"
            shown.append((text, std[name], ends, "inferno"))
    rows = [
        (text, [palette(colours)[grey] for grey in middle_slices(volume, *ends)])
        for text, volume, ends, colours in shown
    ]
    sheet = sheet_with_labels(rows, PLANES, tile)
    return with_lines(sheet, [str(note) for note in warnings if note.grade != "note"])


def middle_slices(volume: Volume, low: float, high: float) -> list[np.ndarray]:
    """The middle slices of a volume in its three planes as greys [H, W], with square pixels."""
    upright = canonical_view(volume)
    pictures = []
    for axis, plane in enumerate(PLANES):
        middle = plane_of(upright.data[0], plane, upright.data.shape[1 + axis] // 2)
        grey = shades(middle, low, high)
        pictures.append(square_pixels(grey, pixel_mm(upright.grid.spacing_mm, plane)))
    return pictures
