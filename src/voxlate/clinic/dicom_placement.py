"""DICOM out: the places of the slices of a new image, and the source slices from which they were computed.

Source: DICOM PS3.3 (2024), C.7.6.2 (image plane), C.7.6.1.1.4 (source image).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from nibabel.affines import apply_affine

from voxlate.base.errors import BadInput
from voxlate.scans.formats.dicom import headers_of
from voxlate.scans.formats.dicom_geometry import stack_of
from voxlate.scans.formats.dicom_headers import Image, read_dicom
from voxlate.scans.formats.dicom_series import Code, code, decimal_string, item, source_decimal
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Volume, flip_onto, share_inside

ON_GRID = 1e-3  # of a voxel
RIGHT_ANGLE = 1e-3  # the largest cosine between rows and columns
Slices = Literal["source", "own"]
PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
PLANES = ("SAGITTAL", "CORONAL", "AXIAL")  # of slices across the first, second and third axis
SOURCE_IMAGE: Code = ("121322", "DCM", "Source image for image processing operation")


class Source(NamedTuple):
    """A slice of the source series; corners_mm: those of its plane (RAS, [4, 3])."""

    image: Image
    header: Any
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
        return read_dicom(self.sources[0].image.file, stop_before_pixels=True)

    def series_uid(self) -> str:
        """The series to which objects of frames refer; raises BadInput where the source states none."""
        first = self.sources[0]
        uid = str(first.header.get("SeriesInstanceUID", ""))
        if not uid:
            raise BadInput(
                f"{first.image.file}: expected a SeriesInstanceUID, to which an object of frames refers, found none. Maps and masks stay in their own files."
            )
        return uid

    def place(self, level: int) -> Any:
        """Orientation, position, pixel spacing and thickness of a slice."""
        thickness = self._thickness_mm()
        if self.exact:
            header = self.sources[level].header
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
            reference = refer(source.header)
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
        headers = {str(source.header.SOPInstanceUID): source.header for source in self.sources}
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
    stack = stack_of(headers_of(like), like)
    tolerance_mm = ON_GRID * min(stack.grid.spacing_mm)
    keeps_own = slices == "own" and _across(volume.grid) != _across(stack.grid)
    flipped = None if keeps_own else flip_onto(volume, stack.grid, tolerance_mm)
    if flipped is None:
        _check_place(volume, stack.grid, like)
    _, height, width = stack.grid.shape
    sources = []
    for level, (image, header) in enumerate(stack.headers.items()):
        corners = [*product((0, width - 1), (0, height - 1), [level])]
        sources.append(Source(image, header, apply_affine(stack.grid.affine, corners)))
    if flipped is None:
        return Placement(volume.data[0], sources, volume.grid, exact=False)
    return Placement(flipped.data[0], sources, stack.grid, exact=True)


def _across(grid: Grid) -> int:
    """The axis of the patient, 0 to 2, across which the slices of a grid lie."""
    return int(np.abs(grid.affine[:3, 2]).argmax())


def share_on(volume: Volume, like: Path) -> float:
    """The share of the voxels above 0 that are within the box of the series `like`; 0 for an empty volume."""
    voxels = np.argwhere(volume.data[0] > 0)[:, ::-1]
    grid = stack_of(headers_of(like), like).grid
    return share_inside(volume.grid, grid, voxels) if len(voxels) else 0.0


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
