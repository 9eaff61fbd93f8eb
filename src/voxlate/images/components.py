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

WHOLE = 4  # slabs, up to which a mask is labelled as a whole


@dataclass(frozen=True)
class Components:
    """The components of a mask [D, H, W] or [H, W], with numbers from 1.

    numbers: for each slab the component of each of its labels, and 0 for the background. voxels, at_border: for each of
    several slabs the voxels of each label, and the labels at the sides of the mask. labels: those of the only slab,
    None where there are several.
    """

    mask: np.ndarray
    numbers: list[np.ndarray]
    count: int
    voxels: list[np.ndarray]
    at_border: list[np.ndarray]
    labels: np.ndarray | None

    @property
    def sizes(self) -> np.ndarray:
        """The voxels of each component, with 0 for the background."""
        sizes = np.zeros(self.count + 1, np.int64)
        if self.labels is not None:
            sizes += np.bincount(self.labels.reshape(-1), minlength=self.count + 1)
        for number, voxels in zip(self.numbers, self.voxels):
            np.add.at(sizes, number, voxels)
        sizes[0] = 0
        return sizes

    @property
    def touching(self) -> np.ndarray:
        """Which components reach a side of the mask: bool [count + 1]."""
        touching = np.zeros(self.count + 1, bool)
        if self.labels is not None:
            for side in _sides(self.labels, True, True):
                touching[side] = True
        for number, border in zip(self.numbers, self.at_border):
            touching[number[border]] = True
        touching[0] = False
        return touching

    def chosen(self, which: np.ndarray, inverted: bool = False) -> np.ndarray:
        """The voxels of chosen components; which: [count + 1], with the background first. inverted: all others."""
        table = ~which if inverted else which
        if self.labels is not None:
            return table[self.labels]  # scipy's numbers are those of the components
        out = empty(self.mask.shape, bool)
        for number, labels, piece in self._slabs():
            out[piece] = table[number][labels]
            release(out)
        return out

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
        for number, piece in zip(self.numbers, _pieces(self.mask)):
            labels = self.labels if self.labels is not None else _labelled(self.mask[piece])[0]
            yield number, labels, piece
            release(self.mask)


def components_of(mask: np.ndarray) -> Components:
    """The components of a mask [D, H, W] or [H, W]."""
    pieces = _pieces(mask)
    if len(pieces) == 1:
        labels, count = _labelled(mask)
        return Components(mask, [np.arange(count + 1)], count, [], [], labels)
    voxels = list[np.ndarray]()
    at_border = list[np.ndarray]()
    unions = list[np.ndarray]()
    first = 0  # labels of the slabs before this one
    above: np.ndarray | None = None  # the last plane of the slab before, with labels of all slabs
    for piece in pieces:
        labels, count = _labelled(mask[piece])
        voxels.append(np.bincount(labels.reshape(-1), minlength=count + 1))
        sides = _sides(labels, piece is pieces[0], piece is pieces[-1])
        at_border.append(np.unique(np.concatenate([np.unique(side) for side in sides])))
        begin = np.where(labels[0] > 0, labels[0].astype(np.int64) + first, 0)
        if above is not None:
            meeting = (begin > 0) & (above > 0)
            unions.append(np.unique(np.stack([above[meeting], begin[meeting]]), axis=1))
        above = np.where(labels[-1] > 0, labels[-1].astype(np.int64) + first, 0)
        first += count
        release(mask)
    roots = _united(first, np.concatenate(unions, axis=1))
    kept, numbers = np.unique(roots, return_inverse=True)  # the least label first, as 0 is
    ends = np.cumsum([len(one) - 1 for one in voxels])
    by_slab = [
        np.concatenate([[0], numbers[end - len(one) + 2 : end + 1]])
        for end, one in zip(ends, voxels)
    ]
    return Components(mask, by_slab, len(kept) - 1, voxels, at_border, None)


def _pieces(mask: np.ndarray) -> list[slice]:
    """The slabs of a mask, whose labels are found twice; one slab where they take no more than other arrays do."""
    if mask.size <= WHOLE * slabs.SLAB:
        return [slice(0, len(mask))]
    return slabs.slabs(mask.shape)


def _sides(labels: np.ndarray, first: bool, last: bool) -> list[np.ndarray]:
    """The labels of a slab at the sides of the mask; first, last: whether it is the first or last slab."""
    sides = [labels.take([0, -1], axis) for axis in range(1, labels.ndim)]
    if first:
        sides.append(labels[0])
    if last:
        sides.append(labels[-1])
    return sides


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
