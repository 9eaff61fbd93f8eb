"""What held-back patients prove of a new one: the patient is the unit, for voxels of a head are no trials of their own.

A share is that of a patient's voxels which lie outside their intervals; a score how many times wider an interval would
have to be to hold its voxel.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Bound = Literal["none", "normal", "any"]
Array = NDArray[np.floating]
T = TypeVar("T")

WIDEST = 1e4  # times that an interval is widened at most
HALVINGS = 60


def by_patient(found: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """What was found of cases, listed by their patients."""
    listed: dict[str, list[T]] = {}
    for patient, one in found:
        listed.setdefault(patient, []).append(one)
    return listed


def least_patients(level: float) -> int:
    """How many patients a one-sided conformal bound at this level needs: n / (n + 1) must reach it."""
    return math.ceil(level / (1 - level) - 1e-9)


def least_provable(patients: int, confidence: float) -> float:
    """The share outside that so many patients can rule out without any assumption, where no voxel of theirs is outside.

    Where the expected share outside is a or more, n shares of [0, 1] are all 0 with probability (1 - a)^n at most.
    """
    return float(1 - (1 - confidence) ** (1 / patients))


def conformal_quantile(scores: Collection[Sequence[float] | Array], level: float) -> float:
    """What a new patient's case exceeds with probability 1 - level at most; inf where the patients are too few.

    scores: of each patient's cases. Split conformal prediction with cases in patients: each patient weighs 1 / (n + 1),
    his cases share it, and the new one's weight lies at infinity (Lee, Barber and Willett 2023, hierarchical conformal
    prediction; with one case each Vovk et al. 2005).
    """
    values = np.concatenate([np.asarray(one, float) for one in scores])
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in scores]) / (len(scores) + 1)
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) >= level - 1e-9
    return float(values[order][reached.argmax()]) if reached.any() else math.inf


def upper_bound(shares: Sequence[float] | Array, confidence: float, bound: Bound = "normal") -> float:
    """A bound that the expected share of a new patient exceeds with probability 1 - confidence at most.

    none: the mean itself. normal: by Student's t, for shares that are about normal. any: for any shares in [0, 1], by
    betting (Waudby-Smith and Ramdas 2024, as in Bates et al. 2021, "Distribution-free, risk-controlling prediction
    sets").
    """
    shares = np.asarray(shares, float)
    mean, count = float(shares.mean()), len(shares)
    if bound == "none":
        return mean
    if bound == "normal":
        if count < 2:
            return 1.0
        return min(1.0, mean + float(stats.t.ppf(confidence, count - 1)) * float(shares.std(ddof=1)) / math.sqrt(count))
    return _betting_bound(shares, 1 - confidence)


def _betting_bound(shares: Array, delta: float) -> float:
    """The least mean at which somebody who bets against it has turned 1 into 1 / delta by some patient."""
    number = np.arange(1, len(shares) + 1)
    means = (0.5 + np.cumsum(shares)) / (1 + number)
    variances = (0.25 + np.cumsum((shares - means) ** 2)) / (1 + number)
    before = np.concatenate([[0.25], variances[:-1]])
    stakes = np.minimum(1.0, np.sqrt(2 * math.log(1 / delta) / (len(shares) * before)))

    def beaten(mean: float) -> bool:
        wealth = np.cumsum(np.log(np.maximum(1 - stakes * (shares - mean), 1e-300)))
        return bool(wealth.max() > math.log(1 / delta))

    return _least(beaten, 0.0, 1.0)


def least_scale(scores: Sequence[Array], alpha: float, confidence: float, bound: Bound = "normal") -> float:
    """How many times wider the intervals must be for the share outside to be below alpha, bounded as upper_bound says.

    scores: of each patient's voxels, sorted. Shares fall as intervals grow, so the least such width keeps the bound's
    confidence (Bates et al. 2021, theorem 1). inf where even the widest is not enough.
    """

    def holds(scale: float) -> bool:
        return upper_bound(shares_outside(scores, scale), confidence, bound) <= alpha

    return _least(holds, 0.0, WIDEST) if holds(WIDEST) else math.inf


def shares_outside(scores: Sequence[Array], scale: float) -> Array:
    """Of each patient the share of voxels whose score is above `scale`; scores sorted."""
    return np.array([1 - np.searchsorted(one, scale, side="right") / len(one) for one in scores])


def mean_interval(values: Sequence[float] | Array, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean over patients; (-inf, inf) for one alone."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least number between low and high at which something holds that holds from there on."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
