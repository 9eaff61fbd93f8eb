"""DICOM out: what every object that voxlate writes shares with its source, and states of its own origin.

Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.7.6.16.2.21 (derivation).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
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
    "report": 9300,
    "structure": 9400,
    f"map{LOW}": 9500,
    f"map{HIGH}": 9600,
    f"map{STD}": 9700,
    f"map{UNCALIBRATED}": 9700,
}
MOST_COMMENTS = 10240  # characters of a long text
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
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialSubjectID",
]
# What a source must state, because every object that is made of it refers to it.
OF_SOURCE = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True)
class Origin:
    """How an image was made, as its headers state it: a title of one line, and facts as "name=value".

    distrust: why it is graded "do not trust", "" where it is not; cautions: the texts of its cautions.
    """

    title: str
    version: str
    facts: Sequence[str] = ()
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
        cautions = f" Caution: {self.cautions}" if self.cautions else ""
        return f"{self.graded}{COMMENTS}{cautions}"[:MOST_COMMENTS]


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
    the origin and the source's series they decide the UIDs. Raises BadInput for a source that states no UIDs of its own.
    """
    missing = [keyword for keyword in OF_SOURCE if not source.get(keyword)]
    if missing:
        raise BadInput(
            f"{source.filename}: expected a {missing[0]}, to which derived objects refer, found none. Export the series from its scanner or archive again."
        )
    series = item(**dict.fromkeys(NEEDED, ""))
    for keyword in KEPT:
        if source.get(keyword):
            series[keyword] = source[keyword]
    of_source = [source.StudyInstanceUID, source.SeriesInstanceUID]
    digest = hashlib.sha256(content).hexdigest()
    series.SeriesInstanceUID = uid_of(*of_source, digest, name, *origin.facts, kind)
    now = datetime.now()
    for event in ("Series", "Content", "InstanceCreation"):
        setattr(series, f"{event}Date", now.strftime("%Y%m%d"))
        setattr(series, f"{event}Time", now.strftime("%H%M%S"))
    block = series.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", origin.version[:64])
    block.add_new(0x02, "LO", origin.title[:64])
    block.add_new(0x03, "UT", "\n".join(origin.facts))
    use = DO_NOT_TRUST if origin.distrust else NOT_FOR_DIAGNOSIS
    return fill(
        series,
        SeriesNumber=SERIES_OFFSETS[kind] + int(source.get("SeriesNumber") or 0),
        SeriesDescription=f"SYNTHETIC {name.upper()[:24]} - {use}",
        Manufacturer="voxlate",
        ManufacturerModelName=origin.title[:64] or UNKNOWN,
        SoftwareVersions=origin.version or UNKNOWN,
    )


def as_file(series: Any, level: int = 0) -> Any:
    """Complete an object to a file in Explicit VR Little Endian, with the UID of the level in its series; returns it."""
    series.SOPInstanceUID = uid_of(series.SeriesInstanceUID, str(level))
    series.file_meta = pydicom.dataset.FileMetaDataset()
    fill(
        series.file_meta,
        TransferSyntaxUID=pydicom.uid.ExplicitVRLittleEndian,
        MediaStorageSOPClassUID=series.SOPClassUID,
        MediaStorageSOPInstanceUID=series.SOPInstanceUID,
    )
    return series


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
    expected = "expected a new folder for the DICOM files, or this very series"
    with errors_as(f"{out}: {expected}, found another", "Choose another."):
        files = sorted(out.iterdir())
        uids = {pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID for file in files}
        if uids != {series.SeriesInstanceUID} or len(files) != count:
            raise ValueError
    return files
