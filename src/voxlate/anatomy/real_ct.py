"""A real CT as the anatomy of phantoms: its body, bone, metal and fluid, by Hounsfield units, place and labels.

Contrast agent counts as bone where it is as dense and as small: see `_bone`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from voxlate.anatomy.exposure import LEAST_HU, MOST_HU
from voxlate.anatomy.label_map import check_grid, check_voxels
from voxlate.anatomy.label_table import CODES, LabelTable
from voxlate.anatomy.shapes import Triple, triple
from voxlate.anatomy.tissue import SKULL, Label
from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Grid, canonical, resample, with_voxels
from voxlate.scans.images.mask import (
    close_gaps,
    components_of,
    dilate,
    erode,
    fill_slices,
    foreground,
)

SOFT_HU = -15.0  # soft tissue without fat; fat and marrow are below
BONE_HU = 130.0
_AIR_HU, _HARD_HU = -900.0, 500.0  # air and bone, which every CT has: others are clipped or no CT
# Of tissue denser than lung, the range from fat to enhanced organs holds 0.84 and more in each of 5 CTs, 0.69 and more in
# drawn ones, and 0.59 at most in each of 28 MRs that were scaled to HU in five ways.
_LUNG_HU, _SOFT_RANGE_HU, _LEAST_SOFT = -500.0, (-130.0, 100.0), 0.64
_CALM_MM = 1.5  # half the width of means that remove noise
_CALM_SDS = 2.5  # of noise: larger differences are structure
_DENSE_HU = 300.0
_CORTICAL_HU = 700.0  # contrast agent is less dense
_AGENT_ML = 3.0  # smaller dense parts are ribs and plaques
_AGENT_MM = 4.0  # of its edges
_REACH_MM = 15.0  # of bone from its dense parts
_CLEFT_MM = 3.0  # half the width of gaps in the cortex
_MARROW_HU = 60.0  # above the spinal canal, which bone encloses, too
_METAL_HU = 2500.0
_HALO_MM = 2.0
_SMOOTH_MM = 3.0
_FLUID_HU = 14.0  # mean of urine, cerebrospinal fluid and effusions, below muscle
_FLUID_MM = 3.0  # half the width of the smallest fluid
_BONES = (*SKULL, CODES["cancellous"], CODES["whole_bone"])
_UNSTATED = (Label.AIR, Label.SINUS, CODES["soft"], CODES["hollow"])


@dataclass(frozen=True)
class CtScan:
    """A CT [D, H, W] (z, y, x; growing to superior, anterior, right), and what is where in it.

    hu: as scanned; calm_hu: without noise; smooth_hu: the mean of soft tissue around each voxel. body, bone, metal, soft:
    bool. organs: fluid and the soft tissue that a label map states, by codes (see `LabelTable`), 0 elsewhere.
    """

    name: str
    hu: AnyArray
    calm_hu: AnyArray
    smooth_hu: AnyArray
    body: AnyArray
    bone: AnyArray
    metal: AnyArray
    soft: AnyArray
    organs: AnyArray
    affine: AnyArray
    spacing_mm: Triple


def read_ct(
    path: Path,
    name: str,
    spacing_mm: Triple | None,
    labels: Path | None,
    table: LabelTable,
) -> CtScan:
    """Read a CT of any format and orientation; raises BadInput for what is none.

    spacing_mm: voxels along x, y, z, by default the scan's; labels: a label map of it by the table.
    """
    volume = canonical(read_volume(path, "ct"))
    check_grid(path, volume)
    lowest, highest = float(volume.data.min()), float(volume.data.max())
    if lowest > _AIR_HU or highest < _HARD_HU:
        raise BadInput(
            f"{path}: expected a CT in Hounsfield units, with air below {_AIR_HU:g} and bone above {_HARD_HU:g}, found values from {lowest:g} to {highest:g}. Leave out what is clipped or no CT, and convert other units."
        )
    if spacing_mm is not None:
        volume = with_voxels(volume, triple(spacing_mm[::-1]))
    spacing = volume.grid.spacing_mm
    check_voxels(name, volume.data.size, triple(spacing[::-1]))
    body = foreground(volume)
    values = volume.data[0]
    if not (body & (values > SOFT_HU)).any():
        raise BadInput(f"{path}: expected a CT of a body, found air alone. Leave it out.")
    low, high = _SOFT_RANGE_HU
    tissue = values[body & (values > _LUNG_HU)]
    share = float(np.mean((tissue > low) & (tissue < high)))
    if share < _LEAST_SOFT:
        raise BadInput(
            f"{path}: expected a CT, of whose tissue at least {_LEAST_SOFT:.0%} are in {low:g} to {high:g} HU, found {share:.0%}, as of an MR that was scaled to HU. Give the CT."
        )
    hu = np.clip(values, LEAST_HU, MOST_HU)
    calm = _without_noise(hu, body, spacing)
    codes = _codes_of(labels, volume.grid, table)
    if labels is not None and not (codes[body] > 0).any():
        raise BadInput(
            f"{labels}: expected labels inside the body of {path}, found none there. Give the label map of this CT."
        )
    organs = np.where(np.isin(codes, (*_UNSTATED, *_BONES)), np.uint8(0), codes)
    bone = _bone(calm, body, spacing) & (organs == 0)
    bone |= np.isin(codes, _BONES) & body
    soft = body & ~bone & (calm > SOFT_HU)
    smooth = _mean_of(calm, soft, spacing)
    thin = soft & (smooth < _FLUID_HU)
    fluid = thin & dilate(erode(thin, _FLUID_MM, spacing), 2 * _FLUID_MM, spacing) & (organs == 0)
    organs[fluid | (codes == CODES["fluid"])] = Label.SPINAL_FLUID
    metal = dilate(body & (hu > _METAL_HU), max(_HALO_MM, min(spacing)), spacing) & body
    arrays = (hu, calm, smooth, body, bone, metal, soft, organs)
    return CtScan(name, *arrays, volume.affine, spacing)


def _codes_of(path: Path | None, grid: Grid, table: LabelTable) -> AnyArray:
    """The codes of a label map on a grid; 0 where there is none."""
    if path is None:
        return np.zeros(grid.shape, np.uint8)
    values = resample(canonical(read_volume(path, "seg")), grid, order=0, fill=0.0).data[0]
    return table.convert(np.rint(values).astype(np.int64), str(path))


def _without_noise(
    hu: AnyArray,
    body: AnyArray,
    spacing_mm: Triple,
) -> AnyArray:
    """The mean around each voxel that differs from it by no more than noise: noise of a CT is not in its MR."""
    sides = [2 * max(1, round(_CALM_MM / step)) + 1 for step in spacing_mm]
    mean = ndimage.uniform_filter(hu, sides)
    away = np.abs(hu - mean)
    soft = body & (mean > SOFT_HU) & (mean < BONE_HU)
    noise_hu = 1.48 * float(np.median(away[soft])) if soft.any() else 0.0
    return np.where(away < _CALM_SDS * noise_hu, mean, hu)


def _bone(
    calm: AnyArray,
    body: AnyArray,
    spacing_mm: Triple,
) -> AnyArray:
    """Bone with its marrow. Enhanced vessels and organs are not dense, or large and less dense than cortical bone."""
    dense = components_of(body & (calm > _DENSE_HU))
    small = dense.sizes() * float(np.prod(spacing_mm)) < 1000 * _AGENT_ML
    chosen = small | (dense.sizes(calm > _CORTICAL_HU) > 0)
    agent = ~chosen
    agent[0] = chosen[0] = False
    there = body & ~dilate(dense.choose(agent), _AGENT_MM, spacing_mm)
    near = dilate(dense.choose(chosen), _REACH_MM, spacing_mm)
    bone = there & near & (calm > BONE_HU)
    closed = fill_slices(close_gaps(bone, _CLEFT_MM, spacing_mm))
    return bone | (there & closed & (calm > _MARROW_HU))


def _mean_of(
    calm: AnyArray,
    where: AnyArray,
    spacing_mm: Triple,
) -> AnyArray:
    """Gaussian means over the voxels of a mask alone."""
    sigma = np.divide(_SMOOTH_MM, spacing_mm)
    total = ndimage.gaussian_filter(np.where(where, calm, np.float32(0)), sigma)
    count = ndimage.gaussian_filter(where.astype(np.float32), sigma)
    return np.asarray(total / np.maximum(count, 1e-3))
