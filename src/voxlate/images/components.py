"""The face-connected components of masks, found slab by slab, so that the labels of large volumes are never in memory.

Each slab is labelled by scipy; components that touch across the plane between two slabs are united. They are numbered
by their first voxel in C order, as by scipy.ndimage.label.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import scipy.sparse.csgraph

from voxlate import slabs
from voxlate.slabs import empty, release


@dataclass(frozen=True)
class Components:
    """The components of a mask [D, H, W] or [H, W].

    numbers: for each slab the component (from 1) of each of its labels, and 0 for the background; sizes: voxels of each
    component, with 0 for the background; labels: those of the only slab, None where there are several.
    """

    mask: np.ndarray
    numbers: list[np.ndarray]
    count: int
    sizes: np.ndarray
    labels: np.ndarray | None

    def chosen(self, which: np.ndarray, inverted: bool = False) -> np.ndarray:
        """The voxels of chosen components; which: [count + 1], with the background first. inverted: all others."""
        table = ~which if inverted else which
        if self.labels is not None:
            return table[self.labels]  # scipy's numbers are those of the components
        out = empty(self.mask.shape, bool)
        for number, labels, piece in self._slabs():
            out[piece] = table[number[labels]]
            release(out)
        return out

    def touching_border(self) -> np.ndarray:
        """Which components reach the border of the mask: bool [count + 1]."""
        touching = np.zeros(self.count + 1, bool)
        last = len(self.mask) - 1
        for number, labels, piece in self._slabs():
            for axis in range(1, labels.ndim):
                touching[number[labels.take([0, -1], axis)]] = True
            if piece.start == 0:
                touching[number[labels[0]]] = True
            if piece.stop == last + 1:
                touching[number[labels[-1]]] = True
        touching[0] = False
        return touching

    def sizes_inside(self, weight: np.ndarray) -> np.ndarray:
        """The voxels of each component inside another mask, with 0 for the background."""
        sizes = np.zeros(self.count + 1, np.int64)
        for number, labels, piece in self._slabs():
            sizes += np.bincount(number[labels[weight[piece]]], minlength=self.count + 1)
            release(weight)
        sizes[0] = 0
        return sizes

    def _slabs(self) -> Iterator[tuple[np.ndarray, np.ndarray, slice]]:
        """The components of labels, the labels and the place of each slab; of several they are found again."""
        pieces = slabs.slabs(self.mask.shape)
        for number, piece in zip(self.numbers, pieces):
            labels = self.labels if self.labels is not None else _labelled(self.mask[piece])[0]
            yield number, labels, piece
            release(self.mask)


def components_of(mask: np.ndarray) -> Components:
    """The components of a mask [D, H, W] or [H, W]."""
    pieces = slabs.slabs(mask.shape)
    if len(pieces) == 1:
        labels, count = _labelled(mask)
        sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
        sizes[0] = 0
        return Components(mask, [np.arange(count + 1)], count, sizes, labels)
    counts = list[np.ndarray]()
    unions = list[np.ndarray]()
    first = 0  # labels of the slabs before this one
    above: np.ndarray | None = None  # the last plane of the slab before, with labels of all slabs
    for piece in pieces:
        labels, count = _labelled(mask[piece])
        counts.append(np.bincount(labels.reshape(-1), minlength=count + 1))
        begin = np.where(labels[0] > 0, labels[0].astype(np.int64) + first, 0)
        if above is not None:
            meeting = (begin > 0) & (above > 0)
            unions.append(np.unique(np.stack([above[meeting], begin[meeting]]), axis=1))
        above = np.where(labels[-1] > 0, labels[-1].astype(np.int64) + first, 0)
        first += count
        release(mask)
    roots = _united(first, np.concatenate(unions, axis=1))
    kept, numbers = np.unique(roots, return_inverse=True)  # the least label first, as 0 is
    sizes = np.zeros(len(kept), np.int64)
    by_slab = []
    first = 0
    for voxels in counts:
        count = len(voxels) - 1
        number = np.concatenate([[0], numbers[first + 1 : first + count + 1]])
        np.add.at(sizes, number[1:], voxels[1:])
        by_slab.append(number)
        first += count
    return Components(mask, by_slab, len(kept) - 1, sizes, None)


def _labelled(mask: np.ndarray) -> tuple[np.ndarray, int]:
    labels, count = scipy.ndimage.label(mask)
    return labels, int(count)


def _united(count: int, pairs: np.ndarray) -> np.ndarray:
    """The least label of those that pairs connect, for each label from 0 to count."""
    graph = scipy.sparse.coo_array(
        (np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(count + 1, count + 1)
    )
    _, groups = scipy.sparse.csgraph.connected_components(graph, directed=False)
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    least: np.ndarray = first[inverse]
    return least
