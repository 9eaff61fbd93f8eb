"""DICOM out: a volume as a derived series in the study, and in the frame of reference, of the series it was made of.

Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.8.2.1 (CT), C.8.3.1 (MR), C.7.6.16.2.21 (derivation).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.dicom_headers import (
    SYNTHESIS,
    Origin,
    as_file,
    code,
    decimal_string,
    described,
    encoded,
    instance_uid,
    new_series,
    write_objects,
)
from voxlate.formats.dicom_placement import placed
from voxlate.images.grid import Volume
from voxlate.images.optional import optional_package
from voxlate.system.errors import BadInput

UNITS = ("HU", "a.u.")  # of CT and MR series
LEAST, MOST = -(2**15), 2**15 - 1  # of the stored integers
MR_STEPS = 4095  # of a volume with fractions, which is scaled to whole numbers
_CT = "1.2.840.10008.5.1.4.1.1.2"
_MR = "1.2.840.10008.5.1.4.1.1.4"


def write_derived(volume: Volume, like: Path, out: Path, origin: Origin) -> list[Path]:
    """Write a volume as one classic DICOM file for each slice into the new folder `out`; returns the files.

    like: the series from which it was made, a folder or 'FOLDER#key'. HU become a CT series, arbitrary units an MR
    series. On the grid of `like`, in whatever order of axes, every slice has exactly the place of its source slice;
    on another grid slices have places of their own. The same image and source give the same UIDs. Raises BadInput for
    another unit, values beyond 16 bits, a source that is no series, and a folder that holds anything but this series.
    """
    pydicom = optional_package("pydicom", "dicom", like, "pydicom to write DICOM files")
    check_unit(volume, out)
    data, placement = placed(volume, like)
    stored, slope = stored_values(data, volume.unit, out)
    template = placement.template(pydicom)
    series = _series(pydicom, template, volume, origin, stored, slope)
    if (
        placement.plane != "AXIAL"
    ):  # the third value says AXIAL of all slices of a CT (PS3.3, C.8.2.1.1.1)
        series.ImageType = [*series.ImageType, placement.plane]

    def slices() -> Iterator[Any]:
        one = encoded(pydicom, series, instance_uid(pydicom, series, 0))
        for level, plane in enumerate(stored):
            as_file(pydicom, one, instance_uid(pydicom, series, level))
            one.InstanceNumber = level + 1
            placement.place(one, level)
            one.SourceImageSequence = placement.references(pydicom, level)
            one.add_new("PixelData", "OW", np.ascontiguousarray(plane).tobytes())
            yield one

    return write_objects(pydicom, out, series, len(stored), slices())


def check_unit(volume: Volume, out: Path) -> None:
    """Raise BadInput for an image that is neither in HU nor of MR."""
    if volume.unit not in UNITS:
        raise BadInput(
            f"{out}: expected an image in HU (CT) or arbitrary units (MR) for a DICOM series, found {volume.modality} in {volume.unit}. Leave it out; it stays in its own file."
        )


def stored_values(data: np.ndarray, unit: str, out: Path) -> tuple[np.ndarray, float]:
    """Whole numbers of 16 bits, and the slope that leads back. Raises BadInput for values that do not fit."""
    least, most = float(data.min()), float(data.max())
    if not np.isfinite([least, most]).all():  # NaN is the least and the most wherever there is one
        raise BadInput(f"{out}: expected finite values for DICOM, found NaN. Synthesise it again.")
    slope = 1.0
    if unit == "a.u." and (most > MOST or least < LEAST or not _is_whole(data)):
        slope = max(most, -least, 1e-12) / MR_STEPS
    if least / slope < LEAST or most / slope > MOST:
        raise BadInput(
            f"{out}: expected values from {LEAST} to {MOST} for the 16 bits of DICOM, found {least:g} to {most:g}. Check the unit of the image."
        )
    slope = float(f"{slope:.10g}")  # as the header will state it
    stored = np.empty(data.shape, "<i2")
    for level, plane in enumerate(data):  # slices, so that no large temporary array is needed
        stored[level] = np.rint(plane if slope == 1 else plane / slope)
    return stored, slope


def _is_whole(data: np.ndarray) -> bool:
    return all((plane == np.rint(plane)).all() for plane in data)


def _series(
    pydicom: Any, source: Any, volume: Volume, origin: Origin, stored: np.ndarray, slope: float
) -> Any:
    """What all slices of the new series share."""
    digest = hashlib.sha256(stored.data).hexdigest()
    made = new_series(pydicom, source, volume.modality, origin, digest)
    made.ImageComments = "Computed by a trained model. Research software, not a medical device."
    made.BurnedInAnnotation = "NO"
    made.QualityControlImage = "NO"
    made.LossyImageCompression = source.get("LossyImageCompression", "00") or "00"
    made.DerivationDescription = described(origin)
    made.DerivationCodeSequence = [code(pydicom, *SYNTHESIS)]
    _write_modality(made, volume.unit)
    _write_pixel_description(made, volume, stored, slope)
    return made


def _write_modality(made: Any, unit: str) -> None:
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
    made.RescaleIntercept, made.RescaleSlope = "0", decimal_string(slope)
    made.RescaleType = "HU" if volume.unit == "HU" else "US"
    low, high = window_of(volume, slope)
    made.WindowCenter = decimal_string((low + high) / 2)
    made.WindowWidth = decimal_string(high - low)


def window_of(volume: Volume, slope: float) -> tuple[float, float]:
    """The least and the largest value that a display shows at first."""
    if volume.unit == "HU":
        return -160.0, 240.0
    return 0.0, max(float(np.percentile(volume.data, 99.5)), slope)
