"""The picture of docs/guides/dicom.md: a phantom's T1 as a DICOM series, and the CT series that a starter derives of it.

python docs/dicom_picture.py FOLDER     (a new folder for cohort and series); writes docs/guides/dicom.png
"""

import sys
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

import voxlate
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import LPS_TO_RAS, Volume, canonical
from voxlate.scans.images.pictures import (
    Plane,
    pixel_mm,
    plane_of,
    shades,
    sheet_with_labels,
    square_pixels,
)

PICTURE = Path(__file__).parent / "guides" / "dicom.png"
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
TILE = 220  # pixels along each side of a slice
WINDOWS = {"a.u.": (0.0, 99.5), "HU": (-400.0, 1200.0)}  # percentiles, and Hounsfield units


def write_series(scan: Volume, folder: Path) -> None:
    """Write a phantom's MR as a series of axial slices of nobody."""
    folder.mkdir(parents=True)
    lps = LPS_TO_RAS @ scan.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    study, series, frame = (generate_uid() for _ in range(3))
    stored = np.rint(scan.data[0] * (4000 / scan.data.max())).astype(np.uint16)
    for level, plane in enumerate(stored):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.Modality = MRImageStorage, "MR"
        one.SOPInstanceUID = generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientName, one.PatientID, one.SeriesDescription = "Phantom^Head", "PHANTOM", "t1"
        one.SeriesNumber, one.InstanceNumber = 1, level + 1
        one.Rows, one.Columns = plane.shape
        one.ImageOrientationPatient = [
            f"{value:.8f}" for value in (lps[:3, :2] / spacing[:2]).T.ravel()
        ]
        place = lps[:3, 3] + level * lps[:3, 2]
        one.ImagePositionPatient = [f"{value:.6f}" for value in place]
        one.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"]
        one.SliceThickness = f"{spacing[2]:.8g}"
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = plane.tobytes()
        one.save_as(folder / f"{level + 1:04d}.dcm", enforce_file_format=True)


def planes(series: Path) -> tuple[str, list[np.ndarray]]:
    """The caption of a series, and its middle slices as they are read from the DICOM files."""
    description = pydicom.dcmread(next(iter(sorted(series.iterdir())))).SeriesDescription
    volume = canonical(read_volume(series))
    low, high = WINDOWS[volume.unit]
    if volume.unit != "HU":
        low, high = (float(value) for value in np.percentile(volume.data, (low, high)))
    pictures = []
    for axis, plane in enumerate(PLANES):
        middle = plane_of(volume.data[0], plane, volume.data.shape[1 + axis] // 2)
        mm = pixel_mm(volume.grid.spacing_mm, plane)
        pictures.append(square_pixels(shades(middle, low, high), mm))
    grid = str(volume.grid).replace("×", " x ")  # the font of pictures has no ×
    return f"{description} ({grid})", pictures


def main(folder: Path) -> None:
    voxlate.phantom(
        folder / "cohort",
        cases=1,
        size=(160, 176, 112),
        modalities=["t1"],
        lesion="none",
    )
    (scan,) = (folder / "cohort").glob("*/t1.nii.gz")
    source = folder / "study" / "mr"
    write_series(read_volume(scan, "t1"), source)
    voxlate.synthesise(
        "starter:head-mr-to-ct", [f"mr={source}"], out=folder / "out", dicom=folder / "derived"
    )
    (derived,) = (folder / "derived").glob("*/ct")
    sheet = sheet_with_labels([planes(source), planes(derived)], PLANES, TILE)
    sheet.convert("L").save(PICTURE, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
