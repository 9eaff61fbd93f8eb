"""DICOM out: the places of the slices of a new image, and the source slices from which they were computed.

Source: DICOM PS3.3 (2024), C.7.6.2 (image plane), C.7.6.1.1.4 (source image).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxlate.formats.dicom import headers_of
from voxlate.formats.dicom_geometry import stack_of
from voxlate.formats.dicom_headers import Image
from voxlate.formats.dicom_series import Code, code, decimal_string, item, source_decimal
from voxlate.images.grid import LPS_TO_RAS, Grid, Volume, share_inside
from voxlate.images.optional import pydicom
from voxlate.system.errors import BadInput

ON_GRID = 1e-3  # voxels
RIGHT_ANGLE = 1e-3  # the largest cosine between rows and columns
PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
PLANES = ("SAGITTAL", "CORONAL", "AXIAL")  # of slices across the first, second and third axis
SOURCE_IMAGE: Code = ("121322", "DCM", "Source image for image processing operation")


class Source(NamedTuple):
    """A slice of the source series; middle_mm: the centre of its plane (RAS)."""

    image: Image
    header: Any
    middle_mm: np.ndarray


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

    def template(self) -> Any:
        """The header of one source image, with all its attributes."""
        return pydicom.dcmread(self.sources[0].image.file, stop_before_pixels=True)

    def series_uid(self) -> str:
        """The series to which objects of frames refer; raises BadInput where the source states none."""
        first = self.sources[0]
        uid = str(first.header.get("SeriesInstanceUID", ""))
        if not uid:
            raise BadInput(
                f"{first.image.file}: expected a SeriesInstanceUID, to which an object of frames refers, found none. Export the classic images alone, without --enhanced."
            )
        return uid

    def place(self, level: int) -> Any:
        """Orientation, position, pixel spacing and thickness of a slice."""
        if self.exact:
            header = self.sources[level].header
            place = {name: map(source_decimal, getattr(header, name)) for name in PLACE}
            thickness = header.get("SliceThickness") or self._thickness_mm()
        else:
            lps = LPS_TO_RAS @ self.grid.affine
            spacing = np.linalg.norm(lps[:3, :3], axis=0)
            directions = lps[:3, :2] / spacing[:2]
            position = lps[:3, 3] + level * lps[:3, 2]
            values = (directions.T.ravel(), position, spacing[1::-1])
            place = {name: map(decimal_string, row) for name, row in zip(PLACE, values)}
            thickness = self._thickness_mm()
        lists = {name: list(values) for name, values in place.items()}
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
        """The source slices whose middle is within the thickness of a slice; at least the nearest slice."""
        if self.exact:
            return [self.sources[level]]
        normal = self._normal()
        here = float((self.grid.affine @ (0, 0, level, 1))[:3] @ normal)
        away = np.array([abs(float(source.middle_mm @ normal) - here) for source in self.sources])
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


def refer(header: Any) -> Any:
    """The reference to an object by its header."""
    return item(
        ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID
    )


def place_volume(volume: Volume, like: Path) -> Placement:
    """The voxels of a volume, and their placement among the slices of the series `like`.

    Raises BadInput for a volume elsewhere, and for one whose rows and columns are not at right angles.
    """
    stack = stack_of(headers_of(like), like)
    data = _reorder(volume, stack.grid)
    if data is None:
        _check_place(volume, stack.grid, like)
    _, height, width = stack.grid.shape
    sources = []
    for level, (image, header) in enumerate(stack.headers.items()):
        middle = stack.grid.affine @ ((width - 1) / 2, (height - 1) / 2, level, 1)
        sources.append(Source(image, header, middle[:3]))
    if data is None:
        return Placement(volume.data[0], sources, volume.grid, exact=False)
    return Placement(data, sources, stack.grid, exact=True)


def share_on(volume: Volume, like: Path) -> float:
    """The share of the voxels above 0 that are within the box of the series `like`; 0 for an empty volume."""
    grid = stack_of(headers_of(like), like).grid
    voxels = np.argwhere(volume.data[0] > 0)[:, ::-1]
    if not len(voxels):
        return 0.0
    to_source = np.linalg.inv(grid.affine) @ volume.affine
    there = voxels @ to_source[:3, :3].T + to_source[:3, 3]
    inside = (there > -0.5) & (there < np.array(grid.shape[::-1]) - 0.5)
    return float(inside.all(axis=1).mean())


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


def _reorder(volume: Volume, source: Grid) -> np.ndarray | None:
    """The voxels [D, H, W] of a volume in the order of the source's axes; None where it is not on the source's grid."""
    to_source = np.linalg.inv(source.affine) @ volume.grid.affine
    turn = np.rint(to_source[:3, :3])
    is_turn = np.abs(to_source[:3, :3] - turn).max() < ON_GRID / max(volume.grid.shape)
    if not is_turn or not np.array_equal(np.abs(turn).sum(0), [1, 1, 1]):
        return None
    data = np.transpose(volume.data[0])  # [x, y, z], as the affine counts
    data = np.transpose(data, np.abs(turn).argmax(1))
    data = np.transpose(np.flip(data, tuple(np.flatnonzero(turn.sum(1) < 0))))
    last = np.array(volume.grid.shape[::-1]) - 1
    corner = to_source @ (*np.where(turn.sum(0) < 0, last, 0), 1)
    return data if np.abs(corner[:3]).max() < ON_GRID and data.shape == source.shape else None
