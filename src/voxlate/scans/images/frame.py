"""The frame of a body: the box of a scan around it, outside of which there is nothing but air.

How much air a file holds says nothing about the patient, but a network's norms and attention see it. Therefore a
network reads the frame alone, and images are background outside of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxlate.scans.images.grid import Grid, Volume, flip_onto, same_grid
from voxlate.scans.images.mask import (
    Ends,
    background_value,
    body_in_any_air,
    box_around,
    varied_box,
    within,
)

SPARE = 2  # voxels beyond the margin, for interpolation


@dataclass(frozen=True, eq=False)
class BodyFrame:
    """A box of voxels of a scan's grid: first and end along D, H, W, which may be beyond the grid.

    held: the part of it that is read of a scan; body: the box of the body.
    """

    grid: Grid
    ends: Ends
    held: Ends
    body: Ends

    def cut(self, volume: Volume, background: float | None = None) -> Volume:
        """The frame of a volume, with background (default: its own) where nothing is read; on another grid, as it is.

        A volume whose axes grow in other directions is flipped onto the grid.
        """
        flipped = flip_onto(volume, self.grid)
        if flipped is None:
            return volume
        volume, held = flipped, flipped.data[(slice(None), *within(self.held))]
        beyond = [(a - first, end - b) for (first, end), (a, b) in zip(self.ends, self.held)]
        if any(map(any, beyond)):
            if background is None:
                background = background_value(replace(volume, data=held))
            held = np.pad(held, [(0, 0), *beyond], constant_values=background)
        return replace(volume, data=held, affine=_affine(volume.affine, self.ends))

    def restore(self, volume: Volume, background: float) -> Volume:
        """A volume that is the frame alone on the whole grid, with background outside; others as they are."""
        depth, height, width = (end - first for first, end in self.ends)
        grid = Grid((depth, height, width), _affine(self.grid.affine, self.ends))
        if not same_grid(volume.grid, grid):
            return volume
        data = np.full((len(volume.data), *self.grid.shape), background, np.float32)
        inside = [
            (max(0, first), min(end, length))
            for (first, end), length in zip(self.ends, self.grid.shape)
        ]
        there = [(a - first, b - first) for (first, _), (a, b) in zip(self.ends, inside)]
        data[(slice(None), *within(inside))] = volume.data[(slice(None), *within(there))]
        return replace(volume, data=data, affine=self.grid.affine)

    def beside(self, volume: Volume) -> float:
        """The voxels outside that are as bright as a body, as a share of those inside."""
        image = volume.data[0]
        inside = image[within(self.held)]
        # between background and body, because the frame is mostly body
        level = inside.mean()
        here = int(np.count_nonzero(inside > level))
        return int(np.count_nonzero(image > level)) / max(1, here) - 1


def find_frame(volumes: Sequence[Volume], margin_mm: float) -> BodyFrame:
    """The box around the bodies that scans of one grid show, with a margin where they do not end at the last plane.

    The same body has the same frame, whatever air lies around it; constant planes at the sides count as no planes.
    """
    grid = volumes[0].grid
    most = _around([varied_box(volume.data[0]) for volume in volumes])
    body = _around([box_around(body_in_any_air(volume)) for volume in volumes])
    ends, held = Ends(), Ends()
    for (first, end), (least, largest), side in zip(body, most, grid.spacing_mm):
        margin = math.ceil(margin_mm / side) + SPARE
        first = first - margin if first > least else least
        end = end + margin if end < largest else largest
        ends.append((first, end))
        held.append((max(first, least), min(end, largest)))
    return BodyFrame(grid, ends, held, body)


def _affine(whole: np.ndarray, ends: Ends) -> np.ndarray:
    """The affine of a box, by that of the whole."""
    affine = whole.copy()
    affine[:3, 3] += affine[:3, :3] @ [first for first, _ in reversed(ends)]
    return affine


def _around(boxes: Sequence[Ends]) -> Ends:
    """The smallest box around several."""
    return [
        (min(first for first, _ in along), max(end for _, end in along)) for along in zip(*boxes)
    ]
