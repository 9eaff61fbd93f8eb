"""Slices of made-up DICOM series."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


def mr_slice(number: int, study: str, series: str, patient: str = "P1") -> Dataset:
    """A slice of an MR series."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    uid = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.FrameOfReferenceUID = study
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Test^Head", patient, ""
    dataset.PatientSex, dataset.StudyDate, dataset.StudyTime = "", "20200301", "101112"
    dataset.StudyID = dataset.AccessionNumber = ""
    dataset.Modality, dataset.SeriesDescription = "MR", "t1"
    dataset.ImageType, dataset.SeriesNumber = ["ORIGINAL", "PRIMARY"], 1
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 24, 20, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelSpacing, dataset.SliceThickness = [2, 2], 3
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 3 * number]
    dataset.InstanceNumber = number + 1
    rows, columns = np.mgrid[-1:1:24j, -1:1:20j]
    head = (rows**2 + columns**2 < 0.7) * (500 + 100 * np.sin(4 * rows + number))
    dataset.PixelData = head.astype(np.uint16).tobytes()
    return dataset
