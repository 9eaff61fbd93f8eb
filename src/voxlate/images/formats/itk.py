"""MetaImage and NRRD files, which SimpleITK reads."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.errors import BadInput
from voxlate.images.formats.format import Format, Stored, check_numbers
from voxlate.images.grid import LPS_TO_RAS, check_affine
from voxlate.images.limits import check_expansion, check_volume
from voxlate.images.optional import optional_package

GZIP = 16  # added to zlib's wbits for gzip's header and checksum
METAIMAGE = (".mha", ".mhd")


def read_itk(path: Path) -> Stored:
    """A MetaImage (.mha, .mhd) or NRRD volume. Raises BadInput where SimpleITK is absent or the file is damaged."""
    itk = optional_package(
        "SimpleITK",
        "registration",
        path,
        "SimpleITK",
        ", or convert the file to NIfTI",
    )
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except Exception as error:
        raise BadInput(
            f"{path}: expected a MetaImage or NRRD file, found something else. Check the file."
        ) from error
    size = reader.GetSize()
    frames = int(np.prod(size[3:]))
    values = reader.GetNumberOfComponents()
    if reader.GetDimension() < 2 or frames > 1 or values > 1:
        raise BadInput(
            f"{path}: expected one 3-D volume of single values, found {frames} frames of {values} values a voxel. Save one of them as a file of its own."
        )
    affine = _affine(reader, path)
    check_volume(reversed(size[:3]), path)
    try:
        _check_compressed(path)
        image = reader.Execute()
        data = itk.GetArrayViewFromImage(image)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            f"{path}: expected whole voxel data, found it damaged or cut short. Get the file again."
        ) from error
    check_numbers(data.dtype, path)
    width, height, depth = (*size[:3], 1)[:3]
    return Stored(data.reshape(depth, height, width).astype(np.float32), affine)


def _affine(reader: Any, path: Path) -> np.ndarray:
    dimension = reader.GetDimension()
    in_space = min(dimension, 3)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)
    lps = np.eye(4)
    lps[:in_space, :in_space] = (direction * np.array(reader.GetSpacing()))[:in_space, :in_space]
    lps[:in_space, 3] = reader.GetOrigin()[:in_space]
    return check_affine(LPS_TO_RAS @ lps, path)


def _check_compressed(path: Path) -> None:
    """Decompress the voxels of a MetaImage or NRRD file and compare their checksum, which ITK does not do.

    Raises zlib.error or EOFError where they are damaged or cut short.
    """
    last_key = b"ElementDataFile" if path.suffix.lower() in METAIMAGE else b"\n"
    header = dict[bytes, bytes]()
    with path.open("rb") as file:
        for line in file:
            key, _, value = line.replace(b":", b"=", 1).partition(b"=")
            header[key.strip()] = value.strip()
            if line.startswith(last_key) or line in (b"\n", b"\r\n"):
                break
        name = header.get(b"ElementDataFile", header.get(b"data file", b"LOCAL"))
        encoding = header.get(b"encoding")
        if header.get(b"CompressedData", b"").lower() != b"true" and encoding not in (
            b"gzip",
            b"gz",
        ):
            return
        data = file.read() if name == b"LOCAL" else (path.parent / name.decode()).read_bytes()
    check_expansion([data], zlib.MAX_WBITS | (GZIP if encoding else 0), path)


ITK = Format(
    "MetaImage or NRRD",
    read_itk,
    endings=(*METAIMAGE, ".nrrd"),
    partners={".mhd": ("*.raw", "*.zraw")},
)
