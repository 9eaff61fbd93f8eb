"""Slices of made-up DICOM series."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from voxlate.scans.images.grid import LPS_TO_RAS, Volume

DESCRIPTIONS = {  # of the series of the Gold Atlas
    "t2": "Ax T2 FRFSE GOLD ATLAS",
    "t1": "Ax T1 FSE GOLD ATLAS",
    "ct": "Deformed 'CT 1' using 'CTtoMR DIR site1'",
}


def image(pixels: np.ndarray, **tags: Any) -> Dataset:
    """An image [H, W] (or frames [N, H, W]) of integers with the tags that are given, CT unless they name MR or PT."""
    bits = 8 * pixels.itemsize
    kinds = {"MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
    kind = kinds.get(tags.get("Modality", ""), CTImageStorage)
    stated = {
        "SOPClassUID": kind,
        "SOPInstanceUID": generate_uid(),
        "Modality": "CT",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelData": pixels.tobytes(),
    }
    return item(**stated | tags)


def item(**tags: Any) -> Dataset:
    """A data set, which may be saved as a file or be an item of a sequence."""
    dataset = Dataset()
    for key, value in tags.items():
        setattr(dataset, key, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write a data set as a file in Explicit VR Little Endian."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(volume: Volume, folder: Path, prefix: str = "", **tags: Any) -> Path:
    """A volume of whole numbers as a series of slices, which nobody's body shows; PT where the tags say so."""
    lps = LPS_TO_RAS @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    empty = (
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    )
    shared: dict[str, Any] = {
        **{name: generate_uid() for name in uids},
        **dict.fromkeys(empty, ""),
        "PatientName": "Nobody^Test",
        "PatientID": "P1",
        "StudyDate": "20200301",
        "StudyTime": "101112",
        "SeriesNumber": 1,
        "PixelSpacing": [f"{value:.8g}" for value in spacing[1::-1]],
        "SliceThickness": f"{spacing[2]:.8g}",
        "ImageOrientationPatient": [
            f"{value:.8f}" for value in (lps[:3, :2] / spacing[:2]).T.ravel()
        ],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    for level, plane in enumerate(volume.data[0].astype(np.int16)):
        place = [f"{value:.6f}" for value in lps[:3, 3] + level * lps[:3, 2]]
        own = {"InstanceNumber": level + 1, "ImagePositionPatient": place}
        save(
            image(np.ascontiguousarray(plane), **shared | own | tags),
            folder / f"{prefix}{level:04d}.dcm",
        )
    return folder


def change(folder: Path, *absent: str, **tags: Any) -> None:
    """Change the tags of all files in a folder, and remove some."""
    from pydicom import dcmread

    for path in folder.glob("*.dcm"):
        dataset = dcmread(path)
        for key in absent:
            del dataset[key]
        for key, value in tags.items():
            setattr(dataset, key, value)
        dataset.save_as(path)


def mr_slice(number: int, study: str, series: str, patient: str = "P1") -> Dataset:
    """A slice of an MR series."""
    rows, columns = np.mgrid[-1:1:24j, -1:1:20j]
    head = (rows**2 + columns**2 < 0.7) * (500 + 100 * np.sin(4 * rows + number))
    dataset = image(
        head.astype(np.uint16),
        **dict.fromkeys(("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber"), ""),
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        FrameOfReferenceUID=study,
        PatientName="Test^Head",
        PatientID=patient,
        StudyDate="20200301",
        StudyTime="101112",
        Modality="MR",
        SeriesDescription="t1",
        ImageType=["ORIGINAL", "PRIMARY"],
        SeriesNumber=1,
        PixelSpacing=[2, 2],
        SliceThickness=3,
        ImagePositionPatient=[0, 0, 3 * number],
        InstanceNumber=number + 1,
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
