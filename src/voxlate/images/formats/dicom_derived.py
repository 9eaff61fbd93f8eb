"""DICOM out: a volume as a derived series in the study, and in the frame of reference, of the series it was made of.

Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.8.2.1 (CT), C.8.3.1 (MR), C.7.6.16.2.21 (derivation).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.errors import BadInput
from voxlate.files import whole_folder
from voxlate.images.formats.dicom import headers_of
from voxlate.images.formats.dicom_geometry import Stack, stack_of
from voxlate.images.formats.dicom_pixels import Image
from voxlate.images.formats.format import errors_as
from voxlate.images.grid import LPS_TO_RAS, Grid, Volume
from voxlate.images.optional import optional_package

UNITS = ("HU", "a.u.")  # of CT and MR series
NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS"
SERIES_OFFSET = 9000  # added to the number of the source's series
PRIVATE_GROUP = 0x0091
PRIVATE_CREATOR = "VOXLATE"
LEAST, MOST = -(2**15), 2**15 - 1  # of the stored integers
MR_STEPS = 4095  # of a volume with fractions, which is scaled to whole numbers
ON_GRID = 1e-3  # voxels
_CT = "1.2.840.10008.5.1.4.1.1.2"
_MR = "1.2.840.10008.5.1.4.1.1.4"
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


def write_derived(volume: Volume, like: Path, out: Path, origin: Origin) -> list[Path]:
    """Write a volume as one classic DICOM file for each slice into the new folder `out`; returns the files.

    like: the series from which it was made, a folder or 'FOLDER#key'. HU become a CT series, arbitrary units an MR
    series. On the grid of `like`, in whatever order of axes, every slice has exactly the place of its source slice;
    on another grid slices have places of their own. The same image and source give the same UIDs. Raises BadInput for
    another unit, values beyond 16 bits, a source that is no series, and a folder that holds anything but this series.
    """
    pydicom = optional_package("pydicom", "dicom", like, "pydicom to write DICOM files")
    if volume.unit not in UNITS:
        raise BadInput(
            f"{out}: expected an image in HU (CT) or arbitrary units (MR) for a DICOM series, found {volume.modality} in {volume.unit}. Leave it out; it stays in its own file."
        )
    stack = stack_of(headers_of(like), like)
    data, grid = _on_source(volume, stack.grid)
    stored, slope = _stored(data, volume.unit, out)
    sources = _source_files(stack)
    template = pydicom.dcmread(sources[0].image.file, stop_before_pixels=True)
    series = _series(pydicom, template, volume, origin, stored, slope)
    if out.exists():
        return _same_series(pydicom, out, str(series.SeriesInstanceUID), len(stored))
    exact = grid is stack.grid
    with whole_folder(out) as folder:
        for level, plane in enumerate(stored):
            one = _slice(pydicom, series, level, plane, grid)
            if exact:
                _place_as(one, sources[level].header)
            nearby = [sources[level]] if exact else _crossing(sources, grid, level)
            one.SourceImageSequence = _references(pydicom, nearby)
            one.save_as(folder / f"{level + 1:04d}.dcm", enforce_file_format=True)
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


@dataclass(frozen=True)
class _Source:
    """A slice of the source series."""

    image: Image
    header: Any
    middle_mm: np.ndarray


def _source_files(stack: Stack) -> list[_Source]:
    """The slices of the source in the order of its grid, each with the centre of its plane (RAS, mm)."""
    _, height, width = stack.grid.shape
    middles = [
        stack.grid.affine @ ((width - 1) / 2, (height - 1) / 2, level, 1)
        for level in range(len(stack.headers))
    ]
    pairs = zip(stack.headers.items(), middles)
    return [_Source(image, header, middle[:3]) for (image, header), middle in pairs]


def _on_source(volume: Volume, source: Grid) -> tuple[np.ndarray, Grid]:
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


def _stored(data: np.ndarray, unit: str, out: Path) -> tuple[np.ndarray, float]:
    """Whole numbers of 16 bits, and the slope that leads back. Raises BadInput for values that do not fit."""
    if not np.isfinite(data).all():
        raise BadInput(f"{out}: expected finite values for DICOM, found NaN. Synthesise it again.")
    least, most = float(data.min()), float(data.max())
    whole = bool((data == np.rint(data)).all())
    slope = 1.0
    if unit == "a.u." and (not whole or most > MOST or least < LEAST):
        slope = max(most, -least, 1e-12) / MR_STEPS
    if least / slope < LEAST or most / slope > MOST:
        raise BadInput(
            f"{out}: expected values from {LEAST} to {MOST} for the 16 bits of DICOM, found {least:g} to {most:g}. Check the unit of the image."
        )
    slope = float(f"{slope:.10g}")  # as the header will state it
    return np.rint(data / slope).astype("<i2"), slope


def _series(
    pydicom: Any, source: Any, volume: Volume, origin: Origin, stored: np.ndarray, slope: float
) -> Any:
    """What all slices of the new series share."""
    made = pydicom.Dataset()
    for name in KEPT:
        if name in source and _is_sound(source[name]):
            made[name] = source[name]
    for name in _EMPTY:
        if name not in made:
            setattr(made, name, "")
    of_study = str(source.get("StudyInstanceUID", ""))
    digest = hashlib.sha256(stored.tobytes()).hexdigest()
    facts = [f"{name}={value}" for name, value in origin.facts]
    entropy = [of_study, str(source.get("SeriesInstanceUID", "")), digest, volume.modality, *facts]
    made.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=entropy)
    if not of_study:
        made.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[*entropy, "study"])
    if "FrameOfReferenceUID" not in made:
        made.FrameOfReferenceUID = pydicom.uid.generate_uid(entropy_srcs=[*entropy, "frame"])
    made.SeriesNumber = SERIES_OFFSET + int(source.get("SeriesNumber", 0) or 0)
    now = datetime.now()
    made.SeriesDate = made.ContentDate = made.InstanceCreationDate = now.strftime("%Y%m%d")
    made.SeriesTime = made.ContentTime = made.InstanceCreationTime = now.strftime("%H%M%S")
    name = volume.modality.upper()
    made.SeriesDescription = f"SYNTHETIC {name[:24]} - {NOT_FOR_DIAGNOSIS}"
    made.ImageComments = "Computed by a trained model. Research software, not a medical device."
    made.Manufacturer = "voxlate"
    made.ManufacturerModelName = origin.title[:64]
    made.SoftwareVersions = origin.version
    made.BurnedInAnnotation = "NO"
    made.QualityControlImage = "NO"
    made.LossyImageCompression = source.get("LossyImageCompression", "00") or "00"
    made.DerivationDescription = f"Synthesised by voxlate {origin.version}: {origin.title}"[:1024]
    made.DerivationCodeSequence = [
        _code(pydicom, "SYNTHESIS", "99VOXLATE", "Image synthesised by a trained model")
    ]
    _write_facts(made, origin, facts)
    _write_modality(made, volume.unit, source)
    _write_pixel_description(made, volume, stored, slope)
    return made


def _is_sound(element: Any) -> bool:
    """Whether a value has the form that its type asks for: an age such as 42 without a unit is not copied."""
    return element.VR != "AS" or bool(re.fullmatch(r"(\d{3}[DWMY])?", str(element.value or "")))


def _write_facts(made: Any, origin: Origin, facts: Sequence[str]) -> None:
    """The provenance in a private block."""
    block = made.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", origin.version[:64])
    block.add_new(0x02, "LO", origin.title[:64])
    block.add_new(0x03, "UT", "\n".join(facts))


def _write_modality(made: Any, unit: str, source: Any) -> None:
    """The attributes of a CT or MR image; those of the acquisition do not hold for a computed image."""
    if unit == "HU":
        made.SOPClassUID, made.Modality = _CT, "CT"
        made.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        made.KVP = made.AcquisitionNumber = None
        return
    made.SOPClassUID, made.Modality = _MR, "MR"
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    made.ScanningSequence, made.SequenceVariant = "RM", "NONE"
    made.ScanOptions = made.MRAcquisitionType = ""
    made.EchoTime = made.EchoTrainLength = made.RepetitionTime = None


def _write_pixel_description(made: Any, volume: Volume, stored: np.ndarray, slope: float) -> None:
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    _, made.Rows, made.Columns = stored.shape
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit = 15
    made.PixelRepresentation = 1
    made.RescaleIntercept, made.RescaleSlope = "0", _number(slope)
    made.RescaleType = "HU" if volume.unit == "HU" else "US"
    low, high = (-160.0, 240.0)
    if volume.unit != "HU":
        low, high = 0.0, max(float(np.percentile(volume.data, 99.5)), slope)
    made.WindowCenter, made.WindowWidth = _number((low + high) / 2), _number(high - low)


def _slice(pydicom: Any, series: Any, level: int, plane: np.ndarray, grid: Grid) -> Any:
    """One slice as a whole object, with the place that its grid gives it."""
    made = pydicom.Dataset()
    made.update(series)
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.SOPInstanceUID = pydicom.uid.generate_uid(
        entropy_srcs=[str(series.SeriesInstanceUID), str(level)]
    )
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.InstanceNumber = level + 1
    lps = LPS_TO_RAS @ grid.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :2] / spacing[:2]
    made.ImageOrientationPatient = [_number(value) for value in directions.T.ravel()]
    made.ImagePositionPatient = [_number(value) for value in lps[:3, 3] + level * lps[:3, 2]]
    made.PixelSpacing = [_number(spacing[1]), _number(spacing[0])]
    normal = np.cross(directions[:, 0], directions[:, 1])
    made.SliceThickness = _number(abs(float(normal @ lps[:3, 2])))
    made.PixelData = np.ascontiguousarray(plane).tobytes()
    return made


def _place_as(made: Any, header: Any) -> None:
    """The place of a source slice, digit by digit."""
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
        setattr(made, name, [_decimal(value) for value in getattr(header, name)])
    if header.get("SliceThickness"):
        made.SliceThickness = _decimal(header.SliceThickness)


def _crossing(sources: Sequence[_Source], grid: Grid, level: int) -> list[_Source]:
    """The source slices whose middle lies within a slice's thickness; at least the nearest one."""
    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    here = float((grid.affine @ (0, 0, level, 1))[:3] @ normal)
    thickness = abs(float(grid.affine[:3, 2] @ normal))
    away = np.array([abs(float(one.middle_mm @ normal) - here) for one in sources])
    return [one for one, gap in zip(sources, away) if gap <= max(thickness / 2, away.min() + 1e-6)]


def _references(pydicom: Any, sources: Sequence[_Source]) -> list[Any]:
    purpose = _code(pydicom, "121322", "DCM", "Source image for image processing operation")
    items = []
    for one in sources:
        whole = pydicom.dcmread(
            one.image.file, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "SOPClassUID"]
        )
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID = whole.SOPClassUID
        item.ReferencedSOPInstanceUID = whole.SOPInstanceUID
        if one.image.frame:
            item.ReferencedFrameNumber = one.image.frame
        item.PurposeOfReferenceCodeSequence = [purpose]
        items.append(item)
    return items


def _code(pydicom: Any, value: str, scheme: str, meaning: str) -> Any:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _decimal(value: Any) -> str:
    """A source's decimal string as it is, or rounded to the 16 characters that DICOM allows."""
    text = str(getattr(value, "original_string", value)).strip()
    return text if len(text) <= 16 else _number(float(value))


def _number(value: float) -> str:
    """A decimal string of at most 16 characters, as DICOM allows, with as many digits as fit."""
    value = float(value) + 0.0  # + 0.0 makes -0 to 0
    for digits in range(17, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(value)
