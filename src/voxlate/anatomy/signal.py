"""The signal of tissue by its physics: MR signal equations, X-ray attenuation, the passage of a bolus.

The signal is exact in each voxel and free of noise; `scanner` adds noise, blur and shading.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from voxlate.anatomy import sequences as mr
from voxlate.anatomy.head import Head
from voxlate.anatomy.tissue import BRAIN, FLUID, TUMOUR, VESSEL, Label
from voxlate.base.array_types import AnyArray

PERFUSION = ("cbf", "cbv", "tmax")
# Phases are 8 s apart: Menon et al. 2015, Radiology 275:510.
PHASE_S = {"cta": 8.0, "cta1": 8.0, "cta2": 16.0, "cta3": 24.0}
PULSES_BEYOND_CLOT = 45  # of the time of flight, in slow blood
ARTERIAL_PEAK_HU = 340.0
VENOUS_PEAK_HU = 210.0


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
        return np.isin(self.label, labels)

    @property
    def relaxation(self) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
        """Proton density, T1, T2 and T2* of each voxel, in ms."""
        # Cytotoxic oedema raises T1 of the core by 12 % and T2 by 40 % (order of Ordidge et al. 1991, MRM 21:1).
        # Fluid has no texture, so FLAIR nulls it everywhere.
        tissue = self.head.tissue
        solid = 1 - self.has(*FLUID).astype(np.float32)
        return (
            self.of(tissue.pd, 0.005 * solid, 0.03),
            self.of(tissue.t1_ms, 0.02 * solid, 0.12),
            self.of(tissue.t2_ms, 0.025 * solid, 0.4),
            self.of(tissue.t2star_ms, 0.025 * solid, 0.1),
        )


def _fat_saturation(voxels: Voxels, share: float) -> AnyArray:
    """Factor of fat saturation, usual in head protocols at 3 T: `share` in fat and marrow, 1 elsewhere."""
    return np.where(voxels.has(Label.FAT, Label.DIPLOE), np.float32(share), np.float32(1))


def _t1(voxels: Voxels, dose: float = 0.0) -> AnyArray:
    """T1, with gadolinium in vessels and where the blood-brain barrier leaks; dose: 1 for the usual one."""
    pd, t1, _, t2star = voxels.relaxation
    if dose:
        t1 = mr.with_gadolinium(t1, dose * voxels.of(voxels.head.tissue.gadolinium_mm))
    return _fat_saturation(voxels, 0.6) * mr.gradient_echo(pd, t1, t2star, *mr.T1)


def _spin_echo(voxels: Voxels, protocol: tuple[float, float]) -> AnyArray:
    pd, t1, t2, _ = voxels.relaxation
    return _flow_void(voxels) * mr.spin_echo(pd, t1, t2, *protocol)


def _flair(voxels: Voxels) -> AnyArray:
    pd, t1, t2, _ = voxels.relaxation
    still = mr.null_time_ms(float(voxels.head.tissue.t1_ms[Label.CSF]), mr.FLAIR[0])
    return (
        _flow_void(voxels)
        * _fat_saturation(voxels, 0.5)
        * mr.inversion_recovery(pd, t1, t2, *mr.FLAIR, still)
    )


def _flow_void(voxels: Voxels) -> AnyArray:
    """Blood that leaves between excitation and refocusing gives no spin echo; behind a clot it is slow."""
    lost = (
        0.9 * voxels.has(Label.ARTERY)
        + 0.7 * voxels.has(Label.VEIN)
        + 0.3 * voxels.has(Label.ARTERY_BEYOND_CLOT)
    )
    return (1 - lost).astype(np.float32)


def _swi(voxels: Voxels) -> AnyArray:
    """Magnitude times the fourth power of the phase mask. Source: Haacke et al. 2004, Magn Reson Med 52:612.

    Arteries are bright at the base and fade upward (Haacke et al. 2009, AJNR 30:19): at 10 cm/s and one slab over the
    whole head, from below, blood receives a pulse every 2.8 mm; that of time of flight is quicker and in thin slabs.
    """
    pd, t1, _, t2star = voxels.relaxation
    pulses = np.where(
        voxels.has(Label.ARTERY), np.clip(0.36 * (voxels.height_mm + 80), 5, None), 1e4
    )
    mask = float(mr.phase_mask(mr.phase_rad(mr.VENOUS_CHI, mr.SWI[1])))
    weight = np.where(voxels.has(Label.VEIN), mask, 1).astype(np.float32)
    return weight * mr.inflow(pd, t1, t2star, pulses, *mr.SWI)


def _tof(voxels: Voxels) -> AnyArray:
    """Time of flight: arterial blood enters from below and receives more pulses the higher it is.

    Veins flow in the opposite direction and are saturated. Magnetisation transfer reduces the signal of brain by about
    30 % and that of blood not at all (Edelman et al. 1992, Radiology 184:395). Fat is saturated.
    """
    pd, t1, _, t2star = voxels.relaxation
    pulses = np.where(voxels.has(Label.ARTERY), arterial_pulses(voxels.height_mm), 1e4)
    pulses = np.where(voxels.has(Label.ARTERY_BEYOND_CLOT), PULSES_BEYOND_CLOT, pulses)
    transfer = 1 - 0.3 * voxels.has(*BRAIN, *TUMOUR, Label.MUSCLE, Label.SKIN)
    return transfer * _fat_saturation(voxels, 0.25) * mr.inflow(pd, t1, t2star, pulses, *mr.TOF)


def arterial_pulses(height_mm: float) -> AnyArray:
    """Pulses of the time of flight that arterial blood has received at a height."""
    return np.clip(5 + 0.09 * (height_mm + 50), 3, 20)


def _hounsfield(voxels: Voxels) -> AnyArray:
    """HU with texture of ±0.6 HU in soft tissue and ±6 % in bone; the core is 5 HU darker.

    1 % of water reduces attenuation by 2.6 HU: Unger 1984.
    """
    bone = voxels.has(Label.BONE, Label.DIPLOE)
    soft = voxels.has(*BRAIN, Label.SKIN, Label.FAT, Label.MUSCLE, *TUMOUR)
    textured = voxels.head.tissue.hu[voxels.label] * (1 + 0.06 * bone * voxels.texture)
    return textured + 0.6 * soft * voxels.texture - 5 * voxels.core


def _contrast_ct(voxels: Voxels, seconds: float) -> AnyArray:
    """Plain HU plus iodine in arteries, in veins (5 s later), and in tissue by its blood volume and delay."""
    arteries = ARTERIAL_PEAK_HU * mr.bolus(seconds, 0.0, 8.0)
    delay = voxels.head.lesion.collateral_delay_s
    late = 0.75 * ARTERIAL_PEAK_HU * mr.bolus(seconds, delay, 9.0)
    veins = VENOUS_PEAK_HU * mr.bolus(seconds, 6.0, 9.0)
    _, cbv, tmax = _perfusion(voxels)
    tissue = cbv / 100 * ARTERIAL_PEAK_HU * mr.bolus(seconds, tmax, 9.0)
    tissue = np.where(voxels.has(*VESSEL), 0, tissue)
    since = seconds / 24
    tumour_leak = 25 * min(1.0, since) * voxels.has(Label.ENHANCING)
    leak = tumour_leak + 12 * voxels.has(Label.SKIN, Label.MUSCLE) * since
    iodine = (
        arteries * voxels.has(Label.ARTERY)
        + veins * voxels.has(Label.VEIN)
        + late * voxels.has(Label.ARTERY_BEYOND_CLOT)
    )
    return _hounsfield(voxels) + tissue + leak + iodine


def _perfusion(voxels: Voxels) -> tuple[AnyArray, AnyArray, AnyArray]:
    """CBF (ml/100 g/min), CBV (ml/100 g) = CBF · MTT, and Tmax (s).

    CBF is below 30 % of normal in the core; Tmax is above 6 s in core and penumbra. Source: Albers et al. 2018, N Engl J
    Med 378:708. CBV is normal in the penumbra, where vessels widen, and low in the core: Wintermark et al. 2006, Stroke
    37:979.
    """
    tissue = voxels.head.tissue
    stroke = voxels.core + voxels.penumbra
    cbf = voxels.of(tissue.cbf, 0.06) * (1 - 0.84 * voxels.core - 0.58 * voxels.penumbra)
    mtt = voxels.of(tissue.mtt_s) * (1 + 1.6 * voxels.core + 1.5 * voxels.penumbra)
    normal = np.clip(tissue.tmax_s[voxels.label] + 0.25 * voxels.texture * (cbf > 0), 0, 5)
    delay = voxels.head.lesion.collateral_delay_s
    late = np.maximum(1.05 * delay + 0.5 * voxels.texture + 3.5 * voxels.core, 6.6)
    return cbf, cbf * mtt / 60, np.where(stroke > 0, late, normal)


def _perfusion_map(voxels: Voxels, name: str) -> AnyArray:
    return _perfusion(voxels)[PERFUSION.index(name)]


_MR: dict[str, Callable[[Voxels], AnyArray]] = {
    "t1": _t1,
    "t1c": partial(_t1, dose=1),
    "t2": partial(_spin_echo, protocol=mr.T2),
    "flair": _flair,
    "pd": partial(_spin_echo, protocol=mr.PD),
    "swi": _swi,
    "tof": _tof,
}
# The order seeds the noise of each modality.
_EQUATIONS: dict[str, Callable[[Voxels], AnyArray]] = {
    **_MR,
    **dict.fromkeys(("ncct", "ct"), _hounsfield),
    **{name: partial(_contrast_ct, seconds=seconds) for name, seconds in PHASE_S.items()},
    **{name: partial(_perfusion_map, name=name) for name in PERFUSION},
}
MODALITIES = tuple(_EQUATIONS)
MR = frozenset(_MR)


def signal(head: Head, modality: str) -> AnyArray:
    """The image without noise, blur or shading, [D, H, W] float32: HU, ml/100 g(/min), s, or MR a.u.

    A voxel of two tissues has the weighted mean of their signals; its Tmax, a time, is that of its main tissue.
    """
    equation = _EQUATIONS[modality]
    gain = mr.FULL_SCALE if modality in MR else 1.0
    out = np.empty(head.labels.shape, dtype=np.float32)
    for level in range(len(out)):
        main = voxels_of(head, level, head.labels, slice(None))
        out[level] = gain * equation(main)
        if modality != "tmax":
            mixed = head.share[level] < 1
            second = voxels_of(head, level, head.second, mixed)
            other = gain * equation(second)
            share = head.share[level][mixed]
            out[level][mixed] = share * out[level][mixed] + (1 - share) * other
    return out


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
