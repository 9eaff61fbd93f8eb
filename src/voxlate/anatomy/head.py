"""The head on a grid, the one or two tissues of each voxel and their shares, and the CT scanner that shows it."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy.diseases import Lesion
from voxlate.anatomy.shapes import Rng, Triple
from voxlate.anatomy.tissue import Tissue
from voxlate.base.array_types import AnyArray

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


FIELD_MM = (200.0, 240.0, 168.0)  # x, y, z: an adult head from the upper jaw to the vertex


@dataclass(frozen=True)
class Head:
    """One phantom patient on a grid [D, H, W] (z, y, x; growing to superior, anterior, right).

    labels, second: the tissues (`Label`) with the largest and second largest share of a voxel; share: that of `labels`,
    0..1. lesion_map: 1 core, 2 penumbra of a stroke; 1 necrosis, 2 oedema, 3 enhancing rim of a tumour. texture has
    unit variance. affine: 4 × 4, from the (x, y, z) index to RAS in mm. exposure: of its CT; hu: a real
    CT in its place.
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
    hu: AnyArray | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances of voxels along D, H and W."""
        dx, dy, dz = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(dz), float(dy), float(dx)
