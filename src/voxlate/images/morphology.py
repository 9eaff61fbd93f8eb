"""Binary morphology in millimetres: boxes instead of balls, because they are separable and thus fast on any size."""

import numpy as np
import scipy.ndimage

Spacing = tuple[float, float, float]


def _box(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing, grow: bool) -> np.ndarray:
    """Dilate or erode by a box of half-width `radius_mm`; axes with wider spacing or one voxel stay as they are."""
    apply = scipy.ndimage.maximum_filter1d if grow else scipy.ndimage.minimum_filter1d
    out = mask.view(np.uint8)
    for axis, length in enumerate(spacing_mm):
        reach = int(radius_mm / length + 1e-6)
        if reach and mask.shape[axis] > 1:
            out = apply(out, 2 * reach + 1, axis=axis, mode="nearest")
    return out.astype(bool)


def dilate(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    return _box(mask, radius_mm, spacing_mm, grow=True)


def erode(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """What is left beyond the edge of the image counts as the edge itself: a head that is cut off keeps its cut."""
    return _box(mask, radius_mm, spacing_mm, grow=False)


def opened(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    return dilate(erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def closed(mask: np.ndarray, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    return erode(dilate(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def largest(mask: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The face-connected component with the most voxels (of those in `weight`); an empty mask stays empty."""
    labels, count = scipy.ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount((labels if weight is None else labels[weight]).reshape(-1), minlength=count + 1)
    sizes[0] = 0
    return labels == sizes.argmax()


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what does not reach the border (scipy's own binary_fill_holes takes minutes on large volumes)."""
    labels, count = scipy.ndimage.label(~mask)
    open_to_border = np.zeros(count + 1, dtype=bool)
    for axis in range(mask.ndim):
        for face in (0, -1):
            open_to_border[np.unique(labels.take(face, axis=axis))] = True
    open_to_border[0] = False  # label 0 is the mask itself
    return ~open_to_border[labels]


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of each axial slice, then those of the volume."""
    filled = np.stack([fill_holes(plane) for plane in mask])
    return fill_holes(filled) if len(mask) > 2 else filled
