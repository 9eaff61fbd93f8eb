"""Pictures (PNG, TIFF) and the formats of ITK, as voxels in RAS millimetres."""

import gzip
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from voxlate.errors import BadInput
from voxlate.images.grid import LPS_TO_RAS, check_affine
from voxlate.images.reading import Stored, check_numbers, errors_as, extra


def read_picture(path: Path) -> Stored:
    """A PNG or TIFF as one slice, values as stored: pixel [row, column] is data[0, row, column].

    Raises BadInput for damaged files, several pages and real colour.
    """
    with (
        errors_as(f"{path}: expected a picture, found something else", "Check the file."),
        warnings.catch_warnings(action="ignore"),
    ):
        picture: Image.Image = Image.open(path)
        pages = getattr(picture, "n_frames", 1)
    with errors_as(f"{path}: expected a whole picture, found damaged pixels", "Get the file again."), picture:
        if pages > 1:
            raise BadInput(f"{path}: expected one picture, found {pages} pages. Save the slices as a NIfTI volume.")
        with Image.open(path) as checked:
            checked.verify()  # the checksums of a PNG, which reading its pixels passes over
        if picture.mode in ("1", "P", "PA", "LA", "CMYK", "YCbCr"):
            picture = picture.convert({"1": "L", "LA": "L"}.get(picture.mode, "RGB"))
        pixels = np.asarray(picture)
    if pixels.ndim == 3:
        colour = pixels[..., :3]
        if (colour != colour[..., :1]).any():
            raise BadInput(f"{path}: expected grey values, found a colour picture. Save it as greyscale.")
        pixels = colour[..., 0]
    return Stored(pixels[None].astype(np.float32), LPS_TO_RAS, unit="grey")


def write_picture(path: Path, data: np.ndarray) -> None:
    """Write [H, W] rounded: PNG clipped to 8 bit; TIFF with 8 bit where values allow it, else 16."""
    wide = path.suffix.lower() != ".png" and float(data.max()) > 255.5
    kind = np.uint16 if wide else np.uint8
    pixels = np.rint(data).clip(0, np.iinfo(kind).max).astype(kind)
    Image.fromarray(pixels).save(path)


def read_itk(path: Path) -> Stored:
    """A MetaImage (.mha, .mhd) or NRRD volume. Raises BadInput where SimpleITK is absent or the file damaged."""
    itk = extra("SimpleITK", "registration", path, "SimpleITK", ", or convert the file to NIfTI")
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except Exception as error:
        raise BadInput(f"{path}: expected a MetaImage or NRRD file, found something else. Check the file.") from error
    size, dimension = reader.GetSize(), reader.GetDimension()
    frames, values = int(np.prod(size[3:])), reader.GetNumberOfComponents()
    if dimension < 2 or frames > 1 or values > 1:
        raise BadInput(
            f"{path}: expected one 3-D volume of single values, found {frames} frames of {values} values a voxel. "
            "Save one of them as a file of its own."
        )
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)
    lps = np.eye(4)
    in_space = min(dimension, 3)
    lps[:in_space, :in_space] = (direction * np.array(reader.GetSpacing()))[:in_space, :in_space]
    lps[:in_space, 3] = reader.GetOrigin()[:in_space]
    affine = check_affine(LPS_TO_RAS @ lps, path)
    try:
        _check_compressed(path)
        image = reader.Execute()
        data = itk.GetArrayViewFromImage(image)
    except Exception as error:
        raise BadInput(
            f"{path}: expected whole voxel data, found it damaged or cut short. Get the file again."
        ) from error
    check_numbers(data.dtype, path)
    width, height, depth = (*size[:in_space], 1)[:3]
    return Stored(data.reshape(depth, height, width).astype(np.float32), affine)


def _check_compressed(path: Path) -> None:
    """Decompress the voxels of a MetaImage or NRRD file to their checksum, which ITK passes over.

    Raises zlib.error, gzip.BadGzipFile or EOFError where they are damaged or cut short.
    """
    end = b"ElementDataFile" if path.suffix.lower() in (".mha", ".mhd") else b"\n"
    header = dict[bytes, bytes]()
    with path.open("rb") as file:
        for line in file:
            key, _, value = line.replace(b":", b"=", 1).partition(b"=")
            header[key.strip()] = value.strip()
            if line.startswith(end) or line in (b"\n", b"\r\n"):
                break
        name = header.get(b"ElementDataFile", header.get(b"data file", b"LOCAL"))
        packed = header.get(b"CompressedData", b"").lower() == b"true" or header.get(b"encoding") in (b"gzip", b"gz")
        if not packed:
            return
        data = file.read() if name == b"LOCAL" else (path.parent / name.decode()).read_bytes()
    decompress = gzip.decompress if header.get(b"encoding") else zlib.decompress
    decompress(data)
