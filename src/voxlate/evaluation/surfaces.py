"""Distances between the surfaces of two masks."""

from collections.abc import Sequence
from math import nan

import numpy as np

from voxlate.base.arrays import Bool, Float64
from voxlate.scans.images.filters import ndimage
from voxlate.scans.images.mask import box_around


def surface_distances(a: Bool, b: Bool, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """The average symmetric surface distance of two masks [D, H, W], and the 95th percentile of their distances, in mm.

    The surface is the voxels of a mask that touch a voxel outside it by a face; the end of the image is no surface. The
    percentile is the larger one of both directions. NaN where a mask is empty. Sources: Heimann et al. 2009 (IEEE TMI
    28:1251); Maier-Hein, Reinke et al. 2024 (Nat. Methods 21:195), HD95.
    """
    if not (a.any() and b.any()):
        return nan, nan
    box = tuple(slice(max(first - 1, 0), end + 1) for first, end in box_around(a | b))
    of_a, of_b = (_surface(mask[box]) for mask in (a, b))
    if not (of_a.any() and of_b.any()):
        return nan, nan
    there = _distances(of_a, of_b, spacing_mm)
    back = _distances(of_b, of_a, spacing_mm)
    mean = float(np.concatenate([there, back]).mean())
    return mean, max(float(np.percentile(way, 95)) for way in (there, back))


def _surface(mask: Bool) -> Bool:
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def _distances(surface: Bool, other: Bool, spacing_mm: Sequence[float]) -> Float64:
    """The distance in mm of each voxel of a surface to the nearest one of another."""
    return ndimage.distance_transform_edt(~other, sampling=spacing_mm)[surface]
