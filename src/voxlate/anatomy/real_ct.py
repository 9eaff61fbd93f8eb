"""A real CT as the anatomy of phantoms: its tissues by Hounsfield units and place, on its own grid.

Contrast agent counts as bone where it is as dense and as small: see `_bone`. Soft tissue has regions with proton density and
times of their own. Source of the regions: Billot et al. 2023, Med Image Anal 86:102789.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from voxlate.anatomy.diseases import Lesion
from voxlate.anatomy.label_map import LabelTable, OwnTissue, check_grid, check_voxels
from voxlate.anatomy.shapes import Canvas, Points, Rng, Triple, blank, noise, triple
from voxlate.anatomy.signal import LEAST_HU, MOST_HU, Head, draw_exposure
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput
from voxlate.base.items import stable_id
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical, with_voxels
from voxlate.scans.images.mask import (
    close_gaps,
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
_WAVES_MM = (25.0, 60.0, 120.0)  # of regions, from gyri to organs
_LEAST_REGIONS, _MOST_REGIONS = 3, 8
# T2* at 3 T is about 1 ms: Yu et al. 2011, Magn Reson Med 66:248; PD of 20 to 30 % is its density.
_LUNG = OwnTissue(pd=0.22, t1_ms=1200, t2_ms=40, t2star_ms=1.2, hu=-780, chi_ppm=4.0)
Ranges = Mapping[str, tuple[float, float]]  # least and most of the constants of a tissue
_REGION: Ranges = {
    "pd": (0.65, 0.95),
    "t1_ms": (600, 1900),
    "t2_ms": (30, 140),
    "t2star_ms": (10, 30),
    "gadolinium_mm": (0, 0.3),
    "fat": (0, 0.15),
}
_MARROW: Ranges = {  # from red to yellow
    "pd": (0.4, 0.9),
    "t1_ms": (320, 900),
    "t2_ms": (40, 110),
    "t2star_ms": (4, 15),
    "fat": (0.2, 0.85),
}
# HU between which two tissues share a voxel.
_GAS_LOW_HU, _LUNG_HIGH_HU = -950.0, -780.0
_FAT_LOW_HU, _FAT_HU = -115.0, -85.0
_MARROW_LOW_HU, _MARROW_HIGH_HU = 130.0, 200.0
_MUSCLE_HU, _CORTEX_HU = 50.0, 1200.0
_GAS_HU = -300.0  # near it, air borders on soft tissue
_INNER = 0.75  # of the neighbours of a voxel: at a flat surface of bone, 0.67 are bone


@dataclass(frozen=True)
class CtScan:
    """A CT [D, H, W] (z, y, x; growing to superior, anterior, right), and what is where in it.

    hu: as scanned; calm_hu: without noise; smooth_hu: the mean of soft tissue around each voxel. body, bone, metal,
    soft, fluid: bool.
    """

    name: str
    hu: AnyArray
    calm_hu: AnyArray
    smooth_hu: AnyArray
    body: AnyArray
    bone: AnyArray
    metal: AnyArray
    soft: AnyArray
    fluid: AnyArray
    affine: AnyArray
    spacing_mm: Triple


def read_ct(
    path: Path,
    name: str,
    spacing_mm: Triple | None,
) -> CtScan:
    """Read a CT of any format and orientation; raises BadInput for what is none.

    spacing_mm: voxels along x, y, z, by default the scan's.
    """
    volume = canonical(read_volume(path, "ct"))
    check_grid(path, volume)
    lowest, highest = float(volume.data.min()), float(volume.data.max())
    if spacing_mm is not None:
        volume = with_voxels(volume, triple(spacing_mm[::-1]))
    spacing = volume.grid.spacing_mm
    check_voxels(name, volume.data.size, triple(spacing[::-1]))
    body = foreground(volume)
    values = volume.data[0]
    low, high = _SOFT_RANGE_HU
    tissue = values[body & (values > _LUNG_HU)]
    share = float(np.mean((tissue > low) & (tissue < high))) if tissue.size else 0.0
    if lowest > _AIR_HU or highest < _HARD_HU or share < _LEAST_SOFT:
        raise BadInput(
            f"{path}: expected a CT in Hounsfield units, with air below {_AIR_HU:g}, bone above {_HARD_HU:g}, and {_LEAST_SOFT:.0%} of its tissue from {low:g} to {high:g}, found values from {lowest:g} to {highest:g}, and {share:.0%}. Leave out what is clipped, an MR or no scan, and convert other units."
        )
    hu = np.clip(values, LEAST_HU, MOST_HU)
    calm = _without_noise(hu, body, spacing)
    bone = _bone(calm, body, spacing)
    soft = body & ~bone & (calm > SOFT_HU)
    smooth = _mean_of(calm, soft, spacing)
    thin = soft & (smooth < _FLUID_HU)
    fluid = thin & dilate(erode(thin, _FLUID_MM, spacing), 2 * _FLUID_MM, spacing)
    metal = dilate(body & (hu > _METAL_HU), max(_HALO_MM, min(spacing)), spacing) & body
    arrays = (hu, calm, smooth, body, bone, metal, soft, fluid)
    return CtScan(name, *arrays, volume.affine, spacing)


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
    dense, count = ndimage.label(body & (calm > _DENSE_HU))
    small = np.bincount(dense.ravel()) * float(np.prod(spacing_mm)) < 1000 * _AGENT_ML
    chosen = small | (np.bincount(dense[calm > _CORTICAL_HU], minlength=count + 1) > 0)
    agent = ~chosen
    agent[0] = chosen[0] = False
    there = body & ~dilate(agent[dense], _AGENT_MM, spacing_mm)
    near = dilate(chosen[dense], _REACH_MM, spacing_mm)
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


def draw_table(rng: Rng) -> LabelTable:
    """The table of a body, with marrow and regions as tissues of its own."""
    own = {"lung": _LUNG, "bone_marrow": _draw(rng, _MARROW)}
    for number in range(1, _MOST_REGIONS + 1):
        own[f"region_{number}"] = _draw(rng, _REGION)
    return LabelTable("none", "soft", 0.0, {0: int(Label.AIR)}, own)


def _draw(
    rng: Rng,
    ranges: Ranges,
) -> OwnTissue:
    values = {name: float(rng.uniform(*ends)) for name, ends in ranges.items()}
    return OwnTissue(hu=_MUSCLE_HU, **values)


def make_ct_body(
    scan: CtScan,
    seed: int,
    case: int,
) -> Head:
    """One body of a CT; the same scan, name, seed and case give the same body."""
    rng = np.random.default_rng([seed, case, stable_id(scan.name)])
    table_rng, region_rng, tissue_rng, texture_rng, exposure_rng = rng.spawn(5)
    table = draw_table(table_rng)
    lengths = zip(scan.hu.shape[::-1], scan.spacing_mm[::-1])
    x, y, z = (np.arange(length) * np.float32(step) for length, step in lengths)
    soft = _regions(scan, region_rng, (x, y, z))
    soft += np.uint8(table.names["region_1"])
    soft[scan.fluid] = Label.SPINAL_FLUID
    drawn = _paint(scan, soft, table.names)
    return Head(
        drawn.label,
        drawn.second,
        drawn.share,
        np.zeros(soft.shape, np.uint8),
        noise(texture_rng, 9, 3, 84).on((x, y, z)).astype(np.float16),
        scan.affine,
        Lesion("none"),
        table.tissue(tissue_rng),
        seed,
        case,
        draw_exposure(exposure_rng),
        scan.hu,
    )


def _regions(
    scan: CtScan,
    rng: Rng,
    axes: Points,
) -> AnyArray:
    """The number of the region of each voxel, from 0: each has its HU and a noise, whose weights differ between bodies."""
    values = scan.smooth_hu[scan.soft][::997]
    count = int(rng.integers(_LEAST_REGIONS, _MOST_REGIONS + 1))
    centres = rng.choice(values if values.size else np.full(1, _MUSCLE_HU), count)
    width_hu = np.exp(rng.uniform(np.log(4), np.log(60)))
    number = np.zeros(scan.hu.shape, np.uint8)
    least = np.full(scan.hu.shape, np.inf, np.float32)
    for region, centre in enumerate(centres.tolist()):
        away = np.minimum(np.abs(scan.smooth_hu - centre) / width_hu, 3)
        wave_mm = float(rng.choice(_WAVES_MM))
        cost = away - noise(rng, wave_mm, wave_mm / 8, 48).on(axes)
        nearer = cost < least
        number[nearer] = region
        least[nearer] = cost[nearer]
    return number


def _paint(
    scan: CtScan,
    soft: AnyArray,
    names: Mapping[str, int],
) -> Canvas:
    """The tissues of a CT by HU, from air to cortical bone; soft: the soft tissue of each voxel, where it has some."""
    hu, bone = scan.calm_hu, scan.bone
    lung, marrow = names["lung"], names["bone_marrow"]
    fat, cortex = int(Label.FAT), int(Label.BONE)
    lowest = ndimage.minimum_filter(hu, 3)
    highest = ndimage.maximum_filter(hu, 3)
    other = scan.body & ~bone
    # a voxel between gas and muscle holds no fat
    edge = other & (hu < SOFT_HU) & (lowest < _GAS_HU) & (highest > SOFT_HU)
    inner = bone & (ndimage.uniform_filter(bone.astype(np.float32), 3) > _INNER)
    in_fat = (lowest > _GAS_HU) & (lowest < SOFT_HU)
    around = np.where(in_fat, np.uint8(fat), soft)
    out = blank(hu.shape, 1.0)
    # Each fills voxels with two tissues: the first up to the first HU, the second from the other.
    for where, low, high, first, last in (
        (other, fat, soft, _FAT_HU, SOFT_HU),
        (other & (hu < _FAT_LOW_HU), lung, fat, _LUNG_HIGH_HU, _FAT_LOW_HU),
        (edge, lung, soft, _LUNG_HIGH_HU, SOFT_HU),
        (other & (hu < _LUNG_HIGH_HU), int(Label.SINUS), lung, _GAS_LOW_HU, _LUNG_HIGH_HU),
        (inner, fat, marrow, _FAT_HU, _MARROW_LOW_HU),
        (inner & (hu > _MARROW_HIGH_HU), marrow, cortex, _MARROW_HIGH_HU, _CORTEX_HU),
        (bone & ~inner, around, cortex, _MUSCLE_HU, _CORTEX_HU),
    ):
        below, above = np.broadcast_arrays(low, high, hu)[:2]
        part = np.clip((hu[where] - first) / (last - first), 0, 1)
        mostly = part >= 0.5
        out.label[where] = np.where(mostly, above[where], below[where])
        out.second[where] = np.where(mostly, below[where], above[where])
        out.share[where] = np.maximum(part, 1 - part)
    out.label[scan.metal] = Label.METAL
    out.share[scan.metal] = 1
    return out
