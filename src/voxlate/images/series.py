"""The DICOM series that lie in a folder: what their headers say of them, and paths that name one, or one frame."""

import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator, MutableSequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from voxlate.errors import BadInput
from voxlate.images.formats import UNREADABLE, reason

GEOMETRY = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
# all that is asked of a header; whole ones, with the scanner's own notes, would fill the memory for long series
ASKED = [
    *GEOMETRY,
    "Modality",
    "SeriesNumber",
    "SeriesInstanceUID",
    "SeriesDescription",
    "ProtocolName",
    "ImageType",
    "NumberOfFrames",
    "SamplesPerPixel",
    "SpacingBetweenSlices",
    "SliceThickness",
    "AcquisitionTime",
    "ContentTime",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "InstanceNumber",
]
# '#frame=12' (from 1), '#peak' or '#peak+8s' after a path; '@1.5s' after these: seconds from one frame to the next
FRAME = re.compile(r"(?:frame=(?P<number>\d+)|peak(?:(?P<after>[+-]\d+(?:\.\d+)?)s)?)(?:@(?P<step>\d+(?:\.\d+)?)s)?")
MOST_SHOWN = 8


@dataclass(frozen=True)
class Seen:
    """A series as the first of its headers describes it."""

    folder: Path
    key: str
    modality: str
    description: str
    protocol: str
    image_type: str
    images: int

    @property
    def path(self) -> Path:
        """'FOLDER#key', which names this series alone."""
        return Path(f"{self.folder}#{self.key}")

    def __str__(self) -> str:
        return f'{self.modality} "{self.description}", {self.images} images: {self.path.name}'


def looks_like_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def address(path: Path) -> tuple[Path, str]:
    """The folder and the key of a path 'FOLDER#key' that names one series of it; the path and '' for any other."""
    folder, mark, key = str(path).rpartition("#")
    if not mark or not re.fullmatch("[0-9a-f]{8}", key) or path.exists() or not Path(folder).is_dir():
        return path, ""
    return Path(folder), key


def without_frame(path: Path) -> tuple[Path, str]:
    """What a path 'FILE#frame=12', 'FOLDER#peak' or 'FOLDER#key#peak+8s' names before its frame, and the frame.

    The path itself and '' for any other.
    """
    whole, mark, frame = str(path).rpartition("#")
    if not mark or not FRAME.fullmatch(frame) or path.exists() or not address(Path(whole))[0].exists():
        return path, ""
    return Path(whole), frame


def is_there(path: Path) -> bool:
    """Whether a file, a folder, or the place of a series' or a frame's path exists."""
    return address(without_frame(path)[0])[0].exists()


def files_of(path: Path) -> list[Path]:
    """The files behind a path: itself, all in a folder, or those of the series that 'FOLDER#key' names."""
    path = without_frame(path)[0]
    place, key = address(path)
    return list(headers_of(path)) if key else _files(place)


def headers_of(path: Path) -> dict[Path, Any]:
    """The headers of the images in a folder, of one file, or of the series that 'FOLDER#key' names.

    Raises BadInput for damaged files, a file that is no image, and a key that no series has.
    """
    place, key = address(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values outside the standard; what matters is checked later
        found = {file: header for file, header in _headers(place) if not key or _key(header, file) == key}
    if key and not found:
        raise BadInput(f"{path}: expected a series of that key, found only {listed(list_series(place))}. Name another.")
    return found


def list_series(folder: Path) -> list[Seen]:
    """The image series in a folder, by one pass over its headers; contours, reports and notes are passed over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return series_among(_headers(folder))


def series_among(headers: Iterable[tuple[Path, Any]]) -> list[Seen]:
    """The series that files belong to: those of one have one UID, number, modality and description."""
    found: dict[str, Seen] = {}
    for file, header in headers:
        key = _key(header, file)
        if key in found:
            found[key] = replace(found[key], images=found[key].images + 1)
            continue
        modality, description, protocol, image_type = (
            _text(header, name, file) for name in ("Modality", "SeriesDescription", "ProtocolName", "ImageType")
        )
        found[key] = Seen(file.parent, key, modality, description, protocol, image_type, images=1)
    return sorted(found.values(), key=lambda one: (one.modality, one.description, one.key))


def listed(series: list[Seen]) -> str:
    """Series in a sentence: what they are, and the paths that name them."""
    shown = "; ".join(str(one) for one in series[:MOST_SHOWN]) + ("; …" if len(series) > MOST_SHOWN else "")
    return f"{len(series)} ({shown})" if series else "none"


def _headers(place: Path) -> Iterator[tuple[Path, Any]]:
    pydicom = load_pydicom(place)
    for file in _files(place):
        if (header := _header(pydicom, file, place)) is not None:
            yield file, header


def load_pydicom(path: Path) -> ModuleType:
    """The package, which is an extra; raises BadInput where it is absent."""
    try:
        import pydicom
    except ImportError as error:
        raise BadInput(
            f"{path}: expected pydicom to read DICOM files, found it not installed. Run pip install 'voxlate[dicom]'."
        ) from error
    return pydicom


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    return sorted(file for file in place.iterdir() if file.is_file() and not file.name.startswith("."))


def _header(pydicom: ModuleType, file: Path, asked: Path) -> Any:
    """The header of a DICOM image; None for other files in a folder (reports, DICOMDIR, notes)."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=ASKED)
        is_image = "Rows" in header and "Columns" in header
    except UNREADABLE as error:  # InvalidDicomError is none of ours where a folder also holds other files
        if file == asked or looks_like_dicom(file):
            raise BadInput(f"{file}: expected a DICOM image, found a damaged file ({reason(error)}).") from error
        return None
    except pydicom.errors.InvalidDicomError as error:
        if file == asked:
            raise BadInput(f"{file}: expected a DICOM image, found something else. Check the file.") from error
        return None
    if not is_image and file == asked:
        raise BadInput(f"{file}: expected a DICOM image, found a DICOM file without pixels. Name the series' folder.")
    return header if is_image else None


def _key(header: Any, file: Path) -> str:
    """Eight digits for a series. The UID itself would lead from our files back to the patient's record."""
    names = ("SeriesInstanceUID", "SeriesNumber", "Modality", "SeriesDescription")
    return hashlib.sha256("\n".join(_text(header, name, file) for name in names).encode()).hexdigest()[:8]


def _text(header: Any, name: str, file: Path) -> str:
    try:
        value = header.get(name)
    except UNREADABLE as error:
        raise BadInput(f"{file}: expected a sound DICOM header, found a bad {name} ({reason(error)}).") from error
    parts = value if isinstance(value, MutableSequence) else [] if value is None else [value]
    return " ".join("\\".join(str(part) for part in parts).split())
