"""Fitting a calibration: methods of intervals are compared on held-out patients, and the narrower learned one is scaled."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.evaluation.intervals.conformal import (
    Bound,
    conformal_quantile,
    least_scale,
    mean_interval,
    needed_scale,
    shares_outside,
    shifted_error,
)
from voxlate.evaluation.intervals.width_training import fit_widths
from voxlate.scans.images.regions import BODY
from voxlate.synthesis.calibration import (
    COVERAGE_LEVELS,
    LEAST_DIVISOR,
    SETTINGS,
    IntervalMethod,
    MethodResult,
    Target,
    Widths,
    group_factors,
    interval,
)

Array = NDArray[np.float32]

# A few patients do not show the tails of a new patient's errors; their mean errors are more representative.
QUANTILES_FROM = 6  # patients that are needed to learn quantiles of errors
# Voxels of a patient's image, in most patients, that a group needs for factors of its own.
LEAST_OF_GROUP = 30
FOLDS = 5  # of patients, so that nothing is tested on the patients from which it was learned


@dataclass(frozen=True)
class CalibrationVoxels:
    """Voxels [N] of a held-out case in network units: features [N, F], image, truth, and regions.

    truth_parts: the regions that the truth shows; image_parts: the regions that the image shows.
    """

    case: str
    patient: str
    features: Array
    image: Array
    truth: Array
    truth_parts: dict[str, NDArray[np.bool_]]
    image_parts: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class _Candidate:
    """The distances [2, N] of one method below and above each case's image; learned ones without the case's patient.

    shifted: as in `Target`, for methods of equal distances.
    """

    cases: Sequence[CalibrationVoxels]
    distances: Sequence[Array]
    ends: tuple[float, float]
    shifted: bool

    def scores(self, region: str = BODY, limits: tuple[float, float] = (-inf, inf)) -> list[Array]:
        """For each patient, sorted: the factor that the interval of each voxel of a region needs to hold the truth.

        limits: of the image's values, from the first to below the second.
        """
        scores = []
        for case, (below, above) in zip(self.cases, self.distances):
            inside = case.truth_parts.get(region)
            if inside is None:
                continue
            inside = inside & (case.image >= limits[0]) & (case.image < limits[1])
            if not inside.any():
                continue
            truth = case.truth[inside]
            error = truth - case.image[inside]
            reached = shifted_error(error, case.image[inside], self.ends) if self.shifted else error
            needed = needed_scale(reached, below[inside], above[inside])
            too_low = (truth < self.ends[0]) & (error < 0)
            too_high = (truth > self.ends[1]) & (error > 0)
            needed[too_low | too_high] = np.inf
            scores.append((case.patient, needed))
        return [np.sort(np.concatenate(cases)) for cases in grouped(scores).values()]

    def grouped(
        self, borders: Sequence[float], alpha: float, confidence: float, bound: Bound, floor: float
    ) -> tuple["_Candidate", tuple[float, ...]]:
        """The candidate with the distances of each group times a factor by which the group holds its coverage; the factors.

        Group-conditional (Mondrian) conformal prediction by predicted values: Vovk et al. 2003; Romano et al. 2020. A
        group that no factor is enough for keeps its distances. No factor is below the floor.
        """
        ends = (-inf, *borders, inf)
        least = [
            least_scale(self.scores(limits=limits), alpha, confidence, bound)
            for limits in pairwise(ends)
        ]
        factors = tuple(max(factor, floor) if 0 < factor < inf else 1.0 for factor in least)
        scaled = [
            distances * group_factors(case.image, borders, factors)
            for case, distances in zip(self.cases, self.distances)
        ]
        return replace(self, distances=scaled), factors

    def widths(self, scale: float) -> Iterator[tuple[CalibrationVoxels, Array]]:
        """Each case with the widths of its voxels' intervals."""
        for case, distances in zip(self.cases, self.distances):
            low, high = interval(case.image, scale * distances, self.ends, self.shifted)
            yield case, high - low

    def compare(self, scale: float, regions: Mapping[str, str]) -> MethodResult:
        """The results with this scale: the mean width, and the coverage in the body and in each region."""
        means = []
        for case, widths in self.widths(scale):
            inside = widths[case.truth_parts[BODY]]
            if len(inside):
                means.append((case.patient, float(inside.mean())))
        of_patients = [np.mean(values) for values in grouped(means).values()]
        coverage = {}
        least = 0.0
        for region in BODY, *regions:
            scores = self.scores(region)
            if scores:
                inside = 1 - shares_outside(scores, scale)
                coverage[region] = (float(inside.mean()), *mean_interval(inside))
                least = float(inside.min()) if region == BODY else least
        return MethodResult(scale, float(np.mean(of_patients)), coverage, least)


def fit(
    cases: Sequence[CalibrationVoxels],
    regions: Mapping[str, str],
    coverage: float,
    confidence: float,
    bound: Bound,
    seed: int,
    ends: tuple[float, float] = (-1.0, 1.0),
    chosen: IntervalMethod | None = None,
    borders: Sequence[float] = (),
    narrows: bool = True,
    held: Collection[str] = (),
) -> tuple[Target, Widths | None]:
    """Compare the methods of intervals on held-out patients, scale one of them, and learn it again from all patients.

    regions: rules by name; ends: the limits of all intervals, in network units; chosen: the method, None for the
    narrower learned one; borders: values of the image in network units that separate groups, each of which is to hold
    the coverage, if enough voxels show it; narrows: whether a group may have narrower intervals than one factor of all voxels
    gives it; held: regions of the truth, each of which is to hold the coverage, too. Raises BadInput where the patients are too few for the coverage, or for the
    method.
    """
    if not any(case.truth_parts[BODY].any() for case in cases):
        raise BadInput(
            f"calibrate: expected true images that show a body, found none in {len(cases)} cases. Check their units."
        )
    alpha = 1 - coverage
    learn = partial(_learn, borders=borders, alpha=alpha, seed=seed)
    candidates = _candidates(cases, learn, seed, ends)
    compared = dict[str, MethodResult]()
    kept = _shown_borders(cases, borders)
    factors = dict[str, tuple[float, ...]]()
    for method, candidate in candidates.items():
        factors[method] = (1.0,)
        if kept:
            floor = 0.0 if narrows else least_scale(candidate.scores(), alpha, confidence, bound)
            candidate, factors[method] = candidate.grouped(kept, alpha, confidence, bound, floor)
        candidates[method] = candidate
        scale = least_scale(candidate.scores(), alpha, confidence, bound)
        for region in held:
            if scores := candidate.scores(region):
                scale = max(scale, least_scale(scores, alpha, confidence, bound))
        if kept:
            scale = max(scale, 1.0)  # below, groups would lose what their factors hold
        if np.isfinite(scale):
            compared[method] = candidate.compare(scale, regions)
    count = len({case.patient for case in cases})
    if not compared:
        raise BadInput(
            f"calibrate: expected enough patients for a coverage of {coverage:.0%} with confidence {confidence:.0%}, found {count}. Hold back more, ask for less (--coverage 0.8), or leave out the margin for chance (--bound none)."
        )
    finite = [method for method in candidates if method in compared]
    if chosen is not None and chosen not in finite:
        raise BadInput(
            f"--method: expected enough patients for the method {chosen} ({QUANTILES_FROM} for learned), found {count}. Hold back more, or leave the choice of the method out."
        )
    # a constant can be narrower, because the widest intervals have the largest errors, but shows nothing
    narrowest = min(finite, key=lambda method: (method == "constant", compared[method].width))
    best = chosen or narrowest
    scores = candidates[best].scores()
    scales = dict[float, float]()
    for level in sorted({*COVERAGE_LEVELS, coverage}):
        scale = least_scale(scores, 1 - level, confidence, bound)
        if np.isfinite(scale):
            scales[level] = scale
    nominal = scales[coverage] = compared[best].scale
    for level, scale in scales.items():  # groups may need a larger one than their voxels together
        scales[level] = max(scale, nominal) if level > coverage else min(scale, nominal)
    network = learn(best, cases) if best in SETTINGS else None
    target = Target(
        best,
        scales,
        compared,
        dict(regions),
        _bounds(candidates[best], regions, nominal, coverage),
        ends,
        kept,
        factors[best],
        shifted=best != "learned",
    )
    return target, network


def _shown_borders(
    cases: Sequence[CalibrationVoxels], borders: Sequence[float]
) -> tuple[float, ...]:
    """The borders between groups that most patients' images show; a group that they do not show joins the one below."""

    def is_shown(low: float, high: float) -> bool:
        counts = Counter[str]()
        for case in cases:
            group = case.truth_parts[BODY] & (case.image >= low) & (case.image < high)
            counts[case.patient] += int(group.sum())
        enough = [count >= LEAST_OF_GROUP for count in counts.values()]
        return len(enough) >= QUANTILES_FROM and 2 * sum(enough) > len(enough)

    kept: list[float] = []
    for border in borders:
        if is_shown(kept[-1] if kept else -inf, border):
            kept.append(border)
    while kept and not is_shown(kept[-1], inf):
        kept.pop()
    return tuple(kept)


def _candidates(
    cases: Sequence[CalibrationVoxels],
    learn: Callable[[str, Sequence[CalibrationVoxels]], Widths],
    seed: int,
    ends: tuple[float, float],
) -> dict[IntervalMethod, _Candidate]:
    """The methods of intervals that so many patients allow.

    Learned distances of a case are those of a network whose training excluded the case's patient.
    """
    patients = sorted({case.patient for case in cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    folds = min(FOLDS, len(patients))
    fold = {patients[place]: number % folds for number, place in enumerate(order)}
    methods: list[IntervalMethod] = ["learned", "difficulty"]
    if len(patients) < QUANTILES_FROM:
        methods.remove("learned")
    candidates = {}
    for method in methods:
        networks = [
            learn(method, [case for case in cases if fold[case.patient] != number])
            for number in range(folds)
        ]
        distances = [networks[fold[case.patient]].predict(case.features) for case in cases]
        candidates[method] = _Candidate(cases, distances, ends, method != "learned")
    ones = [np.ones((2, len(case.image)), np.float32) for case in cases]
    candidates["constant"] = _Candidate(cases, ones, ends, shifted=True)
    return candidates


def _learn(
    method: str,
    cases: Sequence[CalibrationVoxels],
    borders: Sequence[float],
    alpha: float,
    seed: int,
) -> Widths:
    """The network of distances; all patients have one weight, and quantiles cover every tissue and region of the truth."""
    if method == "difficulty":
        shown = [case for case in cases if case.truth_parts[BODY].any()]
        cases = [_relative_errors(case) for case in shown] or cases
        borders = ()
    patients = Counter(case.patient for case in cases)
    named = sorted(set[str]().union(*(case.truth_parts for case in cases)))
    sizes = [len(case.image) for case in cases]
    weights = [1 / size / patients[case.patient] for case, size in zip(cases, sizes)]
    return fit_widths(
        method,
        np.concatenate([case.features for case in cases]),
        np.concatenate([case.truth - case.image for case in cases]),
        np.repeat(weights, sizes),
        np.concatenate([_regions(case, named, borders) for case in cases]),
        alpha,
        seed,
    )


def _relative_errors(case: CalibrationVoxels) -> CalibrationVoxels:
    """Voxels of a case as one region, with errors relative to their mean in the true body.

    Else a few cases with large errors, and voxels that only the image shows as body, would decide what seems difficult.
    """
    body = case.truth_parts[BODY]
    kept = body | ~case.image_parts[BODY]
    error = case.truth - case.image
    relative = error / np.abs(error[body]).mean().clip(LEAST_DIVISOR)
    return replace(
        case,
        features=case.features[kept],
        image=np.zeros_like(relative[kept]),
        truth=relative[kept],
        truth_parts={BODY: np.ones(kept.sum(), bool)},
    )


def _regions(
    case: CalibrationVoxels, named: Sequence[str], borders: Sequence[float]
) -> NDArray[np.bool_]:
    """The regions [N, R] of voxels by the truth: the surroundings, the body and others by name, and tissues in the body."""
    body = case.truth_parts[BODY]
    none = np.zeros(len(case.image), bool)
    by_name = [case.truth_parts.get(name, none) for name in named]
    tissue = np.searchsorted(borders, case.truth, side="right")
    tissues = [body & (tissue == number) for number in range(len(borders) + 1)]
    return np.stack([~body, *by_name, *tissues], 1)


def _bounds(
    candidate: _Candidate, regions: Mapping[str, str], scale: float, level: float
) -> dict[str, float]:
    """By region, a bound of a case's error relative to its mean half width: one-sided conformal over patients.

    Widths are averaged over the region that the image shows, because synthesis has no truth. The error of the body is
    averaged over the truth's body, as in scores, and that of a region over the region that the image shows.
    """
    ratios = dict[str, list[tuple[str, float]]]()
    for case, widths in candidate.widths(scale):
        error = case.truth - case.image
        body = case.truth_parts[BODY]
        for region in BODY, *regions:
            inside = case.image_parts.get(region)
            if inside is None or not inside.any() or (region == BODY and not body.any()):
                continue
            size = np.abs(error[body]).mean() if region == BODY else abs(error[inside].mean())
            ratio = 2 * float(size / widths[inside].mean())
            key = "mae" if region == BODY else region
            ratios.setdefault(key, []).append((case.patient, ratio))
    return {
        key: conformal_quantile(grouped(pairs).values(), level) for key, pairs in ratios.items()
    }
