"""MR signal equations and the bolus curve, for numbers or arrays; times are in ms unless a name states another unit."""

from typing import Any

import numpy as np

Array = Any  # a number or an array of numbers: numpy broadcasts them

# 1 / (mM s), gadobutrol in whole blood at 3 T: Shen et al. 2015, Invest Radiol 50:330
GADOLINIUM_R1 = 4.5
FULL_SCALE = 2000.0  # signal (a.u.) of a voxel of water with its full magnetisation

# TR and TE are in ms, the flip angle in degrees; the values are usual in protocols at 3 T.
T1 = (18.0, 3.0, 25.0)
T2 = (5000.0, 95.0)
PD = (3500.0, 14.0)
FLAIR = (9000.0, 110.0)
SWI = (28.0, 20.0, 15.0)
TOF = (22.0, 3.5, 20.0)


def spoiled_gradient(
    pd: Array, t1_ms: Array, t2star_ms: Array, tr_ms: float, te_ms: float, flip_deg: float
) -> Array:
    """Steady state of a spoiled gradient echo. Source: Ernst and Anderson 1966, Rev Sci Instrum 37:93."""
    e1 = np.exp(-tr_ms / t1_ms)
    flip = np.radians(flip_deg)
    return pd * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * np.exp(-te_ms / t2star_ms)


def spin_echo(pd: Array, t1_ms: Array, t2_ms: Array, tr_ms: float, te_ms: float) -> Array:
    """Spin echo with TE much shorter than TR. Source: Bernstein et al. 2004, Handbook of MRI Pulse Sequences, 14.3."""
    return pd * (1 - np.exp(-tr_ms / t1_ms)) * np.exp(-te_ms / t2_ms)


def inversion_recovery(
    pd: Array, t1_ms: Array, t2_ms: Array, tr_ms: float, te_ms: float, ti_ms: float
) -> Array:
    """Magnitude of an inversion-recovery spin echo. Source: Bernstein et al. 2004, section 14.2."""
    return (
        pd
        * np.abs(1 - 2 * np.exp(-ti_ms / t1_ms) + np.exp(-tr_ms / t1_ms))
        * np.exp(-te_ms / t2_ms)
    )


def nulling_time_ms(t1_ms: float, tr_ms: float) -> float:
    """The inversion time at which tissue of this T1 gives no signal."""
    return float(t1_ms * np.log(2 / (1 + np.exp(-tr_ms / t1_ms))))


def inflow(
    pd: Array,
    t1_ms: Array,
    t2star_ms: Array,
    pulses: Array,
    tr_ms: float,
    te_ms: float,
    flip_deg: float,
) -> Array:
    """Gradient echo of blood after `pulses` pulses; its signal falls from the fresh to the steady state.

    Source: Haacke et al. 1999, Magnetic Resonance Imaging: Physical Principles and Sequence Design, section 24.2.
    """
    flip = np.radians(flip_deg)
    steady = spoiled_gradient(pd, t1_ms, t2star_ms, tr_ms, te_ms, flip_deg)
    fresh = pd * np.sin(flip) * np.exp(-te_ms / t2star_ms)
    per_pulse = np.exp(-tr_ms / t1_ms) * np.cos(flip)
    return steady + (fresh - steady) * per_pulse**pulses


def venous_phase_rad(te_ms: float) -> float:
    """Phase of a vein along the field at 3 T: 2 pi · gamma/2pi · B0 · dchi / 3 · TE.

    dchi = 4 pi · 0.27 ppm · haematocrit 0.42 · (1 - saturation 0.55). Source: Spees et al. 2001, Magn Reson Med 45:533.
    """
    return 2 * np.pi * 127.7e6 * (4 * np.pi * 0.27e-6 * 0.42 * 0.45) / 3 * te_ms / 1000


def bolus(seconds: Array, arrival_s: Array, peak_s: float) -> Array:
    """Gamma-variate curve with a recirculation tail, 1 at its peak. Source: Madsen 1992, Phys Med Biol 37:1597."""
    relative = np.maximum(seconds - np.asarray(arrival_s), 0) / peak_s
    first_pass = relative**3 * np.exp(3 * (1 - relative))
    return np.maximum(first_pass, 0.12 * np.clip(relative - 1, 0, 1))
