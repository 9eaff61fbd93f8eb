"""Slices of made-up DICOM series."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid


def image(pixels: np.ndarray, **tags: Any) -> Dataset:
    """An image [H, W] (or frames [N, H, W]) of integers with the tags that are given, CT unless they name a modality."""
    bits = 8 * pixels.itemsize
    kind = MRImageStorage if tags.get("Modality") == "MR" else CTImageStorage
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
