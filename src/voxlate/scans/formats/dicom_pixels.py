"""DICOM: the pixel values of an image, and their physical meaning."""

import warnings
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import pydicom
from voxlate.scans.formats.dicom_headers import Image, by_text, read_dicom
from voxlate.scans.formats.format import KeptByFile, check_expansion, errors_as

AGAIN = "Get the file again."
SERIES_AGAIN = "Get the series again."
DECODER = "Get the file again, store it uncompressed, or install a decoder: pip install 'voxlate[dicom-compressed]' installs gdcm."
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # each frame is deflated; newer than pydicom 3.0
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
AIR_HU = -1000.0
PADDING_APART = 0.1  # share of the other voxels' range: nearer padding is background
RESCALE = ("RescaleSlope", "RescaleIntercept")
TABLE = "ModalityLUTSequence"
VALUE_TAGS = (*RESCALE, "RescaleType", "PhotometricInterpretation", TABLE)
GREY = ("MONOCHROME1", "MONOCHROME2")
HU_TYPES = {"HU", "US", ""}  # US: unspecified, as many scanners write


def read_slice(image: Image, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One slice [H, W] in physical values, and which of its pixels are padding.

    Raises BadInput for damaged files and another shape.
    """
    stored, padding = _read_stored(image)
    if stored.shape != shape:
        raise BadInput(
            f"{image}: expected {shape[1]}×{shape[0]} pixels, found shape {stored.shape}. {AGAIN}"
        )
    with errors_as(f"{image}: expected a whole lookup table, found a bad one", SERIES_AGAIN):
        is_table = bool(image.header.get(TABLE))
        values = np.asarray(pydicom.pixels.apply_modality_lut(stored, image.header), np.float32)
    return values, padding & (not is_table)


def _read_stored(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """The pixel values [H, W] of an image as stored, and which are padding. Raises BadInput where they cannot be read."""
    sentence = f"{image}: expected whole pixel data, found none that can be read"
    with errors_as(sentence, AGAIN):
        data = open_object(image.file)
        syntax = data.file_meta.TransferSyntaxUID
        has_unused_bits = not syntax.is_encapsulated or syntax == pydicom.uid.RLELossless
        allocated = int(data.BitsAllocated)
        bits = int(data.get("BitsStored", allocated))
        above = allocated - 1 - int(data.get("HighBit", bits - 1))
    with (
        errors_as(f"{sentence} ({syntax.name})", DECODER if syntax.is_encapsulated else AGAIN),
        warnings.catch_warnings(action="ignore"),  # about values outside the standard
    ):
        warnings.filterwarnings("error", "The decoded RLE segment")
        frame = image.frame - 1 if image.frame else None
        # as allocated, because pydicom takes the lowest bits, wherever HighBit is
        how = {"bits_stored": allocated} if has_unused_bits else {}
        values: np.ndarray = pydicom.pixels.pixel_array(data, index=frame, **how)
    if values.dtype.kind == "f":
        return values, np.zeros(values.shape, bool)
    if has_unused_bits:
        below = allocated - bits - above
        if not 0 <= above <= allocated - bits or (below and (values & ((1 << below) - 1)).any()):
            raise BadInput(
                f"{image}: expected {bits} bits stored of {allocated} up to HighBit, and nothing below them, found HighBit {data.HighBit} and other values. {SERIES_AGAIN}"
            )
        # an overlay of old scanners may be stored in the other bits
        values <<= above
        values >>= allocated - bits
    return values, _find_padding(values, data, bits)


def _find_padding(values: np.ndarray, data: Any, bits: int) -> np.ndarray:
    """Which stored values are padding, whose value scanners write signed or unsigned, whatever the pixels are."""
    ends = [_word(data[name].value) & (1 << bits) - 1 for name in PADDING if name in data]
    if not ends:
        return np.zeros(values.shape, bool)
    words = values.astype(np.int64) & (1 << bits) - 1
    return (words >= min(ends)) & (words <= max(ends))


def _word(value: Any) -> int:
    return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)


@partial(KeptByFile, most=1)
def open_object(file: Path) -> Any:
    """The data set in a file, which is read once for all frames of it; frames that pydicom cannot unpack are unpacked."""
    data = read_dicom(file)
    if "TransferSyntaxUID" not in data.file_meta:
        is_implicit, _ = data.original_encoding
        kind = "ImplicitVRLittleEndian" if is_implicit else "ExplicitVRLittleEndian"
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, kind)
    syntax = data.file_meta.TransferSyntaxUID
    is_mask_in_runs = syntax == pydicom.uid.RLELossless and data.get("BitsAllocated") == 1
    if syntax == DEFLATED_FRAMES or is_mask_in_runs:
        _unpack_frames(data, file, is_mask_in_runs)
    return data


def _unpack_frames(data: Any, file: Path, in_runs: bool) -> None:
    """Replace deflated frames, or the run lengths of a mask's bits, which pydicom does not read, by plain pixel data."""
    count = int(data.get("NumberOfFrames") or 1)
    bits = int(data.BitsAllocated) * int(data.Rows) * int(data.Columns)
    size = (bits + 7) // 8
    with errors_as(f"{file}: expected {count} whole frames, found damaged ones", AGAIN):
        if in_runs:  # of bytes that hold eight pixels each
            as_bytes = {"rows": 1, "columns": size, "bits_allocated": 8, "bits_stored": 8}
            plain = pydicom.pixels.pixel_array(data, **as_bytes).reshape(count, size)
        else:
            frames = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=count)
            plain = np.array([_inflated(frame, size, file) for frame in frames])
    if bits % 8:  # the frames of plain pixel data follow each other bit by bit
        each = np.unpackbits(plain, axis=1, bitorder="little")[:, :bits]
        plain = np.packbits(each, bitorder="little")
    data.PixelData = plain.tobytes() + bytes(plain.size % 2)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = False
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian


def _inflated(frame: bytes, size: int, file: Path) -> np.ndarray:
    check_expansion([frame], -zlib.MAX_WBITS, file)
    return np.frombuffer(zlib.decompress(frame, -zlib.MAX_WBITS), np.uint8)[:size]


def find_meaning(images: Sequence[Image]) -> tuple[bool, str]:
    """Whether headers scale stored values, and why these cannot be Hounsfield units ('' where they can).

    Raises BadInput for a scale that is not whole, not above 0, or not that of all images.
    """
    kinds = set[str]()
    for image in images:
        slope, intercept = map(image.numbers, RESCALE)
        with errors_as(f"{image}: expected a whole lookup table, found a bad one", SERIES_AGAIN):
            is_table = bool(image.header.get(TABLE))
        kinds.add("table" if is_table else "slope" if slope else "")
        is_whole = (slope and intercept and slope[0] > 0 and not is_table) or not slope + intercept
        if not is_whole or len(kinds) > 1:
            raise BadInput(
                f"{image}: expected a RescaleSlope above 0 with a RescaleIntercept, a lookup table, or neither of both, as in the other images, found slope {slope}, intercept {intercept} and {'a' if is_table else 'no'} table. {SERIES_AGAIN}"
            )
    odd = {kind.upper() for kind in by_text(images, "RescaleType")} - HU_TYPES
    not_hu = f"a lookup table ({TABLE})" if kinds == {"table"} else ""
    return kinds != {""}, f"RescaleType {min(odd)}" if odd else not_hu


def fill_padding(data: np.ndarray, padded: np.ndarray, hounsfield: bool) -> tuple[str, ...]:
    """Give padding, which is no tissue, the value of air, or the lowest of the other voxels; returns a sentence on it.

    Where padding is about as low as other voxels, or among them, it is left as it is.
    """
    if padded.all() or not padded.any():
        return ()
    others, least, most = data[~padded], float(data[padded].min()), float(data[padded].max())
    low, high = float(others.min()), float(others.max())
    fill = min(low, AIR_HU) if hounsfield else low
    if least >= fill - PADDING_APART * (high - low) and most <= high:
        return ()
    data[padded] = fill
    return (
        f"{padded.mean():.0%} of its voxels are padding (PixelPaddingValue, {least:g}), and were set to {fill:g}.",
    )
