"""DICOM out: what every object that voxlate writes shares with its source, and states of its own origin.

Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.7.6.16.2.21 (derivation).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from voxlate.errors import BadInput
from voxlate.images.formats.dicom_geometry import Stack
from voxlate.images.formats.dicom_pixels import Image
from voxlate.images.formats.format import errors_as
from voxlate.images.grid import LPS_TO_RAS, Grid, Volume

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS"
SERIES_OFFSET = 9000  # added to the number of the source's series
PRIVATE_GROUP = 0x0091
PRIVATE_CREATOR = "VOXLATE"
ON_GRID = 1e-3  # voxels
# What a derived image shares with its source: patient, study, and the place in the patient.
KEPT = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate"),
    *("PatientSex", "PatientAge", "PatientSize", "PatientWeight", "OtherPatientIDs"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription"),
    *("AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID"),
    *("PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID"),
)
# Attributes that must be there, and may be empty.
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
    *("Laterality", "PatientPosition"),
)


@dataclass(frozen=True)
class Origin:
    """How an image was made, as its headers state it: a title of one line, sentences, and numbers as (name, value)."""

    title: str
    version: str
    facts: Sequence[tuple[str, str]] = field(default=())


def new_series(
    pydicom: Any, source: Any, name: str, origin: Origin, digest: str, kind: str = ""
) -> Any:
    """What all objects of a new series state of patient, study, series, equipment and origin.

    source: the header of one source image. name, digest and kind: modality, hash of the content and kind of object;
    with the origin and the source's series they decide the UIDs.
    """
    made = pydicom.Dataset()
    for keyword in KEPT:
        if keyword in source and _is_sound(source[keyword]):
            made[keyword] = source[keyword]
    for keyword in _EMPTY:
        if keyword not in made:
            setattr(made, keyword, "")
    of_study = str(source.get("StudyInstanceUID", ""))
    facts = [f"{key}={value}" for key, value in origin.facts]
    entropy = [of_study, str(source.get("SeriesInstanceUID", "")), digest, name, *facts]
    if kind:
        entropy.append(kind)
    made.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=entropy)
    if not of_study:
        made.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[*entropy, "study"])
    if "FrameOfReferenceUID" not in made:
        made.FrameOfReferenceUID = pydicom.uid.generate_uid(entropy_srcs=[*entropy, "frame"])
    made.SeriesNumber = SERIES_OFFSET + int(source.get("SeriesNumber", 0) or 0)
    now = datetime.now()
    made.SeriesDate = made.ContentDate = made.InstanceCreationDate = now.strftime("%Y%m%d")
    made.SeriesTime = made.ContentTime = made.InstanceCreationTime = now.strftime("%H%M%S")
    made.SeriesDescription = f"SYNTHETIC {name.upper()[:24]} - {NOT_FOR_DIAGNOSIS}"
    made.Manufacturer = "voxlate"
    made.ManufacturerModelName = origin.title[:64]
    made.SoftwareVersions = origin.version
    _write_facts(made, origin, facts)
    return made


def write_derivation(pydicom: Any, made: Any, origin: Origin) -> None:
    """How an image was computed, as the header of a classic image or of the frames of an enhanced one states it."""
    made.DerivationDescription = f"Synthesised by voxlate {origin.version}: {origin.title}"[:1024]
    made.DerivationCodeSequence = [
        code(pydicom, "SYNTHESIS", "99VOXLATE", "Image synthesised by a trained model")
    ]


def instance_uid(pydicom: Any, series: Any, level: int) -> str:
    """The UID of an object of a series, the same for the same content."""
    return str(pydicom.uid.generate_uid(entropy_srcs=[str(series.SeriesInstanceUID), str(level)]))


def as_file(pydicom: Any, made: Any, uid: str) -> None:
    """Complete an object to a file in Explicit VR Little Endian, under this UID."""
    made.SOPInstanceUID = uid
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID


def encoded(pydicom: Any, made: Any, uid: str) -> Any:
    """The same object with its attributes as bytes, which pydicom writes without encoding them again."""
    as_file(pydicom, made, uid)
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def place_on(made: Any, level: int, grid: Grid) -> None:
    """The place of a slice, that its grid gives it."""
    lps = LPS_TO_RAS @ grid.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :2] / spacing[:2]
    made.ImageOrientationPatient = [decimal_string(value) for value in directions.T.ravel()]
    made.ImagePositionPatient = [decimal_string(value) for value in lps[:3, 3] + level * lps[:3, 2]]
    made.PixelSpacing = [decimal_string(spacing[1]), decimal_string(spacing[0])]
    normal = np.cross(directions[:, 0], directions[:, 1])
    made.SliceThickness = decimal_string(abs(float(normal @ lps[:3, 2])))


def _is_sound(element: Any) -> bool:
    """Whether a value has the form that its type asks for: an age such as 42 without a unit is not copied."""
    return element.VR != "AS" or bool(re.fullmatch(r"(\d{3}[DWMY])?", str(element.value or "")))


def _write_facts(made: Any, origin: Origin, facts: Sequence[str]) -> None:
    """The provenance in a private block."""
    block = made.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", origin.version[:64])
    block.add_new(0x02, "LO", origin.title[:64])
    block.add_new(0x03, "UT", "\n".join(facts))


@dataclass(frozen=True)
class Source:
    """A slice of the source series."""

    image: Image
    header: Any
    middle_mm: np.ndarray


def source_files(stack: Stack) -> list[Source]:
    """The slices of the source in the order of its grid, each with the centre of its plane (RAS, mm)."""
    _, height, width = stack.grid.shape
    middles = [
        stack.grid.affine @ ((width - 1) / 2, (height - 1) / 2, level, 1)
        for level in range(len(stack.headers))
    ]
    pairs = zip(stack.headers.items(), middles)
    return [Source(image, header, middle[:3]) for (image, header), middle in pairs]


def on_source(volume: Volume, source: Grid) -> tuple[np.ndarray, Grid]:
    """The voxels [D, H, W] in the order of the source's axes with its own grid; else as they are, with theirs."""
    to_source = np.linalg.inv(source.affine) @ volume.grid.affine
    turn = np.rint(to_source[:3, :3])
    is_turn = np.abs(to_source[:3, :3] - turn).max() < ON_GRID / max(volume.grid.shape)
    if not is_turn or not np.array_equal(np.abs(turn).sum(0), [1, 1, 1]):
        return volume.data[0], volume.grid
    data = np.transpose(volume.data[0])  # [x, y, z], as the affine counts
    order = np.abs(turn).argmax(1)
    data = np.transpose(data, order)
    flipped = tuple(axis for axis in range(3) if turn[axis].sum() < 0)
    data = np.flip(data, flipped)
    last = np.array(volume.grid.shape[::-1]) - 1
    corner = to_source @ (*np.where(turn.sum(0) < 0, last, 0), 1)
    same = np.abs(corner[:3]).max() < ON_GRID and data.shape[::-1] == source.shape
    return (np.transpose(data), source) if same else (volume.data[0], volume.grid)


def place_as(made: Any, header: Any, thickness: Any) -> None:
    """The place of a source slice, digit by digit; thickness: where the source states none."""
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
        setattr(made, name, [source_decimal(value) for value in getattr(header, name)])
    made.SliceThickness = source_decimal(header.get("SliceThickness") or thickness)


def crossing(sources: Sequence[Source], grid: Grid, level: int) -> list[Source]:
    """The source slices whose middle lies within a slice's thickness; at least the nearest one."""
    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    here = float((grid.affine @ (0, 0, level, 1))[:3] @ normal)
    thickness = abs(float(grid.affine[:3, 2] @ normal))
    away = np.array([abs(float(one.middle_mm @ normal) - here) for one in sources])
    return [one for one, gap in zip(sources, away) if gap <= max(thickness / 2, away.min() + 1e-6)]


def references(pydicom: Any, sources: Sequence[Source]) -> list[Any]:
    purpose = code(pydicom, "121322", "DCM", "Source image for image processing operation")
    items = []
    for one in sources:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID = one.header.SOPClassUID
        item.ReferencedSOPInstanceUID = one.header.SOPInstanceUID
        if one.image.frame:
            item.ReferencedFrameNumber = one.image.frame
        item.PurposeOfReferenceCodeSequence = [purpose]
        items.append(item)
    return items


def code(pydicom: Any, value: str, scheme: str, meaning: str) -> Any:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def source_decimal(value: Any) -> str:
    """A source's decimal string as it is, or rounded to the 16 characters that DICOM allows."""
    text = str(getattr(value, "original_string", value)).strip()
    return text if len(text) <= 16 else decimal_string(float(value))


def decimal_string(value: float) -> str:
    """A decimal string of at most 16 characters, as DICOM allows, with as many digits as fit."""
    value = float(value) + 0.0  # + 0.0 makes -0 to 0
    for digits in range(17, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(value)


def same_series(pydicom: Any, out: Path, uid: str, count: int) -> list[Path]:
    """The files of a folder that holds this very series; raises BadInput for any other content."""
    files = sorted(out.iterdir()) if out.is_dir() else []
    with errors_as(
        f"{out}: expected a new folder, or this series, found something else", "Choose another."
    ):
        found = {
            str(pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID) for file in files
        }
    if found != {uid} or len(files) != count:
        raise BadInput(
            f"{out}: expected a new folder for the DICOM files, or this very series, found another. Choose another."
        )
    return files


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears as `out` when all its files are written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
        folder = Path(place) / "series"
        folder.mkdir()
        yield folder
        folder.rename(out)
