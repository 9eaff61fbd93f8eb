"""Pictures (PNG, TIFF, BMP, JPEG): one slice of grey values each, or two side by side."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.messages import message
from voxlate.scans.formats.format import Format, Stored, check_volume, errors_as
from voxlate.scans.formats.nifti import describe
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, orient

GREY = ("L", "I", "F", "I;16", "I;16B", "I;16L")  # modes of PIL
PHOTOMETRIC = 262  # a tag of TIFF
DARK = 0.1  # of the range of a picture's values: its background
SIDES = ("frame=1", "frame=2")  # of two pictures side by side


def read_picture(path: Path, part: str) -> Stored:
    """A picture as one slice, values as stored, so that 0 is black: pixel [row, column] is data[0, row, column].

    part: one of SIDES. The pages of a TIFF are slices from bottom to top. Raises BadInput for damaged files, real colour,
    and a side of what is no two pictures.
    """
    from PIL import Image, ImageSequence  # here and below, because most scans are no pictures

    with (
        errors_as(f"{path}: expected a whole picture, found damage", "Get the file again."),
        warnings.catch_warnings(action="ignore"),
        Image.open(path) as picture,
    ):
        pages = getattr(picture, "n_frames", 1)
        check_volume((pages, picture.height, picture.width), path)
        white_is_zero = picture.format == "TIFF" and picture.getexif().get(PHOTOMETRIC) == 0
        with Image.open(path) as checked:
            checked.verify()  # the checksums of a PNG, which reading its pixels does not compare
        slices = [_grey(page, path) for page in ImageSequence.Iterator(picture)]
        pixels = np.stack(slices)
    said = []
    if pages > 1:
        said.append(f"Its {pages} pages are taken as slices from bottom to top, 1 mm apart.")
    if white_is_zero:
        if pixels.dtype == np.uint16:  # of 8 bits, pillow has inverted them
            pixels = np.iinfo(np.uint16).max - pixels
        said.append("In this TIFF, 0 is white (WhiteIsZero); whole numbers are inverted.")
    pixels = pixels.astype(np.float32)
    if part:
        sides = halves(pixels)
        if not sides:
            raise BadInput(
                f"{path}: expected two pictures side by side, found one. Name it without '#' and what follows."
            )
        pixels = sides[SIDES.index(part)]
    return Stored(
        pixels, LPS_TO_RAS, unit="grey", guesses=tuple(message("guess", text) for text in said)
    )


def _grey(page: Any, path: Path) -> np.ndarray:
    """The grey values [H, W] of a page; raises BadInput for real colour."""
    if page.mode in GREY:
        return np.array(page)
    colour = np.array(page.convert("RGB"))
    if (colour != colour[..., :1]).any():
        raise BadInput(
            f"{path}: expected grey values, found a colour picture. Save it as greyscale."
        )
    return colour[..., 0]


def halves(pixels: np.ndarray) -> list[np.ndarray]:
    """The two pictures that lie side by side in one [1, H, W]; [] for any other.

    It is twice as wide as high; or wider than high, with nothing but background where the two meet.
    """
    pages, height, width = pixels.shape
    seam = pixels[..., width // 2 - 1 : width // 2 + 1]
    are_apart = (
        width > height and width % 2 == 0 and seam.max() <= pixels.min() + DARK * np.ptp(pixels)
    )
    is_pair = pages == 1 and (are_apart or width == 2 * height)
    return np.split(pixels, 2, axis=2) if is_pair else []


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
    read_picture,
    endings=(".tif", ".tiff", ".png"),
    # of which folders of scans have previews
    named_endings=(".jpg", ".jpeg", ".bmp"),
    is_part=SIDES.__contains__,
    written_endings=(".png", ".tif", ".tiff"),
    write=write_picture,
)
