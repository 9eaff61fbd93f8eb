"""One picture of the images of a case, for notebooks and the command line."""

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image as Picture

from voxlate.base.messages import Message
from voxlate.scans.images.grid import Volume, canonical
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
    rows = []
    for name, volume in volumes.items():
        low, high = np.percentile(volume.data, (0.5, 99.5))
        text = f"{mark}{name}, {low:.4g} to {high:.4g} {volume.unit}"
        rows.append((text, _three_planes(volume, low, high, "gray")))
        if name in std:
            spread = std[name]
            most = float(np.percentile(spread.data, 99.5))
            text = f"{mark}{name}: standard deviation of the samples, 0 to {most:.4g} {volume.unit}"
            rows.append((text, _three_planes(spread, 0, most, "inferno")))
    sheet = sheet_with_labels(rows, PLANES, tile)
    return with_lines(sheet, [str(note) for note in warnings if note.grade != "note"])


def _three_planes(
    volume: Volume,
    low: float,
    high: float,
    colours: str,
) -> list[np.ndarray]:
    """The middle slices of a volume in its three planes as pictures [H, W, 3], with square pixels."""
    in_ras = canonical(volume)
    pictures = []
    for axis, plane in enumerate(PLANES):
        middle = plane_of(in_ras.data[0], plane, in_ras.data.shape[1 + axis] // 2)
        grey = shades(middle, low, max(high, low + 1e-6))
        image = square_pixels(grey, pixel_mm(in_ras.grid.spacing_mm, plane))
        pictures.append(palette(colours)[image])
    return pictures
