"""DICOM out: a volume as a derived CT or MR series in the study and frame of reference of its source.

The series has one object for each slice. Source: DICOM PS3.3 (2024), C.7.6.1 (general image), C.8.2.1 (CT), C.8.3.1 (MR).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.clinic.dicom_placement import Slices, place_volume
from voxlate.scans.formats.dicom_series import (
    SYNTHESIS,
    Origin,
    as_file,
    code,
    decimal_string,
    encode,
    fill,
    new_series,
    write_objects,
)
from voxlate.scans.images.grid import Volume

UNITS = ("HU", "a.u.")  # of CT and MR series
LEAST_INTEGER, MOST_INTEGER = -(2**15), 2**15 - 1  # of the stored integers
MR_STEPS = 4095  # of a volume with fractions, which is scaled to whole numbers
WINDOW_HU = (-160.0, 240.0)  # in which a display shows an image at first
SOP_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
# The attributes of an image; those of the acquisition do not hold for a computed image.
OF_MODALITY: dict[str, dict[str, Any]] = {
    "CT": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "KVP": None, "AcquisitionNumber": None},
    "MR": {
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": None,
        "MRAcquisitionType": None,
        "EchoTime": None,
        "EchoTrainLength": None,
        "RepetitionTime": None,
    },
}


def write_derived(
    volume: Volume, like: Path, out: Path, origin: Origin, slices: Slices = "source"
) -> list[Path]:
    """Write a volume as one DICOM file for each slice into the new folder `out`; returns the files.

    like: the series from which it was made, a folder or 'FOLDER#key'. HU become a CT series, arbitrary units an MR
    series. On the grid of `like`, in whatever order of axes, every slice has exactly the place of its source slice;
    on another grid slices have places of their own, and so they have with slices="own" where they are of another plane.
    The same image and source give the same UIDs. Raises BadInput for another unit, values beyond 16 bits, a source that
    is no series, and a folder that holds anything but this series.
    """
    if volume.unit not in UNITS:
        raise BadInput(
            f"{out}: expected an image in HU (CT) or arbitrary units (MR) for a DICOM series, found {volume.modality} in {volume.unit}. Leave it out; it stays in its own file."
        )
    placement = place_volume(volume, like, slices)
    values, slope = _store(placement.data, volume.unit, out)
    modality, (low, high) = "CT", WINDOW_HU
    if volume.unit != "HU":
        modality, low, high = "MR", 0.0, max(float(np.percentile(placement.data, 99.5)), slope)
    _, rows, columns = values.shape
    series = fill(
        new_series(placement.template, volume.modality, origin, values.data),
        SOPClassUID=SOP_CLASSES[modality],
        Modality=modality,
        ImageComments=origin.comments,
        DerivationDescription=origin.description,
        DerivationCodeSequence=[code(*SYNTHESIS)],
        QualityControlImage="NO",
        BurnedInAnnotation="NO",
        LossyImageCompression=placement.template.get("LossyImageCompression") or "00",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=rows,
        Columns=columns,
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=1,
        RescaleIntercept="0",
        RescaleSlope=decimal_string(slope),
        RescaleType="HU" if modality == "CT" else "US",
        WindowCenter=decimal_string((low + high) / 2),
        WindowWidth=decimal_string(high - low),
        **OF_MODALITY[modality],
    )
    if placement.plane != "AXIAL":
        # the third value says AXIAL of all slices of a CT (PS3.3, C.8.2.1.1.1)
        series.ImageType = [*series.ImageType, placement.plane]

    def objects() -> Iterator[Any]:
        """The objects, of which each is the one before with other attributes."""
        single = encode(series)
        for level, plane in enumerate(values):
            as_file(single, level)
            single.update(placement.place(level))
            single.InstanceNumber = level + 1
            single.SourceImageSequence = placement.references(level)
            single.add_new("PixelData", "OW", np.ascontiguousarray(plane).tobytes())
            yield single

    return write_objects(out, series, len(values), objects())


def _store(data: np.ndarray, unit: str, out: Path) -> tuple[np.ndarray, float]:
    """Voxels [D, H, W] as whole numbers of 16 bits, and their slope. Raises BadInput for values that do not fit."""
    least, most = float(data.min()), float(data.max())
    if not np.isfinite([least, most]).all():  # NaN is the least and the most wherever there is one
        raise BadInput(f"{out}: expected finite values for DICOM, found NaN. Synthesise it again.")
    fits = least >= LEAST_INTEGER and most <= MOST_INTEGER
    slope = 1.0
    if unit != "HU" and not (fits and all((plane == np.rint(plane)).all() for plane in data)):
        slope = max(most, -least, 1e-12) / MR_STEPS
    if least / slope < LEAST_INTEGER or most / slope > MOST_INTEGER:
        raise BadInput(
            f"{out}: expected values from {LEAST_INTEGER} to {MOST_INTEGER} for the 16 bits of DICOM, found {least:g} to {most:g}. Check the unit of the image."
        )
    slope = float(f"{slope:.10g}")  # as the header will state it
    stored = np.empty(data.shape, "<i2")
    for level, plane in enumerate(data):  # slices, so that no large temporary array is needed
        stored[level] = np.rint(plane if slope == 1 else plane / slope)
    return stored, slope
