"""Treatment planning: a CT of transverse slices, the body, and electron densities relative to water.

Electron densities: a table of the user's, or that of Schneider et al. 1996 (tissues.py).
"""

from dataclasses import replace

import nibabel as nib
import numpy as np

from voxlate.clinic.consumers.beams import corners_mm
from voxlate.scans.images.grid import Grid, Volume, orient, resample

AIR_HU = -1000.0
STRAIGHT = 1e-3  # the largest cosine between an axis of the grid and another axis of the patient
STRAIGHT_MM = (60.0, 60.0)  # across and along a patient; no part of a body is as straight
CUT_MM = 20.0  # of the outline of a slice; a nose may touch the border
AXES = "LPS"  # of transverse slices from feet to head, as planning systems store them


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


def squared(ct: Volume) -> Volume:
    """The CT with air after its last rows or columns, until a slice has as many of one as of the other.

    Readers of contours confuse the two where they differ (rt-utils 1.2.7, platipy 0.7.2); scanners' CTs are square.
    """
    _, depth, height, width = ct.data.shape
    side = max(height, width)
    data = np.full((1, depth, side, side), AIR_HU, np.float32)
    data[..., :height, :width] = ct.data
    return replace(ct, data=data)


def _straight(grid: Grid, spacing_mm: tuple[float, float, float]) -> Grid:
    """The grid along the axes of the patient that covers another one."""
    placed = corners_mm(grid)
    low, high = placed.min(axis=0), placed.max(axis=0)
    spacing = np.array(spacing_mm[::-1])
    shape = np.maximum(np.ceil((high - low) / spacing - 1e-6), 1).astype(int)
    signs = np.array([-1.0, -1.0, 1.0])  # LPS
    affine = np.diag([*(signs * spacing), 1.0])
    affine[:3, 3] = (low + high) / 2 - signs * spacing * (shape - 1) / 2
    width, height, depth = (int(length) for length in shape)
    return Grid((depth, height, width), affine)


def clear_outside(ct: Volume, body: np.ndarray) -> Volume:
    """The CT with air outside the body."""
    return replace(ct, data=np.where(body, ct.data, AIR_HU).astype(np.float32))


def cut_slices(body: np.ndarray, scanned: np.ndarray, spacing_mm: float) -> int:
    """The number of slices in which a body [D, H, W] ends where the scan does, over CUT_MM or more: it goes on in the patient."""
    beyond = np.pad(~scanned, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    rows = beyond[:, :-2, 1:-1] | beyond[:, 2:, 1:-1]
    columns = beyond[:, 1:-1, :-2] | beyond[:, 1:-1, 2:]
    cut = np.count_nonzero((rows | columns) & body, axis=(1, 2))
    return int((cut * spacing_mm >= CUT_MM).sum())


def straight_mm(body: np.ndarray, grid: Grid) -> float:
    """The width in mm over which the back of a body [D, H, W] is the same in all slices, as that of a couch is; 0 if it is none.

    Slices of the patient's ends are left out. The back is sought in the orientation LPS, where a body does not reach the border.
    """
    turned = orient(Volume(body[None].astype(np.float32), grid.affine, "1", "mask"), AXES)
    inside = turned.data[0] > 0
    inside = inside[inside.any(axis=(1, 2))]
    along, _, across = turned.grid.spacing_mm
    edge = len(inside) // 20
    inside = inside[edge : len(inside) - edge]
    last = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
    same = (np.ptp(last, axis=0) <= 1) & inside.any(axis=1).all(axis=0)
    same &= last.max(axis=0) < inside.shape[1] - 1
    width = float(same.sum() * across)
    least_across, least_along = STRAIGHT_MM
    return width if width >= least_across and len(inside) * along >= least_along else 0.0


def plane_of(grid: Grid) -> str:
    """The plane of a grid's slices by its letters: axial, coronal or sagittal."""
    letter = nib.orientations.aff2axcodes(grid.affine)[2]
    return {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}.get(letter, "sagittal")
