"""Distances between feature vectors of the slices of all syntheses and of all truths, pooled over the cases.

The Fréchet distance (FD) of few images is too high: its expectation decreases towards the true value as 1/N, at a rate
that depends on the model, so FDs of different N do not compare. `frechet_limit` extrapolates N to infinity.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxlate.base.array_types import Float32, Float64
from voxlate.base.groups import grouped
from voxlate.evaluation.scoring.features import Features
from voxlate.evaluation.scoring.metrics import ImagePair
from voxlate.scans.cases.axes import reorder_axes

# The keys of the pooled distance, of its limit, and of the mean distance of single patients.
KEYS = {
    "fd": ("fd", "fd_inf", "fd_each"),
    "texture": ("texture_distance", "texture_distance_inf", "texture_distance_each"),
}
FEWEST_PATIENTS = 3  # patients below which errors come from cases
PARTS = 5  # the sets are cut in 1 to 5 parts: points of the line over 1/N
# The sets are cut in this number of random orders; with fewer, the intercept depends on the draw.
ORDERS = 4
# With fewer images per dimension, FD is not linear in 1/N, and the intercept is wrong by more than a tenth.
ENOUGH = 4
FOLDS = 10  # number of groups for the error of FD, for any number of cases
RADIOLOGICAL = "SPL"  # pictures have anterior at the top and the patient's right on the left

Vectors = Float64
Cases = Mapping[tuple[str, str], Vectors]  # by name and patient
Table = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error; NaN if there are too few images or cases."""

    value: float
    error: float = math.nan

    def entry(self, images: int) -> Table:
        """An entry with the keys of a summary over cases, so that tables and reports show both; `n` counts images."""
        mean, error = (x if math.isfinite(x) else None for x in (self.value, self.error))
        return {"mean": mean, "sd": None, "ci95": None, "n": images, "not_finite": 0, "se": error}


def distances(kind: str, truth: Cases, ours: Cases, seed: int) -> dict[str, Table]:
    """Distances of the slices of syntheses to those of their truths by key, each with its error and number of images.

    kind: that of the features; truth, ours: the vectors of each case.
    """
    a, b = (_gather(vectors, ours) for vectors in (truth, ours))
    if len(a) < 2:
        return {}
    groups = _groups(ours)
    pooled, limit, each = KEYS[kind]
    estimates = {
        pooled: with_error(frechet, a, b, groups),
        limit: with_error(lambda x, y: frechet_limit(x, y, seed), a, b, groups),
    }
    of_patients = []
    for cases in grouped((case[1], case) for case in ours).values():
        mine = _gather(truth, cases)
        if len(mine) > 1:  # a patient with a single slice has no distance
            of_patients.append(frechet(mine, _gather(ours, cases)))
    if of_patients:
        spread = float(np.std(of_patients, ddof=1)) if len(of_patients) > 1 else math.nan
        error = spread / math.sqrt(len(of_patients))
        estimates[each] = Estimate(float(np.mean(of_patients)), error)
    return {key: estimate.entry(len(a)) for key, estimate in estimates.items()}


def describe_features(features: Features, axes: str, truth: Cases) -> Table:
    """Features, number of images and conventions of the distances, for metrics.json and the caption."""
    return {
        "name": features.name,
        "kind": features.kind,
        "dimensions": features.dimensions,
        "resize": features.resize,
        "axes": axes,
        "values": "grey in [0, 1] over the range, clipped; outside the mask 0, slices without mask left out",
        "images": sum(map(len, truth.values())),
        "images_for_limit": ENOUGH * features.dimensions,
    }


def slices_of(values: Float32, pair: ImagePair, axes: str = RADIOLOGICAL) -> Float32:
    """Axial slices [N, H, W] in [0, 1] of one image of a pair, by default in radiological orientation.

    values: [D, H, W], mapped to the range. Slices outside the mask are left out.
    """
    grey = np.clip((values - pair.scale.low) / pair.scale.width, 0, 1).astype(np.float32)
    if pair.inside is not None:
        grey = np.where(pair.inside, grey, np.float32(0))[pair.inside.any((1, 2))]
    return np.ascontiguousarray(reorder_axes(grey, pair.axes, axes))


def _gather(vectors: Cases, cases: Iterable[tuple[str, str]]) -> Vectors:
    """The vectors of some cases in one array."""
    return np.concatenate([vectors[case] for case in cases])


def _groups(cases: Cases) -> list[str]:
    """The group of each slice: its patient, or its case if there are few patients."""
    several = len({patient for _, patient in cases}) >= FEWEST_PATIENTS
    groups = list[str]()
    for (case, patient), vectors in cases.items():
        groups += [patient if several else case] * len(vectors)
    return groups


def frechet(a: Any, b: Any) -> float:
    """Fréchet distance of two sets of features [N, F] and [M, F] (N and M may be below F).

    |mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^½) with unbiased covariances C.
    Too high on average with few images; see `frechet_limit`. Raises ValueError for fewer than two vectors.
    Source: Dowson and Landau 1982; Heusel et al. 2017, eq. 6.
    """
    a = _vectors(a)
    b = _vectors(b)
    gap = a.mean(0) - b.mean(0)
    root_a = _root(a)
    root_b = _root(b)
    # C_a C_b has the eigenvalues of (R_a R_bᵀ)(R_a R_bᵀ)ᵀ, so the trace of its root is the sum of singular values.
    # Unlike a matrix square root this never meets a negative or complex eigenvalue, and needs no term on the diagonal.
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    traces = np.vdot(root_a, root_a) + np.vdot(root_b, root_b)
    return max(0.0, float(gap @ gap) + float(traces - 2 * cross))


def frechet_limit(a: Any, b: Any, seed: int = 0) -> float:
    """FD∞: the intercept of a straight line through FD over 1/N; NaN below ENOUGH images per dimension.

    a, b: [N, F] and [M, F]; rows of sets of equal size are paired and stay together.
    Both sets are cut in k = 1 ... PARTS equal parts in random orders; the mean FD of parts is a point at k/N.
    Source: Chong and Forsyth 2020, section 4, with disjoint parts, which use every image at every N, for their draws.
    """
    a = _vectors(a)
    b = _vectors(b)
    # The smallest parts then have twice as many images as dimensions.
    parts = min(PARTS, min(len(a), len(b)) // (ENOUGH // 2 * a.shape[1]))
    if parts < 2:
        return math.nan
    draw = np.random.default_rng(seed)
    means = [frechet(a, b)]
    for count in range(2, parts + 1):
        means.append(float(np.mean([_mean_of_parts(a, b, count, draw) for _ in range(ORDERS)])))
    return float(np.polyfit(np.arange(1, parts + 1), means, 1)[1])


def with_error(
    distance: Callable[[Vectors, Vectors], float], a: Any, b: Any, groups: Any
) -> Estimate:
    """A distance of paired sets [N, F], with its standard error by leaving out one group (case) at a time.

    groups: N labels; more than FOLDS of them are joined. The error is NaN below three groups.
    Source: Efron and Tibshirani 1993, eq. 11.5 (jackknife).
    """
    a = _vectors(a)
    b = _vectors(b)
    member = np.unique(np.asarray(groups), return_inverse=True)[1] % FOLDS
    folds = np.unique(member)
    if len(folds) < 3:
        return Estimate(distance(a, b))
    without = [distance(a[member != fold], b[member != fold]) for fold in folds]
    return Estimate(distance(a, b), float(np.sqrt((len(folds) - 1) * np.var(without))))


def _vectors(vectors: Any) -> Vectors:
    array = np.asarray(vectors, np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(f"features must be [N, F] with N of at least 2, not {array.shape}")
    return array


def _root(vectors: Vectors) -> Vectors:
    """A matrix R [min(N, F), F] with RᵀR the unbiased covariance; exact also where the covariance is singular."""
    centred = (vectors - vectors.mean(0)) / np.sqrt(len(vectors) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _mean_of_parts(a: Vectors, b: Vectors, count: int, draw: np.random.Generator) -> float:
    order_a = draw.permutation(len(a))
    order_b = order_a if len(a) == len(b) else draw.permutation(len(b))
    parts = zip(np.array_split(order_a, count), np.array_split(order_b, count))
    return float(np.mean([frechet(a[rows_a], b[rows_b]) for rows_a, rows_b in parts]))
