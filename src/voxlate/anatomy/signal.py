"""The signal of a head in each modality: MR of its tissue-parameter maps, X-ray attenuation, the passage of a bolus.

The signal is exact in each voxel and free of noise; `scanner` adds noise, blur and shading.
"""

import numpy as np

from voxlate.anatomy.contrast import FULL_SCALE, PROTOCOLS, Protocol, bolus, magnitude, maps_for
from voxlate.anatomy.head import Head
from voxlate.anatomy.maps import Voxels, tissue_map, voxels_of
from voxlate.anatomy.tissue import BRAIN, TUMOUR, VESSEL, Label
from voxlate.base.array_types import AnyArray

PERFUSION = ("cbf", "cbv", "tmax")
# Phases are 8 s apart: Menon et al. 2015, Radiology 275:510.
PHASE_S = {"cta": 8.0, "cta1": 8.0, "cta2": 16.0, "cta3": 24.0}
ARTERIAL_PEAK_HU = 340.0
VENOUS_PEAK_HU = 210.0


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
    arteries = ARTERIAL_PEAK_HU * bolus(seconds, 0.0, 8.0)
    delay = voxels.head.lesion.collateral_delay_s
    late = 0.75 * ARTERIAL_PEAK_HU * bolus(seconds, delay, 9.0)
    veins = VENOUS_PEAK_HU * bolus(seconds, 6.0, 9.0)
    _, cbv, tmax = _perfusion(voxels)
    tissue = cbv / 100 * ARTERIAL_PEAK_HU * bolus(seconds, tmax, 9.0)
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


# The order seeds the noise of each modality.
MODALITIES = (*PROTOCOLS, "ncct", "ct", *PHASE_S, *PERFUSION)


def signal(head: Head, modality: str) -> AnyArray:
    """The image without noise, blur or shading, [D, H, W] float32: HU, ml/100 g(/min), s, or MR a.u.

    A voxel of two tissues has the weighted mean of their HU and perfusion; its Tmax, a time, is that of its main tissue.
    """
    if modality in PROTOCOLS:
        return _magnitude(head, PROTOCOLS[modality])
    out = np.empty(head.labels.shape, dtype=np.float32)
    for level in range(len(out)):
        out[level] = _values(modality, voxels_of(head, level, head.labels, slice(None)))
        if modality != "tmax":
            mixed = head.share[level] < 1
            other = _values(modality, voxels_of(head, level, head.second, mixed))
            share = head.share[level][mixed]
            out[level][mixed] = share * out[level][mixed] + (1 - share) * other
    return out


def _magnitude(head: Head, protocol: Protocol) -> AnyArray:
    """The MR signal of a head's tissue-parameter maps, as contrasts are drawn from stored ones."""
    names = maps_for(protocol.kind, protocol.dose > 0, protocol.fat_removed > 0)
    maps = {name: tissue_map(head, name) for name in names}
    there = maps["pd_map"] > 0
    out = np.zeros(there.shape, np.float32)
    out[there] = FULL_SCALE * magnitude(protocol, {k: v[there] for k, v in maps.items()})
    return out


def _values(modality: str, voxels: Voxels) -> AnyArray:
    """The values of a CT or perfusion map."""
    if modality in PERFUSION:
        return _perfusion(voxels)[PERFUSION.index(modality)]
    if modality in PHASE_S:
        return _contrast_ct(voxels, PHASE_S[modality])
    return _hounsfield(voxels)
