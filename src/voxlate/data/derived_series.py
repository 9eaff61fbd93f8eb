"""A synthesised image as a classic CT or MR series in the study, and on the slices, of the series it was computed from."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxlate import __version__
from voxlate.data.deidentify import SYNTHETIC
from voxlate.errors import BadInput
from voxlate.files import whole_file
from voxlate.images.grid import LPS_TO_RAS, Volume
from voxlate.images.io import files_of
from voxlate.images.optional import optional_package

# Attributes of a source slice that hold for a derived one, too. All others are left out: they describe an acquisition.
KEPT = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate"),
    *("PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
    *("StudyDescription", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID"),
    *("PositionReferenceIndicator", "PatientPosition", "Rows", "Columns", "PixelSpacing"),
    *("ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices"),
    *("InstanceNumber", "SliceLocation"),
)
EMPTY = (  # attributes of type 2, which a file must have, if only empty
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
    *("PatientPosition", "SliceThickness", "InstanceNumber", "Laterality"),
)
EMPTY_CT = ("KVP", "AcquisitionNumber")
EMPTY_MR = ("ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime")
LARGEST = 32767  # of the stored integers, which have 16 bits and a sign
SERIES_NUMBER = 9000  # is added to that of the source, so that viewers list the derived series last
NEAR = 1e-3  # of a voxel, within which a slice's pixels must be at voxels of the volume
UNITS = ("HU", "a.u.")
LONGEST_COMMENT = 10240  # characters, which a viewer shows with the image
LONGEST_TEXT = 64  # characters of a series' description


def write_series(
    volume: Volume, name: str, like: Path, folder: Path, made: Mapping[str, Any]
) -> list[Path]:
    """Write a volume to FOLDER/<instance>.dcm, a file for each slice of the series `like`; returns the files.

    name: of the modality; made: the provenance of the image. Equal voxels of equal sources have equal UIDs. Raises
    BadInput where the volume is not on the grid of the series, or its values do not fit.
    """
    pydicom = optional_package("pydicom", "dicom", folder, "pydicom to write DICOM files")
    if volume.unit not in UNITS:
        raise BadInput(
            f"{name}: expected an image in HU or of MR for a CT or MR series, found the unit {volume.unit}. Keep it as NIfTI."
        )
    sources = [pydicom.dcmread(file) for file in files_of(like)]
    slope = _slope(volume, name)
    series = _uid("series", sources[0], volume, name)
    files = []
    for source in sources:
        pixels = _pixels(volume, source, like) / slope
        dataset = _derived(pydicom, source, volume, name, made)
        dataset.SeriesInstanceUID = series
        stored = np.rint(pixels).astype("<i2")
        dataset.PixelData = stored.tobytes()
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, _decimal(slope)
        uid = _uid("instance", source, volume, name)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        path = folder / f"{uid}.dcm"
        with whole_file(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
        files.append(path)
    return files


def _slope(volume: Volume, name: str) -> float:
    """What a stored integer stands for: 1 in HU; of MR the step that lets the largest value be stored."""
    largest = float(np.abs(volume.data).max())
    if volume.unit != "HU":
        return float(_decimal(largest / LARGEST)) if largest > 0 else 1.0
    if largest > LARGEST:
        raise BadInput(
            f"{name}: expected values between {-LARGEST} and {LARGEST} HU, found {largest:.0f}. Check the image."
        )
    return 1.0


def _decimal(value: float) -> str:
    """A number as a decimal string of at most 16 characters, rounded up: a smaller step could not hold the largest."""
    return f"{value * (1 + 1e-9):.9e}" if value != 1.0 else "1"


def _pixels(volume: Volume, source: Any, like: Path) -> np.ndarray:
    """The voxels [rows, columns] at the places of a slice's pixels."""
    to_ras = np.eye(4)
    rows_grow, columns_grow = np.array(source.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(one) for one in source.PixelSpacing)
    to_ras[:3, 0] = rows_grow * between_columns
    to_ras[:3, 1] = columns_grow * between_rows
    to_ras[:3, 2] = 0
    to_ras[:3, 3] = np.array(source.ImagePositionPatient, float)
    to_voxels = np.linalg.inv(volume.affine) @ LPS_TO_RAS @ to_ras
    row, column = np.mgrid[: int(source.Rows), : int(source.Columns)]
    ones = np.ones_like(row)
    places = np.einsum("ij,jrc->irc", to_voxels, np.stack([column, row, 0 * row, ones]))[:3]
    index = np.rint(places).astype(int)
    size = np.array(volume.data.shape[:0:-1]).reshape(3, 1, 1)
    if np.abs(places - index).max() > NEAR or (index < 0).any() or (index >= size).any():
        raise BadInput(
            f"{like}: expected a series whose slices are those of the image ({volume.grid}), found others. Keep the image as NIfTI, or name the series that it was computed from."
        )
    x, y, z = index
    found: np.ndarray = volume.data[0][z, y, x]
    return found


def _derived(pydicom: Any, source: Any, volume: Volume, name: str, made: Mapping[str, Any]) -> Any:
    """The attributes of a derived slice, without its pixels and own UIDs."""
    is_ct = volume.unit == "HU"
    dataset = pydicom.Dataset()
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    kind = pydicom.uid.CTImageStorage if is_ct else pydicom.uid.MRImageStorage
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta = meta
    for keyword in (*EMPTY, *(EMPTY_CT if is_ct else EMPTY_MR)):
        setattr(dataset, keyword, None)
    for keyword in KEPT:
        if keyword in source:
            setattr(dataset, keyword, _kept(pydicom, source[keyword]))
    dataset.Modality = "CT" if is_ct else "MR"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if is_ct else "OTHER"]
    dataset.Manufacturer, dataset.SoftwareVersions = "voxlate", __version__
    dataset.SeriesDescription = f"{SYNTHETIC}: {name}"[:LONGEST_TEXT]
    dataset.SeriesNumber = SERIES_NUMBER + int(source.get("SeriesNumber") or 0)
    model = made.get("model", {})
    dataset.DerivationDescription = f"Computed from other images by voxlate {__version__} (model {model.get('title', '')}, weights {model.get('weights', '')}); not measured."
    dataset.ImageComments = "\n".join(made.get("warnings", ()))[:LONGEST_COMMENT]
    dataset.SourceImageSequence = [_reference(pydicom, source)]
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    if is_ct:
        dataset.RescaleType = "HU"
    else:
        dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    return dataset


def _kept(pydicom: Any, element: Any) -> Any:
    """The value of a source's attribute; numbers with more than the 16 characters of a decimal string are rounded."""
    if element.VR != "DS" or element.value is None:
        return element.value
    shortened = pydicom.valuerep.format_number_as_ds
    if element.VM > 1:
        return [shortened(float(one)) for one in element.value]
    return shortened(float(element.value))


def _reference(pydicom: Any, source: Any) -> Any:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def _uid(kind: str, source: Any, volume: Volume, name: str) -> str:
    """A UID that depends on the source and on the image alone, so that a repeated command makes no second series."""
    digest = hashlib.sha256(f"{kind} {name} {source.SOPInstanceUID}".encode())
    digest.update(np.ascontiguousarray(volume.data).data)
    return f"2.25.{int.from_bytes(digest.digest()[:16], 'big')}"
