"""The scanner's effects on the signal: blur, coil shading, noise, and rounding."""

import numpy as np
from scipy import ndimage

from voxlate.anatomy.exposure import expose
from voxlate.anatomy.head import Head
from voxlate.anatomy.shapes import Rng
from voxlate.anatomy.signal import MODALITIES, MR, PERFUSION, signal
from voxlate.anatomy.tissue import BRAIN, METAL, TUMOUR, VESSEL
from voxlate.base.array_types import AnyArray

# Standard deviations are in the modality's unit.
_NOISE = {"cbf": 1.5, "cbv": 0.12, "tmax": 0.2}
_MR_NOISE = 0.012  # share of the signal's 99th percentile
_BLUR_VOXELS = {"tof": 0.35}


def image(head: Head, modality: str) -> AnyArray:
    """One modality as a scanner gives it, [D, H, W] float32; MR (a.u.) and CT (HU) have whole numbers.

    MR gets Rician noise and a smooth shading, CT what `exposure` states, perfusion Gaussian noise. The same head gives the same image.
    """
    if head.hu is not None and modality not in MR:
        return np.rint(head.hu)
    rng = np.random.default_rng([head.seed, head.case, 1 + MODALITIES.index(modality)])
    clean = signal(head, modality)
    if modality in PERFUSION:
        return _perfusion_map(head, modality, clean, rng)
    if modality not in MR:
        metal = np.isin(head.labels, METAL)
        return expose(clean, head.exposure, modality, head.spacing_mm, metal, rng)
    clean = ndimage.gaussian_filter(clean, _BLUR_VOXELS.get(modality, 0.45))
    clean *= _coil(head, rng)
    level = np.float32(_MR_NOISE * np.percentile(clean, 99))
    real, imaginary = level * rng.standard_normal((2, *clean.shape), dtype=np.float32)
    return np.rint(np.hypot(clean + real, imaginary))


def _perfusion_map(head: Head, modality: str, clean: AnyArray, rng: Rng) -> AnyArray:
    """A perfusion map with noise in the brain; noise never moves Tmax across the 6 s that define hypoperfusion."""
    inside = np.isin(head.labels, [*BRAIN, *TUMOUR, *VESSEL])
    noisy = clean + _NOISE[modality] * rng.standard_normal(clean.shape, dtype=np.float32)
    noisy = np.maximum(noisy, 0)
    if modality == "tmax":
        late = (head.lesion_map > 0) & (head.lesion.kind == "stroke")
        noisy = np.where(late, np.maximum(noisy, 6.2), np.minimum(noisy, 5.6))
    return np.where(inside, noisy, 0).astype(np.float32)


# Of the cosines along z, y and x whose sum is the coil's sensitivity.
_ORDERS = "100 010 001 200 020 002 110 011"


def _coil(head: Head, rng: Rng) -> AnyArray:
    """The receive coil's sensitivity: a smooth positive field of about ±12 % and mean near 1."""
    lengths = head.labels.shape
    axes = np.ogrid[tuple(map(slice, lengths))]
    places = [((at + 0.5) / n).astype(np.float32) for at, n in zip(axes, lengths)]
    field = np.zeros((1, 1, 1), dtype=np.float32)
    for order in _ORDERS.split():
        powers = list(map(int, order))
        wave = np.full((1, 1, 1), rng.standard_normal() / sum(powers), dtype=np.float32)
        for k, at in zip(powers, places):
            wave = wave * np.cos(np.pi * k * at)
        field = field + wave
    return np.exp(0.07 * field)
