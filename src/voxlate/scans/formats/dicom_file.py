"""DICOM: the headers of files and of the frames in them, their tags, pixel values, and what these mean."""

import gzip
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.base.optional import pydicom
from voxlate.scans.formats.format import (
    CHUNK,
    GZIP,
    KeptByFile,
    check_expansion,
    check_fetched,
    errors_as,
)

DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax whose whole data set is deflated
START_BYTES = 4096  # hold the meta information, in which the transfer syntax is
MARK_AT, META_AT = 128, 132  # the mark DICM, and the meta information after it
GROUP_LENGTH_BYTES = 12  # the element that states the length of the meta information after it
GZIP_BITS = zlib.MAX_WBITS | 16
SHARED = "SharedFunctionalGroupsSequence"
PER_FRAME = "PerFrameFunctionalGroupsSequence"
# attributes of functional groups that have another name in a file of one image
RENAMED = {
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "EffectiveEchoTime": "EchoTime",
    "FrameType": "ImageType",
}
# what one object states of all its images together
OF_THE_OBJECT = (
    SHARED,
    PER_FRAME,
    "NumberOfFrames",
    "InstanceNumber",
    "ImagesInAcquisition",
    "NumberOfSlices",
    "ContentTime",
    "AcquisitionTime",
    "AcquisitionDateTime",
)
# What a series is that is no ordinary scan, by its ImageType (values behind backslashes) or its description; the first counts.
KINDS = {
    "localiser": r"locali[sz]|scout|topogram|surview|survey|3-?plane|three plane|\bloc\b",
    "screenshot": r"screen.?(save|shot)|posdisp",
    "map": r"\\(e?adc|fa|tracew|(t1|t2|t2.star|r2|r2.star|b0|b1|field).map|(rel)?cb[fv]|mtt|ttp|tmax)(?![^\\\n])",
    "phase image": r"\\(p|phase|phase.map)(?![^\\\n])",
    "subtraction": r"subtract",
    "projection": r"\bm(ax|in|n)?[ -]?ip\b|projection image",
    "echo-planar image of function or diffusion": r"ep2d|(?<![a-z])(epi|bold)(?![a-z])|\\(fmri|diffusion)(?![^\\\n])",
}
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


@dataclass(frozen=True, eq=False)
class Image:
    """One image of a DICOM file, and its header. frame: its number, from 1, in a file of several; 0 in a file of one."""

    file: Path
    header: Any
    frame: int = 0

    @property
    def name(self) -> str:
        """The name of the file, with the number of the frame."""
        return str(self).removeprefix(f"{self.file.parent}/")

    def __str__(self) -> str:
        return f"{self.file} (frame {self.frame})" if self.frame else f"{self.file}"

    def text(self, tag: str) -> str:
        """The value of a tag as text in one line, several values with a backslash between; '' where there is none.

        Raises BadInput, with the text as it is stored, for a value that its type does not allow.
        """
        try:
            value = self.header.get(tag)
            if isinstance(value, bytes):  # of a type that pydicom does not know
                value = value.decode("latin-1").rstrip("\0")
            if isinstance(value, MutableSequence):
                value = "\\".join(map(str, value))
            return "" if value is None else " ".join(str(value).split())
        except Exception as error:  # pydicom converts values when they are asked for
            stored = self.header.get_item(tag).value
            text = stored.decode("latin-1") if isinstance(stored, bytes) else type(stored).__name__
            raise self._bad_value(tag, text, "a sound value") from error

    def numbers(self, tag: str, count: int = 0) -> list[float]:
        """The numbers of a tag, whatever its type; [] where it states none.

        Raises BadInput, with tag and text, for other values, and where their number is not `count`, if that is not 0.
        """
        text = self.text(tag)
        try:
            numbers = [float(part) for part in text.split("\\")] if text else []
        except ValueError as error:
            raise self._bad_value(tag, text, "numbers") from error
        if not np.isfinite(numbers).all() or (count and len(numbers) != count):
            raise self._bad_value(tag, text, f"{count or 'finite'} numbers")
        return numbers

    def number(self, tag: str) -> float | None:
        """The value of a tag as a number; None where it is absent or no number."""
        try:
            return self.numbers(tag)[0]
        except (BadInput, IndexError):
            return None

    def _bad_value(self, tag: str, text: str, expected: str) -> BadInput:
        comma = "decimal commas" if "," in text else "none"
        return BadInput(
            f"{self}: expected {expected} in {tag}, found {comma} ('{text.strip()[:80]}'). Export the series again, with points in its numbers."
        )


def no_warnings() -> warnings.catch_warnings:
    """No warnings about values outside the standard; the tags that are used are checked."""
    return warnings.catch_warnings(action="ignore")


def looks_like_dicom(path: Path) -> bool:
    """Whether a file, or what gzip packed in it, has the mark of DICOM, or begins as one without the mark and all before it."""
    with path.open("rb") as file:
        start = file.read(META_AT)
    if start[:2] == GZIP:
        try:
            with gzip.open(path) as unpacked:
                start = unpacked.read(META_AT)
        except (OSError, EOFError, zlib.error):
            return False
    # its first element, of group 2 or 8, is short
    bare = start[:2] in (b"\2\0", b"\b\0") and start[3:8:4] == b"\0\0"
    return start[MARK_AT:] == b"DICM" or bare


def read_dicom(file: Path, **options: Any) -> Any:
    """The data set of a DICOM file, with or without its mark, or packed by gzip; options: those of pydicom.dcmread.

    Raises BadInput where packed data expand beyond the largest volume: pydicom expands a deflated data set at once.
    """
    with file.open("rb") as stream:
        start = stream.read(START_BYTES)
        skipped, bits = 0, 0
        if start[:2] == GZIP:
            bits = GZIP_BITS
        elif DEFLATED in start and start[MARK_AT:META_AT] == b"DICM":
            length = pydicom.filereader.read_file_meta_info(file).FileMetaInformationGroupLength
            skipped, bits = META_AT + GROUP_LENGTH_BYTES + length, -zlib.MAX_WBITS
        if bits:
            stream.seek(skipped)
            check_expansion(iter(lambda: stream.read(CHUNK), b""), bits, file)
        stream.seek(0)
        content = BytesIO(gzip.decompress(stream.read())) if bits == GZIP_BITS else stream
        return pydicom.dcmread(content, **{"force": True} | options)


def read_header(file: Path, tags: list[str]) -> Any:
    """The header of a DICOM image, None for an object that is no image; raises BadInput for anything else."""
    expected = f"{file}: expected a DICOM image, found"
    advice = "Get the file again, or move it elsewhere."
    check_fetched(file)
    if not file.is_file():
        found = "something else" if file.exists() else "nothing"
        raise BadInput(f"{expected} {found} in the place of a file. {advice}")
    with errors_as(f"{expected} something else, or a damaged file", advice):
        bare = looks_like_dicom(file)
        header = read_dicom(file, stop_before_pixels=True, specific_tags=tags, force=bare)
        if "Rows" in header and "Columns" in header:
            return header
        uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID", "")
        kind = pydicom.uid.UID(str(uid))
        # contours, reports, registrations, vendors' own; a file cut short in its UID has no modality
        whole = "Modality" in header or kind == pydicom.uid.MediaStorageDirectoryStorage
        known = kind.is_private or kind.name != kind
        if whole and known and "Image" not in kind.name:
            return None
    raise BadInput(f"{expected} one without the size of its pixels (cut short?). {advice}")


def images_in(header: Any, file: Path) -> Iterator[Image]:
    """The images of a file: one, or the frames of an enhanced object.

    Raises BadInput for an enhanced object without a group of attributes for each frame.
    """
    if SHARED not in header and PER_FRAME not in header:
        yield Image(file, header)
        return
    with errors_as(f"{file}: expected sound functional groups, found bad ones", "Get it again."):
        shared = list(header.get(SHARED) or [])
        groups = list(header.get(PER_FRAME) or [])
        count = int(header.get("NumberOfFrames") or 1)
        if len(groups) != count:
            raise BadInput(
                f"{file}: expected a functional group for each of {count} frames, found an enhanced object with {len(groups)}. Convert it with dcm2niix to NIfTI."
            )
        left_out = {pydicom.tag.Tag(name) for name in OF_THE_OBJECT}
        common = {tag: stored for tag, stored in header.items() if tag not in left_out}
        for number, group in enumerate(groups, start=1):
            yield Image(file, _header_of_frame(common, [*shared[:1], group]), number)


def _header_of_frame(common: dict[Any, Any], groups: list[Any]) -> Any:
    """The header of a frame: that of its object, and the attributes of its functional groups, named as in a file of one image."""
    frame = pydicom.Dataset()
    frame.update(common)
    for group in groups:
        for sequence in group:
            for attributes in sequence.value[:1] if sequence.VR == "SQ" else ():
                frame.update(attributes)
    for name, plain in RENAMED.items():
        if name in frame:
            setattr(frame, plain, frame[name].value)
    return frame


def kind_of(image_type: str, description: str) -> str:
    """The kind of a series that is no ordinary scan (KINDS); '' for one that may be."""
    text = f"{image_type}\n{description}"
    return next((kind for kind, words in KINDS.items() if re.search(words, text, re.I)), "")


def by_text(images: Iterable[Image], tag: str) -> dict[str, list[Image]]:
    """The images that state each value of a tag."""
    return grouped((image.text(tag), image) for image in images)


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
        bits = end = int(data.get("BitsStored", data.BitsAllocated))
        if not syntax.is_encapsulated or syntax == pydicom.uid.RLELossless:
            end = int(data.get("HighBit", bits - 1)) + 1
    with (
        errors_as(f"{sentence} ({syntax.name})", DECODER if syntax.is_encapsulated else AGAIN),
        warnings.catch_warnings(action="ignore"),  # about values outside the standard
    ):
        warnings.filterwarnings("error", "The decoded RLE segment")
        frame = image.frame - 1 if image.frame else None
        # bits above may hold an overlay of old scanners
        values: np.ndarray = pydicom.pixels.pixel_array(data, index=frame, bits_stored=end)
    if values.dtype.kind == "f":
        return values, np.zeros(values.shape, bool)
    below = end - bits
    if below < 0 or (values & ((1 << below) - 1)).any():
        raise BadInput(
            f"{image}: expected {bits} bits up to HighBit, and nothing below them, found HighBit {end - 1} and other values. {SERIES_AGAIN}"
        )
    return values >> below, _find_padding(values, data, bits)


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
