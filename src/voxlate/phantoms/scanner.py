"""The scanner's effects on the signal: blur, the coil's shading, noise, and rounding."""

import numpy as np
from scipy import ndimage

from voxlate.phantoms.head import Head
from voxlate.phantoms.signal import MODALITIES, MR, PERFUSION, signal
from voxlate.phantoms.tissue import BRAIN, TUMOUR, VESSEL

# standard deviations in the modality's unit
_NOISE = {"ct": 9.0, "ncct": 2.5, "cbf": 1.5, "cbv": 0.12, "tmax": 0.2}
_CTA_NOISE_HU = 6.0
_MR_NOISE = 0.012  # of the 99th percentile of the signal
# bone kernels are sharp and noisy, brain kernels the reverse
_BLUR_VOXELS = {"ct": 0.3, "ncct": 0.6, "tof": 0.35}


def image(head: Head, modality: str) -> np.ndarray:
    """One modality as a scanner gives it, [D, H, W] float32, in whole numbers for MR (a.u.) and CT (HU).

    Rician noise and a smooth shading for MR, Gaussian noise for CT and perfusion. The same head gives the same image.
    """
    rng = np.random.default_rng([head.seed, head.case, 1 + MODALITIES.index(modality)])
    clean = signal(head, modality)
    if modality in PERFUSION:
        return _fitted(head, modality, clean, rng)
    clean = ndimage.gaussian_filter(clean, _BLUR_VOXELS.get(modality, 0.45))
    if modality in MR:
        clean *= _shading(head, rng)
        level = np.float32(_MR_NOISE * np.percentile(clean, 99))
        real, imaginary = (level * rng.standard_normal(clean.shape, dtype=np.float32) for _ in range(2))
        return np.rint(np.hypot(clean + real, imaginary))
    clean += _NOISE.get(modality, _CTA_NOISE_HU) * rng.standard_normal(clean.shape, dtype=np.float32)
    return np.rint(np.clip(clean, -1024, 3071))


def _fitted(head: Head, modality: str, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise where there is brain; Tmax keeps to its side of the 6 s that define hypoperfusion."""
    inside = np.isin(head.labels, [*BRAIN, *TUMOUR, *VESSEL])
    noisy = clean + _NOISE[modality] * rng.standard_normal(clean.shape, dtype=np.float32)
    noisy = np.maximum(noisy, 0)
    if modality == "tmax":
        late = (head.lesion_map > 0) & (head.lesion.kind == "stroke")
        noisy = np.where(late, np.maximum(noisy, 6.2), np.minimum(noisy, 5.6))
    return np.where(inside, noisy, 0).astype(np.float32)


def _shading(head: Head, rng: np.random.Generator) -> np.ndarray:
    """The receive coil's sensitivity: a smooth positive field of about ±12 % and mean near 1."""
    field: np.ndarray = np.zeros((1, 1, 1), dtype=np.float32)
    for order in (
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (2, 0, 0),
        (0, 2, 0),
        (0, 0, 2),
        (1, 1, 0),
        (0, 1, 1),
    ):
        wave: np.ndarray = np.full((1, 1, 1), rng.standard_normal() / sum(order), dtype=np.float32)
        for axis, (k, n) in enumerate(zip(order, head.labels.shape)):
            at = ((np.arange(n) + 0.5) / n).astype(np.float32)
            wave = wave * np.cos(np.pi * k * at).reshape([n if a == axis else 1 for a in range(3)])
        field = field + wave
    return np.exp(0.07 * field)
