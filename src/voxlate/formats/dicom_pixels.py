"""DICOM: where the pixel values of an image are in its file, and the values as stored."""

import functools
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from voxlate.formats.format import errors_as
from voxlate.formats.limits import CHUNK, check_expansion
from voxlate.system.errors import BadInput

PIXEL_DATA = (0x7FE0, 0x0010)
UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data
LONG_KINDS = (b"OB", b"OW")  # their lengths have four bytes, after two that are reserved
DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax whose whole data set is deflated
START_BYTES = 4096  # hold the meta information, in which the transfer syntax is
MARK_AT, META_AT = 128, 132  # the mark DICM, and the meta information after it
GROUP_LENGTH_BYTES = (
    12  # the element with the length of all that follows it in the meta information
)
AGAIN = "Get the file again."
DECODER = "Install the decoders (pip install 'voxlate[dicom-compressed]') or convert the series with dcm2niix."


@dataclass(frozen=True)
class Image:
    """One image of a DICOM file. frame: its number, from 1, in a file of several; 0 in a file of one."""

    file: Path
    frame: int = 0

    @property
    def name(self) -> str:
        return self.file.name + (f" (frame {self.frame})" if self.frame else "")

    def __str__(self) -> str:
        return str(self.file.with_name(self.name))


@dataclass(frozen=True)
class StoredPixels:
    """Uncompressed pixel values in a file: their first byte, the size of an image [H, W], and their type.

    end: the byte after those of all images that the file holds.
    unused_bits: of each value, at its upper end, which are no part of it.
    """

    start: int
    end: int
    shape: tuple[int, int]
    dtype: np.dtype
    unused_bits: int

    @property
    def length(self) -> int:
        """Bytes of one image."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def of_frame(self, number: int) -> "StoredPixels":
        """The values of a frame, counted from 1."""
        return replace(self, start=self.start + (number - 1) * self.length)


def find_pixels(stream: BinaryIO, header: Any, file: Path) -> StoredPixels | None:
    """The pixel values of a file whose header was read up to them; None where they must be decoded."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None or syntax.is_private or syntax.is_deflated or syntax.is_compressed:
        return None
    order = "<" if syntax.is_little_endian else ">"
    found = _element(stream, order, syntax.is_implicit_VR)
    kind = _number_type(header, order)
    if found is None or kind is None:
        return None
    start, length = found
    end = min(start + length, file.stat().st_size)
    shape = int(header.Rows), int(header.Columns)
    unused = int(header.BitsAllocated) - int(header.BitsStored)
    return StoredPixels(start, end, shape, kind, unused)


def check_held(image: Image, pixels: StoredPixels | None) -> None:
    """Raise BadInput where a file holds fewer bytes than its header claims for an image."""
    if pixels is None:
        return
    if not pixels.length or pixels.start + pixels.length > pixels.end:
        held = max(0, pixels.end - pixels.start)
        raise BadInput(
            f"{image}: expected whole pixel data, found none that can be read ({held} of the {pixels.length} bytes of {pixels.shape[1]}×{pixels.shape[0]} pixels). {AGAIN}"
        )


def check_deflated(stream: BinaryIO, file: Path) -> None:
    """Raise BadInput where a deflated data set is cut short or expands beyond the largest volume.

    pydicom expands all of it at once. The stream is left at its start.
    """
    from pydicom.filereader import read_file_meta_info

    start = stream.read(START_BYTES)
    stream.seek(0)
    if DEFLATED not in start or start[MARK_AT:META_AT] != b"DICM":
        return
    meta = read_file_meta_info(file)
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_deflated:
        return
    length = meta.get("FileMetaInformationGroupLength")
    if not isinstance(length, int):
        raise BadInput(
            f"{file}: expected a deflated file to state the length of its meta information, found none. {AGAIN}"
        )
    stream.seek(META_AT + GROUP_LENGTH_BYTES + length)
    check_expansion(iter(lambda: stream.read(CHUNK), b""), -zlib.MAX_WBITS, file)
    stream.seek(0)


def _element(stream: BinaryIO, order: str, implicit: bool) -> tuple[int, int] | None:
    """The first byte and the length of the pixel data at which a stream stands; None where they are no plain bytes."""
    start = stream.read(12)
    if len(start) < 12 or struct.unpack(order + "HH", start[:4]) != PIXEL_DATA:
        return None
    if not implicit and start[4:6] not in LONG_KINDS:
        return None
    at = 4 if implicit else 8
    (length,) = struct.unpack(order + "I", start[at : at + 4])
    if length == UNDEFINED:
        return None
    return stream.tell() - (4 if implicit else 0), length


def _number_type(header: Any, order: str) -> np.dtype | None:
    """The type of pixel values of whole bytes; None for bits and for headers that do not state it."""
    names = ("BitsAllocated", "BitsStored", "PixelRepresentation")
    values = [header.get(name) for name in names]
    if any(not isinstance(value, int) for value in values):
        return None
    allocated, stored, signed = values
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or signed not in (0, 1):
        return None
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return None
    return np.dtype(f"{order}{'i' if signed else 'u'}{allocated // 8}")


def read_pixels(image: Image, pixels: StoredPixels | None) -> np.ndarray:
    """The pixel values [H, W] of an image as stored. Raises BadInput where they cannot be read or decoded."""
    if pixels is None:
        return _decoded(image)
    count = pixels.shape[0] * pixels.shape[1]
    with errors_as(f"{image}: expected whole pixel data, found none that can be read", AGAIN):
        values = np.fromfile(image.file, pixels.dtype, count, offset=pixels.start)
        values = values.reshape(pixels.shape)
    if pixels.unused_bits:  # an overlay of old scanners may be stored in them
        values <<= pixels.unused_bits
        values >>= pixels.unused_bits
    return values


def _decoded(image: Image) -> np.ndarray:
    """The pixel values of an image by a decoder of pydicom."""
    state = image.file.stat()
    sentence = f"{image}: expected whole pixel data, found none that can be read"
    with errors_as(sentence, AGAIN):
        data = _whole_file(image.file, state.st_size, state.st_mtime_ns)
        packed = data.file_meta.TransferSyntaxUID.is_encapsulated
    with errors_as(sentence, DECODER if packed else AGAIN):
        from pydicom.pixels import pixel_array

        with warnings.catch_warnings(action="ignore"):  # about values outside the standard
            warnings.filterwarnings("error", "The decoded RLE segment")
            if image.frame:
                return np.asarray(pixel_array(data, index=image.frame - 1))
            return np.asarray(data.pixel_array)


@functools.lru_cache(maxsize=1)
def _whole_file(file: Path, size: int, mtime_ns: int) -> Any:
    """The data set in a file, which is read once for all frames of it; a changed file is read again."""
    import pydicom

    return pydicom.dcmread(file)
