"""DICOM: the segments of a Segmentation object as a label map or as frames, read by highdicom."""

from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.errors import BadInput, first_of
from voxlate.base.optional import optional_package
from voxlate.scans.formats.dicom_geometry import FAR_APART, thickness_mm
from voxlate.scans.formats.dicom_headers import Headers
from voxlate.scans.formats.dicom_pixels import whole_file
from voxlate.scans.formats.format import DynamicScan, Stored, check_volume, errors_as
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, check_affine

# Segmentation Storage and Label Map Segmentation Storage
KINDS_OF_OBJECT = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
AS_NIFTI = "Save it as NIfTI."


def is_segmentation(headers: Headers) -> bool:
    """Whether a series is one Segmentation object."""
    objects = {image.file: header for image, header in headers.items()}
    kinds = {str(header.get("SOPClassUID", "")) for header in objects.values()}
    return len(objects) == 1 and kinds <= {*KINDS_OF_OBJECT}


def read_labels(headers: Headers, path: Path) -> Stored:
    """The only segment of an object with its values, or the label map of the numbers of several.

    Raises BadInput where segments overlap, and as `segments_of` does.
    """
    segmentation, listed = _open(headers, path)
    if len(listed) == 1:
        return segments_of(headers, path).read(0)
    said = f"Its values are the numbers of segments: {first_of(listed)}."
    try:
        return _volume(segmentation, headers, path, said, combine_segments=True)
    except RuntimeError as error:
        raise BadInput(
            f"{path}: expected segments that do not overlap, found {first_of(listed)}, of which some do. Name one of them: {path.name}#frame=1 to #frame={len(listed)}."
        ) from error


def segments_of(headers: Headers, path: Path) -> DynamicScan:
    """The segments of an object as frames; slices that it leaves out, as most writers do with empty ones, are 0.

    Raises BadInput where its slices have no even steps.
    """
    segmentation, listed = _open(headers, path)
    numbers = list(segmentation.segment_numbers)

    def read(k: int) -> Stored:
        said = f"It is the segment {listed[k]}."
        return _volume(segmentation, headers, path, said, segment_numbers=[numbers[k]])

    first = read(0)
    return DynamicScan(
        Grid(first.data.shape, first.affine),
        len(listed),
        None,
        lambda: (plane for k in range(len(listed)) for plane in read(k).data),
        read,
    )


def _open(headers: Headers, path: Path) -> tuple[Any, list[str]]:
    """A segmentation, and the number and the label of each of its segments."""
    file = next(iter(headers)).file
    highdicom = optional_package("highdicom", "dicom", file, "highdicom to read segmentations")
    data = whole_file(file)
    with errors_as(f"{path}: expected a whole segmentation, found a damaged one", AS_NIFTI):
        segmentation = highdicom.seg.Segmentation.from_dataset(data)
        listed = [
            f"{number} {segmentation.get_segment_description(number).segment_label}"
            for number in segmentation.segment_numbers
        ]
    return segmentation, listed


def _volume(segmentation: Any, headers: Headers, path: Path, said: str, **how: Any) -> Stored:
    """The volume of segments; raises RuntimeError where segments to be combined overlap."""
    geometry = segmentation.get_volume_geometry()
    if geometry is None:
        raise BadInput(
            f"{path}: expected segments on slices at even steps, found others. {AS_NIFTI}"
        )
    check_volume(geometry.spatial_shape, path)
    # highdicom orders slices against the normal of their planes, series are read along it
    volume = segmentation.get_volume(dtype=np.float32, **how).flip_spatial(0)
    data = volume.array.reshape(volume.spatial_shape)
    # of slices, rows and columns to those of columns, rows and slices
    affine = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
    guesses = [said]
    thickness = thickness_mm(next(iter(headers.values())), next(iter(headers)))
    step = float(np.linalg.norm(affine[:3, 2]))
    if thickness and len(data) == 1:
        affine[:3, 2] *= thickness / step  # highdicom takes 1 mm
    elif 0 < FAR_APART * thickness <= step:
        guesses.append(
            f"Its slices are {step:.2f} mm apart and {thickness:g} mm thick: if it leaves out slices by a rule, those beside them are too thick here. Compare it with its scan."
        )
    return Stored(
        np.ascontiguousarray(data), check_affine(affine, path), "", "seg", guesses=tuple(guesses)
    )
