"""DICOM: the pixel values of an image, and their physical meaning."""

import functools
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.optional import pydicom
from voxlate.scans.formats.dicom_headers import Headers, Image, tag_errors, texts_of
from voxlate.scans.formats.format import errors_as
from voxlate.scans.formats.limits import CHUNK, check_expansion

DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax whose whole data set is deflated
START_BYTES = 4096  # hold the meta information, in which the transfer syntax is
MARK_AT, META_AT = 128, 132  # the mark DICM, and the meta information after it
# of the element with the length of all that follows it in the meta information
GROUP_LENGTH_BYTES = 12
AGAIN = "Get the file again."
SERIES_AGAIN = "Get the series again."
DECODER = (
    "Install the decoders (pip install '.[dicom-compressed]') or convert the series with dcm2niix."
)
VALUE_TAGS = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PhotometricInterpretation",
    "ModalityLUTSequence",
)
GREY = ("MONOCHROME1", "MONOCHROME2")
HU_TYPES = {"HU", "US", ""}  # US: unspecified, as many scanners write
MOST_APART = 100  # slopes of PET and of Philips' MR differ from slice to slice, but not by so much
TABLE = "a ModalityLUTSequence"
SLOPE = "RescaleSlope and RescaleIntercept"
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
    state = image.file.stat()
    sentence = f"{image}: expected whole pixel data, found none that can be read"
    with errors_as(sentence, AGAIN):
        data = _whole_file(image.file, state.st_size, state.st_mtime_ns)
        packed = data.file_meta.TransferSyntaxUID.is_encapsulated
    with (
        errors_as(sentence, DECODER if packed else AGAIN),
        warnings.catch_warnings(action="ignore"),  # about values outside the standard
    ):
        warnings.filterwarnings("error", "The decoded RLE segment")
        frame = image.frame - 1 if image.frame else None
        values: np.ndarray = pydicom.pixels.pixel_array(data, index=frame)
    unused_bits = 0 if packed else data.BitsAllocated - data.get("BitsStored", data.BitsAllocated)
    if unused_bits:  # an overlay of old scanners may be stored in them
        values <<= unused_bits
        values >>= unused_bits
    return values


@functools.lru_cache(maxsize=1)
def _whole_file(file: Path, size: int, mtime_ns: int) -> Any:
    """The data set in a file, which is read once for all frames of it; a changed file is read again."""
    return pydicom.dcmread(file)


@dataclass(frozen=True)
class Meaning:
    """The meaning of a series' values by its headers.

    scaled: whether they state a scale; not_hu: why they cannot be Hounsfield units, '' where they can; guesses: as
    those of Volume.
    """

    scaled: bool
    not_hu: str
    guesses: tuple[str, ...]


def find_meaning(headers: Headers, path: Path) -> Meaning:
    """The meaning of a series' stored values.

    Raises BadInput where some slices state a scale and others do not, and for slopes that are not above 0 or differ
    too much.
    """
    scales = {image: _scale_of(header, image) for image, header in headers.items()}
    _check_same_kind(scales)
    _check_slopes({image: s[0] for image, s in scales.items() if isinstance(s, tuple)}, path)
    scale = next(iter(scales.values()))
    types = {kind.upper() for kind in texts_of(headers, "RescaleType")}
    odd = sorted(types - HU_TYPES)
    not_hu = "a lookup table (ModalityLUTSequence)" if scale == "table" else ""
    if odd:
        not_hu = f"RescaleType {odd[0]}"
    inverted = any(
        header.PhotometricInterpretation == GREY[0] and header.get("Modality") != "CT"
        for header in headers.values()
    )
    guess = "Its display is inverted (MONOCHROME1); its values are taken as stored. Check that large ones are bright."
    return Meaning(scale is not None, not_hu, (guess,) * inverted)


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


def _check_same_kind(scales: dict[Image, Scale]) -> None:
    """Raise BadInput where some images are scaled by another kind of scale than others, or by none."""
    kinds = {
        image: TABLE if scale == "table" else SLOPE if scale else "neither"
        for image, scale in scales.items()
    }
    counts = Counter(kinds.values())
    odd = min(kinds, key=lambda image: (kinds[image] != "neither", counts[kinds[image]]))
    other = next((image for image in kinds if kinds[image] != kinds[odd]), None)
    if other:
        raise BadInput(
            f"{odd}: expected its values to be scaled by {kinds[other]}, as those of {other.name} are, found {kinds[odd]} in it. {SERIES_AGAIN}"
        )


def _check_slopes(slopes: dict[Image, float], path: Path) -> None:
    """Raise BadInput where the slopes of a series differ too much."""
    least = min(slopes, key=slopes.__getitem__, default=None)
    most = max(slopes, key=slopes.__getitem__, default=None)
    if least and most and slopes[most] > MOST_APART * slopes[least]:
        raise BadInput(
            f"{path}: expected rescale slopes of one size, found {slopes[least]:g} in {least.name} and {slopes[most]:g} in {most.name}. {SERIES_AGAIN}"
        )
