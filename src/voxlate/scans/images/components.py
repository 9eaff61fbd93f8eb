"""The face-connected components of masks; the labels of large masks are in a file, as other large arrays are."""

from dataclasses import dataclass

import numpy as np

from voxlate.base.slabs import by_plane, empty, in_slabs, map_slabs, release
from voxlate.scans.images.filters import ndimage


@dataclass(frozen=True)
class Components:
    """The components of a mask [D, H, W] or [H, W]; labels: their numbers, from 1, and 0 for the background."""

    labels: np.ndarray
    count: int

    def sizes(self, inside: np.ndarray | None = None) -> np.ndarray:
        """The voxels of each component, or those inside another mask, with 0 for the background: [count + 1]."""
        weight = np.broadcast_to(np.True_, self.labels.shape) if inside is None else inside
        counts = map_slabs(
            lambda labels, part: np.bincount(labels[part], minlength=self.count + 1),
            self.labels,
            weight,
        )
        sizes: np.ndarray = np.sum(counts, axis=0)
        sizes[0] = 0
        return sizes

    def at_border(self) -> np.ndarray:
        """Which components reach a side of the mask: bool [count + 1]."""
        touching = np.zeros(self.count + 1, bool)
        touching[self.labels[[0, -1]]] = True
        for axis in range(1, self.labels.ndim):
            touching[by_plane(lambda slab, axis=axis: slab.take([0, -1], axis), self.labels)] = True
        touching[0] = False
        return touching

    def choose(self, which: np.ndarray) -> np.ndarray:
        """The voxels of some components; which: bool [count + 1], with the background first."""
        return in_slabs(lambda labels: which[labels], self.labels)


def components_of(mask: np.ndarray) -> Components:
    """The components of a mask [D, H, W] or [H, W]."""
    labels = empty(mask.shape, np.int32)
    count = ndimage.label(mask, output=labels)
    release(mask, labels)
    return Components(labels, int(count))
