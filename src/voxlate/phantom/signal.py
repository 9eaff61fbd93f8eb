"""The physics that turns tissue into pictures: MR signal equations, X-ray attenuation, the passage of a bolus.

Free of noise and exact voxel by voxel; what a scanner adds is in `scanner`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from voxlate.phantom.head import Head
from voxlate.phantom.sequences import (
    FLAIR_TE,
    FLAIR_TR,
    FULL_SCALE,
    GADOLINIUM_R1,
    PD_TE,
    PD_TR,
    SWI_FLIP,
    SWI_TE,
    SWI_TR,
    T1_FLIP,
    T1_TE,
    T1_TR,
    T2_TE,
    T2_TR,
    bolus,
    inflow,
    inversion_recovery,
    nulling_time_ms,
    spin_echo,
    spoiled_gradient,
    venous_phase_rad,
)
from voxlate.phantom.tissue import BRAIN, FLUID, TUMOUR, VESSEL, Label

MODALITIES = (
    *("t1", "t1c", "t2", "flair", "pd", "swi", "tof"),
    *("ncct", "ct", "cta", "cta1", "cta2", "cta3"),
    *("cbf", "cbv", "tmax"),
)
MR = frozenset(MODALITIES[:7])
PERFUSION = frozenset(("cbf", "cbv", "tmax"))

PHASE_S = {"cta": 8.0, "cta1": 8.0, "cta2": 16.0, "cta3": 24.0}  # 8 s apart: Menon et al. 2015, Radiology 275:510
ARTERIAL_PEAK_HU = 340.0
VENOUS_PEAK_HU = 210.0


@dataclass(frozen=True)
class _Parts:
    """One tissue per voxel, flat: its label, texture, height and what a stroke has done to it."""

    head: Head
    label: np.ndarray
    texture: np.ndarray
    core: np.ndarray
    penumbra: np.ndarray
    height_mm: float

    def of(self, table: np.ndarray, texture: float | np.ndarray = 0.0, core: float = 0.0) -> np.ndarray:
        return table[self.label] * (1 + texture * self.texture + core * self.core)

    def has(self, *labels: Label) -> np.ndarray:
        return np.isin(self.label, list(labels))

    @property
    def relaxation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        # Cytotoxic oedema of the core: T1 up by 12 %, T2 by 40 % (order of Ordidge et al. 1991, Magn Reson Med 21:1).
        # Fluid has no texture: its T1 is everywhere the one that FLAIR nulls.
        tissue, solid = self.head.tissue, 1 - self.has(*FLUID).astype(np.float32)
        t1, t2 = self.of(tissue.t1_ms, 0.02 * solid, 0.12), self.of(tissue.t2_ms, 0.025 * solid, 0.4)
        return self.of(tissue.pd, 0.005 * solid, 0.03), t1, t2, self.of(tissue.t2star_ms, 0.025 * solid, 0.1)


def _fat_left(parts: _Parts, share: float) -> np.ndarray:
    """What fat saturation leaves of fat and marrow, 1 elsewhere; head protocols at 3 T add it, more or less fully."""
    return np.where(parts.has(Label.FAT, Label.DIPLOE), np.float32(share), np.float32(1))


def _t1(parts: _Parts) -> np.ndarray:
    pd, t1, _, t2star = parts.relaxation
    return _fat_left(parts, 0.6) * spoiled_gradient(pd, t1, t2star, T1_TR, T1_TE, T1_FLIP)


def _t1c(parts: _Parts) -> np.ndarray:
    """As T1, with 1 / T1 + r1 · C: in vessels, and where the blood-brain barrier leaks."""
    pd, t1, _, t2star = parts.relaxation
    shortened = 1 / (1 / t1 + GADOLINIUM_R1 / 1000 * parts.of(parts.head.tissue.gadolinium_mm))
    return _fat_left(parts, 0.6) * spoiled_gradient(pd, shortened, t2star, T1_TR, T1_TE, T1_FLIP)


def _t2(parts: _Parts) -> np.ndarray:
    pd, t1, t2, _ = parts.relaxation
    return _flow_void(parts) * spin_echo(pd, t1, t2, T2_TR, T2_TE)


def _pd(parts: _Parts) -> np.ndarray:
    pd, t1, t2, _ = parts.relaxation
    return _flow_void(parts) * spin_echo(pd, t1, t2, PD_TR, PD_TE)


def _flair(parts: _Parts) -> np.ndarray:
    pd, t1, t2, _ = parts.relaxation
    still = nulling_time_ms(float(parts.head.tissue.t1_ms[Label.CSF]), FLAIR_TR)
    return _flow_void(parts) * _fat_left(parts, 0.5) * inversion_recovery(pd, t1, t2, FLAIR_TR, FLAIR_TE, still)


def _flow_void(parts: _Parts) -> np.ndarray:
    """Blood that leaves between excitation and refocusing gives no spin echo; behind a clot it is slow."""
    gone = 0.9 * parts.has(Label.ARTERY) + 0.7 * parts.has(Label.VEIN) + 0.3 * parts.has(Label.ARTERY_BEYOND_CLOT)
    return (1 - gone).astype(np.float32)


def _swi(parts: _Parts) -> np.ndarray:
    """Magnitude times the fourth power of the phase mask. Source: Haacke et al. 2004, Magn Reson Med 52:612."""
    pd, t1, _, t2star = parts.relaxation
    mask = max(0.0, 1 - venous_phase_rad(SWI_TE) / np.pi) ** 4
    seen = np.where(parts.has(Label.VEIN), mask, 1).astype(np.float32)
    return seen * spoiled_gradient(pd, t1, t2star, SWI_TR, SWI_TE, SWI_FLIP)


def _tof(parts: _Parts) -> np.ndarray:
    """Blood enters from below: the higher it has come, the more pulses it has felt; veins flow the other way.

    Magnetisation transfer takes about 30 % from brain, nothing from blood (Edelman et al. 1992, Radiology 184:395), and
    fat is saturated.
    """
    pd, t1, _, t2star = parts.relaxation
    pulses = np.where(parts.has(Label.ARTERY), np.clip(5 + 0.09 * (parts.height_mm + 50), 3, 20), 1e4)
    pulses = np.where(parts.has(Label.ARTERY_BEYOND_CLOT), 45, pulses)
    transfer = 1 - 0.3 * parts.has(*BRAIN, *TUMOUR, Label.MUSCLE, Label.SKIN)
    return transfer * _fat_left(parts, 0.25) * inflow(pd, t1, t2star, pulses)


def _hounsfield(parts: _Parts) -> np.ndarray:
    """Texture is ±0.6 HU in soft tissue, ±6 % in bone; the core loses 5 HU (1 % water is 2.6 HU: Unger 1984)."""
    bone = parts.has(Label.BONE, Label.DIPLOE)
    soft = parts.has(*BRAIN, Label.SKIN, Label.FAT, Label.MUSCLE, *TUMOUR)
    base = parts.head.tissue.hu[parts.label]
    return base * (1 + 0.06 * bone * parts.texture) + 0.6 * soft * parts.texture - 5 * parts.core


def _contrast_ct(parts: _Parts, seconds: float) -> np.ndarray:
    """Plain HU plus iodine: in arteries, in veins 5 s later, and in tissue as its blood volume and delay say."""
    arteries = ARTERIAL_PEAK_HU * bolus(seconds, 0.0, 8.0)
    late = 0.75 * ARTERIAL_PEAK_HU * bolus(seconds, parts.head.lesion.collateral_delay_s, 9.0)
    veins = VENOUS_PEAK_HU * bolus(seconds, 6.0, 9.0)
    _, cbv, tmax = _perfusion(parts)
    tissue = np.where(parts.has(*VESSEL), 0, cbv / 100 * ARTERIAL_PEAK_HU * bolus(seconds, tmax, 9.0))
    leak = 25 * min(1.0, seconds / 24) * parts.has(Label.ENHANCING) + 12 * parts.has(Label.SKIN, Label.MUSCLE) * (
        seconds / 24
    )
    iodine = (
        arteries * parts.has(Label.ARTERY) + veins * parts.has(Label.VEIN) + late * parts.has(Label.ARTERY_BEYOND_CLOT)
    )
    return _hounsfield(parts) + tissue + leak + iodine


def _perfusion(parts: _Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CBF (ml/100 g/min), CBV (ml/100 g) = CBF · MTT, and Tmax (s).

    Core: CBF below 30 % of normal; core and penumbra: Tmax above 6 s. Source: Albers et al. 2018, N Engl J Med 378:708.
    CBV is kept in the penumbra, where vessels widen, and lost in the core: Wintermark et al. 2006, Stroke 37:979.
    """
    tissue, stroke = parts.head.tissue, parts.core + parts.penumbra
    cbf = parts.of(tissue.cbf, 0.06) * (1 - 0.84 * parts.core - 0.58 * parts.penumbra)
    mtt = parts.of(tissue.mtt_s) * (1 + 1.6 * parts.core + 1.5 * parts.penumbra)
    normal = np.clip(tissue.tmax_s[parts.label] + 0.25 * parts.texture * (cbf > 0), 0, 5)
    delay = parts.head.lesion.collateral_delay_s
    late = np.maximum(1.05 * delay + 0.5 * parts.texture + 3.5 * parts.core, 6.6)
    return cbf, cbf * mtt / 60, np.where(stroke > 0, late, normal)


_EQUATIONS: dict[str, Callable[[_Parts], np.ndarray]] = {
    "t1": _t1,
    "t1c": _t1c,
    "t2": _t2,
    "flair": _flair,
    "pd": _pd,
    "swi": _swi,
    "tof": _tof,
    "ncct": _hounsfield,
    "ct": _hounsfield,
    **{name: partial(_contrast_ct, seconds=seconds) for name, seconds in PHASE_S.items()},
    "cbf": lambda parts: _perfusion(parts)[0],
    "cbv": lambda parts: _perfusion(parts)[1],
    "tmax": lambda parts: _perfusion(parts)[2],
}


def signal(head: Head, modality: str) -> np.ndarray:
    """The picture without noise, blur or shading, [D, H, W] float32: HU, ml/100 g(/min), s, or MR a.u.

    A voxel of two tissues has the mean of their signals, but in Tmax, a time, its main tissue's.
    """
    equation, gain = _EQUATIONS[modality], FULL_SCALE if modality in MR else 1.0
    out = np.empty(head.labels.shape, dtype=np.float32)
    for level in range(len(out)):
        out[level] = gain * equation(_parts(head, level, head.labels[level], slice(None)))
        if modality != "tmax":
            mixed = head.share[level] < 1
            other = gain * equation(_parts(head, level, head.second[level][mixed], mixed))
            share = head.share[level][mixed]
            out[level][mixed] = share * out[level][mixed] + (1 - share) * other
    return out


def _parts(head: Head, level: int, label: np.ndarray, where: np.ndarray | slice) -> _Parts:
    height_mm = head.affine[2, 3] + level * head.affine[2, 2]
    stroke = (head.lesion.kind == "stroke") & np.isin(label, list(BRAIN))
    lesion = head.lesion_map[level][where]
    texture = head.texture[level][where].astype(np.float32)
    core, penumbra = ((stroke & (lesion == value)).astype(np.float32) for value in (1, 2))
    return _Parts(head, label, texture, core, penumbra, height_mm)
