"""DICOM: the segments of a Segmentation object as a label map, read by highdicom."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.optional import optional_package
from voxlate.scans.formats.dicom_headers import Headers
from voxlate.scans.formats.dicom_pixels import whole_file
from voxlate.scans.formats.format import DynamicScan, Stored, check_volume, errors_as
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, check_affine

# Segmentation Storage and Label Map Segmentation Storage
KINDS_OF_OBJECT = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


@dataclass(frozen=True)
class Segments:
    """The segments of an object: names in order, values [segment, D, H, W] and grid; numbers: those of the object."""

    path: Path
    numbers: Sequence[int]
    names: Sequence[str]
    values: np.ndarray
    grid: Grid

    def read_all(self) -> Stored:
        """One segment with its values, or several as the label map of their numbers; raises BadInput where these overlap."""
        listed = [f"{number} {name}" for number, name in zip(self.numbers, self.names)]
        if len(listed) == 1:
            return self._stored(self.values[0], f"It is the segment {listed[0]}.")
        inside = self.values > 0
        if (inside.sum(axis=0) > 1).any():
            raise BadInput(
                f"{self.path}: expected segments that do not overlap, found {first_of(listed)}, of which some do. Name one of them: {self.path.name}#frame=1 to #frame={len(listed)}."
            )
        labels = np.tensordot(np.array(self.numbers, np.float32), inside.astype(np.float32), 1)
        return self._stored(labels, f"Its values are the numbers of segments: {first_of(listed)}.")

    @property
    def scan(self) -> DynamicScan:
        """The segments as frames."""
        return DynamicScan(
            self.grid,
            len(self.values),
            None,
            lambda: (plane for segment in self.values for plane in segment),
            lambda k: self._stored(self.values[k], f"It is the segment {self.names[k]}."),
        )

    def _stored(self, data: np.ndarray, said: str) -> Stored:
        return Stored(data, self.grid.affine, "", "seg", guesses=(said,))


def is_segmentation(headers: Headers) -> bool:
    """Whether a series is one Segmentation object."""
    objects = {image.file: header for image, header in headers.items()}
    kinds = {str(header.get("SOPClassUID", "")) for header in objects.values()}
    return len(objects) == 1 and kinds <= {*KINDS_OF_OBJECT}


def read_segments(headers: Headers, path: Path) -> Segments:
    """The segments of an object; slices that it leaves out, as most writers do with empty ones, are 0.

    Raises BadInput where its slices have no even steps.
    """
    file = next(iter(headers)).file
    highdicom = optional_package("highdicom", "dicom", file, "highdicom to read segmentations")
    data = whole_file(file)
    with errors_as(
        f"{path}: expected segments on slices at even steps, found others", "Save it as NIfTI."
    ):
        segmentation = highdicom.seg.Segmentation.from_dataset(data)
        geometry = segmentation.get_volume_geometry()
        numbers = list(segmentation.segment_numbers)
        names = [segmentation.get_segment_description(n).segment_label for n in numbers]
        depth, height, width = geometry.spatial_shape
        check_volume((len(numbers) * depth, height, width), path)
        # highdicom orders slices against the normal of their planes, series are read along it
        volume = segmentation.get_volume(dtype=np.float32).flip_spatial(0)
    # of row and column numbers and slices to those of columns, rows and slices
    affine = check_affine(LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]], path)
    values = np.ascontiguousarray(np.moveaxis(volume.array, -1, 0))
    return Segments(path, numbers, names, values, Grid((depth, height, width), affine))
