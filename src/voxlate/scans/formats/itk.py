"""MetaImage and NRRD files, which SimpleITK reads and writes."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import optional_package
from voxlate.scans.formats.format import (
    Format,
    check_numbers,
    check_volume,
    errors_as,
    to_float32,
)
from voxlate.scans.formats.nifti import describe, smallest_type
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, check_affine
from voxlate.scans.images.register import to_image

# the file of the voxels in a header
VOXELS = re.compile(r"^(?:ElementDataFile *=|data ?file:) *(.*)$", re.IGNORECASE | re.MULTILINE)
LOCAL = "LOCAL"  # the name of the file of voxels that are behind their header
HEADER_BYTES = 1 << 16
NEEDED = ("SimpleITK", "registration")


def read_itk(path: Path, _: str) -> Volume:
    """A MetaImage (.mha, .mhd) or NRRD volume. Raises BadInput where SimpleITK is absent or the file is damaged."""
    itk = optional_package(*NEEDED, path, "SimpleITK", ", or convert the file to NIfTI")
    _check_place(path)
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    with errors_as(
        f"{path}: expected a whole MetaImage or NRRD file, found it damaged, cut short or compressed in another way",
        "Get the file again, or save it without compression.",
    ):
        reader.ReadImageInformation()
        size = reader.GetSize()
        dimension, values = reader.GetDimension(), reader.GetNumberOfComponents()
        frames = int(np.prod(size[3:]))
        if frames > 1 or values > 1:
            raise BadInput(
                f"{path}: expected one 3-D volume of single values, found {frames} frames of {values} values a voxel. Save one of them as a file of its own."
            )
        width, height, depth = (*size[:3], 1)[:3]
        check_volume((depth, height, width), path)
        image = reader.Execute()
        data = itk.GetArrayViewFromImage(image).reshape(depth, height, width)
        check_numbers(data.dtype, path)
        in_space = min(dimension, 3)
        direction = np.array(image.GetDirection()).reshape(dimension, dimension)
        lps = np.eye(4)
        lps[:in_space, :in_space] = (direction * image.GetSpacing())[:in_space, :in_space]
        lps[:in_space, 3] = image.GetOrigin()[:in_space]
    return Volume(to_float32(data)[None], check_affine(LPS_TO_RAS @ lps, path), "", "")


def _check_place(path: Path) -> None:
    """Raise BadInput unless a header names one file beside it: it must not show other files of this machine."""
    with path.open("rb") as file:
        found = VOXELS.search(file.read(HEADER_BYTES).decode("latin-1"))
    name = found[1].strip() if found else LOCAL
    if name.upper() != LOCAL and (Path(name).name != name or not path.with_name(name).is_file()):
        raise BadInput(
            f"{path}: expected the voxels of this header in one file beside it, found {name} named, which is elsewhere or absent. Copy both to one folder."
        )


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
    read_itk,
    endings=(".mha", ".mhd", ".nrrd", ".nhdr"),
    written_endings=(".mha", ".nrrd"),
    write=write_itk,
    partners=dict.fromkeys((".mhd", ".nhdr"), ("*.raw", "*.zraw", "*.raw.gz")),
)
