"""A head in the making: the two tissues of each voxel and their shares, painted from the outside inwards."""

from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.shapes import Box, Space, Triple, ellipsoid
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray


@dataclass(frozen=True)
class Canvas:
    """Voxels that are painted from the outside inwards; each keeps its last two tissues and their shares.

    label, second: numbers of `Label`; share: that of `label`, 0..1; all are [D, H, W].
    """

    label: AnyArray
    second: AnyArray
    share: AnyArray
    voxel_mm: float

    def __getitem__(self, box: Box) -> "Canvas":
        """A part of the canvas; what is painted there is painted on the whole."""
        return Canvas(self.label[box], self.second[box], self.share[box], self.voxel_mm)

    def paint(self, label: Label, distance: AnyArray, where: AnyArray | None = None) -> None:
        """Paint where `distance` is negative; a voxel that the surface crosses is shared by two tissues."""
        distance = np.broadcast_to(distance, self.label.shape)
        touched = distance < self.voxel_mm / 2
        if where is not None:
            touched &= where
        cover = np.clip(0.5 - distance[touched] / self.voxel_mm, 0, 1)
        old = self.label[touched]
        share = self.share[touched]
        same = old == label
        wins = cover >= 0.5
        new_share = np.where(wins, cover, 1 - cover)
        new_second = np.where(wins, old, label)
        self.share[touched] = np.where(same, np.maximum(share, cover), new_share)
        self.second[touched] = np.where(same, self.second[touched], new_second)
        self.label[touched] = np.where(same | wins, label, old)

    def paint_ball(
        self,
        label: Label,
        points: Space,
        centre: Triple,
        axes: Triple,
        where: AnyArray | None = None,
    ) -> None:
        """Paint an ellipsoid with this centre and these half axes in mm."""
        low, high = np.subtract(centre, axes), np.add(centre, axes)
        box = points.box([*low], [*high], self.voxel_mm)
        inside = None if where is None else where[box]
        self[box].paint(label, ellipsoid(points[box], centre, axes), inside)


def blank(shape: tuple[int, ...], voxel_mm: float) -> Canvas:
    """A canvas of air."""
    label, second = np.zeros((2, *shape), dtype=np.uint8)
    return Canvas(label, second, np.ones(shape, dtype=np.float32), voxel_mm)
