"""DICOM out for treatment planning: a CT on transverse slices of square pixels, and the body in it as contours."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from voxlate.base.array_types import AnyArray
from voxlate.base.messages import Message, message
from voxlate.clinic.dicom_images import write_derived
from voxlate.clinic.dicom_structure import write_structure
from voxlate.scans.formats.dicom import headers_of
from voxlate.scans.formats.dicom_series import Origin
from voxlate.scans.images.grid import Grid, Volume, orient, resample
from voxlate.scans.images.mask import foreground

AIR_HU = -1000.0
STRAIGHT = 1e-3  # the largest cosine between an axis of the grid and another axis of the patient
CUT_MM = 20.0  # of the outline of a slice; a nose may touch the border
AXES = "LPS"  # of transverse slices from feet to head, as planning systems store them


def write_planning(
    ct: Volume, like: Path, series: Path, structure: Path, origin: Origin, case: str
) -> list[Message]:
    """Write a CT in HU as a derived series of transverse slices, and its body on them as an RT Structure Set.

    like: the series from which the CT was made; series, structure: the new folders. Returns messages where the scan cuts
    off the body, and where the source states no patient position.
    """
    slices = squared(transverse(ct))
    body = foreground(slices)
    write_derived(slices, like, series, origin, slices="own")
    mask = replace(slices, data=body[None].astype(np.float32), unit="1", modality="mask")
    write_structure(mask, "BODY", "EXTERNAL", series, structure, origin)
    messages = []
    cut = cut_slices(body, _within(ct, slices.grid), slices.grid.spacing_mm[2])
    if cut:
        text = f"the scan cuts the body off in {cut} of {len(body)} slices: beyond it they show air where the patient is."
        messages.append(message("cut-outline", text, case=case))
    if not all(header.get("PatientPosition") for header in headers_of(like).values()):
        text = "the source states no patient position, and neither does the series."
        messages.append(message("no-position", text, case=case))
    return messages


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
    """The grid along the axes of the patient that covers another one."""
    corners = [*product(*((-0.5, length - 0.5) for length in grid.shape[::-1]))]
    placed = apply_affine(grid.affine, corners)
    low, high = placed.min(axis=0), placed.max(axis=0)
    spacing = np.array(spacing_mm[::-1])
    shape = np.maximum(np.ceil((high - low) / spacing - 1e-6), 1).astype(int)
    signs = np.array([-1.0, -1.0, 1.0])  # LPS
    affine = np.diag([*(signs * spacing), 1.0])
    affine[:3, 3] = (low + high) / 2 - signs * spacing * (shape - 1) / 2
    width, height, depth = (int(length) for length in shape)
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


def cut_slices(body: AnyArray, scanned: AnyArray, spacing_mm: float) -> int:
    """The number of slices in which a body [D, H, W] ends where the scan does, over CUT_MM or more: it goes on in the patient."""
    beyond = np.pad(~scanned, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    rows = beyond[:, :-2, 1:-1] | beyond[:, 2:, 1:-1]
    columns = beyond[:, 1:-1, :-2] | beyond[:, 1:-1, 2:]
    cut = np.count_nonzero((rows | columns) & body, axis=(1, 2))
    return int((cut * spacing_mm >= CUT_MM).sum())


def _within(ct: Volume, grid: Grid) -> AnyArray:
    """The voxels of a grid, bool [D, H, W], that lie within a CT."""
    ones = replace(ct, data=np.ones_like(ct.data))
    return resample(ones, grid, order=0, fill=0.0).data[0] > 0
