"""Bounds for a new patient from held-out patients, who are the unit because voxels of a head are not independent.

The share of a patient is that of the voxels outside their intervals. The score of a voxel is the factor by which its
interval would have to be widened to contain the truth.
"""

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from voxlate.base.array_types import Float32
from voxlate.synthesis.calibration import WIDEST, Bound

Array = NDArray[np.floating]

HALVINGS = 60


def conformal_quantile(scores: Collection[Sequence[float] | Array], level: float) -> float:
    """The value that a new patient's case exceeds with probability 1 - level at most; inf if patients are too few.

    scores: of each patient's cases. Split conformal prediction with cases in patients: each patient has the weight
    1 / (n + 1), shared by the patient's cases, and the new patient's weight is at infinity (Lee, Barber and Willett
    2023, hierarchical conformal prediction; with one case each Vovk et al. 2005). n / (n + 1) must reach the level.
    """
    values = np.concatenate([np.asarray(cases, float) for cases in scores])
    shares = np.concatenate([np.full(len(cases), 1 / len(cases)) for cases in scores])
    weights = shares / (len(scores) + 1)
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) >= level - 1e-9
    if not reached.any():
        return math.inf
    return float(values[order][reached.argmax()])


def upper_bound(shares: Sequence[float] | Array, confidence: float, bound: Bound) -> float:
    """A bound that the expected share of a new patient exceeds with probability 1 - confidence at most.

    none: the mean itself. normal: by Student's t, for shares that are about normal; inf of one share.
    """
    shares = np.asarray(shares, float)
    margin = 0.0 if bound == "none" else _half_interval(shares, confidence)
    return float(shares.mean()) + margin


def least_scale(scores: Sequence[Array], alpha: float, confidence: float, bound: Bound) -> float:
    """The least factor for the intervals at which the bound (see upper_bound) of the share outside is at most alpha.

    scores: of each patient's voxels, sorted. Shares fall as intervals grow, so that the least such width keeps the
    bound's confidence (Bates et al. 2021, theorem 1). inf where WIDEST is not enough.
    """
    low, high = 0.0, 2 * WIDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if upper_bound(shares_outside(scores, middle), confidence, bound) <= alpha:
            high = middle
        else:
            low = middle
    return high if high <= WIDEST else math.inf


def shares_outside(scores: Sequence[Array], scale: float) -> Array:
    """The share of each patient's voxels whose score is above `scale`; scores are sorted."""
    return np.array(
        [1 - np.searchsorted(voxels, scale, side="right") / len(voxels) for voxels in scores]
    )


def needed_scale(error: Float32, below: Float32, above: Float32) -> Float32:
    """The factor for the distances of each voxel's interval at which the interval contains the truth.

    error: truth less image; inf where an error meets a distance of 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.abs(error) / np.where(error < 0, below, above)
    return np.where(error == 0, np.float32(0), needed)


def shifted_error(error: Float32, image: Float32, ends: tuple[float, float]) -> Float32:
    """The errors that equal distances need to reach if they are shifted from the ends.

    What of an error is larger than the room on the other side of the image counts half.
    """
    room = np.where(error < 0, ends[1] - image, image - ends[0]).clip(0)
    size = np.abs(error)
    return np.copysign(np.minimum(size, (size + room) / 2), error)


def mean_interval(values: Sequence[float] | Array) -> tuple[float, float]:
    """Student's 95 % interval for the mean over patients; (-inf, inf) for a single patient."""
    values = np.asarray(values, float)
    mean, half = float(values.mean()), _half_interval(values, 0.975)
    return mean - half, mean + half


def _half_interval(values: Array, confidence: float) -> float:
    """How far a one-sided bound of the mean is from it, by the quantile of Student's t; inf of one value."""
    from scipy.special import stdtrit  # here, because scipy.stats is slow to import

    count = len(values)
    if count < 2:
        return math.inf
    return float(stdtrit(count - 1, confidence)) * float(values.std(ddof=1)) / math.sqrt(count)
