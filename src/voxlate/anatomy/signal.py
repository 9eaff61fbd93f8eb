"""The image of a head in each modality: MR of its tissue-parameter maps, X-ray attenuation, the passage of a bolus.

`signal` is exact in each voxel and free of noise. `image` is what a scanner gives: MR with the effects of `acquisition`, CT with
those of `exposure`.
"""

import numpy as np

from voxlate.anatomy.acquisition import Effects, draw_smooth, in_plane, rician
from voxlate.anatomy.contrast import FULL_SCALE, PROTOCOLS, Protocol, bolus, magnitude, maps_for
from voxlate.anatomy.exposure import expose
from voxlate.anatomy.head import Head
from voxlate.anatomy.maps import Voxels, tissue_map, voxels_of
from voxlate.anatomy.shapes import Rng
from voxlate.anatomy.tissue import BRAIN, TUMOUR, VESSEL, Label
from voxlate.base.array_types import AnyArray

PERFUSION = ("cbf", "cbv", "tmax")
# Phases are 8 s apart: Menon et al. 2015, Radiology 275:510.
PHASE_S = {"cta": 8.0, "cta1": 8.0, "cta2": 16.0, "cta3": 24.0}
ARTERIAL_PEAK_HU = 340.0
VENOUS_PEAK_HU = 210.0
# Standard deviations are in the modality's unit.
_NOISE = {"cbf": 1.5, "cbv": 0.12, "tmax": 0.2}
_MR_NOISE = 0.012  # share of the signal's 99th percentile
_BIAS = 0.1  # standard deviation of the log coil gain
_KEPT, _FILTERED = 0.95, 0.5  # of k-space: about as a Gaussian of 0.45 voxels


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


def image(head: Head, modality: str) -> AnyArray:
    """One modality as a scanner gives it, [D, H, W] float32; MR (a.u.) and CT (HU) have whole numbers.

    MR gets Rician noise and a smooth shading, CT what `exposure` states, perfusion Gaussian noise. The same head gives the same image.
    """
    if head.hu is not None and modality not in PROTOCOLS:
        return np.rint(head.hu)
    rng = np.random.default_rng([head.seed, head.case, 1 + MODALITIES.index(modality)])
    clean = signal(head, modality)
    if modality in PROTOCOLS:
        return _received(clean, head.spacing_mm, rng)
    if modality in PERFUSION:
        return _perfusion_map(head, modality, clean, rng)
    return expose(clean, head.exposure, modality, head.spacing_mm, rng)


def _received(clean: AnyArray, spacing_mm: tuple[float, float, float], rng: Rng) -> AnyArray:
    """The MR image of a signal, in whole numbers."""
    gain = draw_smooth(rng, _BIAS)
    effects = Effects(kept=(_KEPT, _KEPT), filtered=_FILTERED)
    z, y, x = (
        ((at + 0.5) / n).astype(np.float32)
        for at, n in zip(np.ogrid[tuple(map(slice, clean.shape))], clean.shape)
    )
    shaded = in_plane(clean * np.exp(gain.at((z, y, x))), effects, spacing_mm[1:])
    return np.rint(rician(shaded, _MR_NOISE * float(np.percentile(clean, 99)), rng))


def _perfusion_map(head: Head, modality: str, clean: AnyArray, rng: Rng) -> AnyArray:
    """A perfusion map with noise in the brain; noise never moves Tmax across the 6 s that define hypoperfusion."""
    inside = np.isin(head.labels, [*BRAIN, *TUMOUR, *VESSEL])
    noisy = clean + _NOISE[modality] * rng.standard_normal(clean.shape, dtype=np.float32)
    noisy = np.maximum(noisy, 0)
    if modality == "tmax":
        late = (head.lesion_map > 0) & (head.lesion.kind == "stroke")
        noisy = np.where(late, np.maximum(noisy, 6.2), np.minimum(noisy, 5.6))
    return np.where(inside, noisy, 0).astype(np.float32)
