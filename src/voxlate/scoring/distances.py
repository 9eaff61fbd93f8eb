"""Distances between feature vectors of the slices of all syntheses and of all truths, pooled over the cases.

The Fréchet distance (FD) of few images is too high: its expectation decreases towards the true value as 1/N, at a rate
that depends on the model, so FDs of different N do not compare. `frechet_limit` extrapolates N to infinity, and
`kernel_distance` is unbiased for any N.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxlate.cases.layout import reorder_axes
from voxlate.scoring.features import Features
from voxlate.scoring.metrics import ImagePair
from voxlate.system.arrays import Float32, Float64

KEYS = {
    "fd": ("fd", "fd_inf", "kd", "fd_each"),
    "texture": (
        "texture_distance",
        "texture_distance_inf",
        "texture_kd",
        "texture_distance_each",
    ),
}
FEWEST = 3  # cases or patients below which errors come from blocks of slices
PARTS = 5  # the sets are cut in 1 to 5 parts: points of the line over 1/N
# The sets are cut in this number of random orders; with fewer, the intercept depends on the draw.
ORDERS = 4
# With fewer images per dimension, FD is not linear in 1/N, and the intercept is wrong by more than a tenth.
ENOUGH = 4
FOLDS = 10  # number of groups for the error of FD, for any number of cases
RADIOLOGICAL = "SPL"  # pictures have anterior at the top and the patient's right on the left
BLOCK = 1024  # rows of the kernel matrix in memory at a time

Vectors = Float64
Cases = dict[tuple[str, str], Vectors]  # by name and patient
Table = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error; NaN if there are too few images or cases."""

    value: float
    error: float = math.nan


@dataclass(frozen=True)
class Pool:
    """Feature vectors of slices, gathered case by case: (modality, answer) -> (case, patient) -> vectors."""

    features: Features
    seed: int
    axes: str
    vectors: dict[tuple[str, str], Cases] = field(default_factory=dict)

    def add(self, modality: str, answer: str, case: tuple[str, str], pair: ImagePair) -> None:
        """Add all slices of an image and of its truth; case: its name and its patient."""
        for name, values in ((answer, pair.synthesis), ("truth", pair.truth)):
            cases = self.vectors.setdefault((modality, name), {})
            if case not in cases:  # all images of a case share one truth
                cases[case] = self.features(slices_of(values, pair, self.axes))

    def join(self, vectors: Mapping[tuple[str, str], Cases]) -> None:
        """Add vectors that another pool gathered; all images of a case share one truth."""
        for key, cases in vectors.items():
            own = self.vectors.setdefault(key, {})
            for case, values in cases.items():
                own.setdefault(case, values)

    def distances(self, modality: str) -> dict[str, dict[str, Table]]:
        """Distances to the truth by answer and key, each with its standard error and number of images."""
        pooled = {
            answer: cases for (name, answer), cases in self.vectors.items() if name == modality
        }
        truth = pooled.pop("truth", {})
        return {answer: self._distances(truth, ours) for answer, ours in pooled.items()}

    def _distances(self, truth: Cases, ours: Cases) -> dict[str, Table]:
        a = _gather(truth, ours)
        b = _gather(ours, ours)
        groups = _group(ours)
        if len(a) < 2:
            return {}
        estimates = [
            with_error(frechet, a, b, groups.labels),
            with_error(lambda x, y: frechet_limit(x, y, self.seed), a, b, groups.labels),
            kernel_distance(a, b, groups.labels, groups.labels),
        ]
        keys = KEYS[self.features.kind]
        entries = {
            key: _entry(estimate, len(a), groups.over) for key, estimate in zip(keys, estimates)
        }
        if each := _of_patients(truth, ours):
            spread = float(np.std(each, ddof=1)) if len(each) > 1 else math.nan
            mean = Estimate(float(np.mean(each)), spread / math.sqrt(len(each)))
            entries[keys[-1]] = _entry(mean, len(a), f"{len(each)} patients")
        return entries

    def describe(self, modality: str) -> Table:
        """Features, number of images and conventions of the distances, for metrics.json and the caption."""
        truth = self.vectors.get((modality, "truth"), {})
        images = sum(map(len, truth.values()))
        return {
            "name": self.features.name,
            "kind": self.features.kind,
            "dimensions": self.features.dimensions,
            "resize": self.features.resize,
            "axes": self.axes,
            "values": "grey in [0, 1] over the range, clipped; outside the mask 0, slices without mask left out",
            "images": images,
            "images_for_limit": ENOUGH * self.features.dimensions,
            "errors": f"jackknife over {_group(truth).over}",
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


def _of_patients(truth: Cases, ours: Cases) -> list[float]:
    """The Fréchet distance between the slices of each patient; a patient with a single slice has none."""
    distances = []
    for patient in dict.fromkeys(name for _, name in ours):
        own = [case for case in ours if case[1] == patient]
        a = _gather(truth, own)
        if len(a) > 1:
            distances.append(frechet(a, _gather(ours, own)))
    return distances


class _Groups(NamedTuple):
    """The group label of each slice, and what the groups are."""

    labels: NDArray[Any]
    over: str


def _group(cases: Cases) -> _Groups:
    """Slices grouped by patient, else by case, else in blocks of neighbouring slices."""
    counts = list(map(len, cases.values()))
    for number, name in ((1, "patients"), (0, "cases")):
        names = [pair[number] for pair in cases]
        if len(set(names)) >= FEWEST:
            return _Groups(np.repeat(names, counts), f"{len(set(names))} {name}")
    total = sum(counts)
    blocks = min(FOLDS, total)
    labels = np.arange(total) * blocks // max(total, 1)
    return _Groups(labels, f"{blocks} blocks of neighbouring slices, so too small")


def _entry(estimate: Estimate, images: int, over: str) -> Table:
    """An entry with the keys of a summary over cases, so that tables and reports show both; `n` counts images."""
    return {
        "mean": _finite(estimate.value),
        "sd": None,
        "ci95": None,
        "n": images,
        "not_finite": 0,
        "se": _finite(estimate.error),
        "errors": over,
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def frechet(a: Any, b: Any) -> float:
    """Fréchet distance of two sets of features [N, F] and [M, F] (N and M may be below F).

    |mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^½) with unbiased covariances C.
    Too high on average with few images; see `frechet_limit` and `kernel_distance`.
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
    fewest = min(len(a), len(b))
    # The smallest parts then have twice as many images as dimensions.
    parts = min(PARTS, fewest // (ENOUGH // 2 * a.shape[1]))
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
    kept = [member != fold for fold in np.unique(member)] if len(np.unique(member)) > 2 else []
    return Estimate(distance(a, b), jackknife_error([distance(a[rows], b[rows]) for rows in kept]))


def kernel_distance(a: Any, b: Any, groups_a: Any = None, groups_b: Any = None) -> Estimate:
    """KD: squared maximum mean discrepancy with the kernel (x·y / F + 1)³, unbiased for any number of images.

    a, b: [N, F] and [M, F]. groups: labels [N] and [M] of dependent rows (the case in both sets): pairs of
    rows with one label do not count, which leaves no bias from them; by default each row is a group of its own.
    The value may be negative if the sets are similar. The error is that of the jackknife over groups; NaN below three.
    Source: Bińkowski et al. 2018, section 3 (KID); Gretton et al. 2012, eq. 3 and 4.
    """
    a = _vectors(a)
    b = _vectors(b)
    labels_a = np.arange(len(a)) if groups_a is None else np.asarray(groups_a)
    labels_b = len(a) + np.arange(len(b)) if groups_b is None else np.asarray(groups_b)
    names, member = np.unique(np.concatenate([labels_a, labels_b]), return_inverse=True)
    of_a = member[: len(a)]
    of_b = member[len(a) :]
    count = len(names)
    within = _mean_kernel(a, a, of_a, of_a, count) + _mean_kernel(b, b, of_b, of_b, count)
    value, *without = within - 2 * _mean_kernel(a, b, of_a, of_b, count)
    return Estimate(float(value), jackknife_error(without) if count > 2 else math.nan)


def jackknife_error(without: Sequence[float] | NDArray[Any]) -> float:
    """Standard error of an estimate from its values without each group; NaN where there are none."""
    values = np.asarray(without, np.float64)
    if not len(values):
        return math.nan
    variance = np.mean((values - values.mean()) ** 2)
    return float(np.sqrt((len(values) - 1) * variance))


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


def _mean_kernel(
    a: Vectors, b: Vectors, of_a: NDArray[Any], of_b: NDArray[Any], groups: int
) -> Vectors:
    """Mean kernel over pairs of rows of different groups, then the means without one group at a time: [1 + groups]."""
    by_row = np.zeros(len(a))
    by_column = np.zeros(len(b))
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        kernel = (a[rows] @ b.T / a.shape[1] + 1) ** 3
        kernel[of_a[rows, None] == of_b] = 0
        by_row[rows] = kernel.sum(1)
        by_column += kernel.sum(0)
    sizes_a = np.bincount(of_a, minlength=groups)
    sizes_b = np.bincount(of_b, minlength=groups)
    pairs = len(a) * len(b) - sizes_a @ sizes_b
    pairs_of = sizes_a * (len(b) - sizes_b) + sizes_b * (len(a) - sizes_a)
    sum_of = np.bincount(of_a, by_row, groups) + np.bincount(of_b, by_column, groups)
    total = by_row.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide([total, *(total - sum_of)], [pairs, *(pairs - pairs_of)])
