"""FreeSurfer volumes (.mgz, .mgh), which are read as NIfTI files are, and written compressed."""

import struct
from pathlib import Path
from typing import Any

import nibabel as nib

from voxlate.scans.formats.format import Format
from voxlate.scans.formats.nifti import (
    compress,
    describe,
    open_nifti,
    open_packed,
    read_nifti,
    smallest_type,
)
from voxlate.scans.images.grid import Volume

PARAMETERS_BYTES = 20  # five floats on the acquisition, which follow the voxels
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
    with open(path, "wb") as file, compress(file) as packed:
        image.to_stream(packed)
        packed.write(TAG.pack(COMMAND_LINE, len(text)) + text)


def mgz_description(path: Path) -> bytes:
    """The text after the voxels of a file that `write_mgz` wrote; empty for other files."""
    header: Any = nib.load(path).header
    with open_packed(path) as file:
        file.seek(header.get_footer_offset() + PARAMETERS_BYTES + TAG.size)
        return file.read(len(describe("")) + 80).rstrip(b"\0")


FREESURFER = Format(
    "FreeSurfer",
    read_nifti,
    endings=(".mgz", ".mgh"),
    read_frames=open_nifti,
    written_endings=(".mgz",),
    write=write_mgz,
    description=mgz_description,
)
