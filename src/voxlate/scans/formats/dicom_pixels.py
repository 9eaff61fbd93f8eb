"""DICOM: the pixel values of an image, and their physical meaning."""

import warnings
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import pydicom
from voxlate.scans.formats.dicom_headers import Headers, Image, numbers_of, read_dicom, texts_of
from voxlate.scans.formats.format import KeptByFile, check_expansion, errors_as

AGAIN = "Get the file again."
SERIES_AGAIN = "Get the series again."
DECODER = "pip install 'voxlate[dicom-compressed]' installs gdcm."
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # each frame is deflated; newer than pydicom 3.0
JPEG_XL = ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")
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
RESCALE = ("RescaleSlope", "RescaleIntercept")
TABLE = "ModalityLUTSequence"
VALUE_TAGS = (*RESCALE, "RescaleType", "PhotometricInterpretation", TABLE)
GREY = ("MONOCHROME1", "MONOCHROME2")
HU_TYPES = {"HU", "US", ""}  # US: unspecified, as many scanners write


def read_slice(image: Image, header: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One slice [H, W] in physical values: its lookup table, or its slope and intercept, applied.

    Raises BadInput for damaged files and another shape.
    """
    pixels = _read_stored(image)
    if pixels.shape != shape:
        raise BadInput(
            f"{image}: expected {shape[1]}×{shape[0]} pixels, found shape {pixels.shape}. {AGAIN}"
        )
    if not is_scaled(header, image):
        return pixels
    with errors_as(f"{image}: expected a whole lookup table, found a bad one", SERIES_AGAIN):
        return np.asarray(pydicom.pixels.apply_modality_lut(pixels, header))


def _read_stored(image: Image) -> np.ndarray:
    """The pixel values [H, W] of an image as stored. Raises BadInput where they cannot be read."""
    sentence = f"{image}: expected whole pixel data, found none that can be read"
    with errors_as(sentence, AGAIN):
        data = whole_file(image.file)
        syntax = data.file_meta.TransferSyntaxUID
        packed = syntax.is_encapsulated
        has_unused_bits = not packed or syntax == pydicom.uid.RLELossless
        allocated = int(data.BitsAllocated)
        stored = int(data.get("BitsStored", allocated))
        above = allocated - 1 - int(data.get("HighBit", stored - 1))
        advice = _advice(syntax)
    with (
        errors_as(f"{sentence} ({syntax.name})" if packed else sentence, advice),
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


def _advice(syntax: Any) -> str:
    """What to do where pixels in a transfer syntax cannot be read."""
    decoder = pydicom.pixels.get_decoder(syntax)
    if decoder.is_available:
        return AGAIN
    return f"Install a decoder ({' or '.join(decoder.missing_dependencies)}), or store the file uncompressed. {DECODER}"


@partial(KeptByFile, most=1)
def whole_file(file: Path) -> Any:
    """The data set in a file, which is read once for all frames of it; frames that pydicom cannot unpack are unpacked."""
    data = read_dicom(file)
    if "TransferSyntaxUID" not in data.file_meta:
        is_implicit, _ = data.original_encoding
        kind = "ImplicitVRLittleEndian" if is_implicit else "ExplicitVRLittleEndian"
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, kind)
    syntax = data.file_meta.TransferSyntaxUID
    if syntax in JPEG_XL:
        raise BadInput(
            f"{file}: expected pixels in a transfer syntax that pydicom reads, found JPEG XL ({syntax}), for which it has no decoder. Store the file uncompressed (djxl, or a DICOM toolkit)."
        )
    is_mask_in_runs = syntax == pydicom.uid.RLELossless and data.get("BitsAllocated") == 1
    if syntax == DEFLATED_FRAMES or is_mask_in_runs:
        _unpack_frames(data, file, is_mask_in_runs)
    elif not (syntax.is_private or syntax.is_transfer_syntax):
        raise BadInput(
            f"{file}: expected a transfer syntax that pydicom knows, found {syntax}. Store the file uncompressed."
        )
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


def find_meaning(headers: Headers) -> tuple[bool, str]:
    """Whether headers scale stored values, and why these cannot be Hounsfield units ('' where they can).

    Raises BadInput for slopes that are not above 0.
    """
    scaled, *_ = [is_scaled(header, image) for image, header in headers.items()]
    types = {kind.upper() for kind in texts_of(headers, "RescaleType")}
    not_hu = f"a lookup table ({TABLE})" if next(iter(headers.values())).get(TABLE) else ""
    if odd := types - HU_TYPES:
        not_hu = f"RescaleType {min(odd)}"
    return scaled, not_hu


def is_scaled(header: Any, file: object) -> bool:
    """Whether a header scales stored to physical values; raises BadInput where its scale is unusable."""
    stated = {name: numbers[0] for name in RESCALE if (numbers := numbers_of(header, name, file))}
    with errors_as(f"{file}: expected a whole lookup table, found a bad one", SERIES_AGAIN):
        is_table = bool(header.get(TABLE))
    if is_table and stated:
        raise BadInput(f"{file}: expected a lookup table or a slope, found both. {SERIES_AGAIN}")
    if len(stated) == 1:
        raise BadInput(
            f"{file}: expected RescaleSlope and RescaleIntercept or neither, found {next(iter(stated))} alone. {SERIES_AGAIN}"
        )
    if stated and stated[RESCALE[0]] <= 0:
        raise BadInput(
            f"{file}: expected a rescale slope above 0, found {stated[RESCALE[0]]:g}. {AGAIN}"
        )
    return bool(stated or is_table)


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
    stated = [value for name in PADDING[:2] if (value := header.get(name)) is not None]
    if not stated or header.get(TABLE):
        return []
    bits = int(header.BitsStored)
    ends = []
    for value in stated:
        number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
        number &= (1 << bits) - 1
        if header.PixelRepresentation and number >> bits - 1:
            number -= 1 << bits  # scanners write it signed or unsigned, whatever the pixels are
        slope, intercept = (numbers_of(header, name, "") for name in RESCALE)
        ends.append(np.float32(number * slope[0] + intercept[0] if slope else number))
    return sorted(ends)
