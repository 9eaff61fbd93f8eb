"""DICOM out: a volume as a derived CT or MR series, with an object for each slice, and the places of slices.

The series is in the study and frame of reference of its source. Source: DICOM PS3.3 (2024), C.7.6.1 (general image),
C.8.2.1 (CT), C.8.3.1 (MR), C.7.6.2 (image plane), C.7.6.1.1.4 (source image).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.clinic.dicom_series import (
    NEEDED,
    SYNTHESIS,
    Code,
    Origin,
    as_file,
    code,
    decimal_string,
    fill,
    item,
    new_series,
    source_decimal,
    write_objects,
)
from voxlate.scans.formats.dicom import images_of
from voxlate.scans.formats.dicom_file import Image, read_dicom
from voxlate.scans.formats.dicom_stack import stack_of
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Volume, flip_onto

UNITS = ("HU", "a.u.")  # of CT and MR series
LEAST_INTEGER, MOST_INTEGER = -(2**15), 2**15 - 1  # of the stored integers
MR_STEPS = 4095  # of a volume with fractions, which is scaled to whole numbers
WINDOW_HU = (-160.0, 240.0)  # in which a display shows an image at first
# The attributes of an image; those of the acquisition do not hold for a computed image.
OF_MODALITY: dict[str, dict[str, Any]] = {
    "CT": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "RescaleType": "HU",
        "KVP": None,
        "AcquisitionNumber": None,
    },
    "MR": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "RescaleType": "US",
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": None,
        "MRAcquisitionType": None,
        "EchoTime": None,
        "EchoTrainLength": None,
        "RepetitionTime": None,
    },
}
ON_GRID = 1e-3  # of a voxel
PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
SOURCE_IMAGE: Code = ("121322", "DCM", "Source image for image processing operation")


def write_derived(
    volume: Volume, like: Path, out: Path, origin: Origin, own_slices: bool = False
) -> list[Path]:
    """Write a volume as one DICOM file for each slice into the new folder `out`; returns the files.

    like: the series from which it was made, a folder or 'FOLDER#key'. HU become a CT series, arbitrary units an MR
    series. On the grid of `like`, in whatever order of axes, every slice has exactly the place of its source slice;
    on another grid, and with own_slices, slices have places of their own.
    The same image and source give the same UIDs. Raises BadInput for values beyond 16 bits, a source that is no series, and
    a folder that holds anything but this series.
    """
    placement = place_volume(volume, like, own_slices)
    values, slope = _store(placement.data, volume.unit, out)
    modality, (low, high) = "CT", WINDOW_HU
    if volume.unit != "HU":
        modality, low, high = "MR", 0.0, max(float(np.percentile(placement.data, 99.5)), slope)
    _, rows, columns = values.shape
    series = fill(
        new_series(placement.template, volume.modality, origin, values.data),
        Modality=modality,
        ImageComments=origin.comments,
        DerivationDescription=origin.description,
        DerivationCodeSequence=[code(*SYNTHESIS)],
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
        WindowCenter=decimal_string((low + high) / 2),
        WindowWidth=decimal_string(high - low),
        **OF_MODALITY[modality],
    )
    side = placement.template.get("Laterality") or ""
    if side or "BodyPartExamined" not in series:  # parts such as a head have no side
        series.Laterality = side

    def objects() -> Iterator[Any]:
        """The objects, of which each is the one before with other attributes."""
        for level, plane in enumerate(values):
            series.update(placement.place(level))
            series.InstanceNumber = level + 1
            if placement.exact:
                series.SourceImageSequence = [placement.reference(level)]
            series.add_new("PixelData", "OW", np.ascontiguousarray(plane).tobytes())
            yield as_file(series, level)

    return write_objects(out, series, len(values), objects())


def _store(data: np.ndarray, unit: str, out: Path) -> tuple[np.ndarray, float]:
    """Voxels [D, H, W] as whole numbers of 16 bits, and their slope. Raises BadInput for values that do not fit."""
    least, most = float(data.min()), float(data.max())
    fits = least >= LEAST_INTEGER and most <= MOST_INTEGER
    slope = 1.0
    if unit != "HU" and not (fits and all((plane == np.rint(plane)).all() for plane in data)):
        slope = max(most, -least, 1e-12) / MR_STEPS
    # NaN is the least and the most wherever there is one
    if not (least / slope >= LEAST_INTEGER and most / slope <= MOST_INTEGER):
        raise BadInput(
            f"{out}: expected finite values from {LEAST_INTEGER} to {MOST_INTEGER} for the 16 bits of DICOM, found {least:g} to {most:g}. Check the unit of the image."
        )
    slope = float(f"{slope:.10g}")  # as the header will state it
    stored = np.empty(data.shape, "<i2")
    for level, plane in enumerate(data):  # slices, so that no large temporary array is needed
        stored[level] = np.rint(plane if slope == 1 else plane / slope)
    return stored, slope


@dataclass(frozen=True)
class Placement:
    """The slices of a new image in space, and those of its source.

    data: [D, H, W], its voxels; sources: the source's images, in the order of their slices; exact: the image has the
    source's own grid, so that each slice has the place of a source slice, digit by digit.
    """

    data: np.ndarray
    sources: Sequence[Image]
    grid: Grid
    exact: bool

    @cached_property
    def headers(self) -> list[Any]:
        """The headers of the source's files, with all their attributes; those that an object needs may be empty."""
        headers = []
        for file in dict.fromkeys(source.file for source in self.sources):
            header = item(**dict.fromkeys(NEEDED, ""))
            header.update(read_dicom(file, stop_before_pixels=True))
            header.filename = file
            headers.append(header)
        return headers

    @property
    def template(self) -> Any:
        """The first of the headers."""
        return self.headers[0]

    def place(self, level: int) -> Any:
        """Orientation, position, pixel spacing and thickness of a slice."""
        lps = LPS_TO_RAS @ self.grid.affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        directions = lps[:3, :2] / spacing[:2]
        thickness = abs(float(np.cross(*directions.T) @ lps[:3, 2]))
        if self.exact:
            header = self.sources[level].header
            values = [getattr(header, name) for name in PLACE]
            thickness = header.get("SliceThickness") or thickness
            write = source_decimal
        else:
            values = [directions.T.ravel(), lps[:3, 3] + level * lps[:3, 2], spacing[1::-1]]
            write = decimal_string
        lists = {name: [*map(write, numbers)] for name, numbers in zip(PLACE, values)}
        return item(SliceThickness=source_decimal(thickness), **lists)

    def reference(self, level: int) -> Any:
        """The reference to the source slice at the place of a slice."""
        source = self.sources[level]
        reference = refer(source.header)
        if source.frame:
            reference.ReferencedFrameNumber = source.frame
        reference.PurposeOfReferenceCodeSequence = [code(*SOURCE_IMAGE)]
        return reference


def refer(header: Any) -> Any:
    """The reference to an object by its header."""
    return item(
        ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID
    )


def place_volume(volume: Volume, like: Path, own_slices: bool = False) -> Placement:
    """The voxels of a volume, and their placement among the slices of the series `like`.

    Where flips lead from one grid to the other, these are the slices of the source, unless own_slices asks for those of the volume.
    """
    stack = stack_of(images_of(like), like)
    tolerance_mm = ON_GRID * min(stack.grid.spacing_mm)
    flipped = None if own_slices else flip_onto(volume, stack.grid, tolerance_mm)
    if flipped is None:
        return Placement(volume.data[0], stack.images, volume.grid, exact=False)
    return Placement(flipped.data[0], stack.images, stack.grid, exact=True)
