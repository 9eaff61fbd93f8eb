"""Pictures (PNG, TIFF): one slice of grey values each."""

import warnings
from pathlib import Path

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.scans.formats.format import Format, Stored, errors_as
from voxlate.scans.formats.limits import check_volume
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, orient

CONVERTED = {"1": "L", "LA": "L"} | dict.fromkeys(
    ("P", "PA", "CMYK", "YCbCr"), "RGB"
)  # modes of PIL


def read_picture(path: Path) -> Stored:
    """A PNG or TIFF as one slice, values as stored: pixel [row, column] is data[0, row, column].

    Raises BadInput for damaged files, several pages and real colour.
    """
    from PIL import Image  # here and below, because voxlate-run has no pillow

    with (
        errors_as(f"{path}: expected a picture, found something else", "Check the file."),
        warnings.catch_warnings(action="ignore"),
    ):
        picture: Image.Image = Image.open(path)
        pages = getattr(picture, "n_frames", 1)
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
    if pixels.ndim == 3:
        colour = pixels[..., :3]
        if (colour != colour[..., :1]).any():
            raise BadInput(
                f"{path}: expected grey values, found a colour picture. Save it as greyscale."
            )
        pixels = colour[..., 0]
    return Stored(pixels[None].astype(np.float32), LPS_TO_RAS, unit="grey")


def write_picture(path: Path, volume: Volume, description: str = "") -> None:
    """Write a volume of one slice, rounded, so that columns grow to Left and rows to Posterior, as they are read.

    PNG is clipped to 8 bit; TIFF has 8 bit where the values allow it, else 16. A picture holds no description.
    """
    from PIL import Image

    values = orient(volume, "LPS").data[0, 0]
    wide = path.suffix.lower() != ".png" and float(values.max()) > 255.5
    dtype = np.uint16 if wide else np.uint8
    pixels = np.rint(values).clip(0, np.iinfo(dtype).max).astype(dtype)
    Image.fromarray(pixels).save(path)


PICTURE = Format(
    "picture",
    read_picture,
    endings=(".tif", ".tiff", ".png"),
    written_endings=(".png", ".tif", ".tiff"),
    write=write_picture,
    is_picture=True,
)
