"""FreeSurfer volumes (.mgz, .mgh), which are read as NIfTI files are, and written compressed."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from voxlate.formats.format import Format
from voxlate.formats.nifti import (
    PACKED,
    compress,
    describe,
    open_nifti,
    read_nifti,
    smallest_type,
)
from voxlate.images.grid import Volume

NO_PARAMETERS = bytes(20)  # five floats on the acquisition, which follow the voxels
# FreeSurfer's tag of a text; it is an int32, followed by the text's length as an int64
COMMAND_LINE = 3
TAG = struct.Struct(">iq")


def write_mgz(path: Path, volume: Volume, description: str = "") -> None:
    """Write a volume as `write_nifti` does: int16 where that loses nothing, else float32.

    The header has the affine as directions, sizes and centre in float32. The description follows the voxels.
    """
    data = volume.data[0]
    stored = data.T.astype(smallest_type(data), copy=False)
    image = nib.freesurfer.mghformat.MGHImage(stored, volume.affine)
    text = describe(description) + b"\0"
    start = image.header.get_data_offset()
    header = image.header.structarr.tobytes()[:start].ljust(start, b"\0")
    with open(path, "wb") as file, compress(file) as packed:
        packed.write(header)
        packed.write(stored.astype(stored.dtype.newbyteorder(">")).tobytes(order="F"))
        packed.write(NO_PARAMETERS + TAG.pack(COMMAND_LINE, len(text)) + text)


def mgz_description(path: Path) -> bytes:
    """The text after the voxels of a file that `write_mgz` wrote; empty for other files."""
    image = nib.freesurfer.mghformat.MGHImage.from_filename(path)
    size = int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    opened = gzip.open if path.suffix.lower() in PACKED else open
    with opened(path, "rb") as file:
        file.seek(image.header.get_data_offset() + size + len(NO_PARAMETERS) + TAG.size)
        text: bytes = file.read(len(describe("")) + 80)
    return text.rstrip(b"\0")


FREESURFER = Format(
    "FreeSurfer",
    read_nifti,
    endings=(".mgz", ".mgh"),
    read_frames=open_nifti,
    written_endings=(".mgz",),
    write=write_mgz,
    description=mgz_description,
)
