"""DICOM out: what every object that voxlate writes shares with its source, and states of its own origin.

Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.7.6.16.2.21 (derivation).
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED, whole_folder
from voxlate.base.optional import pydicom
from voxlate.scans.formats.format import errors_as

Code = tuple[str, str, str]  # value, scheme and meaning
NOT_FOR_DIAGNOSIS, DO_NOT_TRUST = "NOT FOR DIAGNOSIS", "DO NOT TRUST"
# Added to the number of the source's series, by the kind of object: images and documents have numbers of their own.
SERIES_OFFSETS = {
    "": 9000,
    "map": 9100,
    "mask": 9200,
    "report": 9300,
    "structure": 9400,
    f"map{LOW}": 9500,
    f"map{HIGH}": 9600,
    f"map{STD}": 9700,
    f"map{UNCALIBRATED}": 9700,
}
MOST_COMMENTS = 10240  # characters of a long text
MOST_NUMBER = 2**31 - 1  # of an integer string
UNKNOWN = "unknown"  # where a provenance states no model or version
PRIVATE_GROUP = 0x0091
PRIVATE_CREATOR = "VOXLATE"
PRIVATE_SCHEME = "99VOXLATE"
SYNTHESIS: Code = ("SYNTHESIS", PRIVATE_SCHEME, "Image synthesised by a trained model")
COMMENTS = "Computed by a trained model. Research software, not a medical device."
# Attributes that must be there, and may be empty.
NEEDED = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "PatientPosition",
]
# What a derived image shares with its source: patient, study, and the place in the patient.
KEPT = [
    *NEEDED,
    "SpecificCharacterSet",
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "OtherPatientIDs",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyInstanceUID",
    "StudyDescription",
    "FrameOfReferenceUID",
    "BodyPartExamined",
    "Laterality",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialSubjectID",
]
# Parts of the body (PS3.16, annex L) that have no side, so that their series must not state one.
UNPAIRED = [
    "HEAD",
    "BRAIN",
    "SKULL",
    "NECK",
    "HEADNECK",
    "CHEST",
    "ABDOMEN",
    "PELVIS",
    "HEART",
    "LIVER",
    "PROSTATE",
    "SPINE",
    "CSPINE",
    "TSPINE",
    "LSPINE",
    "WHOLEBODY",
]
# Attributes that distinguish a source without a study or frame of reference from others.
OF_SOURCE = ("PatientID", "StudyDate", "StudyID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Origin:
    """How an image was made, as its headers state it: a title of one line, sentences, and numbers as (name, value).

    distrust: why it is graded "do not trust", "" where it is not; cautions: the texts of its cautions.
    """

    title: str
    version: str
    facts: Sequence[tuple[str, str]] = field(default=())
    distrust: str = ""
    cautions: str = ""

    @property
    def graded(self) -> str:
        """That and why it is not to be trusted, where it is not."""
        return f"{DO_NOT_TRUST}. {self.distrust} " if self.distrust else ""

    @property
    def description(self) -> str:
        """How an image was computed, as its headers state it."""
        return f"{self.graded}Synthesised by voxlate {self.version}: {self.title}"[:1024]

    @property
    def comments(self) -> str:
        """What every image says of itself."""
        return f"{self.graded}{COMMENTS}{self.cautions and f' Caution: {self.cautions}'}"[
            :MOST_COMMENTS
        ]


def fill(dataset: Any, **attributes: Any) -> Any:
    """Set attributes of a data set by their keywords; returns it."""
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def item(**attributes: Any) -> Any:
    """A new data set with these attributes."""
    return fill(pydicom.Dataset(), **attributes)


def code(value: str, scheme: str, meaning: str) -> Any:
    """The item of a code."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def uid_of(*entropy: str) -> str:
    """The UID of texts, the same for the same texts."""
    return str(pydicom.uid.generate_uid(entropy_srcs=list(entropy)))


def new_series(
    source: Any, name: str, origin: Origin, content: bytes | memoryview, kind: str = ""
) -> Any:
    """The attributes that all objects of a new series share: patient, study, series, equipment and origin.

    source: the header of one source image. name, content and kind: modality, voxels or text and kind of object; with
    the origin and the source's series they decide the UIDs.
    """
    series = item(**dict.fromkeys(NEEDED, ""))
    for keyword in KEPT:
        if keyword in source:
            series[keyword] = source[keyword]
    if not re.fullmatch(r"(\d{3}[DWMY])?", str(series.get("PatientAge") or "")):
        del series.PatientAge  # an age such as 42 without a unit
    part = str(series.get("BodyPartExamined", "")).upper()
    if part in UNPAIRED and not series.get("Laterality"):
        series.pop("Laterality", None)
    elif "Laterality" not in series:
        series.Laterality = ""
    digest = hashlib.sha256(content).hexdigest()
    _write_uids(series, source, [digest, name, *_facts(origin), *([kind] if kind else [])])
    now = datetime.now()
    for event in ("Series", "Content", "InstanceCreation"):
        setattr(series, f"{event}Date", now.strftime("%Y%m%d"))
        setattr(series, f"{event}Time", now.strftime("%H%M%S"))
    block = series.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", origin.version[:64])
    block.add_new(0x02, "LO", origin.title[:64])
    block.add_new(0x03, "UT", "\n".join(_facts(origin)))
    offset = SERIES_OFFSETS[kind]
    number = offset + int(source.get("SeriesNumber", 0) or 0)
    use = DO_NOT_TRUST if origin.distrust else NOT_FOR_DIAGNOSIS
    return fill(
        series,
        SeriesNumber=number if number <= MOST_NUMBER else offset,
        SeriesDescription=f"SYNTHETIC {name.upper()[:24]} - {use}",
        Manufacturer="voxlate",
        ManufacturerModelName=origin.title[:64] or UNKNOWN,
        SoftwareVersions=origin.version or UNKNOWN,
    )


def _facts(origin: Origin) -> list[str]:
    return [f"{key}={value}" for key, value in origin.facts]


def _write_uids(series: Any, source: Any, content: Sequence[str]) -> None:
    """Write the UID of the series, and of its study and frame of reference where the source states none."""
    study = str(source.get("StudyInstanceUID", ""))
    series.SeriesInstanceUID = uid_of(study, str(source.get("SeriesInstanceUID", "")), *content)
    # Of the source alone, so that all objects that are made of it share them.
    of_source = [str(source.get(name, "")) for name in OF_SOURCE]
    if "SeriesInstanceUID" not in source:
        of_source.append(str(source.get("SOPInstanceUID", "")))
    if not study:
        series.StudyInstanceUID = uid_of(*of_source, "study")
    if "FrameOfReferenceUID" not in series:
        series.FrameOfReferenceUID = uid_of(*of_source, "frame")


def as_file(series: Any, level: int = 0) -> None:
    """Complete an object to a file in Explicit VR Little Endian, with the UID of the level in its series."""
    series.SOPInstanceUID = uid_of(series.SeriesInstanceUID, str(level))
    series.file_meta = pydicom.dataset.FileMetaDataset()
    fill(
        series.file_meta,
        TransferSyntaxUID=pydicom.uid.ExplicitVRLittleEndian,
        MediaStorageSOPClassUID=series.SOPClassUID,
        MediaStorageSOPInstanceUID=series.SOPInstanceUID,
    )


def encode(series: Any) -> Any:
    """The same object with its attributes as bytes, which pydicom writes without encoding them again."""
    as_file(series)
    buffer = BytesIO()
    series.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def source_decimal(value: Any) -> str:
    """A source's decimal string as it is, or rounded to the 16 characters that DICOM allows."""
    text = str(getattr(value, "original_string", value)).strip()
    return text if len(text) <= 16 else decimal_string(value)


def decimal_string(value: float) -> str:
    """A decimal string of at most 16 characters, as DICOM allows, with as many digits as fit."""
    return str(pydicom.valuerep.format_number_as_ds(float(value) + 0.0))  # + 0.0 makes -0 to 0


def write_objects(out: Path, series: Any, count: int, objects: Iterable[Any]) -> list[Path]:
    """Write the objects of a series as OUT/0001.dcm and so on; keeps a folder that holds this very series.

    objects: `count` of them, each of which is written before the next one is asked for. Raises BadInput for a folder
    with other content.
    """
    if not out.exists():
        with whole_folder(out) as folder:
            for number, single in enumerate(objects, start=1):
                single.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
        return sorted(out.glob("*.dcm"))
    files = sorted(out.iterdir()) if out.is_dir() else []
    expected = f"{out}: expected a new folder for the DICOM files, or this very series, found"
    with errors_as(f"{expected} something else", "Choose another."):
        uids = {pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID for file in files}
    if uids != {series.SeriesInstanceUID} or len(files) != count:
        raise BadInput(f"{expected} another. Choose another.")
    return files
