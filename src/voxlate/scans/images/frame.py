"""The frame of a body: the box of a scan around it, outside of which there is nothing but air.

How much air a file holds says nothing about the patient, but a network's norms and attention see it. Therefore a
network reads the frame alone, and images are background outside of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxlate.base.slabs import empty
from voxlate.scans.images.grid import Grid, Volume, same_grid
from voxlate.scans.images.mask import box_around, foreground, varied_box

Ends = list[tuple[int, int]]  # first and end along D, H, W

# at most: thresholds depend a little on the air beside the body, and two usually suffice
ROUNDS = 4
SPARE = 2  # voxels beyond the margin, for interpolation


@dataclass(frozen=True, eq=False)
class Frame:
    """A box of voxels of a scan's grid: first and end along D, H, W."""

    grid: Grid
    ends: Ends

    def cut(self, volume: Volume) -> Volume:
        """The frame of a volume, a view of it; a volume on another grid as it is."""
        if not same_grid(volume.grid, self.grid):
            return volume
        data = volume.data[(slice(None), *self._place)]
        return replace(volume, data=data, affine=self._affine(volume.affine))

    def restore(self, volume: Volume, background: float) -> Volume:
        """A volume that is the frame alone on the whole grid, with background outside; others as they are."""
        depth, height, width = (end - first for first, end in self.ends)
        own = Grid((depth, height, width), self._affine(self.grid.affine))
        if not same_grid(volume.grid, own):
            return volume
        data = empty((len(volume.data), *self.grid.shape), np.float32)
        data[:] = background
        data[(slice(None), *self._place)] = volume.data
        return replace(volume, data=data, affine=self.grid.affine)

    def _affine(self, whole: np.ndarray) -> np.ndarray:
        """The affine of the frame, by that of the whole."""
        affine = whole.copy()
        affine[:3, 3] += affine[:3, :3] @ [first for first, _ in reversed(self.ends)]
        return affine

    @property
    def _place(self) -> tuple[slice, ...]:
        return tuple(slice(*ends) for ends in self.ends)


def find_frame(volumes: Sequence[Volume], margin_mm: float) -> Frame:
    """The box around the bodies that scans of one grid show, with a margin as far as they hold more than constant planes.

    The same body has the same frame, however many planes of constant air lie around it.
    """
    grid = volumes[0].grid
    boxes = [varied_box(volume.data[0]) for volume in volumes]
    most = _around(boxes)
    margins = [math.ceil(margin_mm / side) + SPARE for side in grid.spacing_mm]
    frame = Frame(grid, most)
    for _ in range(ROUNDS):
        bodies = [box_around(foreground(frame.cut(volume))) for volume in volumes]
        body = [(first + a, first + b) for (first, _), (a, b) in zip(frame.ends, _around(bodies))]
        ends = [
            (max(least, first - margin), min(end + margin, largest))
            for (first, end), margin, (least, largest) in zip(body, margins, most)
        ]
        if ends == frame.ends:
            break
        frame = Frame(grid, ends)
    return frame


def _around(boxes: Sequence[Ends]) -> Ends:
    """The smallest box around several."""
    return [
        (min(first for first, _ in along), max(end for _, end in along)) for along in zip(*boxes)
    ]
