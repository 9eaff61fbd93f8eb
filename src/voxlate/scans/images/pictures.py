"""Pictures of slices: radiological convention, window, colour map, and images as data URIs."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from voxlate.base.array_types import AnyArray

Plane = Literal["axial", "coronal", "sagittal"]
Picture = NDArray[np.uint8]

# Zero is black, as the background of a scan is; blue below, orange above stays apart for colour-blind readers.
ERROR = ("#9be1ff", "#2a86d1", "#123a66", "#000000", "#6e2f0c", "#d9741a", "#ffdf9e")


def plane_of(volume: AnyArray, plane: Plane, index: int) -> AnyArray:
    """One slice of a canonical [D, H, W] volume as radiologists see it: the patient's left is on the right.

    Axial has anterior on top; coronal and sagittal have superior on top, sagittal has anterior on the left.
    """
    if plane == "axial":
        return volume[index, ::-1, ::-1]
    if plane == "coronal":
        return volume[::-1, index, ::-1]
    return volume[::-1, ::-1, index]


def pixel_mm(spacing_mm: tuple[float, float, float], plane: Plane) -> tuple[float, float]:
    """Height and width of a pixel of a plane, from the spacing along (D, H, W)."""
    depth, height, width = spacing_mm
    return {"axial": (height, width), "coronal": (depth, width), "sagittal": (depth, height)}[plane]


def shades(image: AnyArray, low: float, high: float) -> Picture:
    """Values [H, W] as bytes: low is 0, high is 255, what lies outside is clipped."""
    share = (np.asarray(image, np.float32) - low) / (high - low)
    return np.rint(np.clip(np.nan_to_num(share), 0, 1) * 255).astype(np.uint8)


@lru_cache
def palette(name: str) -> Picture:
    """The 256 colours [256, 3] of a map: "error" (signed, black at zero), or one of matplotlib's."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap  # slow to import

    error = LinearSegmentedColormap.from_list("error", ERROR)
    colours = error if name == "error" else matplotlib.colormaps[name]
    return np.rint(colours(np.arange(256))[:, :3] * 255).astype(np.uint8)


def square_pixels(image: Picture, pixel: tuple[float, float]) -> Picture:
    """Resize bytes [H, W] so that pixels are square (finer side kept)."""
    height = image.shape[0] * pixel[0]
    width = image.shape[1] * pixel[1]
    finest = min(pixel)
    size = (round(width / finest), round(height / finest))
    if size == (image.shape[1], image.shape[0]):
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def sheet_with_labels(
    rows: Sequence[tuple[str, Sequence[Picture]]],
    titles: Sequence[str],
    tile: int,
) -> Image.Image:
    """One picture with a row of tiles for each name, which stands above it if it has one, and a title above each column.

    rows: bytes [H, W] or colours [H, W, 3], each fitted into a square of `tile` pixels.
    """
    line, gap = max(16, tile // 16), 4
    font = ImageFont.load_default(size=line - 2)
    heads = [line if name else 0 for name, _ in rows]
    width = len(titles) * (tile + gap) - gap
    sheet = Image.new("RGB", (width, 2 * line + sum(heads) + len(rows) * (tile + line)), "#000000")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        middle = column * (tile + gap) + tile / 2
        draw.text((middle, line), title, fill="#b0b0b0", font=font, anchor="mm")
    top = 2 * line
    for head, (name, images) in zip(heads, rows):
        draw.text((6, top + line / 2), name, fill="#ffd479", font=font, anchor="lm")
        for column, image in enumerate(images):
            picture = Image.fromarray(np.ascontiguousarray(image))
            fitted = ImageOps.pad(picture, (tile, tile), Image.Resampling.BICUBIC)
            sheet.paste(fitted, (column * (tile + gap), top + head))
        top += head + tile + line
    return sheet
