"""Time to read a DICOM series of 200 slices of 512×512 pixels, and to write a derived one.

python benchmarks/bench_dicom.py     (needs the extras dicom and registration); prints ratios of the medians

Reading takes turns with SimpleITK on the same files. Writing takes turns with a plain loop of pydicom that writes the
same objects from the same array: it holds their attributes in memory, and sets UID, place and pixels of each slice.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from voxlate.clinic.dicom_images import write_derived
from voxlate.scans.formats.dicom_series import Origin
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume

SLICES, SIZE = 200, 512
REPEATS = 5


def write_series(folder: Path, slices: int, size: int) -> None:
    """An axial CT of noise, 1 mm apart, uncompressed."""
    draw = np.random.default_rng(0)
    for k in range(slices):
        header = pydicom.Dataset()
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        header.SOPInstanceUID = f"1.2.3.{k + 1}"
        header.SeriesInstanceUID = "1.2.3"
        header.Modality = "CT"
        header.InstanceNumber = k + 1
        header.Rows = header.Columns = size
        header.SamplesPerPixel = 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.BitsAllocated = 16
        header.BitsStored = 16
        header.HighBit = 15
        header.PixelRepresentation = 1
        header.PixelSpacing = [0.5, 0.5]
        header.SliceThickness = 1.0
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-128.0, -128.0, float(k)]
        header.RescaleSlope = 1
        header.RescaleIntercept = -1024
        header.PixelData = draw.integers(0, 3000, (size, size)).astype("<i2").tobytes()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def by_simpleitk(folder: Path) -> np.ndarray:
    """The voxels as SimpleITK reads them, in float32 as ours are."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return np.asarray(sitk.GetArrayFromImage(sitk.Cast(reader.Execute(), sitk.sitkFloat32)))


def by_voxlate(folder: Path) -> np.ndarray:
    """The voxels as voxlate reads them."""
    return read_volume(folder).data[0]


def _seconds(read: Callable[[Path], np.ndarray], folder: Path) -> float:
    begin = time.perf_counter()
    read(folder)
    return time.perf_counter() - begin


def compare(folder: Path, repeats: int) -> tuple[float, float]:
    """Median seconds of voxlate and of SimpleITK, which take turns."""
    assert np.array_equal(by_voxlate(folder), by_simpleitk(folder))  # and the files are cached
    ours = []
    theirs = []
    for _ in range(repeats):
        ours.append(_seconds(by_voxlate, folder))
        theirs.append(_seconds(by_simpleitk, folder))
    return statistics.median(ours), statistics.median(theirs)


def bare_write(volume: Volume, headers: Sequence[pydicom.Dataset], out: Path) -> None:
    """Write the planes of a volume by pydicom alone, with these headers."""
    out.mkdir()
    for level, (plane, header) in enumerate(zip(volume.data[0], headers)):
        made = pydicom.Dataset()
        made.update(header)
        made.file_meta = header.file_meta
        made.add_new("PixelData", "OW", np.rint(plane).astype("<i2").tobytes())
        made.save_as(out / f"{level + 1:04d}.dcm", enforce_file_format=True)


def compare_writing(folder: Path, place: Path, repeats: int) -> tuple[float, float]:
    """Median seconds in which voxlate and pydicom alone write the series in `folder` as a derived one."""
    scan = read_volume(folder)
    volume = Volume(scan.data, scan.affine, "HU", "ct")
    origin = Origin("benchmark", "0", (("seed", "0"),))
    ours = []
    theirs = []
    for turn in range(repeats):
        begin = time.perf_counter()
        files = write_derived(volume, folder, place / f"ours{turn}", origin)
        ours.append(time.perf_counter() - begin)
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        for header in headers:
            header.decode()  # as a program has them that set them itself
        begin = time.perf_counter()
        bare_write(volume, headers, place / f"bare{turn}")
        theirs.append(time.perf_counter() - begin)
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as other:
        folder = Path(name)
        write_series(folder, SLICES, SIZE)
        pairs = {
            "read": (*compare(folder, REPEATS), "SimpleITK"),
            "write": (*compare_writing(folder, Path(other), REPEATS), "pydicom alone"),
        }
    for action, (ours, theirs, name) in pairs.items():
        print(
            f"{action} {SLICES} slices of {SIZE}×{SIZE}: voxlate {ours:.2f} s, {name} {theirs:.2f} s, ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
