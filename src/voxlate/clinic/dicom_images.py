"""DICOM out: a volume as a derived CT or MR series, with an object for each slice, and the places of slices.

The series is in the study and frame of reference of its source. Source: DICOM PS3.3 (2024), C.7.6.1 (general image),
C.8.2.1 (CT), C.8.3.1 (MR), C.7.6.2 (image plane), C.7.6.1.1.4 (source image).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from nibabel.affines import apply_affine

from voxlate.base.errors import BadInput
from voxlate.base.optional import pydicom
from voxlate.clinic.dicom_series import (
    SYNTHESIS,
    Code,
    Origin,
    as_file,
    code,
    decimal_string,
    encode,
    fill,
    item,
    new_series,
    source_decimal,
    write_objects,
)
from voxlate.scans.formats.dicom import images_of
from voxlate.scans.formats.dicom_file import Image
from voxlate.scans.formats.dicom_stack import stack_of
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Volume, flip_onto, share_inside

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
ON_GRID = 1e-3  # of a voxel
RIGHT_ANGLE = 1e-3  # the largest cosine between rows and columns
Slices = Literal["source", "own"]
PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
PLANES = ("SAGITTAL", "CORONAL", "AXIAL")  # of slices across the first, second and third axis
SOURCE_IMAGE: Code = ("121322", "DCM", "Source image for image processing operation")


def write_derived(
    volume: Volume, like: Path, out: Path, origin: Origin, slices: Slices = "source"
) -> list[Path]:
    """Write a volume as one DICOM file for each slice into the new folder `out`; returns the files.

    like: the series from which it was made, a folder or 'FOLDER#key'. HU become a CT series, arbitrary units an MR
    series. On the grid of `like`, in whatever order of axes, every slice has exactly the place of its source slice;
    on another grid slices have places of their own, and so they have with slices="own" where they are of another plane.
    The same image and source give the same UIDs. Raises BadInput for values beyond 16 bits, a source that is no series, and
    a folder that holds anything but this series.
    """
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


class Source(NamedTuple):
    """A slice of the source series; corners_mm: those of its plane (RAS, [4, 3])."""

    image: Image
    corners_mm: np.ndarray


@dataclass(frozen=True)
class Placement:
    """The slices of a new image in space, and those of its source.

    data: [D, H, W], its voxels; exact: the image has the source's own grid, so that each slice has the place of a source
    slice, digit by digit.
    """

    data: np.ndarray
    sources: Sequence[Source]
    grid: Grid
    exact: bool

    @cached_property
    def template(self) -> Any:
        """The header of one source image, with all its attributes."""
        return pydicom.dcmread(self.sources[0].image.file, stop_before_pixels=True, force=True)

    def series_uid(self) -> str:
        """The series to which objects of frames refer; raises BadInput where the source states none."""
        first = self.sources[0]
        uid = str(first.image.header.get("SeriesInstanceUID", ""))
        if not uid:
            raise BadInput(
                f"{first.image.file}: expected a SeriesInstanceUID, to which an object of frames refers, found none. Maps and masks stay in their own files."
            )
        return uid

    def place(self, level: int) -> Any:
        """Orientation, position, pixel spacing and thickness of a slice."""
        thickness = self._thickness_mm()
        if self.exact:
            header = self.sources[level].image.header
            values = [getattr(header, name) for name in PLACE]
            thickness = header.get("SliceThickness") or thickness
            write = source_decimal
        else:
            lps = LPS_TO_RAS @ self.grid.affine
            spacing = np.linalg.norm(lps[:3, :3], axis=0)
            directions = lps[:3, :2] / spacing[:2]
            values = [directions.T.ravel(), lps[:3, 3] + level * lps[:3, 2], spacing[1::-1]]
            write = decimal_string
        lists = {name: [*map(write, numbers)] for name, numbers in zip(PLACE, values)}
        return item(SliceThickness=source_decimal(thickness), **lists)

    def _normal(self) -> np.ndarray:
        normal = np.cross(self.grid.affine[:3, 0], self.grid.affine[:3, 1])
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def plane(self) -> str:
        """The plane of the slices: SAGITTAL, CORONAL or AXIAL, whichever is nearest."""
        return PLANES[int(np.abs(self._normal()).argmax())]

    def _thickness_mm(self) -> float:
        """The distance of neighbouring slices along their normal."""
        return abs(float(self._normal() @ self.grid.affine[:3, 2]))

    def nearby(self, level: int) -> Sequence[Source]:
        """The source slices that are within the thickness of a slice or cross it; at least the nearest slice."""
        if self.exact:
            return [self.sources[level]]
        normal = self._normal()
        here = float(apply_affine(self.grid.affine, (0, 0, level)) @ normal)
        sides = np.array([source.corners_mm @ normal - here for source in self.sources])
        away = np.maximum(0, np.maximum(sides.min(axis=1), -sides.max(axis=1)))
        near = max(self._thickness_mm() / 2, away.min() + 1e-6)
        return [source for source, gap in zip(self.sources, away) if gap <= near]

    def references(self, level: int) -> list[Any]:
        """The items of a slice's source image sequence."""
        items = []
        for source in self.nearby(level):
            reference = refer(source.image.header)
            if source.image.frame:
                reference.ReferencedFrameNumber = source.image.frame
            reference.PurposeOfReferenceCodeSequence = [code(*SOURCE_IMAGE)]
            items.append(reference)
        return items

    def derivation(self, level: int, description: str, kind: Code) -> Any:
        """How a frame was computed, with its source slices."""
        return item(
            DerivationDescription=description,
            DerivationCodeSequence=[code(*kind)],
            SourceImageSequence=self.references(level),
        )

    def evidence(self) -> list[Any]:
        """The references to the source objects, each once."""
        headers = {
            str(source.image.header.SOPInstanceUID): source.image.header for source in self.sources
        }
        return [*map(refer, headers.values())]


def refer(header: Any) -> Any:
    """The reference to an object by its header."""
    return item(
        ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID
    )


def place_volume(volume: Volume, like: Path, slices: Slices = "source") -> Placement:
    """The voxels of a volume, and their placement among the slices of the series `like`.

    slices: where flips lead from one grid to the other, the slices of the source, or those of the volume, which may be
    of another plane. Raises BadInput for a volume elsewhere, and for one whose rows and columns are not at right angles.
    """
    stack = stack_of(images_of(like), like)
    tolerance_mm = ON_GRID * min(stack.grid.spacing_mm)
    keeps_own = slices == "own" and _across(volume.grid) != _across(stack.grid)
    flipped = None if keeps_own else flip_onto(volume, stack.grid, tolerance_mm)
    if flipped is None:
        _check_place(volume, stack.grid, like)
    _, height, width = stack.grid.shape
    sources = []
    for level, image in enumerate(stack.images):
        corners = [*product((0, width - 1), (0, height - 1), [level])]
        sources.append(Source(image, apply_affine(stack.grid.affine, corners)))
    if flipped is None:
        return Placement(volume.data[0], sources, volume.grid, exact=False)
    return Placement(flipped.data[0], sources, stack.grid, exact=True)


def _across(grid: Grid) -> int:
    """The axis of the patient, 0 to 2, across which the slices of a grid lie."""
    return int(np.abs(grid.affine[:3, 2]).argmax())


def _check_place(volume: Volume, source: Grid, like: Path) -> None:
    name = volume.origin or volume.modality
    rows, columns = volume.affine[:3, 0], volume.affine[:3, 1]
    cosine = float(rows @ columns / np.linalg.norm(rows) / np.linalg.norm(columns))
    if abs(cosine) > RIGHT_ANGLE:
        raise BadInput(
            f"{name}: expected rows and columns at right angles for DICOM, found {np.degrees(np.arccos(cosine)):.1f} degrees (a sheared grid). Resample it to the grid of {like}."
        )
    if share_inside(volume.grid, source) == 0 == share_inside(source, volume.grid):
        raise BadInput(
            f"{name}: expected an image that overlaps its source series {like}, found it elsewhere in space. Check that it is of the same scan."
        )
