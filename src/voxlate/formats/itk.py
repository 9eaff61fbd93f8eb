"""MetaImage and NRRD files, which SimpleITK reads and voxlate writes."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.format import Format, Stored, check_numbers
from voxlate.formats.limits import check_expansion, check_volume
from voxlate.formats.nifti import describe, smallest_type
from voxlate.images.grid import LPS_TO_RAS, Volume, check_affine
from voxlate.images.optional import optional_package
from voxlate.system.errors import BadInput

GZIP = 16  # added to zlib's wbits for gzip's header and checksum
METAIMAGE = (".mha", ".mhd")
HEADER_BYTES = 1 << 12  # in which the description is, of a file that voxlate wrote


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


def write_metaimage(path: Path, volume: Volume, description: str = "") -> None:
    """Write a .mha file, compressed; int16 where that loses nothing, else float32; its axes and positions are LPS.

    Numbers have as many digits as float64 needs, so the affine is exact.
    """
    stored = _little_endian(volume)
    lps = LPS_TO_RAS @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    packed = zlib.compress(stored.tobytes(), 4)
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "Comment": describe(description).decode(),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(packed)),
        "TransformMatrix": _numbers((lps[:3, :3] / spacing).T.ravel()),
        "Offset": _numbers(lps[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _numbers(spacing),
        "DimSize": " ".join(map(str, stored.shape[::-1])),
        "ElementType": "MET_SHORT" if stored.dtype == np.int16 else "MET_FLOAT",
        "ElementDataFile": "LOCAL",
    }
    header = "".join(f"{key} = {value}\n" for key, value in lines.items())
    path.write_bytes(header.encode() + packed)


def write_nrrd(path: Path, volume: Volume, description: str = "") -> None:
    """Write a .nrrd file, compressed; int16 where that loses nothing, else float32; its space is LPS."""
    stored = _little_endian(volume)
    lps = LPS_TO_RAS @ volume.affine
    lines = [
        "NRRD0004",
        f"content: {describe(description).decode()}",
        f"type: {'short' if stored.dtype == np.int16 else 'float'}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, stored.shape[::-1]))}",
        f"space directions: {' '.join(_vector(axis) for axis in lps[:3, :3].T)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
        "",
    ]
    header = "".join(f"{line}\n" for line in lines)
    path.write_bytes(header.encode() + gzip.compress(stored.tobytes(), 4, mtime=0))


def _little_endian(volume: Volume) -> np.ndarray:
    data = volume.data[0]
    return np.ascontiguousarray(data.astype(np.dtype(smallest_type(data)).newbyteorder("<")))


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value) + 0.0) for value in values)  # + 0.0 makes -0 to 0


def _vector(values: np.ndarray) -> str:
    return f"({_numbers(values).replace(' ', ',')})"


def _write(path: Path, volume: Volume, description: str = "") -> None:
    write = write_metaimage if path.suffix.lower() in METAIMAGE else write_nrrd
    write(path, volume, description)


def itk_description(path: Path) -> bytes:
    """The comment or content in the header of a file."""
    keys = (b"Comment = ", b"content: ")
    with path.open("rb") as file:
        lines = file.read(HEADER_BYTES).splitlines()
    return next((line for line in lines if line.startswith(keys)), b"")


ITK = Format(
    "MetaImage or NRRD",
    read_itk,
    endings=(*METAIMAGE, ".nrrd"),
    written_endings=(".mha", ".nrrd"),
    write=_write,
    description=itk_description,
    partners={".mhd": ("*.raw", "*.zraw")},
)
