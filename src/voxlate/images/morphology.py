"""Binary morphology in millimetres: boxes instead of balls, because they are separable and thus fast on any size.

Volumes are worked on in runs of planes and give the same answer as they would in one piece; large ones lie in files.
"""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from voxlate.images.spool import mapped, release, runs, zeros

Spacing = tuple[float, float, float]


def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two masks agree that there is something."""
    return mapped(np.logical_and, a, b, dtype=bool)


def _box(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing, grow: bool) -> np.ndarray:
    """Dilate or erode by a box of half-width `radius_mm`; axes with wider spacing or one voxel stay as they are."""
    apply = scipy.ndimage.maximum_filter1d if grow else scipy.ndimage.minimum_filter1d
    reach = [int(radius_mm / length + 1e-6) if size > 1 else 0 for length, size in zip(spacing_mm, mask.shape)]
    if not any(reach):
        return mask
    out = zeros(mask.shape, bool)
    for run in runs(out, mask):
        first = max(0, run.start - reach[0])
        block = mask[first : run.stop + reach[0]].view(np.uint8)
        for axis, length in enumerate(reach):
            if length:
                block = apply(block, 2 * length + 1, axis=axis, mode="nearest")
        out[run] = block[run.start - first : run.stop - first]
    return out


def dilate(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    return _box(mask, radius_mm, spacing_mm, grow=True)


def erode(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """What is left beyond the edge of the image counts as the edge itself: a head that is cut off keeps its cut."""
    return _box(mask, radius_mm, spacing_mm, grow=False)


def opened(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    return dilate(erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def closed(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    return erode(dilate(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


@dataclass(frozen=True)
class Components:
    """The face-connected components of a mask [D, H, W], numbered from 1 in the order of their first voxels.

    parts: [D, H, W] int32, numbers of the components of each plane by itself, 0 outside; owner: the component that each
    part belongs to; owner[0] is 0.
    """

    parts: np.ndarray
    owner: np.ndarray

    @property
    def count(self) -> int:
        return int(self.owner.max())

    def sizes(self, weight: np.ndarray | None = None) -> np.ndarray:
        """Voxels (of those in `weight`) of each component; [count + 1], 0 for what is outside."""
        total = np.zeros(len(self.owner), np.int64)
        for run in runs(self.parts) if weight is None else runs(self.parts, weight):
            inside = self.parts[run] if weight is None else self.parts[run][weight[run]]
            total += np.bincount(inside.reshape(-1), minlength=len(total))
        sizes = np.bincount(self.owner, weights=total).astype(np.int64)
        sizes[0] = 0
        return sizes

    def at_border(self) -> np.ndarray:
        """Which components reach a face of the volume: bool [count + 1]."""
        parts = np.zeros(len(self.owner), bool)
        parts[self.parts[[0, -1]]] = True
        for run in runs(self.parts):
            parts[self.parts[run][:, [0, -1]]] = True
            parts[self.parts[run][:, :, [0, -1]]] = True
        found = np.zeros(self.count + 1, bool)
        found[self.owner[parts]] = True
        found[0] = False
        return found

    def chosen(self, which: np.ndarray) -> np.ndarray:
        """The mask of the components that `which`, bool [count + 1], names."""
        return mapped(which[self.owner].__getitem__, self.parts, dtype=bool)


def components(mask: np.ndarray) -> Components:
    """Label plane after plane, then join the parts that touch from one plane to the next."""
    parts, count, touching = zeros(mask.shape, np.int32), 0, []
    above = np.zeros(mask.shape[1:], np.int32)
    for z, plane in enumerate(mask):
        here, found = scipy.ndimage.label(plane)
        np.add(here, count, out=here, where=plane)
        touching.append(_pairs(above, here))
        parts[z] = above = here
        count += found
        release(parts)
        release(mask)
    return Components(parts, _joined(count, np.concatenate(touching)))


def _pairs(above: np.ndarray, here: np.ndarray) -> np.ndarray:
    """The pairs of parts that share a face: [n, 2], few of them twice."""
    shared = (above > 0) & (here > 0)
    pairs = np.stack([above[shared], here[shared]], axis=1)
    fresh = np.ones(len(pairs), bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)  # along a row the same two meet again and again
    return np.unique(pairs[fresh], axis=0)


def _joined(count: int, pairs: np.ndarray) -> np.ndarray:
    """The component of each of the parts 0 … count, of which those in `pairs` belong together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count + 1, count + 1))
    owner: np.ndarray = connected_components(edges, directed=False)[1]
    return owner


def largest(mask: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The face-connected component with the most voxels (of those in `weight`); an empty mask stays empty."""
    found = components(mask)
    if found.count < 2:
        return mask
    return found.chosen(np.arange(found.count + 1) == found.sizes(weight).argmax())


def without_specks(mask: np.ndarray, share: float = 0.01) -> np.ndarray:
    """Drop the components that are smaller than `share` of the largest: noise and ghosts."""
    found = components(mask)
    if found.count < 2:
        return mask
    sizes = found.sizes()
    keep = sizes >= share * sizes.max()
    keep[0] = False
    return found.chosen(keep)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what does not reach the border (scipy's own binary_fill_holes takes minutes on large volumes).

    mask: [D, H, W], or one plane [H, W].
    """
    if mask.ndim == 2:
        return _filled_plane(mask)
    outside = components(mapped(np.logical_not, mask, dtype=bool))
    return mapped(np.logical_not, outside.chosen(outside.at_border()), dtype=bool)


def _filled_plane(mask: np.ndarray) -> np.ndarray:
    labels, count = scipy.ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=bool)
    for face in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[face] = True
    outside[0] = False  # label 0 is the mask itself
    filled: np.ndarray = ~outside[labels]
    return filled


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of each axial slice, then those of the volume."""
    filled = zeros(mask.shape, bool)
    for run in runs(filled, mask):
        for z in range(run.start, run.stop):
            filled[z] = _filled_plane(mask[z])
    return fill_holes(filled) if len(mask) > 2 else filled
