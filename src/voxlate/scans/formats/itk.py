"""MetaImage and NRRD files, which SimpleITK reads and writes."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import optional_package
from voxlate.scans.formats.format import Format, Stored, check_numbers, errors_as
from voxlate.scans.formats.limits import check_expansion, check_volume
from voxlate.scans.formats.nifti import describe, smallest_type
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, check_affine
from voxlate.scans.images.simpleitk import to_image

GZIP = 16  # added to zlib's wbits for gzip's header and checksum
METAIMAGE = (".mha", ".mhd")
HEADER_BYTES = 1 << 12  # in which the description is, of a file that voxlate wrote
NEEDED = ("SimpleITK", "registration")
AGAIN = "Get the file again."


def read_itk(path: Path) -> Stored:
    """A MetaImage (.mha, .mhd) or NRRD volume. Raises BadInput where SimpleITK is absent or the file is damaged."""
    itk = optional_package(*NEEDED, path, "SimpleITK", ", or convert the file to NIfTI")
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    with errors_as(f"{path}: expected a MetaImage or NRRD file, found something else", AGAIN):
        reader.ReadImageInformation()
    size = reader.GetSize()
    frames = int(np.prod(size[3:]))
    values = reader.GetNumberOfComponents()
    dimension = reader.GetDimension()
    if dimension < 2 or frames > 1 or values > 1:
        raise BadInput(
            f"{path}: expected one 3-D volume of single values, found {frames} frames of {values} values a voxel. Save one of them as a file of its own."
        )
    in_space = min(dimension, 3)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)
    lps = np.eye(4)
    lps[:in_space, :in_space] = (direction * np.array(reader.GetSpacing()))[:in_space, :in_space]
    lps[:in_space, 3] = reader.GetOrigin()[:in_space]
    affine = check_affine(LPS_TO_RAS @ lps, path)
    check_volume(reversed(size[:3]), path)
    with errors_as(f"{path}: expected whole voxel data, found it damaged or cut short", AGAIN):
        _check_compressed(path)
        image = reader.Execute()
        data = itk.GetArrayViewFromImage(image)
    check_numbers(data.dtype, path)
    width, height, depth = (*size[:3], 1)[:3]
    return Stored(data.reshape(depth, height, width).astype(np.float32), affine)


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
        in_gzip = header.get(b"encoding") in (b"gzip", b"gz")
        if header.get(b"CompressedData", b"").lower() != b"true" and not in_gzip:
            return
        data = file.read() if name == b"LOCAL" else (path.parent / name.decode()).read_bytes()
    check_expansion([data], zlib.MAX_WBITS | (GZIP if in_gzip else 0), path)


def load_writer(where: object) -> Any:
    """SimpleITK; raises BadInput where it is absent."""
    return optional_package(
        *NEEDED, where, "SimpleITK to write .mha and .nrrd", ", or write .nii.gz"
    )


def write_itk(path: Path, volume: Volume, description: str = "") -> None:
    """Write a compressed .mha or .nrrd file: int16 where that loses nothing, else float32; its affine is exact."""
    itk = load_writer(path)
    data = volume.data[0]
    image = to_image(data.astype(smallest_type(data), copy=False), volume.grid)
    image.SetMetaData("Comment", describe(description).decode())
    itk.WriteImage(image, str(path), useCompression=True)


def read_header(path: Path) -> bytes:
    """The first bytes of a file, in which the description is."""
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)


ITK = Format(
    "MetaImage or NRRD",
    read_itk,
    endings=(*METAIMAGE, ".nrrd"),
    written_endings=(".mha", ".nrrd"),
    write=write_itk,
    description=read_header,
    partners={".mhd": ("*.raw", "*.zraw")},
)
