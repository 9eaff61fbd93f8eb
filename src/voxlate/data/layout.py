"""How slices are laid out for a network: the directions in which D, H and W grow, a letter each ("SAR").

Prepared cases are canonical: slices grow to Superior, rows to Anterior, columns to Right. A network that was trained on
slices of another layout sees the same voxels moved and flipped, never interpolated.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from voxlate.data.case import CaseHeader, PreparedCase, Sliceable
from voxlate.images.tiling import Triple

Axes = Literal["SAR", "SAL", "SPR", "SPL", "SRA", "SRP", "SLA", "SLP"]
CANONICAL: Axes = "SAR"
OPPOSITE = dict(zip("SIAPRL", "ISPALR"))

Moves = tuple[tuple[int, bool], ...]  # for each new axis, the old one and whether it is flipped


def laid_out(case: PreparedCase, axes: str) -> PreparedCase:
    """The case with other axes (arrays, affine, shape, boxes); arrays on disk are still read in part."""
    if case.axes == axes:
        return case
    header, moves = laid_out_header(case.header, axes, case.axes), _moves(case.axes, axes)
    arrays = {name: _LaidOut(array, header.shape, moves) for name, array in case.arrays.items()}
    return dataclasses.replace(case, header=header, arrays=arrays, axes=axes)


def laid_out_header(header: CaseHeader, axes: str, now: str = CANONICAL) -> CaseHeader:
    """The header of a case with other axes; now: those that it has."""
    moves = _moves(now, axes)
    step = np.zeros((4, 4))  # from new voxel indices (x, y, z) to old ones
    step[3, 3] = 1
    boxes = []
    for new, (old, flipped) in enumerate(moves):
        length, (first, end) = header.shape[old], header.mask_box[old]
        step[2 - old, 2 - new] = -1 if flipped else 1
        step[2 - old, 3] = length - 1 if flipped else 0
        boxes.append((length - end, length - first) if flipped else (first, end))
    d, h, w = (old for old, _ in moves)
    shape, spacing = header.shape, header.spacing_mm
    return dataclasses.replace(
        header,
        shape=(shape[d], shape[h], shape[w]),
        spacing_mm=(spacing[d], spacing[h], spacing[w]),
        affine=(np.array(header.affine) @ step).tolist(),
        mask_box=boxes,
    )


def relaid(values: np.ndarray, now: str, axes: str) -> np.ndarray:
    """Values [..., D, H, W] whose axes are `now` with other axes; a view."""
    return _moved(values, _moves(now, axes))


def axis_of(axes: str, directions: str) -> int:
    """The axis, from the end (-3 is D), that grows in one of two opposite directions ("LR")."""
    return next(k for k, letter in enumerate(axes, -3) if letter in directions)


@dataclass(frozen=True)
class _LaidOut:
    """An array [D, H, W] with other axes, of which [z, y, x] reads that part only; slices of step 1."""

    array: Sliceable
    shape: Triple
    moves: Moves

    def __getitem__(self, place: Any, /) -> np.ndarray:
        wanted = (*(place if isinstance(place, tuple) else (place,)), slice(None), slice(None))
        below = [slice(None)] * 3
        for (old, flipped), part, length in zip(self.moves, wanted, self.shape):
            first, end, _ = part.indices(length)
            below[old] = slice(length - end, length - first) if flipped else slice(first, end)
        return np.ascontiguousarray(_moved(self.array[tuple(below)], self.moves))


def _moves(now: str, axes: str) -> Moves:
    places = {letter: (axis, False) for axis, letter in enumerate(now)}
    places |= {OPPOSITE[letter]: (axis, True) for axis, letter in enumerate(now)}
    return tuple(places[letter] for letter in axes)


def _moved(values: np.ndarray, moves: Moves) -> np.ndarray:
    before = values.ndim - 3
    flips = tuple(before + new for new, (_, flipped) in enumerate(moves) if flipped)
    return np.flip(values.transpose(*range(before), *(before + old for old, _ in moves)), flips)
