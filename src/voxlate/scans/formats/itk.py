"""MetaImage and NRRD files, which SimpleITK reads and writes."""

import contextlib
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import optional_package
from voxlate.scans.formats.format import (
    GZIP,
    DynamicScan,
    Format,
    Stored,
    check_expansion,
    check_numbers,
    check_volume,
    one_frame,
    to_float32,
)
from voxlate.scans.formats.nifti import describe, smallest_type
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, check_affine
from voxlate.scans.images.register import to_image

METAIMAGE = (".mha", ".mhd")
# the file of the voxels in a header
VOXELS = re.compile(r"^(?:ElementDataFile *=|data ?file:) *(.*)$", re.IGNORECASE | re.MULTILINE)
LOCAL = "LOCAL"  # the name of the file of voxels that are behind their header
COMPRESSED = re.compile(
    r"^(?:CompressedData *= *True|(encoding: *gz))", re.IGNORECASE | re.MULTILINE
)
ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
HEADER_BYTES = 1 << 16
LEADS_OUT = re.compile(
    r"\s*([/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$))"
)  # absolute, or above its folder
STDERR = 2
NEEDED = ("SimpleITK", "registration")


def open_itk(path: Path) -> DynamicScan:
    """A MetaImage (.mha, .mhd) or NRRD volume. Raises BadInput where SimpleITK is absent or the file is damaged."""
    itk = optional_package(*NEEDED, path, "SimpleITK", ", or convert the file to NIfTI")
    _check_place(path)
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    with _errors_of_itk(f"{path}: expected a whole MetaImage or NRRD file"):
        reader.ReadImageInformation()
        size = reader.GetSize()
        dimension, values = reader.GetDimension(), reader.GetNumberOfComponents()
        frames = int(np.prod(size[3:]))
        if dimension < 2 or frames > 1 or values > 1:
            raise BadInput(
                f"{path}: expected one 3-D volume of single values, found {frames} frames of {values} values a voxel. Save one of them as a file of its own."
            )
        width, height, depth = (*size[:3], 1)[:3]
        check_volume((depth, height, width), path)
        _check_sum(path)
        image = reader.Execute()
        data = itk.GetArrayViewFromImage(image).reshape(depth, height, width)
    check_numbers(data.dtype, path)
    in_space = min(dimension, 3)
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)
    lps = np.eye(4)
    lps[:in_space, :in_space] = (direction * np.array(image.GetSpacing()))[:in_space, :in_space]
    lps[:in_space, 3] = image.GetOrigin()[:in_space]
    return one_frame(Stored(to_float32(data), check_affine(LPS_TO_RAS @ lps, path)))


@contextlib.contextmanager
def _errors_of_itk(sentence: str) -> Iterator[None]:
    """Turn any error into BadInput with its cause, which MetaImage writes to the terminal and NRRD at the error's end."""
    with tempfile.TemporaryFile() as text:
        terminal = os.dup(STDERR)
        os.dup2(text.fileno(), STDERR)
        try:
            yield
        except BadInput:
            raise
        except Exception as error:
            text.seek(0)
            lines = text.read().decode(errors="replace").splitlines()[:1] or str(error).split("\n")
            cause = [line for line in lines if line.strip()][-1].strip()
            raise BadInput(
                f"{sentence}, found it damaged, cut short or compressed in another way ({cause}). Get the file again, or save it without compression."
            ) from error
        finally:
            os.dup2(terminal, STDERR)
            os.close(terminal)


def _header_of(path: Path) -> tuple[str, str, int]:
    """The text of a header, the name of the file of its voxels, and where the line of that name ends."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES).decode("latin-1")
    found = VOXELS.search(header)
    return header, found[1].strip() if found else LOCAL, found.end() + 1 if found else 0


def _check_place(path: Path) -> None:
    """Raise BadInput unless a header names one file beside it: it must not show other files of this machine."""
    _, name, _ = _header_of(path)
    is_there = name.upper() == LOCAL or (path.parent / name).is_file()
    if LEADS_OUT.match(name) or not is_there:
        raise BadInput(
            f"{path}: expected the voxels of this header in one file of its folder, found {name} named, which is elsewhere or absent. Copy both to one folder."
        )


def _check_sum(path: Path) -> None:
    """Compare the checksum of compressed voxels, which ITK does not do; raises zlib.error or EOFError for damaged ones."""
    header, name, end = _header_of(path)
    if packed := COMPRESSED.search(header):
        is_local = name.upper() == LOCAL
        content = (path if is_local else path.parent / name).read_bytes()
        start = content.find(GZIP) if packed[1] else end * is_local
        check_expansion([content[start:]], ZLIB_OR_GZIP, path)


def load_writer(where: object) -> Any:
    """SimpleITK; raises BadInput where it is absent."""
    return optional_package(
        *NEEDED, where, "SimpleITK to write .mha and .nrrd", ", or write .nii.gz"
    )


def write_itk(path: Path, volume: Volume, description: str) -> None:
    """Write a compressed .mha or .nrrd file: int16 where that loses nothing, else float32; its affine is exact."""
    itk = load_writer(path)
    data = volume.data[0]
    image = to_image(data.astype(smallest_type(data), copy=False), volume.grid)
    image.SetMetaData("Comment", describe(description).decode())
    itk.WriteImage(image, str(path), useCompression=True)


ITK = Format(
    open_itk,
    endings=(*METAIMAGE, ".nrrd", ".nhdr"),
    written_endings=(".mha", ".nrrd"),
    write=write_itk,
    partners=dict.fromkeys((".mhd", ".nhdr"), ("*.raw", "*.zraw", "*.raw.gz")),
)
