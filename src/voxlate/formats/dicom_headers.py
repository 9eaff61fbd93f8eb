"""DICOM out: what every object that voxlate writes shares with its source, and states of its own origin.

Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.7.6.16.2.21 (derivation).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from voxlate.formats.format import errors_as
from voxlate.system.errors import BadInput
from voxlate.system.files import whole_folder

NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS"
# Added to the number of the source's series, by the kind of object: images and documents have numbers of their own.
SERIES_OFFSETS = {"": 9000, "enhanced": 9000, "map": 9100, "mask": 9200, "report": 9300}
MOST_NUMBER = 2**31 - 1  # of an integer string
UNKNOWN = "unknown"  # where a provenance states no model or version
PRIVATE_GROUP = 0x0091
PRIVATE_CREATOR = "VOXLATE"
SYNTHESIS = ("SYNTHESIS", "99VOXLATE", "Image synthesised by a trained model")
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
    "PatientPosition",
)
# Parts of the body (PS3.16, annex L) that have no side, so that their series must not state one.
UNPAIRED = (
    *("HEAD", "BRAIN", "SKULL", "NECK", "HEADNECK", "CHEST", "ABDOMEN", "PELVIS", "HEART"),
    *("LIVER", "PROSTATE", "SPINE", "CSPINE", "TSPINE", "LSPINE", "WHOLEBODY"),
)


# What tells a source without a study or frame of reference from others.
_OF_SOURCE = ("PatientID", "StudyDate", "StudyID", "SeriesInstanceUID")


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
    part = str(made.get("BodyPartExamined", "")).upper()
    if part in UNPAIRED and not made.get("Laterality"):
        made.pop("Laterality", None)
    elif "Laterality" not in made:
        made.Laterality = ""
    of_study = str(source.get("StudyInstanceUID", ""))
    facts = [f"{key}={value}" for key, value in origin.facts]
    entropy = [of_study, str(source.get("SeriesInstanceUID", "")), digest, name, *facts]
    if kind:
        entropy.append(kind)
    made.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=entropy)
    # Of the source alone, so that all objects that are made of it share them.
    of_source = [str(source.get(name, "")) for name in _OF_SOURCE]
    if "SeriesInstanceUID" not in source:
        of_source.append(str(source.get("SOPInstanceUID", "")))
    if not of_study:
        made.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[*of_source, "study"])
    if "FrameOfReferenceUID" not in made:
        made.FrameOfReferenceUID = pydicom.uid.generate_uid(entropy_srcs=[*of_source, "frame"])
    made.SeriesNumber = series_number(source, kind)
    now = datetime.now()
    made.SeriesDate = made.ContentDate = made.InstanceCreationDate = now.strftime("%Y%m%d")
    made.SeriesTime = made.ContentTime = made.InstanceCreationTime = now.strftime("%H%M%S")
    made.SeriesDescription = f"SYNTHETIC {name.upper()[:24]} - {NOT_FOR_DIAGNOSIS}"
    made.Manufacturer = "voxlate"
    made.ManufacturerModelName = origin.title[:64] or UNKNOWN
    made.SoftwareVersions = origin.version or UNKNOWN
    _write_facts(made, origin, facts)
    return made


def series_number(source: Any, kind: str) -> int:
    """The number of a new series: that of the source's series plus an offset, or the offset where the sum is too large."""
    offset = SERIES_OFFSETS[kind]
    number = offset + int(source.get("SeriesNumber", 0) or 0)
    return number if number <= MOST_NUMBER else offset


def described(origin: Origin) -> str:
    """How an image was computed, as its headers state it."""
    return f"Synthesised by voxlate {origin.version}: {origin.title}"[:1024]


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


def _is_sound(element: Any) -> bool:
    """Whether a value has the form that its type asks for: an age such as 42 without a unit is not copied."""
    return element.VR != "AS" or bool(re.fullmatch(r"(\d{3}[DWMY])?", str(element.value or "")))


def _write_facts(made: Any, origin: Origin, facts: Sequence[str]) -> None:
    """The provenance in a private block."""
    block = made.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", origin.version[:64])
    block.add_new(0x02, "LO", origin.title[:64])
    block.add_new(0x03, "UT", "\n".join(facts))


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


def write_objects(
    pydicom: Any, out: Path, series: Any, count: int, objects: Iterable[Any]
) -> list[Path]:
    """Write the objects of a series as OUT/0001.dcm and so on; keeps a folder that holds this very series.

    objects: `count` of them, each of which is written before the next one is asked for. Raises BadInput for a folder
    with other content.
    """
    if out.exists():
        return _same_series(pydicom, out, str(series.SeriesInstanceUID), count)
    with whole_folder(out) as folder:
        for number, made in enumerate(objects, start=1):
            made.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return sorted(out.glob("*.dcm"))


def _same_series(pydicom: Any, out: Path, uid: str, count: int) -> list[Path]:
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
