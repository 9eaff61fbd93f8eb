"""Pictures (PNG, TIFF, BMP, JPEG): one slice of grey values each."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.scans.formats.format import (
    DynamicScan,
    Format,
    Stored,
    check_volume,
    errors_as,
)
from voxlate.scans.formats.nifti import describe, read_start
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Volume, orient

# modes of PIL
CONVERTED = {"1": "L", "LA": "L", **dict.fromkeys(("P", "PA", "CMYK", "YCbCr"), "RGB")}
PHOTOMETRIC = 262  # a tag of TIFF


def read_picture(path: Path) -> Stored:
    """A picture as one slice, values as stored, so that 0 is black: pixel [row, column] is data[0, row, column].

    Raises BadInput for damaged files, several pages and real colour.
    """
    from PIL import Image  # here and below, because most scans are no pictures

    with (
        errors_as(f"{path}: expected a picture, found something else", "Check the file."),
        warnings.catch_warnings(action="ignore"),
    ):
        picture: Image.Image = Image.open(path)
        pages = getattr(picture, "n_frames", 1)
        kind = picture.format
        white_is_zero = kind == "TIFF" and picture.getexif().get(PHOTOMETRIC) == 0
        guesses = []
    with (
        errors_as(f"{path}: expected a whole picture, found damaged pixels", "Get the file again."),
        picture,
    ):
        if pages > 1:
            raise BadInput(
                f"{path}: expected one picture, found {pages} pages. Save the slices as a NIfTI volume."
            )
        check_volume((1, picture.height, picture.width), path)
        with Image.open(path) as checked:
            checked.verify()  # the checksums of a PNG, which reading its pixels does not compare
        if picture.mode in CONVERTED:
            picture = picture.convert(CONVERTED[picture.mode])
        pixels = np.asarray(picture)
    if kind == "JPEG":
        guesses.append("JPEG loses fine structures. Take the original.")
    if white_is_zero:
        if pixels.dtype == np.uint16:  # of 8 bits, pillow has inverted them
            pixels = np.iinfo(np.uint16).max - pixels
        how = "taken as stored" if pixels.dtype.kind == "f" else "inverted, so that 0 is black"
        guesses.append(f"In this TIFF, 0 is white (WhiteIsZero); its values are {how}.")
    if pixels.ndim == 3:
        colour = pixels[..., :3]
        if (colour != colour[..., :1]).any():
            raise BadInput(
                f"{path}: expected grey values, found a colour picture. Save it as greyscale."
            )
        pixels = colour[..., 0]
    return Stored(pixels[None].astype(np.float32), LPS_TO_RAS, unit="grey", guesses=tuple(guesses))


def read_halves(path: Path) -> DynamicScan:
    """A picture that is twice as wide as high as two frames: its left half and its right half."""
    stored = read_picture(path)
    _, height, width = stored.data.shape
    if width != 2 * height:
        raise BadInput(
            f"{path}: expected two pictures side by side, found {width}×{height} pixels. Name it without '#' and what follows."
        )
    halves = np.split(stored.data, 2, axis=2)
    return DynamicScan(
        Grid(halves[0].shape, stored.affine),
        2,
        None,
        lambda: (half[0] for half in halves),
        lambda number: replace(stored, data=halves[number]),
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
    "picture",
    read_picture,
    read_frames=read_halves,
    endings=(".tif", ".tiff", ".png"),
    # of which folders of scans have previews
    named_endings=(".jpg", ".jpeg", ".bmp"),
    written_endings=(".png", ".tif", ".tiff"),
    write=write_picture,
    description=read_start,
    is_picture=True,
)
