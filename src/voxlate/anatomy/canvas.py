"""A head in the making: the two tissues of each voxel and their shares, painted from the outside inwards."""

import numpy as np

from voxlate.anatomy.tissue import Label
from voxlate.base.arrays import AnyArray


class Canvas:
    """Voxels that are painted from the outside inwards; each keeps its last two tissues and their shares."""

    def __init__(self, shape: tuple[int, ...], voxel_mm: float):
        self.label = np.zeros(shape, dtype=np.uint8)
        self.second = np.zeros(shape, dtype=np.uint8)
        self.share = np.ones(shape, dtype=np.float32)
        self.voxel_mm = voxel_mm

    def paint(self, label: Label, distance: AnyArray, where: AnyArray | None = None) -> None:
        """Paint where `distance` is negative; a voxel that the surface crosses is shared by two tissues."""
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
