"""DICOM out for treatment planning: a CT on transverse slices of square pixels, and the body in it as closed contours.

The contours are an RT Structure Set, which planning systems read. Source: DICOM PS3.3 (2024), A.19 (RT structure set),
C.8.8.5 (structure set), C.8.8.6 (contours), C.8.8.8 (observations).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from nibabel.affines import from_matvec

from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput
from voxlate.clinic.dicom_images import Placement, place_volume, refer, write_derived
from voxlate.clinic.dicom_series import (
    NOT_FOR_DIAGNOSIS,
    Origin,
    as_file,
    fill,
    item,
    new_series,
    write_objects,
)
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Volume, directions, orient, resample
from voxlate.scans.images.mask import foreground

AIR_HU = -1000.0
STRAIGHT = 1e-3  # the largest cosine between an axis of the grid and another axis of the patient
BODY = "BODY"  # the name of the structure
AXES = "LPS"  # of transverse slices from feet to head, as planning systems store them
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY = "1.2.840.10008.3.1.2.3.1"  # the class of a study, which a structure set must name
MOST_BYTES = 65534  # of an attribute with a length of 16 bits; longer contours are written as UN, which few systems read
# Attributes of images, which a structure set does not have.
OF_IMAGES = ("PatientPosition", "BodyPartExamined", "ContentDate", "ContentTime")


def write_planning(ct: Volume, like: Path, series: Path, structure: Path, origin: Origin) -> None:
    """Write a CT in HU as a derived series of transverse slices, and its body on them as an RT Structure Set.

    like: the series from which the CT was made; series, structure: the new folders.
    """
    slices = squared(transverse(ct))
    write_derived(slices, like, series, origin, own_slices=True)
    body = foreground(slices)[None].astype(np.float32)
    write_structure(
        replace(slices, data=body, unit="1", modality="mask"), series, structure, origin
    )


def transverse(ct: Volume) -> Volume:
    """The CT on transverse slices of square pixels and one distance, by flips alone where its grid allows it.

    Pixels have the smaller spacing of the two axes across, and slices the spacing of the axis nearest to the body's; outside the CT is air.
    """
    turned = orient(ct, AXES)
    grid = turned.grid
    unit = np.abs(turned.affine[:3, :3] / np.linalg.norm(turned.affine[:3, :3], axis=0))
    depth, *across = grid.spacing_mm
    pixel = min(across)
    if (unit - np.eye(3)).max() <= STRAIGHT and max(across) - pixel <= STRAIGHT * pixel:
        return turned
    return resample(turned, _straight(grid, (depth, pixel, pixel)), fill=AIR_HU)


def _straight(grid: Grid, spacing_mm: tuple[float, float, float]) -> Grid:
    """The grid along the axes of the patient that covers another one, around the same centre."""
    covered_mm = np.abs(grid.affine[:3, :3]) @ grid.shape[::-1]
    shape = np.maximum(np.ceil(covered_mm / spacing_mm[::-1] - 1e-6), 1).astype(int)
    axes = directions(AXES)[:3, :3] * spacing_mm[::-1]
    affine = from_matvec(axes, grid.centre_mm - axes @ (shape - 1) / 2)
    width, height, depth = shape.tolist()
    return Grid((depth, height, width), affine)


def squared(ct: Volume) -> Volume:
    """The CT with air after its last rows or columns, until a slice has as many of one as of the other.

    Readers of contours confuse the two where they differ (rt-utils 1.2.7, platipy 0.7.2); scanners' CTs are square.
    """
    _, depth, height, width = ct.data.shape
    side = max(height, width)
    data = np.full((1, depth, side, side), AIR_HU, np.float32)
    data[..., :height, :width] = ct.data
    return replace(ct, data=data)


def write_structure(mask: Volume, like: Path, out: Path, origin: Origin) -> list[Path]:
    """Write the mask of a body as one structure of closed contours into the new folder `out`; returns the file.

    like: the series on whose slices the mask is. Contours run half way between voxels in the mask and others, at 0.001 mm; parts are contours of their
    own, and holes are filled. Raises BadInput for a contour of more points than an attribute holds, and a folder that holds anything but this structure.
    """
    placement = place_volume(mask, like)
    contours = _contours(placement, out)
    content = np.ascontiguousarray(placement.data).data
    series = new_series(placement.template, BODY, origin, content, "structure")
    for keyword in OF_IMAGES:
        series.pop(keyword, None)
    frame = series.FrameOfReferenceUID
    images = item(
        SeriesInstanceUID=placement.template.SeriesInstanceUID,
        ContourImageSequence=[refer(source.header) for source in placement.sources],
    )
    study = item(
        ReferencedSOPClassUID=STUDY,
        ReferencedSOPInstanceUID=series.StudyInstanceUID,
        RTReferencedSeriesSequence=[images],
    )
    fill(
        series,
        SOPClassUID=STRUCTURE_SET,
        Modality="RTSTRUCT",
        OperatorsName="",
        InstanceNumber=1,
        ApprovalStatus="UNAPPROVED",
        StructureSetLabel="SYNTHETIC",
        StructureSetDescription=f"{NOT_FOR_DIAGNOSIS}: {origin.description}",
        StructureSetDate=series.SeriesDate,
        StructureSetTime=series.SeriesTime,
        ReferencedFrameOfReferenceSequence=[
            item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])
        ],
        StructureSetROISequence=[
            item(
                ROINumber=1,
                ReferencedFrameOfReferenceUID=frame,
                ROIName=BODY,
                ROIGenerationAlgorithm="AUTOMATIC",
            )
        ],
        ROIContourSequence=[item(ReferencedROINumber=1, ContourSequence=contours)],
        RTROIObservationsSequence=[
            item(
                ObservationNumber=1,
                ReferencedROINumber=1,
                RTROIInterpretedType="EXTERNAL",
                ROIInterpreter="",
            )
        ],
    )
    return write_objects(out, series, 1, [as_file(series)])


def _contours(placement: Placement, out: Path) -> list[Any]:
    """The items of all contours, from the first slice to the last."""
    contours = []
    lps = LPS_TO_RAS @ placement.grid.affine
    for level, plane in enumerate(placement.data):
        for points in _outlines(plane > 0):
            place = lps[:3, :2] @ points.T + (lps[:3, 2] * level + lps[:3, 3])[:, None]
            text = "\\".join(f"{value:.3f}" for value in place.T.ravel())
            if len(text) > MOST_BYTES:
                raise BadInput(
                    f"{out}: expected contours of at most {MOST_BYTES} bytes, which DICOM holds as numbers (about 2,400 points), found {len(points)} points in slice {level + 1}. Smooth the outline of the body, or leave --rtstruct out."
                )
            contour = item(
                ContourImageSequence=[refer(placement.sources[level].header)],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=text,
            )
            contours.append(contour)
    return contours


def _outlines(plane: AnyArray) -> list[AnyArray]:
    """The outlines [N, 2] (x, y) of the parts of a mask [H, W] with their holes filled, without points on straight lines."""
    if not plane.any():
        return []
    levels = contour_generator(z=np.pad(plane, 1).astype(float), fill_type=FillType.OuterOffset)
    filled: Any = levels.filled(0.5, np.inf)
    return [_corners(part[: ends[1]]) - 1 for part, ends in zip(*filled)]


def _corners(ring: AnyArray) -> AnyArray:
    """The points [N, 2] of a closed ring at which it turns."""
    after = np.diff(ring, axis=0)
    before = np.roll(after, 1, axis=0)
    return ring[:-1][before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
