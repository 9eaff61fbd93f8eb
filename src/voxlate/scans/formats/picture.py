"""Pictures (PNG, TIFF, BMP, JPEG): one slice of grey values each."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.scans.formats.format import (
    DynamicScan,
    Format,
    Stored,
    check_volume,
    errors_as,
    one_frame,
)
from voxlate.scans.formats.nifti import describe
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, orient

# modes of PIL
CONVERTED = {"1": "L", "LA": "L", **dict.fromkeys(("P", "PA", "CMYK", "YCbCr"), "RGB")}
PHOTOMETRIC = 262  # a tag of TIFF
DARK = 0.1  # of the range of a picture's values: its background


def _read_whole(path: Path) -> Stored:
    """A picture as one slice, values as stored, so that 0 is black: pixel [row, column] is data[0, row, column].

    The pages of a TIFF are slices from bottom to top. Raises BadInput for damaged files and real colour.
    """
    from PIL import Image, ImageSequence  # here and below, because most scans are no pictures

    guesses = []
    with (
        errors_as(f"{path}: expected a picture, found something else", "Check the file."),
        warnings.catch_warnings(action="ignore"),
    ):
        picture: Image.Image = Image.open(path)
        kind, pages = picture.format, getattr(picture, "n_frames", 1)
        white_is_zero = kind == "TIFF" and picture.getexif().get(PHOTOMETRIC) == 0
    with (
        errors_as(f"{path}: expected a whole picture, found damaged pixels", "Get the file again."),
        picture,
    ):
        check_volume((pages, picture.height, picture.width), path)
        with Image.open(path) as checked:
            checked.verify()  # the checksums of a PNG, which reading its pixels does not compare
        slices = [_grey(page, path) for page in ImageSequence.Iterator(picture)]
        if len({page.shape for page in slices}) > 1:
            raise BadInput(
                f"{path}: expected pages of one size, found several. Save one of them as a file."
            )
        pixels = np.array(slices)
    if pages > 1:
        guesses.append(
            f"Its {pages} pages are taken as slices from bottom to top, 1 mm apart; {path.name}#frame=1 is the first alone."
        )
    if kind == "JPEG":
        guesses.append("JPEG loses fine structures. Take the original.")
    if white_is_zero:
        if pixels.dtype == np.uint16:  # of 8 bits, pillow has inverted them
            pixels = np.iinfo(np.uint16).max - pixels
        how = "taken as stored" if pixels.dtype.kind == "f" else "inverted, so that 0 is black"
        guesses.append(f"In this TIFF, 0 is white (WhiteIsZero); its values are {how}.")
    return Stored(pixels.astype(np.float32), LPS_TO_RAS, unit="grey", guesses=tuple(guesses))


def _grey(page: Any, path: Path) -> np.ndarray:
    """The grey values [H, W] of a page; raises BadInput for real colour."""
    grey = page.convert(CONVERTED[page.mode]) if page.mode in CONVERTED else page
    pixels = np.array(grey)
    if pixels.ndim < 3:
        return pixels
    colour = pixels[..., :3]
    if (colour != colour[..., :1]).any():
        raise BadInput(
            f"{path}: expected grey values, found a colour picture. Save it as greyscale."
        )
    return colour[..., 0]


def halves(pixels: np.ndarray) -> list[np.ndarray]:
    """The two pictures that lie side by side in one [1, H, W]; [] for any other.

    It is twice as wide as high; or wider than high, with nothing but background where the two meet.
    """
    _, height, width = pixels.shape
    seam = pixels[..., width // 2 - 1 : width // 2 + 1]
    are_apart = (
        width > height and width % 2 == 0 and seam.max() <= pixels.min() + DARK * np.ptp(pixels)
    )
    return np.split(pixels, 2, axis=2) if are_apart or width == 2 * height else []


def open_picture(path: Path) -> DynamicScan:
    """A picture, whose frames are its pages, or of two pictures side by side the left and the right one."""
    stored = _read_whole(path)
    parts = np.split(stored.data, len(stored.data))
    if len(parts) == 1:
        parts = halves(stored.data)
    if not parts:
        return one_frame(stored)
    return replace(
        one_frame(replace(stored, data=parts[0])),
        count=len(parts),
        read=lambda number: replace(stored, data=parts[number], guesses=()),
        whole=lambda: stored,
    )


def write_picture(path: Path, volume: Volume, description: str) -> None:
    """Write a volume of one slice, rounded, so that columns grow to Left and rows to Posterior, as they are read.

    PNG is clipped to 8 bit; TIFF has 8 bit where the values allow it, else 16. Only a PNG holds the description.
    """
    from PIL import Image, PngImagePlugin

    values = orient(volume, "LPS").data[0, 0]
    wide = path.suffix.lower() != ".png" and float(values.max()) > 255.5
    dtype = np.uint16 if wide else np.uint8
    pixels = np.rint(values).clip(0, np.iinfo(dtype).max).astype(dtype)
    text = PngImagePlugin.PngInfo()
    text.add_text("Description", describe(description).decode())
    Image.fromarray(pixels).save(path, pnginfo=text)


PICTURE = Format(
    open_picture,
    endings=(".tif", ".tiff", ".png"),
    # of which folders of scans have previews
    named_endings=(".jpg", ".jpeg", ".bmp"),
    written_endings=(".png", ".tif", ".tiff"),
    write=write_picture,
)
