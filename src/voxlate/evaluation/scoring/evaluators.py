"""The metrics of public challenges, with the conventions of their evaluators.

They are further scopes of an evaluation. The function of a challenge takes a truth, an image and a mask [D, H, W] in the
orientation of the truth's file. Sources: the public code of the evaluators at the commits below, and Wang et al. 2003
(MS-SSIM, Asilomar) and 2004 (SSIM).
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import nibabel as nib
import numpy as np
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool
from voxlate.base.errors import BadInput
from voxlate.base.similarity import K1, K2, RADIUS, SIGMA, ssim_map
from voxlate.evaluation.scoring.metrics import mae, mean_inside, psnr
from voxlate.evaluation.scoring.scored_regions import mask_of, on_grid_of
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, orient
from voxlate.scans.images.ranges import WHOLE_MASK

HU_2023 = (-1024.0, 3000.0)  # SynthRAD2023/metrics, fe7e385
HU_2025 = (-1024.0, 3071.0)  # SynthRAD2025/evaluation, 17cac47; 3000 in its first versions
WINDOW = 7  # voxels a side of the uniform window of scikit-image
EDGE = (WINDOW - 1) // 2  # voxels at each end that do not count
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2
LEAST_SIDE = 97  # voxels to which smaller images are padded: the coarsest scale holds a window
PERCENTILES = (0.5, 99.5)  # hongweilibran/BraSyn, 4d9af6d
SYNTHRAD = (
    "conventions of its evaluator: the values of the files, in the mask of the cohort or of --mask"
)
BRASYN = (
    "conventions of its published script: each image over its own percentiles, by the label map seg"
)
SCOPES = {
    WHOLE_MASK: "every voxel",
    "synthrad2023": SYNTHRAD,
    "synthrad2025": SYNTHRAD,
    "brasyn": BRASYN,
}


def scopes_from(names: Iterable[str], regions: Collection[str]) -> tuple[str, ...]:
    """The names of scopes, each once; raises BadInput for others, and for those of regions."""
    for name in names:
        if name not in SCOPES:
            raise BadInput(
                f"--scopes: expected one of {', '.join(SCOPES)}, found {name!r}. Choose one of these."
            )
        if name in regions:
            raise BadInput(
                f"--scopes {name}: expected no region of that name, found one. Rename the region."
            )
    return tuple(dict.fromkeys(names))


def synthrad2023(truth: AnyArray, image: AnyArray, mask: Bool) -> dict[str, float]:
    """MAE (HU, not clipped), PSNR and SSIM inside the mask, by HU from -1024 to 3000, in float32 as the evaluator.

    SSIM: uniform window of 7 voxels in three directions over both images, which are -1024 HU outside the mask.
    """
    a, b = (np.asarray(one, np.float32) for one in (truth, image))
    luminance, contrast, structure = _terms(*_above_low(a, b, mask, HU_2023), HU_2023)
    ssim = _inner_mean(luminance * contrast * structure, mask)
    return {"mae": mae(a, b, mask), "psnr": _psnr(a, b, mask, HU_2023), "ssim": ssim}


def synthrad2025(truth: AnyArray, image: AnyArray, mask: Bool) -> dict[str, float]:
    """MAE (HU, not clipped), PSNR and MS-SSIM inside the mask, by HU from -1024 to 3071, in float64.

    MS-SSIM: of five scales, each with the terms of luminance, contrast and structure to the power of the scale's weight
    (Wang et al. 2003 take the luminance of the coarsest scale alone) and the mean inside the mask. Smaller images are
    padded to 97 voxels by their edge.
    """
    a, b = (np.asarray(one, np.float64) for one in (truth, image))
    scores = {"mae": mae(a, b, mask), "psnr": _psnr(a, b, mask, HU_2025)}
    a, b = _above_low(a, b, mask, HU_2025)
    lacking = [max(LEAST_SIDE - side, 0) for side in mask.shape]
    ends = [(missing // 2, missing - missing // 2) for missing in lacking]
    a, b = (np.pad(one, ends, mode="edge") for one in (a, b))
    mask = np.pad(mask, ends, mode="edge")
    product = 1.0
    for weight in SCALE_WEIGHTS:
        luminance, contrast, structure = _terms(a, b, HU_2025)
        similarity = luminance**weight * contrast**weight * structure**weight
        product *= float(np.clip(_inner_mean(similarity, mask), 0, 1))
        a = _halve(a)
        b = _halve(b)
        mask = mask[::2, ::2, ::2]
    return {**scores, "ms_ssim": product}


def brasyn(truth: AnyArray, image: AnyArray, mask: Bool) -> dict[str, float]:
    """SSIM inside the tumour (the mask), and of the rest of the image.

    Each image is scaled to [0, 1] by its own 0.5th and 99.5th percentile (the first at least 0) and set to 0 outside the
    part that is scored; Gaussian window of 11 voxels in three directions, mirrored ends, range of the larger of both
    images, as SSIM of torchmetrics.
    """
    scaled = []
    for values in (np.asarray(one, np.float64) for one in (truth, image)):
        low, high = np.percentile(values, PERCENTILES)
        low = max(low, 0.0)
        scaled.append((np.clip(values, low, high) - low) / (high - low))
    a, b = scaled
    parts = {"ssim_tumour": mask, "ssim_healthy": ~mask}
    return {key: _gaussian_ssim(a * part, b * part, part) for key, part in parts.items()}


CHALLENGES: dict[str, Callable[[AnyArray, AnyArray, Bool], dict[str, float]]] = {
    "synthrad2023": synthrad2023,
    "synthrad2025": synthrad2025,
    "brasyn": brasyn,
}


def _psnr(a: AnyArray, b: AnyArray, mask: Bool, range_hu: tuple[float, float]) -> float:
    a, b = (np.clip(one, *range_hu) for one in (a, b))
    return psnr(a, b, range_hu[1] - range_hu[0], mask)


def _above_low(
    a: AnyArray, b: AnyArray, mask: Bool, range_hu: tuple[float, float]
) -> tuple[AnyArray, AnyArray]:
    """Both images clipped to a range, at its low end outside the mask, and measured from there."""
    low = a.dtype.type(range_hu[0])
    a, b = (np.where(mask, np.clip(one, *range_hu), low) - low for one in (a, b))
    return a, b


def _terms(
    a: AnyArray, b: AnyArray, range_hu: tuple[float, float]
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """The luminance, contrast and structure of SSIM at each voxel, none below 0; their product is SSIM.

    Sample covariances as in scikit-image; C3 = C2 / 2. Source: Wang et al. 2004, eqs. 6, 9 and 10.
    """
    if min(a.shape) < WINDOW:
        size = "×".join(map(str, reversed(a.shape)))
        raise BadInput(
            f"--scopes: expected images of at least {WINDOW} voxels along each axis for SSIM of SynthRAD, found {size}. Drop this score."
        )
    width = range_hu[1] - range_hu[0]
    c1 = (K1 * width) ** 2
    c2 = (K2 * width) ** 2
    sample = WINDOW**3 / (WINDOW**3 - 1)

    def uniform(image: AnyArray) -> AnyArray:
        mean: AnyArray = ndimage.uniform_filter(image, size=WINDOW)
        return mean

    mean_a = uniform(a)
    mean_b = uniform(b)
    variance_a = np.maximum(sample * (uniform(a * a) - mean_a * mean_a), 0)
    variance_b = np.maximum(sample * (uniform(b * b) - mean_b * mean_b), 0)
    covariance = sample * (uniform(a * b) - mean_a * mean_b)
    spread = np.sqrt(variance_a) * np.sqrt(variance_b)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    contrast = (2 * spread + c2) / (variance_a + variance_b + c2)
    structure = (covariance + c2 / 2) / (spread + c2 / 2)
    return luminance, contrast, structure


def _inner_mean(similarity: AnyArray, mask: Bool) -> float:
    """The mean inside the mask, without the ends of the image, where windows are not complete."""
    inner = (slice(EDGE, -EDGE),) * 3
    return mean_inside(similarity[inner], mask[inner])


def _halve(image: AnyArray) -> AnyArray:
    """Every second voxel of the mean of 2 x 2 x 2 voxels, with zeros before the first one."""
    from scipy.signal import fftconvolve  # slow to import, and needed by one challenge

    mean: AnyArray = fftconvolve(image, np.full((2, 2, 2), 1 / 8), mode="same")
    return mean[::2, ::2, ::2]


def _gaussian_ssim(a: AnyArray, b: AnyArray, mask: Bool) -> float:
    """The mean SSIM inside a mask, up to the ends of the image; NaN of an empty mask."""
    if not mask.any():
        return math.nan
    width = max(float(np.ptp(a)), float(np.ptp(b)))

    def gaussian(image: AnyArray) -> AnyArray:
        mean: AnyArray = ndimage.gaussian_filter(image, SIGMA, mode="mirror", radius=RADIUS)
        return mean

    return mean_inside(ssim_map(a, b, width, gaussian), mask)


def challenge_scores(
    name: str, truth: Volume, image: Volume, mask: Bool | None, case: CaseFiles
) -> dict[str, float]:
    """The scores of an image in a challenge by key, on the voxels as they are in the truth's file.

    truth, image: canonical, on one grid, in their own unit; mask: of the evaluation. Raises BadInput for an image in
    other units, and for a case without the mask or label map.
    """
    if truth.unit != "HU" and name != "brasyn":
        raise BadInput(
            f"--scopes {name}: expected a CT in HU, found {truth.modality} in {truth.unit}. Drop it for this modality."
        )
    if name == "brasyn":
        if "seg" not in case.labels:
            raise BadInput(
                f"--scopes {name}: expected the label map seg of {case.case}, which separates tumour and the rest, found none. Add it to the cohort."
            )
        mask = on_grid_of(truth, case.labels["seg"], "seg").data[0] > 0
    elif mask is None:
        mask = mask_of("cohort", truth, case)
    assert mask is not None
    stored = read_volume(case.files[truth.modality], truth.modality)
    axes = "".join(nib.orientations.aff2axcodes(stored.affine))

    def as_stored(values: AnyArray) -> AnyArray:
        """An array [D, H, W] in the orientation of the file, on which halving an image depends."""
        return orient(replace(truth, data=values.astype(np.float32)[None]), axes).data[0]

    a = as_stored(truth.data[0])
    b = as_stored(image.data[0])
    scores = CHALLENGES[name](a, b, as_stored(mask) > 0)
    return {f"{name}.{key}": value for key, value in scores.items()}
