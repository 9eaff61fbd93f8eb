"""What is scored without being asked: the body of images in HU and of perfusion maps, and the tissues of a CT."""

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from voxlate.base.arrays import Bool
from voxlate.scans.images.mask import box_around
from voxlate.scans.images.ranges import PERFUSION
from voxlate.scans.images.regions import Region, tissue_regions

WHOLE_MASK = "whole"  # the mask of all voxels
IN_BODY = ("HU", *PERFUSION)  # units of images whose air is no result
BONE = "bone"
TISSUES = ("air", "fat", "soft_tissue", BONE)
THIRDS = ("low", "middle", "high")
# The skulls of 21 label maps are 150 to 233 mm high with the vertebrae below, up to 209 mm deep and 150 mm wide.
HEAD_MM, WIDEST_MM = 90.0, 230.0


def mask_for(unit: str) -> str:
    """The voxels that count by default in images of a unit."""
    return "body" if unit in IN_BODY else WHOLE_MASK


def tissues_for(modality: str, unit: str, taken: Collection[str]) -> list[Region]:
    """The tissues that are scored in a CT, but for names that are taken."""
    if unit != "HU":
        return []
    return [
        region
        for region in tissue_regions(modality)
        if region.name in TISSUES and region.name not in taken
    ]


def thirds(bone: Bool, spacing_mm: Sequence[float]) -> dict[str, slice]:
    """The slices of the lower, middle and upper third of bone [D, H, W] of the size of a head's; none of other bodies."""
    if not bone.any():
        return {}
    ends = box_around(bone)
    height, *wide = (mm * (end - first) for mm, (first, end) in zip(spacing_mm, ends))
    if height < HEAD_MM or max(wide) > WIDEST_MM:
        return {}
    borders = np.linspace(*ends[0], 4).round().astype(int).tolist()
    return {name: slice(*pair) for name, pair in zip(THIRDS, itertools.pairwise(borders))}
