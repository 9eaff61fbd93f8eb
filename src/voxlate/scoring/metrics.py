"""Scores of a synthesis against the truth: arrays in, one float out, every choice in the arguments."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Padding = Literal["valid", "same"]

SIGMA = 1.5  # Wang et al. 2004, section III.B: an 11 x 11 Gaussian window of 1.5 pixels
RADIUS = 5
K1, K2 = 0.01, 0.03
SLAB_VOXELS = 1 << 21  # a slab's ten temporary float32 maps then stay under 100 MiB


def mae(truth: Any, synthesis: Any, mask: Any = None) -> float:
    """Mean absolute error, in the unit of the images; inside the mask where one is given."""
    truth, synthesis = _pair(truth, synthesis, mask)
    return float(np.mean(np.abs(synthesis - truth), dtype=np.float64))


def rmse(truth: Any, synthesis: Any, mask: Any = None) -> float:
    """Root of the mean squared error, in the unit of the images; inside the mask where one is given."""
    truth, synthesis = _pair(truth, synthesis, mask)
    return float(np.sqrt(np.mean(np.square(synthesis - truth, dtype=np.float64))))


def psnr(truth: Any, synthesis: Any, data_range: float, mask: Any = None) -> float:
    """Peak signal-to-noise ratio in dB: 20 log10(range / RMSE); infinite where the images are equal."""
    error = rmse(truth, synthesis, mask)
    return float(20 * np.log10(data_range / error)) if error > 0 else float("inf")


def ssim(
    truth: Any,
    synthesis: Any,
    data_range: float,
    *,
    dimensions: Literal[2, 3] = 2,
    padding: Padding = "valid",
    mask: Any = None,
) -> float:
    """Structural similarity with a Gaussian window of 11 (sigma 1.5), K1 = 0.01, K2 = 0.03.

    truth, synthesis: [..., H, W] (2) or [..., D, H, W] (3), measured from the low end of the range, since the
    luminance term is not blind to an offset. 2 is the mean over slices, 3 uses one window in three directions.
    padding "valid" keeps the windows that lie wholly inside the image, "same" extends the image with zeros.
    With a mask: the mean of the similarity map inside it. NaN where no window fits, or the mask is empty.
    Source: Wang et al. 2004, eq. 13.
    """
    a, b = (_stack(image, dimensions) for image in (truth, synthesis))
    inside = None if mask is None else _stack(mask, dimensions).astype(bool)
    total, count = 0.0, 0
    for item in range(len(a)):
        region = None if inside is None else inside[item]
        part, size = _ssim_sum(a[item], b[item], data_range, dimensions, padding, region)
        total, count = total + part, count + size
    return total / count if count else float("nan")


def nmi(truth: Any, synthesis: Any, low: float, high: float, *, bins: int = 64, mask: Any = None) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b): 1 says independent, 2 says each determines the other.

    The histogram has `bins` equal bins over [low, high]; values outside count in the end bins.
    NaN where both images are constant. Source: Studholme et al. 1999, eq. 6.
    """
    a, b = (_bin(image, low, high, bins) for image in _pair(truth, synthesis, mask))
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins)
    both = _entropy(joint)
    return (_entropy(joint.sum(1)) + _entropy(joint.sum(0))) / both if both > 0 else float("nan")


def gradient_strength(
    truth: Any, synthesis: Any, mask: Any = None, *, along: Literal["rows", "slices"] = "rows"
) -> float:
    """Mean |difference of neighbouring rows, or slices| of the synthesis over the truth's.

    1 is right, below is blur, above is noise (between slices: flicker). Images [..., H, W], or [..., D, H, W] along
    slices; with a mask both neighbours lie inside it. NaN where the truth has no gradient, as of one slice alone.
    """
    axis = -2 if along == "rows" else -3
    pair: Any = ...
    if mask is not None:
        inside = np.moveaxis(_array(mask).astype(bool), axis, 0)
        pair = inside[1:] & inside[:-1]
    sums = []
    for image in (truth, synthesis):
        steps = np.abs(np.diff(np.moveaxis(_array(image), axis, 0), axis=0))
        sums.append(float(np.sum(steps[pair], dtype=np.float64)))
    return sums[1] / sums[0] if sums[0] > 0 else float("nan")


def dice(a: Any, b: Any) -> float:
    """Overlap of two masks, twice the intersection over the sum of both; NaN where both are empty."""
    a, b = _pair(_array(a).astype(bool), _array(b).astype(bool), None)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def correlation(a: Any, b: Any, mask: Any = None) -> float:
    """Pearson's correlation of two images (uncertainty and error, say); NaN where one of them is constant."""
    a, b = _pair(a, b, mask)
    a, b = (image - np.mean(image, dtype=np.float64) for image in (a.astype(np.float64), b.astype(np.float64)))
    spread = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / spread if spread > 0 else float("nan")


def _array(image: Any) -> NDArray[Any]:
    if hasattr(image, "detach"):  # a tensor, perhaps on a GPU
        image = image.detach().cpu().numpy()
    array: NDArray[Any] = np.asarray(image)
    return array if array.dtype in (np.float32, np.float64, np.bool_) else array.astype(np.float32)


def _pair(a: Any, b: Any, mask: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = _array(a), _array(b)
    if a.shape != b.shape:
        raise ValueError(f"images to compare must have one shape, not {a.shape} and {b.shape}")
    if mask is None:
        return a, b
    inside = _array(mask).astype(bool)
    return a[inside], b[inside]


def _stack(image: Any, dimensions: int) -> NDArray[Any]:
    """Images as [N, D, H, W]: all leading axes in N for volumes, in D for slices."""
    array = _array(image)
    return array.reshape(-1, *array.shape[-3:]) if dimensions == 3 else array.reshape(1, -1, *array.shape[-2:])


def _ssim_sum(
    a: NDArray[Any], b: NDArray[Any], data_range: float, dimensions: int, padding: Padding, mask: NDArray[Any] | None
) -> tuple[float, int]:
    """Sum of the map over what counts of one [D, H, W], slab by slab so that memory stays bounded; and how many."""
    halo = RADIUS if dimensions == 3 else 0
    first, last = (halo, len(a) - halo) if padding == "valid" else (0, len(a))
    crop = slice(RADIUS, -RADIUS) if padding == "valid" else slice(None)
    step = max(1, SLAB_VOXELS // (a.shape[1] * a.shape[2]))
    total, count = 0.0, 0
    for start in range(first, last, step):
        stop = min(start + step, last)
        below, above = max(start - halo, 0), min(stop + halo, len(a))
        similarity = _ssim_map(a[below:above], b[below:above], data_range, dimensions)
        similarity = similarity[start - below : stop - below, crop, crop]
        if mask is not None:
            similarity = similarity[mask[start:stop, crop, crop]]
        total += float(np.sum(similarity, dtype=np.float64))
        count += similarity.size
    return total, count


def _ssim_map(a: NDArray[Any], b: NDArray[Any], data_range: float, dimensions: int) -> NDArray[Any]:
    sigma = (SIGMA if dimensions == 3 else 0, SIGMA, SIGMA)

    def blur(image: NDArray[Any]) -> NDArray[Any]:
        blurred: NDArray[Any] = gaussian_filter(image, sigma, mode="constant", radius=RADIUS)
        return blurred

    a, b = a / data_range, b / data_range  # float32 then holds the squares to 1e-7 of the constants' scale
    mean_a, mean_b = blur(a), blur(b)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = blur(a * b) - product
    variances = blur(a * a + b * b) - squares
    c1, c2 = K1**2, K2**2
    similarity: NDArray[Any] = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity


def _bin(image: NDArray[Any], low: float, high: float, bins: int) -> NDArray[np.int64]:
    scaled = (image.ravel().astype(np.float64) - low) * (bins / (high - low))
    return np.clip(scaled, 0, bins - 1).astype(np.int64)


def _entropy(counts: NDArray[Any]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-np.sum(share * np.log(share)))
