"""Fitting a calibration: methods of intervals are compared on held-out patients, and the narrowest one is scaled."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxlate.system.errors import BadInput
from voxlate.trust.calibration import (
    BODY,
    INTERVAL_METHODS,
    LEVELS,
    SAMPLE_METHODS,
    Comparison,
    IntervalMethod,
    Prediction,
    Target,
    distances,
    interval,
)
from voxlate.trust.conformal import (
    Bound,
    by_patient,
    conformal_quantile,
    least_provable,
    least_scale,
    mean_interval,
    shares_outside,
)
from voxlate.trust.widths import SETTINGS, Learned, Widths, fit_widths

Array = NDArray[np.float32]

LARGEST_WEIGHT = 100.0  # of a voxel of a small region, relative to other voxels
QUANTILES_FROM = 6  # patients that are needed to learn quantiles of errors
FOLDS = 5  # of patients, so that nothing is tested on the patients from which it was learned


@dataclass(frozen=True)
class CalibrationVoxels:
    """Voxels [N] of a held-out case in network units: features [N, F], prediction, truth, and regions.

    truth_parts: the regions that the truth shows; image_parts: the regions that the image shows.
    """

    case: str
    patient: str
    features: Array
    prediction: Prediction
    truth: Array
    truth_parts: dict[str, NDArray[np.bool_]]
    image_parts: dict[str, NDArray[np.bool_]]

    @property
    def image(self) -> Array:
        return self.prediction.values


@dataclass(frozen=True)
class _Candidate:
    """The distances of one method below and above each case's image; learned ones without the case's own patient."""

    cases: Sequence[CalibrationVoxels]
    distances: Sequence[tuple[Array, Array]]
    ends: tuple[float, float]

    def scores(self, region: str = BODY) -> list[Array]:
        """For each patient, sorted: the factor that the interval of each voxel of a region needs to hold the truth."""
        scores = []
        for case, (below, above) in zip(self.cases, self.distances):
            inside = case.truth_parts.get(region)
            if inside is None or not inside.any():
                continue
            truth = case.truth[inside]
            error = truth - case.image[inside]
            needed = np.where(error < 0, -error / below[inside], error / above[inside])
            too_low = (truth < self.ends[0]) & (error < 0)
            too_high = (truth > self.ends[1]) & (error > 0)
            needed[too_low | too_high] = np.inf
            scores.append((case.patient, needed))
        return [np.sort(np.concatenate(cases)) for cases in by_patient(scores).values()]

    def widths(self, scale: float) -> Iterator[tuple[CalibrationVoxels, Array]]:
        """Each case with the widths of its voxels' intervals."""
        for case, (below, above) in zip(self.cases, self.distances):
            low, high = interval(case.image, scale * below, scale * above, self.ends)
            yield case, high - low

    def mean_width(self, scale: float) -> float:
        """The mean width inside the body, over patients."""
        means = []
        for case, widths in self.widths(scale):
            inside = widths[case.truth_parts[BODY]]
            if len(inside):
                means.append((case.patient, float(inside.mean())))
        of_patients = [np.mean(values) for values in by_patient(means).values()]
        return float(np.mean(of_patients))


def fit(
    cases: Sequence[CalibrationVoxels],
    regions: Mapping[str, str],
    coverage: float,
    confidence: float,
    bound: Bound,
    seed: int,
    ends: tuple[float, float] = (-1.0, 1.0),
) -> tuple[Target, Widths | None]:
    """Compare the methods of intervals on held-out patients, scale the narrowest, and learn it again from all patients.

    regions: rules by name; ends: the limits of all intervals, in network units.
    """
    alpha = 1 - coverage
    candidates = {
        method: _candidate(method, cases, alpha, seed, ends) for method in _methods(cases)
    }
    compared = dict[IntervalMethod, Comparison]()
    for method, candidate in candidates.items():
        scores = candidate.scores()
        scale = least_scale(scores, alpha, confidence, bound)
        if np.isfinite(scale):
            least = float(1 - shares_outside(scores, scale).max())
            compared[method] = Comparison(
                scale, candidate.mean_width(scale), _coverage(candidate, regions, scale), least
            )
    if not compared:
        patients = len({case.patient for case in cases})
        provable = 1 - least_provable(patients, confidence)
        raise BadInput(
            f"calibrate: expected enough patients for a coverage of {coverage:.0%} with confidence {confidence:.0%}, found {patients}, who can prove {provable:.0%} at best. Hold back more, ask for less (--coverage 0.8), or let shares of patients count as about normal (--bound normal)."
        )
    best = min(compared, key=lambda method: compared[method].width)
    scores = candidates[best].scores()
    scales = dict[float, float]()
    for level in sorted({*LEVELS, coverage}):
        scale = least_scale(scores, 1 - level, confidence, bound)
        if np.isfinite(scale):
            scales[level] = scale
    network = _learn(best, cases, alpha, seed) if best in SETTINGS else None
    bounds = _bounds(candidates[best], scales[coverage], coverage)
    return Target(best, scales, compared, dict(regions), bounds, ends), network


def _methods(cases: Sequence[CalibrationVoxels]) -> list[IntervalMethod]:
    """The methods that the images and the number of patients allow.

    A few patients do not show the tails of a new patient's errors; their mean errors are more representative.
    """
    excluded = set[str]()
    if any(case.prediction.sd is None for case in cases):
        excluded.update(SAMPLE_METHODS)
    if len({case.patient for case in cases}) < QUANTILES_FROM:
        excluded.add("learned")
    return [method for method in INTERVAL_METHODS if method not in excluded]


def _candidate(
    method: IntervalMethod,
    cases: Sequence[CalibrationVoxels],
    alpha: float,
    seed: int,
    ends: tuple[float, float],
) -> _Candidate:
    if method in SETTINGS:
        return _Candidate(cases, _cross_fitted(method, cases, alpha, seed), ends)
    return _Candidate(cases, [distances(method, case.prediction, (), None) for case in cases], ends)


def _cross_fitted(
    method: Learned, cases: Sequence[CalibrationVoxels], alpha: float, seed: int
) -> list[tuple[Array, Array]]:
    """Learned distances of each case, by a network whose training excluded the case's patient."""
    patients = sorted({case.patient for case in cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    folds = min(FOLDS, len(patients))
    fold = {patients[place]: number % folds for number, place in enumerate(order)}
    networks = dict[int, Widths]()
    for number in sorted(set(fold.values())):
        others = [case for case in cases if fold[case.patient] != number]
        networks[number] = _learn(method, others, alpha, seed)
    return [networks[fold[case.patient]].predict(case.features) for case in cases]


def _learn(
    method: Learned,
    cases: Sequence[CalibrationVoxels],
    alpha: float,
    seed: int,
) -> Widths:
    """The network of distances; all patients have the same weight, and small regions more than their voxels' share."""
    counts = Counter(case.patient for case in cases)
    features = np.concatenate([case.features for case in cases])
    errors = np.concatenate([case.truth - case.image for case in cases])
    weights = np.concatenate([_weights(case) / np.float32(counts[case.patient]) for case in cases])
    return fit_widths(method, features, errors, weights, alpha, seed)


def _weights(case: CalibrationVoxels) -> Array:
    """Weights of a case's voxels with the sum 1; a region weighs as much as the body, if LARGEST_WEIGHT allows it."""
    body = case.truth_parts[BODY]
    weights = np.ones(len(case.image), np.float32)
    for name, region in case.truth_parts.items():
        if name != BODY and region.any():
            weight = min(body.sum() / region.sum(), LARGEST_WEIGHT)
            weights[region] = np.maximum(weights[region], weight)
    normalised: Array = weights / weights.sum()
    return normalised


def _coverage(
    candidate: _Candidate,
    regions: Mapping[str, str],
    scale: float,
) -> dict[str, tuple[float, float, float]]:
    """The mean over patients of the share inside, and its interval, in the body and in each region."""
    coverage = {}
    for region in (BODY, *regions):
        scores = candidate.scores(region)
        if scores:
            inside = 1 - shares_outside(scores, scale)
            coverage[region] = (float(inside.mean()), *mean_interval(inside))
    return coverage


def _bounds(candidate: _Candidate, scale: float, level: float) -> dict[str, float]:
    """By region, a bound of a case's error relative to its mean half width: one-sided conformal over patients.

    Widths are averaged over the region that the image shows, because synthesis has no truth. The error of the body is
    averaged over the truth's body, as in scores, and that of a region over the region that the image shows.
    """
    ratios: dict[str, list[tuple[str, float]]] = {}
    for case, widths in candidate.widths(scale):
        error = case.truth - case.image
        body = case.truth_parts[BODY]
        for region, inside in case.image_parts.items():
            if not inside.any() or (region == BODY and not body.any()):
                continue
            own = np.abs(error[body]).mean() if region == BODY else abs(error[inside].mean())
            ratio = 2 * float(own / widths[inside].mean())
            key = "mae" if region == BODY else region
            ratios.setdefault(key, []).append((case.patient, ratio))
    return {
        key: conformal_quantile(by_patient(pairs).values(), level) for key, pairs in ratios.items()
    }
