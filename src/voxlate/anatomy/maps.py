"""Maps of the phantom's tissue parameters at 3 T, from which the signal of any MR sequence can be computed.

A voxel of tissue and cerebrospinal fluid has two compartments, whose signals add up: fluid_map is the fluid's share of
the protons, and all other maps are those of the tissue. Mean rates would make such voxels bright in FLAIR, where the
fluid is dark. Of two tissues, rates (1/T1, 1/T2, 1/T2*), fat fraction, contrast agent and flow are means over protons,
and the susceptibility over volume. Voxels without protons have 0. Values are rounded to float16, in which prepared
cohorts store them without loss. Around metal, T2* is short (`metal_rate_per_ms`).
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy import scalp
from voxlate.anatomy.contrast import PROTOCOLS
from voxlate.anatomy.head import Head
from voxlate.anatomy.tissue import BRAIN, FLUID, Label
from voxlate.base.array_types import AnyArray
from voxlate.scans.images.units import TISSUE_MAPS

MAPS = tuple(TISSUE_MAPS)
TIMES = ("t1_map", "t2_map", "t2star_map")
FREE_WATER = (Label.CSF, Label.VENTRICLE, Label.SPINAL_FLUID)
# Mean speeds of blood: arteries by transcranial Doppler (Aaslid et al. 1982, J Neurosurg 57:769), dural sinuses.
SPEED_CM_S = np.zeros(256)
SPEED_CM_S[[Label.ARTERY, Label.VEIN, Label.ARTERY_BEYOND_CLOT]] = 40.0, 15.0, 5.0
# The extent of the field's disturbance by metal: that of a filling or screw is larger than that of a titanium plate.
METAL_REACH_MM = {Label.METAL: 4.0, Label.PLATE: 1.5}
METAL_T2STAR_MS = 0.2  # at the metal's surface
# Where metal shortens T2* below this, fluid counts as tissue, because sequences give fluid a long T2*.
LONG_T2STAR_MS = 50.0
# The constant of a tissue, and by which shares texture and the core of a stroke change it. Cytotoxic oedema raises T1 by
# 12 % and T2 by 40 % (order of Ordidge et al. 1991, MRM 21:1).
_CONSTANTS = {
    "pd_map": ("pd", 0.005, 0.03),
    "t1_map": ("t1_ms", 0.02, 0.12),
    "t2_map": ("t2_ms", 0.025, 0.4),
    "t2star_map": ("t2star_ms", 0.025, 0.1),
}
PULSES_BEYOND_CLOT = 45  # of a time of flight, in slow blood


@dataclass(frozen=True)
class Voxels:
    """One tissue per voxel of a slice: its label, texture, height and the effect of a stroke."""

    head: Head
    label: AnyArray
    texture: AnyArray
    core: AnyArray
    penumbra: AnyArray
    height_mm: float

    def of(self, table: AnyArray, texture: float | AnyArray = 0.0, core: float = 0.0) -> AnyArray:
        """The values of a table for each voxel, with texture and the change in a stroke's core as shares."""
        return table[self.label] * (1 + texture * self.texture + core * self.core)

    def has(self, *labels: Label) -> AnyArray:
        """Whether each voxel has one of these labels."""
        return np.isin(np.arange(256), labels)[self.label]

    def constant(self, name: str) -> AnyArray:
        """Proton density, T1, T2 or T2* (in ms) of each voxel, by the name of its map."""
        field, texture, core = _CONSTANTS[name]
        # Fluid has no texture, so FLAIR nulls it everywhere.
        solid = np.float32(texture) * ~self.has(*FLUID)
        return self.of(getattr(self.head.tissue, field), solid, core)


def tissue_map(head: Head, name: str) -> AnyArray:
    """One of MAPS, [D, H, W] float32, in the unit that images.units states; inflow: see `inflow_rate`."""
    if name in scalp.PLACES:
        place = getattr(scalp, name)(head.labels, head.spacing_mm)
        return np.asarray(place.astype(np.float16).astype(np.float32))
    air = head.tissue.chi_ppm[Label.AIR] if name == "chi_map" else 0
    out = np.full(head.labels.shape, air, dtype=np.float32)
    for level in range(len(out)):
        share = head.share[level]
        there = (head.labels[level] != Label.AIR) | (share < 1)
        main = voxels_of(head, level, head.labels, there)
        second = voxels_of(head, level, head.second, there)
        out[level][there] = _mix(name, main, second, share[there])
    if name in ("t2star_map", "fluid_map"):
        _dephase(head, name, out)
    return out.astype(np.float16).astype(np.float32)


def _dephase(head: Head, name: str, out: AnyArray) -> None:
    """Change T2* or the fluid's share around metal; nothing changes in a head without it."""
    rate = metal_rate_per_ms(head)
    if rate is None:
        return
    if name == "t2star_map":
        out[...] = out / (1 + out * rate)
    else:
        out[rate > 1 / LONG_T2STAR_MS] = 0


def metal_rate_per_ms(head: Head) -> AnyArray | None:
    """The rate that metal adds to 1/T2*, [D, H, W], or None without metal.

    The field of a dipole falls with the third power of the distance, and its gradient, which dephases, with the fourth.
    """
    rate = None
    for label, reach_mm in METAL_REACH_MM.items():
        there = head.labels == label
        if not there.any():
            continue
        distance_mm = ndimage.distance_transform_edt(~there, sampling=head.spacing_mm)
        added = (reach_mm / (reach_mm + distance_mm)) ** 4 / METAL_T2STAR_MS
        rate = added if rate is None else rate + added
    return rate


def _mix(name: str, main: Voxels, second: Voxels, share: AnyArray) -> AnyArray:
    protons = share * main.constant("pd_map")
    other_protons = (1 - share) * second.constant("pd_map")
    total = protons + other_protons
    if name == "pd_map":
        return total
    if name == "chi_map":
        chi = share * main.of(main.head.tissue.chi_ppm)
        chi += (1 - share) * second.of(second.head.tissue.chi_ppm)
        return chi
    is_fluid, other_is_fluid = main.has(*FREE_WATER), second.has(*FREE_WATER)
    there = total > 0
    divisor = np.where(there, total, 1)
    if name == "fluid_map":
        return (protons * is_fluid + other_protons * other_is_fluid) / divisor
    solid = protons * ~is_fluid
    solid_total = solid + other_protons * ~other_is_fluid
    has_solid = solid_total > 0
    counted = np.where(has_solid, solid, protons)  # where all is fluid, the maps are those of fluid
    weight = counted / np.where(has_solid, solid_total, divisor)
    mean = weight * _per_proton(name, main) + (1 - weight) * _per_proton(name, second)
    if name in TIMES:
        mean = 1 / mean
    return np.where(there, mean, 0)


def _per_proton(name: str, voxels: Voxels) -> AnyArray:
    """The quantity whose mean over protons a voxel has: a rate for the relaxation times."""
    tissue = voxels.head.tissue
    if name in TIMES:
        return 1 / voxels.constant(name)
    if name == "flow_map":
        return voxels.of(SPEED_CM_S)
    if name == "inflow_map":
        return inflow_rate(voxels)
    return voxels.of(tissue.fat if name == "fat_map" else tissue.gadolinium_mm)


def voxels_of(head: Head, level: int, labels: AnyArray, where: AnyArray | slice) -> Voxels:
    """The voxels of a slice that `where` selects, with one tissue each, that of `labels` [D, H, W]."""
    label = labels[level][where]
    height_mm = head.affine[2, 3] + level * head.affine[2, 2]
    stroke = (head.lesion.kind == "stroke") & np.isin(label, BRAIN)
    lesion = head.lesion_map[level][where]
    texture = head.texture[level][where].astype(np.float32)
    core = (stroke & (lesion == 1)).astype(np.float32)
    penumbra = (stroke & (lesion == 2)).astype(np.float32)
    return Voxels(head, label, texture, core, penumbra, height_mm)


def inflow_rate(voxels: Voxels) -> AnyArray:
    """1 / s: the inverse of the time since blood entered the imaged slab from below; 0 in veins and at rest.

    Arterial blood has been in the slab for the pulses that the phantom's time of flight gives it.
    """
    tr_s = PROTOCOLS["tof"].tr_ms / 1000
    rate = voxels.has(Label.ARTERY) / (tr_s * arterial_pulses(voxels.height_mm))
    rate = rate + voxels.has(Label.ARTERY_BEYOND_CLOT) / (tr_s * PULSES_BEYOND_CLOT)
    return np.asarray(rate, np.float32)


def arterial_pulses(height_mm: float) -> AnyArray:
    """Pulses of the time of flight that arterial blood has received at a height."""
    return np.clip(5 + 0.09 * (height_mm + 50), 3, 20)
