"""The catalogue of metrics (name, unit, direction, reduction, function) and their functions."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any, Literal, cast

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32
from voxlate.base.similarity import RADIUS, SIGMA, dice
from voxlate.base.statistics import fixed_text
from voxlate.scans.images.ranges import Range
from voxlate.scans.images.regions import Region

SsimOrigin = Literal["low", "zero"]
Direction = Literal["lower", "higher", "one", "truth"]

ABSENT = "–"  # in place of a score in a table
UNIT = "unit of the images"  # placeholder of the scored modality's unit
UNITS = {"images": UNIT, "–": ""}  # of the tables below
SLAB_VOXELS = 1 << 21  # a slab's dozen temporary float32 maps then stay near 100 MiB
WINDOW = 2 * RADIUS + 1
BONE = "bone"
TISSUES = ("air", "fat", "soft_tissue", BONE)  # that are scored in every CT
SMALLEST_LESION = 4  # voxels; smaller pieces do not count
# Shares of a piece, or of its contrast: from KEPT on it is kept, below ERASED it is erased.
KEPT = 0.5
ERASED = 0.1
RING = 3  # width in voxels of the in-plane surroundings of a piece
# Contrast in standard deviations of the surroundings, below which the truth does not show a piece.
VISIBLE = 0.5
TOUCHING = np.ones((3, 3, 3), bool)
IN_PLANE = TOUCHING & (np.arange(3) == 1)[:, None, None]
RADIOLOGICAL = "SPL"  # pictures have anterior at the top and the patient's right on the left


@dataclass(frozen=True)
class ImagePair:
    """A truth and a synthesis [D, H, W] on the scored range, canonical; inside: the voxels that count."""

    truth: Float32
    synthesis: Float32
    scale: Range
    inside: Bool | None
    ssim_from: SsimOrigin = "low"

    def ssim(self, dimensions: Literal[2, 3]) -> float:
        """SSIM in two or three dimensions, measured from the origin that was asked for."""
        origin = np.float32(self.scale.low if self.ssim_from == "low" else 0)
        a, b = self.truth - origin, self.synthesis - origin
        return ssim(a, b, self.scale.width, dimensions=dimensions, mask=self.inside)


Score = Callable[[ImagePair], float]


@dataclass(frozen=True)
class Metric:
    """A metric of the catalogue METRICS: name, unit, direction, and reduction of many voxels to one number.

    Args:
        key: name in tables and files, such as "mae".
        label: name for people.
        unit: unit of its values; "unit" stands for that of the voxels.
        better: whether lower or higher values are better.
        reduction: how many voxels become one number, in words.
        digits: of printed values.
        scale: factor of printed values.
        pooled: one value for all cases together.
        in_table: printed in tables.

    Example:
        >>> from voxlate.evaluation.scoring.metrics import METRIC_OF
        >>> METRIC_OF["mae"].better, METRIC_OF["psnr"].better
        ('lower', 'higher')
    """

    key: str
    label: str
    unit: str
    better: Direction
    reduction: str
    digits: int = 3
    scale: float = 1.0
    pooled: bool = False
    in_table: bool = True

    def unit_for(self, images: str) -> str:
        """The unit, if `images` is that of the voxels."""
        return images if self.unit == UNIT else self.unit

    def text(self, value: float, like: float | None = None) -> str:
        """A value with digits that fit its size, or the size of another value that is printed with it."""
        size = value if like is None else like
        return fixed_text(value * self.scale, size * self.scale, self.digits, self.unit == UNIT)

    def interval_text(self, ends: Sequence[float], like: float) -> str:
        """The ends of an interval with the digits of another value, such as 0.061–0.075."""
        low, high = (self.text(end, like) for end in ends)
        return f"{low}{'…' if low.startswith('-') else '–'}{high}"

    def mean_text(self, summary: Mapping[str, Any] | None) -> str:
        """A mean with its standard deviation, such as 0.068 ± 0.012."""
        if not summary or summary["mean"] is None:
            return ABSENT
        text = self.text(summary["mean"])
        if summary["sd"] is None:
            return text
        return f"{text} ± {self.text(summary['sd'], like=summary['mean'])}"


SSIM = "Gaussian window 11, sigma 1.5, K1 0.01, K2 0.03; "
LPIPS = "grey over the range, clipped, repeated to three channels; outside the mask the low end; mean over axial slices"
# Columns are separated by two spaces or more. unit: "images" is that of the scored images; values in % are stored as shares.
# where: in tables, in files alone, or in tables as one pooled value for all cases.
_METRICS = """
key                    label                             unit    better  digits  where   reduction
mae                    MAE                               images  lower   3       table   mean over voxels
mae_rel                MAE/range                         %       lower   2       table   mean over voxels, share of the range
rmse                   RMSE                              images  lower   3       table   root of the mean over voxels
mse_rel                MSE/range²                        –       lower   4       file    mean over voxels of the squared error, in shares of the range
psnr                   PSNR                              dB      higher  1       table   20 log10(range / RMSE) of each case
ssim_2d                SSIM 2-D                          –       higher  3       table   {SSIM}mean over axial slices
ssim_3d                SSIM 3-D                          –       higher  3       table   {SSIM}one window in three directions
mae_z                  MAE z                             images  lower   3       table   mean |difference of slices − the truth's|
lpips                  LPIPS                             –       lower   3       table   AlexNet v0.1; {LPIPS}
gradient_strength      Gradient                          –       one     2       table   mean |difference of rows| over the truth's
std                    Uncertainty                       images  truth   3       table   mean standard deviation of the samples
coverage               Coverage                          %       truth   1       table   share of the body's voxels within their intervals
interval               Interval                          images  lower   3       table   mean width of the intervals inside the body
interval_r             Interval–error r                  –       higher  2       table   correlation of the intervals' width and |error|
seconds_per_slice      Time                              s/slice  truth  2       table   wall clock for a slice with all its samples
network_calls          Network calls                     –       truth   0       table   evaluations of the network for one sample of a slice or patch
autoencoder            MAE of the autoencoder            of 255  truth   2       table   of reconstructed validation slices in network units; a model of its latents can hardly have a lower one
samples                Samples                           –       truth   0       table   samples of which the image is the mean
mae_bound              Bound of body MAE                 images  lower   3       table   that a case's MAE inside the body is to exceed seldom
mae_bound_held         Bound held                        %       truth   1       table   cases whose MAE inside the body is within it
fd                     FD                                –       lower   3       pooled  of the slices of all cases pooled; too high with few images
texture_distance       Texture distance                  –       lower   3       pooled  of the slices of all cases pooled; too high with few images
"""
_REGION_METRICS = """
key           label            unit    better  digits  where  reduction
mae           MAE              images  lower   3       table  mean over the region's voxels
mean          mean             images  truth   3       table  mean over the region's voxels
coverage      coverage         %       truth   1       table  share of the region's voxels within their intervals
interval      interval         images  lower   3       file   mean width of the region's intervals
pieces        pieces           –       truth   1       table  number of connected pieces of the region (docs/guides/trust.md)
kept          kept             –       higher  1       table  number of connected pieces of the region (docs/guides/trust.md)
shrunk        shrunk           –       lower   1       file   number of connected pieces of the region (docs/guides/trust.md)
erased        erased           –       lower   1       table  number of connected pieces of the region (docs/guides/trust.md)
unseen        unseen           –       truth   1       table  number of connected pieces of the region (docs/guides/trust.md)
invented      invented         –       lower   1       table  number of connected pieces of the region (docs/guides/trust.md)
dice          Dice             –       higher  3       table  overlap of the same threshold on both images
volume        volume           ml      truth   1       table  voxels that pass the threshold, times their size
truth_volume  volume of truth  ml      truth   1       file   voxels that pass the threshold, times their size
truth_mean    mean of truth    images  truth   3       file   mean over the region's voxels
voxels        voxels           –       truth   0       file   number of voxels in the region
"""


def _catalogue(table: str) -> tuple[Metric, ...]:
    """The metrics of a table above."""
    metrics = []
    for line in table.strip().splitlines()[1:]:
        key, label, unit, better, digits, where, reduction = re.split(" {2,}", line)
        metric = Metric(
            key,
            label,
            UNITS.get(unit, unit),
            cast(Direction, better),
            reduction.format(SSIM=SSIM, LPIPS=LPIPS),
            int(digits),
            100.0 if unit == "%" else 1.0,
            where == "pooled",
            where != "file",
        )
        metrics.append(metric)
    return tuple(metrics)


METRICS = _catalogue(_METRICS)
# Of a named region: the key becomes NAME.mae, the label NAME MAE.
REGION_METRICS = _catalogue(_REGION_METRICS)
METRIC_OF = {metric.key: metric for metric in METRICS}
# Of every voxel: the key becomes whole.mae, the label "MAE, whole".
SCOPED = ("mae", "mae_rel", "mse_rel", "psnr", "ssim_2d", "ssim_3d", "mae_z", "lpips")


def metrics_of(document: Mapping[str, Any]) -> dict[str, Metric]:
    """All possible metrics of a metrics.json by key: those of the catalogue, of the whole image and of its regions."""
    metrics = [*METRICS]
    for key, own in document.get("own_metrics", {}).items():
        label = key.replace("_", " ")
        metrics.append(Metric(key, label, own["unit"], own["better"], own["reduction"]))
    for scope, key in itertools.product(document.get("scopes", {}), SCOPED):
        one = METRIC_OF[key]
        label = f"{one.label}, {scope}"
        in_table = key != "mae_rel"
        metrics.append(replace(one, key=f"{scope}.{key}", label=label, in_table=in_table))
    for region, metric in itertools.product(document.get("regions", {}), REGION_METRICS):
        label = f"{region.replace('_', ' ')} {metric.label}"
        metrics.append(replace(metric, key=f"{region}.{metric.key}", label=label))
    return {metric.key: metric for metric in metrics}


def image_scores(pair: ImagePair) -> dict[str, float]:
    """The scores of the catalogue that come from a truth and a synthesis, by key."""
    images = (pair.truth, pair.synthesis)
    width = pair.scale.width
    error = mae(*images, pair.inside)
    root = rmse(*images, pair.inside)
    return {
        "mae": error,
        "mae_rel": error / width,
        "rmse": root,
        "mse_rel": (root / width) ** 2,
        "psnr": psnr(*images, width, pair.inside),
        "ssim_2d": pair.ssim(2),
        "ssim_3d": pair.ssim(3),
        "mae_z": mae_z(*images, pair.inside),
        "gradient_strength": gradient_strength(*images, pair.inside),
    }


def mean_inside(values: AnyArray, inside: Bool | None = None) -> float:
    """The mean of the voxels inside, or of all; NaN if there are none."""
    counted = values if inside is None else values[inside]
    return float(np.mean(counted, dtype=np.float64)) if counted.size else nan


def mae(truth: Any, synthesis: Any, mask: Any = None) -> float:
    """Mean absolute error in the unit of the images, inside the mask if there is one."""
    a, b = _pair(truth, synthesis, mask)
    return mean_inside(np.abs(b - a))


def rmse(truth: Any, synthesis: Any, mask: Any = None) -> float:
    """Root of the mean squared error in the unit of the images, inside the mask if there is one."""
    a, b = _pair(truth, synthesis, mask)
    return float(np.sqrt(mean_inside(np.square(b - a, dtype=np.float64))))


def psnr(truth: Any, synthesis: Any, data_range: float, mask: Any = None) -> float:
    """Peak signal-to-noise ratio in dB, as scikit-image; infinite if the images are equal, NaN of no voxels."""
    from skimage.metrics import peak_signal_noise_ratio  # slow to import

    truth, synthesis = _pair(truth, synthesis, mask)
    if not truth.size:
        return nan
    if np.array_equal(truth, synthesis):
        return inf
    return float(peak_signal_noise_ratio(truth, synthesis, data_range=data_range))


def ssim(
    truth: Any,
    synthesis: Any,
    data_range: float,
    *,
    dimensions: Literal[2, 3] = 2,
    mask: Any = None,
) -> float:
    """Structural similarity with a Gaussian window of 11 (sigma 1.5), K1 = 0.01, K2 = 0.03, as scikit-image.

    truth, synthesis: [..., H, W] (2) or [D, H, W] (3), measured from the low end of the range, since the
    luminance term depends on an offset. 2 is the mean over slices, 3 uses one window in three directions.
    Windows count that are completely inside the image. With a mask: the mean of the similarity map inside it. NaN where no
    window fits, or the mask is empty. Computed in slabs, so that memory stays bounded. Source: Wang et al. 2004, eq. 13.
    """
    from skimage.metrics import structural_similarity  # slow to import

    # divided, so that float32 holds the squares to 1e-7 of the constants' scale
    a, b = (_slices(image) / data_range for image in (truth, synthesis))
    if min(a.shape[-2:]) < WINDOW:
        return nan
    inside = None if mask is None else _slices(mask).astype(bool)
    halo = RADIUS if dimensions == 3 else 0
    last = len(a) - halo
    crop = slice(RADIUS, -RADIUS)
    step = max(1, SLAB_VOXELS // (a.shape[1] * a.shape[2]))
    total = 0.0
    count = 0
    for start in range(halo, last, step):
        stop = min(start + step, last)
        slab = slice(start - halo, stop + halo)
        _, similarity = structural_similarity(
            a[slab],
            b[slab],
            data_range=1.0,
            channel_axis=0 if dimensions == 2 else None,
            gaussian_weights=True,
            sigma=SIGMA,
            use_sample_covariance=False,
            full=True,
        )
        similarity = similarity[halo : halo + stop - start, crop, crop]
        if inside is not None:
            similarity = similarity[inside[start:stop, crop, crop]]
        total += float(np.sum(similarity, dtype=np.float64))
        count += similarity.size
    return total / count if count else nan


def gradient_strength(truth: Any, synthesis: Any, mask: Any = None) -> float:
    """Mean |difference of neighbouring rows| of the synthesis over the truth's, of images [..., H, W].

    1 is ideal, below is blur, above is noise; with a mask, both rows are inside it. NaN if the truth has no gradient.
    """
    pair: Any = ...
    if mask is not None:
        inside = _array(mask).astype(bool)
        pair = inside[..., 1:, :] & inside[..., :-1, :]
    sums = []
    for image in truth, synthesis:
        steps = np.abs(np.diff(_array(image), axis=-2))
        sums.append(float(np.sum(steps[pair], dtype=np.float64)))
    return sums[1] / sums[0] if sums[0] > 0 else nan


def mae_z(truth: Any, synthesis: Any, mask: Any = None) -> float:
    """Mean |(b_k+1 − b_k) − (a_k+1 − a_k)| over neighbouring slices of truth a and synthesis b [D, H, W].

    The value is 0 if all slices have the same error, and large if errors change from slice to slice. With a mask, both
    neighbours are inside it. NaN if no slice has a neighbour.
    """
    a, b = _pair(truth, synthesis, None)
    steps = np.abs(np.diff(b - a, axis=0))
    count = steps.size
    if mask is not None:
        inside = _array(mask).astype(bool)
        both = inside[1:] & inside[:-1]
        steps = np.where(both, steps, 0)
        count = int(both.sum())
    # slice by slice, because float32 sums of a whole volume are inexact
    return float(steps.sum((1, 2), dtype=np.float64).sum() / count) if count else nan


def correlation(a: Any, b: Any, mask: Any = None) -> float:
    """Pearson's correlation of two images, such as uncertainty and error; NaN if one of them is constant."""
    a, b = _pair(a, b, mask)
    a, b = (image.astype(np.float64) for image in (a, b))
    a, b = (image - np.mean(image, dtype=np.float64) for image in (a, b))
    spread = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / spread if spread > 0 else nan


def region_scores(
    region: Region,
    inside: Bool,
    truth: Float32,
    other: Float32,
    overlap: Bool | None,
    spacing_mm: Sequence[float],
) -> dict[str, float]:
    """The scores of a region in one image; inside, overlap: [D, H, W], the region in the truth and in the other image.

    MAE, both means and the volume (ml). With `overlap` also the Dice and its volume. Of all but tissues also counts of
    lesions.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    count = float(inside.sum())
    scores = {
        "voxels": count,
        "truth_volume": voxel_ml * count,
        "mean": mean_inside(other, inside),
        "truth_mean": mean_inside(truth, inside),
        "mae": mae(truth, other, inside),
    }
    if overlap is not None:
        scores["dice"] = dice(inside, overlap)
        scores["volume"] = voxel_ml * float(overlap.sum())
    if not region.tissue:
        scores |= count_lesions(inside, truth, other, overlap)
    return {f"{region.name}.{key}": value for key, value in scores.items()}


def count_lesions(
    inside: Bool, truth: Float32, image: Float32, predicted: Bool | None = None
) -> dict[str, float]:
    """Counts of connected pieces of a region that an image keeps, shrinks, erases or invents; arrays are [D, H, W]; inside: the region in the truth.

    predicted: the same region in the image, if the image's values define it. A piece is kept if at least half of it is
    predicted and erased below a tenth; predicted pieces that touch none of the truth are invented. Otherwise (label map,
    mask file) the contrast of a piece with its surroundings is compared with that in the truth; pieces that the truth
    does not show are `unseen`, and invented pieces are unknown.
    """
    shares = []
    named, _ = ndimage.label(inside, TOUCHING)
    for number, held in enumerate(ndimage.find_objects(named), start=1):
        box = tuple(slice(max(0, side.start - RING), side.stop + RING) for side in held)
        piece = named[box] == number
        if piece.sum() < SMALLEST_LESION:
            continue
        if predicted is None:
            shares.append(_share_of_contrast(piece, truth[box], image[box]))
        else:
            shares.append(float(predicted[box][piece].mean()))
    visible = [share for share in shares if share is not None]
    counts = {
        "pieces": len(shares),
        "kept": sum(share >= KEPT for share in visible),
        "shrunk": sum(ERASED <= share < KEPT for share in visible),
        "erased": sum(share < ERASED for share in visible),
        "unseen": len(shares) - len(visible),
    }
    if predicted is not None:
        named, _ = ndimage.label(predicted, TOUCHING)
        sizes = np.bincount(named.ravel())
        sizes[np.unique(named[ndimage.binary_dilation(inside, TOUCHING)])] = 0
        counts["invented"] = int((sizes[1:] >= SMALLEST_LESION).sum())
    return {name: float(value) for name, value in counts.items()}


def _share_of_contrast(piece: Bool, truth: Float32, image: Float32) -> float | None:
    """The contrast of a piece in the image over that in the truth; None if the truth shows no contrast."""
    ring = ndimage.binary_dilation(piece, IN_PLANE, iterations=RING) & ~piece
    if not ring.any():
        return None
    contrast = float(truth[piece].mean() - truth[ring].mean())
    if abs(contrast) < VISIBLE * float(truth[ring].std()) or contrast == 0:
        return None
    return float(image[piece].mean() - image[ring].mean()) / contrast


def _array(image: Any) -> AnyArray:
    array: AnyArray = np.asarray(image)
    return array if array.dtype in (np.float32, np.float64, np.bool_) else array.astype(np.float32)


def _pair(a: Any, b: Any, mask: Any) -> tuple[AnyArray, AnyArray]:
    a = _array(a)
    b = _array(b)
    if mask is None:
        return a, b
    inside = _array(mask).astype(bool)
    return a[inside], b[inside]


def _slices(image: Any) -> AnyArray:
    array = _array(image)
    return array.reshape(-1, *array.shape[-2:])
