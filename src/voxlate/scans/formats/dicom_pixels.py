"""DICOM: the pixel values of an image, and their physical meaning."""

import warnings
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import pydicom
from voxlate.scans.formats.dicom_headers import Headers, Image, tag_errors, texts_of
from voxlate.scans.formats.format import CHUNK, KeptByFile, check_expansion, errors_as

DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax whose whole data set is deflated
START_BYTES = 4096  # hold the meta information, in which the transfer syntax is
MARK_AT, META_AT = 128, 132  # the mark DICM, and the meta information after it
# of the element with the length of all that follows it in the meta information
GROUP_LENGTH_BYTES = 12
AGAIN = "Get the file again."
SERIES_AGAIN = "Get the series again."
DECODER = "Install the decoders (pip install 'voxlate[dicom-compressed]') or convert the series with dcm2niix."
# of which the first two state padding, and the others how they are stored
PADDING = (
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
AIR_HU = -1000.0
PADDING_APART = 0.1  # share of the other voxels' range: nearer padding is background
VALUE_TAGS = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PhotometricInterpretation",
    "ModalityLUTSequence",
)
GREY = ("MONOCHROME1", "MONOCHROME2")
HU_TYPES = {"HU", "US", ""}  # US: unspecified, as many scanners write
# slope and intercept, a lookup table, or values as stored
Scale = tuple[float, float] | Literal["table"] | None


def check_deflated(stream: BinaryIO, file: Path) -> None:
    """Raise BadInput where a deflated data set is cut short or expands beyond the largest volume.

    pydicom expands all of it at once. The stream is left at its start.
    """
    start = stream.read(START_BYTES)
    stream.seek(0)
    if DEFLATED not in start or start[MARK_AT:META_AT] != b"DICM":
        return
    meta = pydicom.filereader.read_file_meta_info(file)
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


def read_slice(image: Image, header: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One slice [H, W] in physical values: its lookup table, or its slope and intercept, applied.

    Raises BadInput for damaged files and another shape.
    """
    pixels = _read_stored(image)
    if pixels.shape != shape:
        raise BadInput(
            f"{image}: expected {shape[1]}×{shape[0]} pixels, found shape {pixels.shape}. {AGAIN}"
        )
    scale = _scale_of(header, image)
    if scale == "table":
        with errors_as(f"{image}: expected a whole lookup table, found a bad one", SERIES_AGAIN):
            return np.asarray(pydicom.pixels.apply_modality_lut(pixels, header))
    slope, intercept = scale or (1.0, 0.0)
    values = np.multiply(pixels, slope, dtype=np.float64)
    values += intercept
    return values


def _read_stored(image: Image) -> np.ndarray:
    """The pixel values [H, W] of an image as stored. Raises BadInput where they cannot be read."""
    sentence = f"{image}: expected whole pixel data, found none that can be read"
    with errors_as(sentence, AGAIN):
        data = _whole_file(image.file)
        syntax = data.file_meta.TransferSyntaxUID
        packed = syntax.is_encapsulated
        has_unused_bits = not packed or syntax == pydicom.uid.RLELossless
        allocated = int(data.BitsAllocated)
        stored = int(data.get("BitsStored", allocated))
        above = allocated - 1 - int(data.get("HighBit", stored - 1))
    with (
        errors_as(sentence, DECODER if packed else AGAIN),
        warnings.catch_warnings(action="ignore"),  # about values outside the standard
    ):
        warnings.filterwarnings("error", "The decoded RLE segment")
        frame = image.frame - 1 if image.frame else None
        # as allocated, because pydicom takes the lowest bits, wherever HighBit is
        bits = {"bits_stored": allocated} if has_unused_bits else {}
        values: np.ndarray = pydicom.pixels.pixel_array(data, index=frame, **bits)
    if not has_unused_bits or values.dtype.kind == "f":
        return values
    if not 0 <= above <= allocated - stored:
        raise BadInput(
            f"{image}: expected HighBit from {stored - 1} to {allocated - 1} for {stored} bits stored of {allocated}, found {data.HighBit}. {SERIES_AGAIN}"
        )
    below = allocated - stored - above
    if below and (values & ((1 << below) - 1)).any():
        raise BadInput(
            f"{image}: expected nothing in the {below} bits below the {stored} stored ones (HighBit {data.HighBit}), found values there. {SERIES_AGAIN}"
        )
    # an overlay of old scanners may be stored in the other bits
    values <<= above
    values >>= allocated - stored
    return values


@partial(KeptByFile, most=1)
def _whole_file(file: Path) -> Any:
    """The data set in a file, which is read once for all frames of it."""
    data = pydicom.dcmread(file, force=True)  # its header has been read
    if "TransferSyntaxUID" not in data.file_meta:
        is_implicit, _ = data.original_encoding
        kind = "ImplicitVRLittleEndian" if is_implicit else "ExplicitVRLittleEndian"
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, kind)
    return data


def find_meaning(headers: Headers) -> tuple[bool, str]:
    """Whether headers scale stored values, and why these cannot be Hounsfield units ('' where they can).

    Raises BadInput for slopes that are not above 0.
    """
    scale, *_ = [_scale_of(header, image) for image, header in headers.items()]
    types = {kind.upper() for kind in texts_of(headers, "RescaleType")}
    not_hu = "a lookup table (ModalityLUTSequence)" if scale == "table" else ""
    if odd := types - HU_TYPES:
        not_hu = f"RescaleType {min(odd)}"
    return scale is not None, not_hu


def fill_padding(data: np.ndarray, headers: Iterable[Any], hounsfield: bool) -> tuple[str, ...]:
    """Give padding, which is no tissue, the value of air, or the lowest of the other voxels; returns a sentence on it.

    Where padding is about as low as other voxels, or among them, it is left as it is.
    """
    ends = [_padding_of(header) for header in headers]
    padded = np.zeros(data.shape, bool)
    for plane, mask, values in zip(data, padded, ends, strict=True):
        if values:
            mask[:] = (plane >= values[0]) & (plane <= values[-1])
    if padded.all() or not padded.any():
        return ()
    low, least = (float(data.min(where=mask, initial=np.inf)) for mask in (~padded, padded))
    high, most = (float(data.max(where=mask, initial=-np.inf)) for mask in (~padded, padded))
    fill = min(low, AIR_HU) if hounsfield else low
    if least >= fill - PADDING_APART * (high - low) and most <= high:
        return ()
    data[padded] = fill
    return (
        f"{padded.mean():.0%} of its voxels are padding (PixelPaddingValue, {least:g}), and were set to {fill:g}.",
    )


def _padding_of(header: Any) -> list[np.float32]:
    """The values of padding in physical units, or its two ends; none where the header states none."""
    scale = _scale_of(header, "")
    stated = [value for name in PADDING[:2] if (value := header.get(name)) is not None]
    if not stated or scale == "table":
        return []
    slope, intercept = scale or (1.0, 0.0)
    bits = int(header.BitsStored)
    ends = []
    for value in stated:
        number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
        number &= (1 << bits) - 1
        if header.PixelRepresentation and number >> bits - 1:
            number -= 1 << bits  # scanners write it signed or unsigned, whatever the pixels are
        ends.append(np.float32(number * slope + intercept))
    return sorted(ends)


def _scale_of(header: Any, file: object) -> Scale:
    """The scale from stored to physical values that a header states; raises BadInput where it is unusable."""
    with tag_errors("RescaleSlope, RescaleIntercept or ModalityLUTSequence", file):
        table = bool(header.get("ModalityLUTSequence"))
        values = {name: header.get(name) for name in ("RescaleSlope", "RescaleIntercept")}
        stated = {name: float(value) for name, value in values.items() if value not in (None, "")}
    if table and stated:
        raise BadInput(f"{file}: expected a lookup table or a slope, found both. {SERIES_AGAIN}")
    if len(stated) == 1:
        raise BadInput(
            f"{file}: expected RescaleSlope and RescaleIntercept or neither, found {next(iter(stated))} alone. {SERIES_AGAIN}"
        )
    if not stated:
        return "table" if table else None
    slope, intercept = stated.values()
    if not (np.isfinite([slope, intercept]).all() and slope > 0):
        raise BadInput(
            f"{file}: expected a rescale slope above 0, found {slope:g} (intercept {intercept:g}). {AGAIN}"
        )
    return slope, intercept
