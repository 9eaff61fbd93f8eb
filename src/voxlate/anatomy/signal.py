"""Maps of the phantom's tissue parameters at 3 T, from which the signal of any MR sequence can be computed.

A voxel of tissue and cerebrospinal fluid has two compartments, whose signals add up: fluid_map is the fluid's share of
the protons, and all other maps are those of the tissue. Mean rates would make such voxels bright in FLAIR, where the
fluid is dark. Of two tissues, rates (1/T1, 1/T2, 1/T2*), fat fraction, contrast agent and flow are means over protons,
and the susceptibility over volume. Voxels without protons have 0. Values are rounded to float16, in which prepared
cohorts store them without loss. Around metal, T2* is short (`metal_rate_per_ms`).

The image of a head in each modality: MR of its tissue-parameter maps, X-ray attenuation, the passage of a bolus.

`signal` is exact in each voxel and free of noise. `image` is what a scanner gives: MR with the effects of `physics`, CT with
those of `expose`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy import scalp
from voxlate.anatomy.contrast import FULL_SCALE, PROTOCOLS, Protocol, bolus, magnitude
from voxlate.anatomy.diseases import Lesion
from voxlate.anatomy.physics import Effects, draw_smooth, in_plane, rician, voxel_places
from voxlate.anatomy.shapes import Triple
from voxlate.anatomy.tissue import BRAIN, FLUID, TUMOUR, VESSEL, Label, Rng, Tissue
from voxlate.base.array_types import AnyArray
from voxlate.scans.images.units import TISSUE_MAPS

LEAST_HU, MOST_HU = -1024.0, 3071.0
# CT of the brain and of vessels is reconstructed with smoother kernels than CT of bone.
_WIDER = {"ct": 1.0, "ncct": 1.6}
_CTA_WIDER = 1.3


@dataclass(frozen=True)
class Exposure:
    """The parameters of one CT scanner and its protocol.

    blur_mm: standard deviation of the kernel in the slice; noise_hu: standard deviation in water; grain_mm: size of its
    grains.
    """

    blur_mm: float
    noise_hu: float
    grain_mm: float


def draw_exposure(rng: Rng) -> Exposure:
    """Draw the parameters of a scanner."""
    return Exposure(*np.exp(rng.uniform(*np.log(((0.25, 1.5, 0.35), (0.9, 14.0, 0.9))))).tolist())


FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex


@dataclass(frozen=True)
class Head:
    """One phantom patient on a grid [D, H, W] (z, y, x; growing to superior, anterior, right).

    labels, second: the tissues (`Label`) with the largest and second largest share of a voxel; share: that of `labels`,
    0..1. lesion_map: 1 core, 2 penumbra of a stroke; 1 necrosis, 2 oedema, 3 enhancing rim of a tumour. texture has
    unit variance. affine: 4 × 4, from the (x, y, z) index to RAS in mm. exposure: of its CT.
    """

    labels: AnyArray
    second: AnyArray
    share: AnyArray
    lesion_map: AnyArray
    texture: AnyArray
    affine: AnyArray
    lesion: Lesion
    tissue: Tissue
    seed: int
    case: int
    exposure: Exposure

    @property
    def spacing_mm(self) -> Triple:
        """Distances of voxels along D, H and W."""
        dx, dy, dz = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(dz), float(dy), float(dx)


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
# The order seeds the noise of each modality.
MODALITIES = (*PROTOCOLS, "ncct", "ct", *PHASE_S, *PERFUSION)


@dataclass(frozen=True)
class Voxels:
    """The two tissues of each voxel of a slice: their labels [2, ...], texture, height and the effect of a stroke on each."""

    head: Head
    label: AnyArray
    texture: AnyArray
    core: AnyArray
    penumbra: AnyArray
    height_mm: float

    def of(self, table: AnyArray, texture: float | AnyArray = 0.0, core: float = 0.0) -> AnyArray:
        """The values of a table for each tissue, with texture and the change in a stroke's core as shares."""
        return table[self.label] * (1 + texture * self.texture + core * self.core)

    def has(self, *labels: Label) -> AnyArray:
        """Whether each tissue is one of these."""
        return np.isin(np.arange(256), labels)[self.label]

    def constant(self, name: str) -> AnyArray:
        """Proton density, T1, T2 or T2* (in ms) of each tissue, by the name of its map."""
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
        out[level][there] = _mix(name, voxels_of(head, level, there), share[there])
    if name == "t2star_map":
        out /= 1 + out * metal_rate_per_ms(head)
    elif name == "fluid_map":
        out[metal_rate_per_ms(head) > 1 / LONG_T2STAR_MS] = 0
    return out.astype(np.float16).astype(np.float32)


def metal_rate_per_ms(head: Head) -> AnyArray:
    """The rate that metal adds to 1/T2*, [D, H, W].

    The field of a dipole falls with the third power of the distance, and its gradient, which dephases, with the fourth.
    """
    rate = np.zeros(head.labels.shape)
    for label, reach_mm in METAL_REACH_MM.items():
        there = head.labels == label
        if there.any():
            distance_mm = ndimage.distance_transform_edt(~there, sampling=head.spacing_mm)
            rate += (reach_mm / (reach_mm + distance_mm)) ** 4 / METAL_T2STAR_MS
    return rate


def _mix(name: str, voxels: Voxels, share: AnyArray) -> AnyArray:
    """The values of a map of voxels with this share of their first tissue."""
    shares = np.stack([share, 1 - share])
    if name == "chi_map":
        return np.asarray((shares * voxels.of(voxels.head.tissue.chi_ppm)).sum(0))
    protons = shares * voxels.constant("pd_map")
    total = protons.sum(0)
    if name == "pd_map":
        return np.asarray(total)
    there = total > 0
    divisor = np.where(there, total, 1)
    is_fluid = voxels.has(*FREE_WATER)
    if name == "fluid_map":
        return np.asarray((protons * is_fluid).sum(0) / divisor)
    solid = protons * ~is_fluid
    solid_total = solid.sum(0)
    has_solid = solid_total > 0
    # where all is fluid, the maps are those of fluid
    counted = np.where(has_solid, solid[0], protons[0])
    weight = counted / np.where(has_solid, solid_total, divisor)
    first, second = _per_proton(name, voxels)
    mean = weight * first + (1 - weight) * second
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


def voxels_of(head: Head, level: int, where: AnyArray | slice) -> Voxels:
    """The voxels of a slice that `where` selects."""
    label = np.stack([head.labels[level][where], head.second[level][where]])
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


def signal(head: Head, modality: str) -> AnyArray:
    """The image without noise, blur or shading, [D, H, W] float32: HU, ml/100 g(/min), s, or MR a.u.

    A voxel of two tissues has the weighted mean of their HU and perfusion; its Tmax, a time, is that of its main tissue.
    """
    if modality in PROTOCOLS:
        return _magnitude(head, PROTOCOLS[modality])
    out = np.empty(head.labels.shape, dtype=np.float32)
    for level in range(len(out)):
        voxels = voxels_of(head, level, slice(None))
        if modality in PERFUSION:
            first, second = _perfusion(voxels)[PERFUSION.index(modality)]
        elif modality in PHASE_S:
            first, second = _contrast_ct(voxels, PHASE_S[modality])
        else:
            first, second = _hounsfield(voxels)
        out[level] = first
        if modality != "tmax":
            share = head.share[level]
            out[level] = share * out[level] + (1 - share) * second
    return out


def _magnitude(head: Head, protocol: Protocol) -> AnyArray:
    """The MR signal of a head's tissue-parameter maps, as contrasts are drawn from stored ones."""
    maps = {name: tissue_map(head, name) for name in protocol.maps}
    there = maps["pd_map"] > 0
    out = np.zeros(there.shape, np.float32)
    out[there] = FULL_SCALE * magnitude(protocol, {k: v[there] for k, v in maps.items()})
    return out


def image(head: Head, modality: str) -> AnyArray:
    """One modality as a scanner gives it, [D, H, W] float32; MR (a.u.) and CT (HU) have whole numbers.

    MR gets Rician noise and a smooth shading, CT what `exposure` states, perfusion Gaussian noise. The same head gives the same image.
    """
    rng = np.random.default_rng([head.seed, head.case, 1 + MODALITIES.index(modality)])
    clean = signal(head, modality)
    if modality in PROTOCOLS:
        return _received(clean, head.spacing_mm, rng)
    if modality in PERFUSION:
        return _perfusion_map(head, modality, clean, rng)
    return expose(clean, head.exposure, modality, head.spacing_mm, rng)


def _received(clean: AnyArray, spacing_mm: Triple, rng: Rng) -> AnyArray:
    """The MR image of a signal, in whole numbers."""
    gain = draw_smooth(rng, _BIAS)
    effects = Effects(kept=(_KEPT, _KEPT), filtered=_FILTERED)
    places = voxel_places(np.ogrid[tuple(map(slice, clean.shape))], clean.shape)
    shaded = in_plane(clean * np.exp(gain.at(places)), effects, spacing_mm[1:])
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


def expose(
    clean: AnyArray, exposure: Exposure, modality: str, spacing_mm: Triple, rng: Rng
) -> AnyArray:
    """The CT image [D, H, W] of a scanner in whole HU; clean: its HU without any effect."""
    wider = _WIDER.get(modality, _CTA_WIDER)
    blur_mm = exposure.blur_mm * wider
    image = _smooth(clean, (0, blur_mm, blur_mm), spacing_mm)
    level_hu = exposure.noise_hu / wider**2
    image += level_hu * grains(image.shape, exposure.grain_mm * wider, spacing_mm, rng)
    return np.rint(np.clip(image, LEAST_HU, MOST_HU)).astype(np.float32)


def _smooth(image: AnyArray, std_mm: Triple, spacing_mm: Triple) -> AnyArray:
    return ndimage.gaussian_filter(image, np.divide(std_mm, spacing_mm))


def grains(shape: tuple[int, ...], grain_mm: float, spacing_mm: Triple, rng: Rng) -> AnyArray:
    """Noise of unit variance without its lowest frequencies, as filtered back projection leaves it in a slice."""
    white = rng.standard_normal(shape, dtype=np.float32)
    fine = _smooth(white, (0, grain_mm, grain_mm), spacing_mm)
    coarse = _smooth(white, (0, 4 * grain_mm, 4 * grain_mm), spacing_mm)
    # Where a grain is smaller than a voxel, the fine noise is white.
    noise = fine - 0.9 * coarse
    return np.asarray(noise / max(float(noise.std()), 1e-6))
