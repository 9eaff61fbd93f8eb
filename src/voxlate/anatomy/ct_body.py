"""A body on the grid of its real CT: tissues by HU, and regions of soft tissue with proton density and times of their own.

Source of the regions: Billot et al. 2023, Med Image Anal 86:102789.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy import ndimage

from voxlate.anatomy import exposure
from voxlate.anatomy.canvas import Canvas, blank
from voxlate.anatomy.diseases import Lesion
from voxlate.anatomy.head import Head
from voxlate.anatomy.label_table import LabelTable, OwnTissue
from voxlate.anatomy.real_ct import SOFT_HU, CtScan
from voxlate.anatomy.shapes import Points, Rng, noise
from voxlate.anatomy.tissue import Label
from voxlate.base.array_types import AnyArray
from voxlate.base.items import stable_id

NO_LABELS = LabelTable("none", "soft", 0.0, {0: int(Label.AIR)}, {})
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
_AIR_HU, _LUNG_HU = -950.0, -780.0
_FAT_LOW_HU, _FAT_HU = -115.0, -85.0
_MARROW_LOW_HU, _MARROW_HU = 130.0, 200.0
_MUSCLE_HU, _CORTEX_HU = 50.0, 1200.0
_GAS_HU = -300.0  # near it, air borders on soft tissue
_INNER = 0.75  # of the neighbours of a voxel: at a flat surface of bone, 0.67 are bone


def table_of(
    labels: LabelTable,
    rng: Rng,
) -> LabelTable:
    """The table of a body: with lung and its regions as tissues of its own."""
    own = {**labels.own}
    own.setdefault("lung", _LUNG)
    own["bone_marrow"] = _draw(rng, _MARROW)
    for number in range(1, _MOST_REGIONS + 1):
        own[f"region_{number}"] = _draw(rng, _REGION)
    return replace(labels, own=own)


def _draw(
    rng: Rng,
    ranges: Ranges,
) -> OwnTissue:
    values = {name: float(rng.uniform(*ends)) for name, ends in ranges.items()}
    return OwnTissue(hu=_MUSCLE_HU, **values)


def make_ct_body(
    scan: CtScan,
    labels: LabelTable,
    seed: int,
    case: int,
) -> Head:
    """One body of a CT; the same scan, name, seed and case give the same body."""
    rng = np.random.default_rng([seed, case, stable_id(scan.name)])
    table_rng, region_rng, tissue_rng, texture_rng, exposure_rng = rng.spawn(5)
    table = table_of(labels, table_rng)
    lengths = zip(scan.hu.shape[::-1], scan.spacing_mm[::-1])
    x, y, z = (np.arange(length) * np.float32(step) for length, step in lengths)
    soft = _regions(scan, region_rng, (x, y, z))
    soft += np.uint8(table.names["region_1"])
    # vessels of the lung are soft tissue
    stated = (scan.organs > 0) & (scan.organs != table.names["lung"])
    soft = np.where(stated, scan.organs, soft)
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
        exposure.draw(exposure_rng),
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
        (other & (hu < _FAT_LOW_HU), lung, fat, _LUNG_HU, _FAT_LOW_HU),
        (edge, lung, soft, _LUNG_HU, SOFT_HU),
        (other & (hu < _LUNG_HU), int(Label.SINUS), lung, _AIR_HU, _LUNG_HU),
        (inner, fat, marrow, _FAT_HU, _MARROW_LOW_HU),
        (inner & (hu > _MARROW_HU), marrow, cortex, _MARROW_HU, _CORTEX_HU),
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
