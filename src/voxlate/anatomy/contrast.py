"""The MR signal of tissue-parameter maps in any sequence, field and dose: one call for a volume, a slice or a sample.

Signal equations and the bolus curve are for numbers or arrays; times are in ms unless a name states another unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from voxlate.base.array_types import AnyArray
from voxlate.scans.images.units import TISSUE_MAPS

Array = Any  # a number or an array of numbers: numpy broadcasts them

# 1 / (mM s), gadobutrol in whole blood at 3 T: Shen et al. 2015, Invest Radiol 50:330
GADOLINIUM_R1 = 4.5
FREE_WATER_T1_MS = 4300.0  # of CSF at every field: Rooney et al. 2007, Magn Reson Med 57:308
FREE_WATER_T2_MS = 2000.0  # Spijkerman et al. 2018, Magn Reson Mater Phy 31:415
FULL_SCALE = 2000.0  # signal (a.u.) of a voxel of water with its full magnetisation

TRAIN_PULSES, TRAIN_SPACING_MS = 160, 6.0  # of MPRAGE
SLICE_MM = 5.0  # through which blood flows
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
        "t1_map": FREE_WATER_T1_MS,
        "t2_map": FREE_WATER_T2_MS,
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
    """A sequence with its parameters; ti_ms is 0 where none inverts; spin echoes ignore flip_deg.

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

    @property
    def maps(self) -> tuple[str, ...]:
        """The tissue-parameter maps from which it is computed."""
        extra = ("gd_map",) * (self.dose > 0) + ("fat_map",) * (self.fat_removed > 0)
        return ("pd_map", "t1_map", "fluid_map", *_NEEDS[self.kind], *extra)


def gradient_echo(
    pd: Array,
    t1_ms: Array,
    t2star_ms: Array,
    tr_ms: float,
    te_ms: float,
    flip_deg: Array,
    pulses: Array | None = None,
) -> Array:
    """A spoiled gradient echo in its steady state; of blood, after so many pulses, on its way there from the fresh state.

    Source: Ernst and Anderson 1966, Rev Sci Instrum 37:93; Haacke et al. 1999, Magnetic Resonance Imaging: Physical Principles
    and Sequence Design, section 24.2.
    """
    e1 = np.exp(-tr_ms / t1_ms)
    flip = np.radians(flip_deg)
    decay = np.exp(-te_ms / t2star_ms)
    steady = pd * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * decay
    if pulses is None:
        return steady
    fresh = pd * np.sin(flip) * decay
    return steady + (fresh - steady) * (e1 * np.cos(flip)) ** pulses


def spin_echo(
    pd: Array, t1_ms: Array, t2_ms: Array, tr_ms: float, te_ms: float, ti_ms: float = 0
) -> Array:
    """Magnitude of a spin echo with TE much shorter than TR; ti_ms: since an inversion, 0 without one.

    Source: Bernstein et al. 2004, Handbook of MRI Pulse Sequences, 14.2 and 14.3.
    """
    recovered = 1 - np.exp(-tr_ms / t1_ms)
    if ti_ms:
        recovered = np.abs(1 - 2 * np.exp(-ti_ms / t1_ms) + np.exp(-tr_ms / t1_ms))
    return pd * recovered * np.exp(-te_ms / t2_ms)


def null_time_ms(t1_ms: float, tr_ms: float) -> float:
    """The inversion time at which tissue of this T1 gives no signal."""
    return float(t1_ms * np.log(2 / (1 + np.exp(-tr_ms / t1_ms))))


def mprage(
    pd: Array,
    t1_ms: Array,
    t2star_ms: Array,
    tr_ms: float,
    te_ms: float,
    ti_ms: float,
    flip_deg: Array,
) -> Array:
    """Magnitude of an inversion-prepared train of gradient echoes at the centre of k-space, in its steady state.

    tr_ms: from inversion to inversion; ti_ms: from the inversion to the train's middle pulse. Solves the cycle of inversion, delay, train and delay for its steady state, as Deichmann et al. 2000,
    NeuroImage 12:112, do.
    """
    flip = np.radians(flip_deg)
    half_ms = TRAIN_PULSES * TRAIN_SPACING_MS / 2
    before = np.exp(-(ti_ms - half_ms) / t1_ms)
    after = np.exp(-(tr_ms - ti_ms - half_ms) / t1_ms)
    between = np.exp(-TRAIN_SPACING_MS / t1_ms)
    per_pulse = np.cos(flip) * between
    driven = (1 - between) / (1 - per_pulse)
    whole_train = per_pulse**TRAIN_PULSES
    relaxed = 1 - after + after * (driven * (1 - whole_train) + whole_train * (1 - before))
    inverted = relaxed / (1 + after * whole_train * before)
    at_first_pulse = 1 - (1 + inverted) * before
    at_centre = driven + (at_first_pulse - driven) * per_pulse ** (TRAIN_PULSES // 2)
    return pd * np.sin(flip) * np.abs(at_centre) * np.exp(-te_ms / t2star_ms)


def t1_at_field(t1_ms: Array, field_t: float) -> Array:
    """T1 at another field from that at 3 T: the rate beyond that of free water falls with the field to the power 0.48.

    The law is within 6 % of the fits of Rooney et al. 2007, Magn Reson Med 57:308, to grey and white matter from 0.5 to
    7 T (exponents 0.376 and 0.382 of T1 itself); as there, the T1 of CSF does not depend on the field.
    """
    free = 1 / FREE_WATER_T1_MS
    return 1 / (free + (1 / t1_ms - free) * (field_t / 3) ** -0.48)


def t2_at_field(t2_ms: Array, field_t: float) -> Array:
    """T2 at another field from that at 3 T: diffusion past iron adds a rate with the square of the field.

    The factor takes 110 ms at 3 T to 55 ms at 7 T (Bartha et al. 2002, Magn Reson Med 47:742) and hardly changes T2
    below 3 T (Stanisz et al. 2005, Magn Reson Med 54:507).
    """
    return t2_ms / (1 + 0.025 * (field_t**2 - 9))


def t2star_at_field(t2star_ms: Array, t2_ms: Array, field_t: float) -> Array:
    """T2* at another field from T2 and T2* at 3 T: dephasing, 1 / T2* - 1 / T2, is proportional to the field.

    Source: Peters et al. 2007, Magn Reson Imaging 25:748 (rates of grey and white matter at 1.5, 3 and 7 T).
    """
    dephasing = np.maximum(1 / t2star_ms - 1 / t2_ms, 0)
    return 1 / (1 / t2_at_field(t2_ms, field_t) + dephasing * (field_t / 3))


def flow_void(speed_cm_s: Array, te_ms: float) -> Array:
    """The share of blood that leaves the slice between excitation and refocusing, and so gives no spin echo.

    Source: Bradley and Waluch 1985, Radiology 154:443; 5 % of the signal remain, of slow layers at the wall.
    """
    return np.minimum(speed_cm_s / 100 * te_ms / 2 * 10 / SLICE_MM, 0.95)


def phase_mask(chi: Array, te_ms: float, field_t: float) -> Array:
    """The mask by which SWI multiplies the magnitude: the fourth power of 1 for phases below 0, falling to 0 at pi.

    The phase is that of a vessel along the field, 2 pi · gamma/2pi · B0 · chi / 3 · TE; chi is a fraction, 1e-6 for 1 ppm.
    Source: Haacke et al. 2004, Magn Reson Med 52:612.
    """
    phase = 2 * np.pi * (127.7e6 * (field_t / 3)) * chi / 3 * te_ms / 1000
    return np.clip(1 - phase / np.pi, 0, 1) ** 4


def bolus(seconds: Array, arrival_s: Array, peak_s: float) -> Array:
    """Gamma-variate curve with a recirculation tail, 1 at its peak. Source: Madsen 1992, Phys Med Biol 37:1597."""
    relative = np.maximum(seconds - np.asarray(arrival_s), 0) / peak_s
    first_pass = relative**3 * np.exp(3 * (1 - relative))
    return np.maximum(first_pass, 0.12 * np.clip(relative - 1, 0, 1))


CSF_NULL_MS = null_time_ms(FREE_WATER_T1_MS, 9000)
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


def magnitude(protocol: Protocol, maps: Maps, b1: AnyArray | float = 1.0) -> AnyArray:
    """The signal without noise, as a share of that of water with its full magnetisation; float32, shaped as the maps.

    maps: at 3 T, those of `protocol.maps`; b1: the flip angle reached, as a share of the nominal one.
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
    t1 = t1_at_field(np.maximum(maps["t1_map"], SHORTEST_MS), protocol.field_t)
    if protocol.dose > 0:
        t1 = 1 / (1 / t1 + GADOLINIUM_R1 / 1000 * (protocol.dose * maps["gd_map"]))
    echo = _echo if _NEEDS[protocol.kind] == _ECHO else _gradient
    signal = echo(protocol, maps, t1, b1)
    if protocol.fat_removed > 0:
        signal = signal * (1 - protocol.fat_removed * maps["fat_map"])
    return np.asarray(signal, np.float32)


def _echo(protocol: Protocol, maps: Maps, t1_ms: Array, b1: Array) -> Array:
    """A spin echo with or without inversion; pulses of 90 and 180 degrees that are off by b1 leave sin³ (b1 · 90°)."""
    t2 = t2_at_field(np.maximum(maps["t2_map"], SHORTEST_MS), protocol.field_t)
    times = (protocol.tr_ms, protocol.te_ms, protocol.ti_ms)
    signal = spin_echo(maps["pd_map"], t1_ms, t2, *times)
    still = 1 - flow_void(maps["flow_map"], protocol.te_ms)
    return signal * still * np.sin(b1 * np.float32(np.pi / 2)) ** 3


def _gradient(protocol: Protocol, maps: Maps, t1_ms: Array, b1: Array) -> Array:
    """A gradient echo: plain, in a prepared train, or of flowing blood in SWI and TOF."""
    pd = maps["pd_map"]
    t2 = np.maximum(maps["t2_map"], SHORTEST_MS)
    t2star = np.maximum(maps["t2star_map"], SHORTEST_MS)
    t2star = t2star_at_field(t2star, t2, protocol.field_t)
    flip = protocol.flip_deg * b1
    tr, te = protocol.tr_ms, protocol.te_ms
    match protocol.kind:
        case "gradient_echo":
            return gradient_echo(pd, t1_ms, t2star, tr, te, flip)
        case "mprage":
            return mprage(pd, t1_ms, t2star, tr, te, protocol.ti_ms, flip)
        case "swi":
            # The phase filter of SWI removes what fat as a whole adds.
            chi = maps["chi_map"] * (1 - maps["fat_map"]) * np.float32(1e-6)
            weight = phase_mask(chi, te, protocol.field_t)
            slab = SWI_SLAB
        case _:
            bound = TRANSFER * np.clip((1 - pd) / 0.2, 0, 1) * (maps["flow_map"] == 0)
            weight, slab = 1 - bound, 1.0
    inflow_per_s = np.maximum(maps["inflow_map"], 1000 / (tr * STATIC_PULSES))
    pulses = slab * (1000 / (tr * inflow_per_s))  # since blood entered the slab
    return weight * gradient_echo(pd, t1_ms, t2star, tr, te, flip, pulses)
