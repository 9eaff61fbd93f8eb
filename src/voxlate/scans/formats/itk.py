"""MetaImage and NRRD files, which SimpleITK reads and writes."""

import contextlib
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import optional_package
from voxlate.scans.formats.format import (
    Format,
    Stored,
    check_expansion,
    check_numbers,
    check_volume,
    to_float32,
)
from voxlate.scans.formats.nifti import describe, read_start, smallest_type
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, check_affine
from voxlate.scans.images.simpleitk import to_image

GZIP = 16  # added to zlib's wbits for gzip's header and checksum
METAIMAGE = (".mha", ".mhd")
LOCAL = "LOCAL"  # the name of the file of voxels that are behind their header
LEADS_OUT = re.compile(
    r"\s*([/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$))"
)  # absolute, or above its folder
STDERR = 2
NEEDED = ("SimpleITK", "registration")
AGAIN = "Get the file again."


def read_itk(path: Path) -> Stored:
    """A MetaImage (.mha, .mhd) or NRRD volume. Raises BadInput where SimpleITK is absent or the file is damaged."""
    itk = optional_package(*NEEDED, path, "SimpleITK", ", or convert the file to NIfTI")
    header, voxels_file = _read_fields(path)
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    with _errors_of_itk(f"{path}: expected a MetaImage or NRRD file, found something else"):
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
    width, height, depth = (*size[:3], 1)[:3]
    shape = depth, height, width
    check_volume(shape, path)
    with _errors_of_itk(f"{path}: expected whole voxel data, found it damaged or cut short"):
        _check_compressed(header, voxels_file, path)
        image = reader.Execute()
        data = itk.GetArrayViewFromImage(image)
    check_numbers(data.dtype, path)
    return Stored(to_float32(data.reshape(shape), path), affine)


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
            raise BadInput(f"{sentence} ({cause}). {AGAIN}") from error
        finally:
            os.dup2(terminal, STDERR)
            os.close(terminal)


def _read_fields(path: Path) -> tuple[dict[str, str], Path]:
    """The fields of a header in lower case, and the file of its voxels, which begin there at byte 'start' of the fields.

    Raises BadInput where that file is absent, and for an encoding that is not read.
    """
    last_key = "elementdatafile" if path.suffix.lower() in METAIMAGE else "\n"
    fields = {}
    with path.open("rb") as file:
        for raw in file:
            line = raw.decode("latin-1").lower()
            key, _, _ = line.replace(":", "=", 1).partition("=")
            fields[key.strip()] = raw.decode(errors="replace")[len(key) + 1 :].strip()
            if line.startswith(last_key) or line == "\r\n":
                break
        fields["start"] = str(file.tell())
    name = fields.get("elementdatafile", fields.get("data file", fields.get("datafile", LOCAL)))
    # a header of somebody else must not show other files of this machine
    is_list = name.upper().startswith("LIST")
    lines = path.read_text(errors="replace").splitlines() if is_list else []
    if outside := next(filter(LEADS_OUT.match, [name, *lines]), None):
        raise BadInput(
            f"{path}: expected the voxels of this header in its folder, found {outside}. Copy both to one folder."
        )
    voxels_file = path if name.upper() == LOCAL else path.parent / name
    if not voxels_file.exists() and not is_list and "%" not in name:
        raise BadInput(
            f"{path}: expected the voxels of this header in {name}, found no such file. Copy both to one folder."
        )
    encoding = fields.get("encoding", "raw").lower()
    if encoding in ("bzip2", "bz2"):
        raise BadInput(
            f"{path}: expected voxels without compression or in gzip, found {encoding}. Save the file again with one of these."
        )
    return fields, voxels_file


def _check_compressed(fields: Mapping[str, str], voxels_file: Path, path: Path) -> None:
    """Decompress the voxels of a MetaImage or NRRD file and compare their checksum, which ITK does not do.

    Raises zlib.error or EOFError where they are damaged or cut short.
    """
    in_gzip = fields.get("encoding", "").lower() in ("gzip", "gz")
    if fields.get("compresseddata", "").lower() != "true" and not in_gzip:
        return
    with voxels_file.open("rb") as file:
        file.seek(int(fields["start"]) if voxels_file == path else 0)
        for _ in range(int(fields.get("line skip", fields.get("lineskip", "0")))):
            file.readline()
        check_expansion([file.read()], zlib.MAX_WBITS | (GZIP if in_gzip else 0), path)


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
    "MetaImage or NRRD",
    read_itk,
    endings=(*METAIMAGE, ".nrrd", ".nhdr"),
    written_endings=(".mha", ".nrrd"),
    write=write_itk,
    description=read_start,
    partners=dict.fromkeys((".mhd", ".nhdr"), ("*.raw", "*.zraw", "*.raw.gz")),
)
