"""The image of a head as a scanner gives it: MR with the effects of `acquisition`, CT with those of `exposure`."""

import numpy as np

from voxlate.anatomy.acquisition import Effects, draw_smooth, in_plane, rician
from voxlate.anatomy.contrast import PROTOCOLS
from voxlate.anatomy.exposure import expose
from voxlate.anatomy.head import Head
from voxlate.anatomy.shapes import Rng
from voxlate.anatomy.signal import MODALITIES, PERFUSION, signal
from voxlate.anatomy.tissue import BRAIN, TUMOUR, VESSEL
from voxlate.base.array_types import AnyArray

# Standard deviations are in the modality's unit.
_NOISE = {"cbf": 1.5, "cbv": 0.12, "tmax": 0.2}
_MR_NOISE = 0.012  # share of the signal's 99th percentile
_BIAS = 0.1  # standard deviation of the log coil gain
_KEPT, _FILTERED = 0.95, 0.5  # of k-space: about as a Gaussian of 0.45 voxels


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
