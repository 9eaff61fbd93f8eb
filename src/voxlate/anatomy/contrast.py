"""The MR signal of tissue-parameter maps in any sequence, field and dose: one call for a volume, a slice or a sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxlate.anatomy import sequences as mr
from voxlate.base.array_types import AnyArray
from voxlate.scans.images.units import TISSUE_MAPS

Kind = Literal["spin_echo", "gradient_echo", "inversion_recovery", "mprage", "flair", "swi", "tof"]
Maps = Mapping[str, AnyArray]

STATIC_PULSES = 1e4  # of tissue that stays in the slab: steady state
# Pulses that blood receives in SWI for each one of a time of flight, whose slabs are thin.
SWI_SLAB = 4.0
TRANSFER = 0.3  # share of the brain's signal in TOF that magnetisation transfer takes: Edelman et al. 1992, Radiology 184:395
SHORTEST_MS = 0.1  # for voxels without protons, whose maps hold 0

# Of one voxel, which broadcasts against all that contain it.
CEREBROSPINAL_FLUID: Maps = {
    name: np.array([value], np.float32)
    for name, value in {
        **dict.fromkeys(TISSUE_MAPS, 0.0),
        "pd_map": 1.0,
        "t1_map": mr.FREE_WATER_T1_MS,
        "t2_map": mr.FREE_WATER_T2_MS,
        "t2star_map": 1000.0,
    }.items()
}

_ECHO = ("t2_map", "flow_map")
_GRADIENT = ("t2_map", "t2star_map")
_NEEDS: dict[Kind, tuple[str, ...]] = {
    "spin_echo": _ECHO,
    "inversion_recovery": _ECHO,
    "flair": _ECHO,
    "gradient_echo": _GRADIENT,
    "mprage": _GRADIENT,
    "swi": (*_GRADIENT, "chi_map", "fat_map", "inflow_map"),
    "tof": (*_GRADIENT, "flow_map", "inflow_map"),
}


@dataclass(frozen=True)
class Protocol:
    """A sequence with its parameters; ti_ms and flip_deg are ignored by sequences that have none.

    dose: of the contrast agent, 1 for the usual one; fat_removed: share of the fat's signal that saturation removes.
    """

    kind: Kind
    tr_ms: float
    te_ms: float
    ti_ms: float
    flip_deg: float
    field_t: float = 3.0
    dose: float = 0.0
    fat_removed: float = 0.0


CSF_NULL_MS = mr.null_time_ms(mr.FREE_WATER_T1_MS, 9000)
# The images of phantoms, at 3 T: usual in protocols of heads.
PROTOCOLS = {
    "t1": Protocol("gradient_echo", 18, 3, 0, 25, fat_removed=0.4),
    "t1c": Protocol("gradient_echo", 18, 3, 0, 25, dose=1, fat_removed=0.4),
    "t2": Protocol("spin_echo", 5000, 95, 0, 90),
    "flair": Protocol("flair", 9000, 110, CSF_NULL_MS, 90, fat_removed=0.5),
    "pd": Protocol("spin_echo", 3500, 14, 0, 90),
    "swi": Protocol("swi", 28, 20, 0, 15),
    "tof": Protocol("tof", 22, 3.5, 0, 20, fat_removed=0.75),
}


def maps_for(kind: Kind, agent: bool, fat_saturation: bool) -> tuple[str, ...]:
    """The maps from which a sequence is computed."""
    extra = ("gd_map",) * agent + ("fat_map",) * fat_saturation
    return ("pd_map", "t1_map", "fluid_map", *_NEEDS[kind], *extra)


def magnitude(protocol: Protocol, maps: Maps, b1: AnyArray | float = 1.0) -> AnyArray:
    """The signal without noise, as a share of that of water with its full magnetisation; float32, shaped as the maps.

    maps: at 3 T, those of `maps_for`; b1: the flip angle reached, as a share of the nominal one.
    """
    signal = _of_tissue(protocol, maps, b1)
    mixed = maps["fluid_map"] > 0
    if mixed.any():
        share = maps["fluid_map"][mixed]
        fluid = _of_tissue(protocol, CEREBROSPINAL_FLUID, np.broadcast_to(b1, mixed.shape)[mixed])
        signal[mixed] = (1 - share) * signal[mixed] + share * maps["pd_map"][mixed] * fluid
    return signal


def _of_tissue(protocol: Protocol, maps: Maps, b1: AnyArray | float) -> AnyArray:
    """The signal of one compartment."""
    pd = maps["pd_map"]
    t1 = mr.t1_at_field(np.maximum(maps["t1_map"], SHORTEST_MS), protocol.field_t)
    if protocol.dose > 0:
        t1 = mr.with_gadolinium(t1, protocol.dose * maps["gd_map"])
    if protocol.kind in ("spin_echo", "inversion_recovery", "flair"):
        signal = _echo(protocol, maps, pd, t1, b1)
    else:
        signal = _gradient(protocol, maps, pd, t1, b1)
    if protocol.fat_removed > 0:
        signal = signal * (1 - protocol.fat_removed * maps["fat_map"])
    return np.asarray(signal, np.float32)


def _echo(
    protocol: Protocol, maps: Maps, pd: AnyArray, t1: AnyArray, b1: AnyArray | float
) -> AnyArray:
    """A spin echo with or without inversion; pulses of 90 and 180 degrees that are off by b1 leave sin³ (b1 · 90°)."""
    t2 = mr.t2_at_field(np.maximum(maps["t2_map"], SHORTEST_MS), protocol.field_t)
    if protocol.kind == "spin_echo":
        signal = mr.spin_echo(pd, t1, t2, protocol.tr_ms, protocol.te_ms)
    else:
        times = (protocol.tr_ms, protocol.te_ms, protocol.ti_ms)
        signal = mr.inversion_recovery(pd, t1, t2, *times)
    still = 1 - mr.flow_void(maps["flow_map"], protocol.te_ms)
    return np.asarray(signal * still * np.sin(b1 * np.float32(np.pi / 2)) ** 3)


def _gradient(
    protocol: Protocol, maps: Maps, pd: AnyArray, t1: AnyArray, b1: AnyArray | float
) -> AnyArray:
    t2 = np.maximum(maps["t2_map"], SHORTEST_MS)
    t2star = np.maximum(maps["t2star_map"], SHORTEST_MS)
    t2star = mr.t2star_at_field(t2star, t2, protocol.field_t)
    flip = protocol.flip_deg * b1
    tr, te = protocol.tr_ms, protocol.te_ms
    match protocol.kind:
        case "gradient_echo":
            return np.asarray(mr.gradient_echo(pd, t1, t2star, tr, te, flip))
        case "mprage":
            return np.asarray(mr.mprage(pd, t1, t2star, tr, te, protocol.ti_ms, flip))
        case "swi":
            # The phase filter of SWI removes what fat as a whole adds.
            chi = maps["chi_map"] * (1 - maps["fat_map"]) * np.float32(1e-6)
            weight = mr.phase_mask(mr.phase_rad(chi, te, protocol.field_t))
            slab = SWI_SLAB
        case _:
            bound = TRANSFER * np.clip((1 - pd) / 0.2, 0, 1) * (maps["flow_map"] == 0)
            weight, slab = 1 - bound, 1.0
    inflow_per_s = np.maximum(maps["inflow_map"], 1000 / (tr * STATIC_PULSES))
    pulses = slab * (1000 / (tr * inflow_per_s))  # since blood entered the slab
    return np.asarray(weight * mr.inflow(pd, t1, t2star, pulses, tr, te, flip))
