"""The orientation of slices for a network: the directions in which D, H and W grow, a letter each ("SAR").

Prepared cases are canonical: slices grow to Superior, rows to Anterior, columns to Right. A network that was trained on
slices of another orientation reads the same voxels permuted and flipped, never interpolated.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.cases.case_header import CaseHeader

Axes = Literal["SAR", "SAL", "SPR", "SPL", "SRA", "SRP", "SLA", "SLP"]
CANONICAL: Axes = "SAR"
OPPOSITE = dict(zip("SIAPRL", "ISPALR"))


def lay_out(case: PreparedCase, axes: str) -> PreparedCase:
    """The case with other axes (arrays, affine, shape, boxes); its arrays are views of the old ones."""
    if case.axes == axes:
        return case
    arrays = {name: reorder_axes(array, case.axes, axes) for name, array in case.arrays.items()}
    header = lay_out_header(case.header, axes, case.axes)
    return replace(case, header=header, arrays=arrays, axes=axes, outlines={})


def lay_out_header(header: CaseHeader, axes: str, now: str = CANONICAL) -> CaseHeader:
    """The header of a case with other axes; now: those that it has."""
    if now == axes:
        return header
    moves = _moves(now, axes)
    step = np.zeros((4, 4))  # from new voxel indices (x, y, z) to old ones
    step[3, 3] = 1
    boxes = []
    for new, (old, flipped) in enumerate(moves):
        length = header.shape[old]
        first, end = header.mask_box[old]
        step[2 - old, 2 - new] = -1 if flipped else 1
        step[2 - old, 3] = length - 1 if flipped else 0
        boxes.append((length - end, length - first) if flipped else (first, end))
    d, h, w = (old for old, _ in moves)
    shape, spacing = header.shape, header.spacing_mm
    return replace(
        header,
        shape=(shape[d], shape[h], shape[w]),
        spacing_mm=(spacing[d], spacing[h], spacing[w]),
        affine=(np.array(header.affine) @ step).tolist(),
        mask_box=boxes,
    )


def reorder_axes(values: np.ndarray, now: str, axes: str) -> np.ndarray:
    """Values [..., D, H, W] whose axes are `now` with other axes; a view."""
    moves = _moves(now, axes)
    before = values.ndim - 3
    order = [*range(before), *(before + old for old, _ in moves)]
    flips = tuple(before + new for new, (_, flipped) in enumerate(moves) if flipped)
    return np.flip(values.transpose(order), flips)


def axis_of(axes: str, directions: str) -> int:
    """The axis, from the end (-3 is D), that grows in one of two opposite directions ("LR")."""
    return next(k for k, letter in enumerate(axes, -3) if letter in directions)


def _moves(now: str, axes: str) -> list[tuple[int, bool]]:
    """For each new axis, the old one and whether it is flipped."""
    places = {letter: (axis, False) for axis, letter in enumerate(now)}
    places |= {OPPOSITE[letter]: (axis, True) for axis, letter in enumerate(now)}
    return [places[letter] for letter in axes]
