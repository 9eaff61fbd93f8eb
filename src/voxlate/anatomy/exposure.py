"""How one CT scanner exposes and reconstructs a head: kernel, noise, beam hardening, metal.

The beam hardening and the streaks approximate the shapes and sizes of the artefacts, not the spectrum of a tube.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy.shapes import Rng, Triple
from voxlate.base.array_types import AnyArray

LEAST_HU, MOST_HU = -1024.0, 3071.0
_BONE_HU = 300.0
_DENSE_HU = 1500.0
_ANGLES = 120  # projections of a slice with metal
# CT of the brain and of vessels is reconstructed with smoother kernels than CT of bone.
_WIDER = {"ct": 1.0, "ncct": 1.6}
_CTA_WIDER = 1.3


@dataclass(frozen=True)
class Exposure:
    """The parameters of one CT scanner and its protocol.

    blur_mm: standard deviation of the kernel in the slice; edge: share of the detail that a sharp kernel adds. noise_hu:
    standard deviation in water; grain_mm: size of its grains. cupping_hu, band_hu: beam hardening, high beside bone and
    low in the middle, and dark bands between dense bones. raised_hu: by which bone around it raises soft tissue (Brooks
    and Di Chiro 1976, Phys Med Biol 21:390). streak_hu: of metal.
    """

    blur_mm: float
    edge: float
    noise_hu: float
    grain_mm: float
    cupping_hu: float
    band_hu: float
    raised_hu: float
    streak_hu: float


def draw(rng: Rng) -> Exposure:
    """Draw the parameters of a scanner."""
    edge = max(float(rng.uniform(-0.6, 0.6)), 0.0)
    low, high = np.log((0.25, 1.5, 0.35)), np.log((0.9, 14.0, 0.9))
    blur, noise, grain = np.exp(rng.uniform(low, high)).tolist()
    lows, highs = (1, 2, 60, 2), (6, 14, 500, 9)
    cupping, band, streak, raised = rng.uniform(lows, highs).tolist()
    return Exposure(blur, edge, noise, grain, cupping, band, raised, streak)


def expose(
    clean: AnyArray,
    exposure: Exposure,
    modality: str,
    spacing_mm: Triple,
    metal: AnyArray,
    rng: Rng,
) -> AnyArray:
    """The CT image [D, H, W] of a scanner in whole HU; clean: its HU without any effect; metal: bool, [D, H, W]."""
    wider = _WIDER.get(modality, _CTA_WIDER)
    image = clean + beam_hardening(clean, exposure, spacing_mm)
    image += streaks(metal, exposure.streak_hu)
    image = _kernel(image, exposure, spacing_mm, wider)
    level_hu = exposure.noise_hu / wider**2
    image += level_hu * grains(image.shape, exposure.grain_mm * wider, spacing_mm, rng)
    return np.rint(np.clip(image, LEAST_HU, MOST_HU)).astype(np.float32)


def _kernel(image: AnyArray, exposure: Exposure, spacing_mm: Triple, wider: float) -> AnyArray:
    blur_mm = exposure.blur_mm * wider
    soft = _smooth(image, (0, blur_mm, blur_mm), spacing_mm)
    if exposure.edge == 0 or wider > 1:
        return soft
    return soft + exposure.edge * (soft - _smooth(soft, (0, 1.2, 1.2), spacing_mm))


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


def beam_hardening(clean: AnyArray, exposure: Exposure, spacing_mm: Triple) -> AnyArray:
    """HU that are added: inside the skull, with cupping, and dark bands between bones on the left and on the right.

    The latter two are differences of Gaussians of the bone. Cupping is at most cupping_hu, the bands are at most band_hu dark.
    """
    bone = np.clip((clean - _BONE_HU) / 1000, 0, 1).astype(np.float32)
    far = _smooth(bone, (4, 38, 38), spacing_mm)
    cup = _smooth(bone, (4, 14, 14), spacing_mm) - far
    dense = np.clip((clean - 600) / (_DENSE_HU - 600), 0, 1).astype(np.float32)
    line = _smooth(dense, (1.5, 2.5, 24), spacing_mm)
    around = _smooth(dense, (1.5, 10, 24), spacing_mm)
    # Bands lie between dense bones, not in them.
    band = np.clip(line - around, 0, None) * (1 - bone)
    matter = np.clip((clean + 500) / 500, 0, 1)  # air is clipped by scanners, and shows neither
    added = exposure.cupping_hu * _unit(cup) - exposure.band_hu * _unit(band)
    added += exposure.raised_hu * np.clip(2 * _unit(far), 0, 1)
    return np.asarray(added * matter, np.float32)


def _unit(field: AnyArray) -> AnyArray:
    """The field with a largest absolute value of 1."""
    return field / max(float(np.abs(field).max()), 1e-6)


def streaks(metal: AnyArray, streak_hu: float) -> AnyArray:
    """HU that are added by metal in its slices: filtered back projection of the error of its traces, [D, H, W]."""
    out = np.zeros(metal.shape, np.float32)
    for level in np.flatnonzero(metal.any((1, 2))):
        out[level] = streak_hu * _slice_streaks(metal[level].astype(np.float32))
    return out


def _slice_streaks(metal: AnyArray) -> AnyArray:
    """Streaks of one slice [H, W]; 99.9 % of the voxels outside the metal are within -1..1."""
    height, width = metal.shape
    y, x = np.mgrid[:height, :width]
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    rows, columns = np.nonzero(metal)
    at_y, at_x = rows - (height - 1) / 2, columns - (width - 1) / 2
    bins = 2 * int(np.ceil(np.hypot(height, width) / 2)) + 5
    ramp = np.abs(np.fft.rfftfreq(bins))
    image = np.zeros(metal.shape)
    for angle in np.pi * (np.arange(_ANGLES) + 0.5) / _ANGLES:
        sine, cosine = np.sin(angle), np.cos(angle)
        trace = _trace(at_x * cosine + at_y * sine + bins // 2, bins)
        # A detector counts too much behind much metal: the trace is short of its square, to first order.
        filtered = np.fft.irfft(np.fft.rfft(-(trace**2)) * ramp, bins)
        image += np.interp(x * cosine + y * sine + bins // 2, np.arange(bins), filtered)
    outside = metal == 0
    scale = np.percentile(np.abs(image[outside]), 99.9) if outside.any() else 0.0
    return np.where(outside, image / max(float(scale), 1e-6), 0).astype(np.float32)


def _trace(position: AnyArray, bins: int) -> AnyArray:
    """The projection of points at these positions, each shared by its two bins."""
    low = np.floor(position).astype(int)
    share = position - low
    first = np.bincount(low, 1 - share, minlength=bins)
    return np.asarray(first + np.bincount(low + 1, share, minlength=bins))
