"""DICOM: the headers of files and of the frames in them, their tags, and pixel values."""

import gzip
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, MutableSequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.base.optional import pydicom
from voxlate.scans.formats.format import GZIP, KeptByFile, check_fetched, errors_as

MARK_AT, MARK = 128, b"DICM"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # each frame is deflated; newer than pydicom 3.0
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
SERIES_AGAIN = "Export the series again, or convert it with dcm2niix."
DECODER = "Get the file again, store it uncompressed, or install a decoder: pip install 'voxlate[dicom-compressed]' installs gdcm."


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

        Raises BadInput for a value that its type does not allow.
        """
        try:
            value = self.header.get(tag)
        except Exception as error:  # pydicom converts values when they are asked for
            stored = str(self.header.get_item(tag).value)[:80]
            raise BadInput(
                f"{self}: expected a sound value of {tag}, found {stored}. {SERIES_AGAIN}"
            ) from error
        if isinstance(value, MutableSequence):
            value = "\\".join(map(str, value))
        return "" if value is None else " ".join(str(value).split())

    def numbers(self, tag: str, count: int = 0) -> list[float]:
        """The numbers of a tag; [] where it states none.

        Raises BadInput for other values, and where their number is not `count`, if that is not 0.
        """
        text = self.text(tag)
        with errors_as(
            f"{self}: expected {count or 'finite'} numbers in {tag}, found '{text[:80]}'",
            SERIES_AGAIN,
        ):
            numbers = [float(part) for part in text.split("\\")] if text else []
            if not np.isfinite(numbers).all() or len(numbers) != (count or len(numbers)):
                raise ValueError(text)
        return numbers

    def number(self, tag: str) -> float | None:
        """The first number of a tag; None where it states none."""
        return next(iter(self.numbers(tag)), None)


def no_warnings() -> warnings.catch_warnings:
    """No warnings about values outside the standard; the tags that are used are checked."""
    return warnings.catch_warnings(action="ignore")


def looks_like_dicom(path: Path) -> bool:
    """Whether a file, or what gzip packed in it, has the mark of DICOM, or begins as one without the mark and all before it."""
    try:
        with _unpacked(path) as file:
            start = file.read(MARK_AT + len(MARK))
    except (OSError, EOFError, zlib.error):
        return False
    # its first element, of group 2 or 8, is short
    bare = start[:2] in (b"\2\0", b"\b\0") and start[3:8:4] == b"\0\0"
    return start[MARK_AT:] == MARK or bare


def _unpacked(path: Path) -> BinaryIO | gzip.GzipFile:
    """A file, or what gzip packed in it."""
    file = path.open("rb")
    start = file.read(len(GZIP))
    file.seek(0)
    return gzip.open(file) if start == GZIP else file


def read_dicom(path: Path, **options: Any) -> Any:
    """The data set of a DICOM file, with or without its mark, or packed by gzip; options: those of pydicom.dcmread."""
    with _unpacked(path) as file:
        data = pydicom.dcmread(file, **{"force": True} | options)
    data.filename = path
    return data


def read_header(file: Path, tags: list[str]) -> Any:
    """The header of a DICOM image, None for an object that is no image; raises BadInput for anything else."""
    expected = f"{file}: expected a DICOM image, found"
    advice = "Get the file again, or move it elsewhere."
    check_fetched(file)
    if not file.is_file():
        raise BadInput(f"{expected} nothing, or a folder, in the place of a file. {advice}")
    with errors_as(f"{expected} something else, or a damaged file", advice):
        bare = looks_like_dicom(file)
        header = read_dicom(file, stop_before_pixels=True, specific_tags=tags, force=bare)
        if "Rows" in header and "Columns" in header:
            return header
        uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID", "")
        kind = pydicom.uid.UID(str(uid))
        # contours, reports, registrations, vendors' own; a file cut short before or in its UID has no modality
        is_whole = "Modality" in header or kind == pydicom.uid.MediaStorageDirectoryStorage
        if is_whole and "Image" not in kind.name:
            return None
    raise BadInput(f"{expected} one without the size of its pixels (cut short?). {advice}")


def images_in(header: Any, file: Path) -> Iterator[Image]:
    """The images of a file: one, or the frames of an enhanced object.

    Raises BadInput for an enhanced object without a group of attributes for each frame.
    """
    if SHARED not in header and PER_FRAME not in header:
        yield Image(file, header)
        return
    with errors_as(f"{file}: expected a functional group for each frame, found others", AGAIN):
        groups = list(header.get(PER_FRAME) or [])
        if len(groups) != int(header.get("NumberOfFrames") or 1):
            raise ValueError(len(groups))
        left_out = {pydicom.tag.Tag(name) for name in OF_THE_OBJECT}
        common = {tag: stored for tag, stored in header.items() if tag not in left_out}
        shared = list(header.get(SHARED) or [])[:1]
        for number, group in enumerate(groups, start=1):
            yield Image(file, _header_of_frame(common, [*shared, group]), number)


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


def read_slice(image: Image, shape: tuple[int, ...]) -> np.ndarray:
    """One slice [H, W] in physical values.

    Raises BadInput for damaged files, another shape, and bits that pydicom does not find.
    """
    expected = f"{image}: expected {shape[1]}×{shape[0]} whole pixels, found"
    with errors_as(f"{expected} none that can be read", AGAIN):
        data = open_object(image.file)
        syntax = data.file_meta.TransferSyntaxUID
        bits = end = int(data.get("BitsStored", data.BitsAllocated))
        if not syntax.is_encapsulated or syntax == pydicom.uid.RLELossless:
            end = int(data.get("HighBit", bits - 1)) + 1
    with (
        errors_as(
            f"{expected} none that can be read ({syntax.name})",
            DECODER if syntax.is_encapsulated else AGAIN,
        ),
        no_warnings(),
    ):
        warnings.filterwarnings("error", "The decoded RLE segment")
        frame = image.frame - 1 if image.frame else None
        # bits above may hold an overlay of old scanners
        stored: np.ndarray = pydicom.pixels.pixel_array(data, index=frame, bits_stored=end)
        below = end - bits
        if below and (stored & ((1 << below) - 1)).any():
            raise ValueError("values below the stored bits")
        stored = stored >> below if below else stored
        values = pydicom.pixels.apply_rescale(stored, image.header)
    if stored.shape != shape:
        raise BadInput(f"{expected} shape {stored.shape}. {AGAIN}")
    return np.asarray(values, np.float32)


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
        _unpack_frames(data, is_mask_in_runs)
    return data


def _unpack_frames(data: Any, in_runs: bool) -> None:
    """Replace deflated frames, or the run lengths of a mask's bits, which pydicom does not read, by plain pixel data."""
    count = int(data.get("NumberOfFrames") or 1)
    bits = int(data.BitsAllocated) * int(data.Rows) * int(data.Columns)
    size = (bits + 7) // 8
    if in_runs:  # of bytes that hold eight pixels each
        as_bytes = {"rows": 1, "columns": size, "bits_allocated": 8, "bits_stored": 8}
        packed = pydicom.pixels.pixel_array(data, **as_bytes).reshape(count, size)
    else:
        frames = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=count)
        inflated = [zlib.decompress(frame, -zlib.MAX_WBITS)[:size] for frame in frames]
        packed = np.frombuffer(b"".join(inflated), np.uint8).reshape(count, size)
    # the frames of plain pixel data follow each other bit by bit
    each = np.unpackbits(packed, axis=1, bitorder="little")[:, :bits]
    plain = np.packbits(each, bitorder="little")
    data.PixelData = plain.tobytes() + bytes(plain.size % 2)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = False
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
