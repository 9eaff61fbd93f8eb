"""Fitting a calibration: the distances of intervals are learned on held-out patients, and scaled until they hold the coverage."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.evaluation.intervals.conformal import (
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
    Bound,
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
HELD = ("bone", "inner_air")  # tissues of synthetic heads that hold the coverage each


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
class Guarantee:
    """The share of a new patient's voxels that intervals contain, and how sure that is (see conformal.upper_bound)."""

    coverage: float
    confidence: float
    bound: Bound

    def scale(self, scores: Sequence[Array], coverage: float | None = None) -> float:
        """The least factor for intervals of these scores; coverage: another one."""
        outside = 1 - (coverage or self.coverage)
        return least_scale(scores, outside, self.confidence, self.bound)


@dataclass(frozen=True)
class _HeldOut:
    """The distances [2, N] below and above the image of each case, by a network that did not learn from its patient.

    shifted: as in `Target`.
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
        self, borders: Sequence[float], guarantee: Guarantee, floor: float
    ) -> tuple["_HeldOut", tuple[float, ...]]:
        """The distances of each group times a factor by which the group holds its coverage, and the factors.

        Group-conditional (Mondrian) conformal prediction by predicted values: Vovk et al. 2003; Romano et al. 2020. A
        group that no factor is enough for keeps its distances. No factor is below the floor.
        """
        least = [
            guarantee.scale(self.scores(limits=limits))
            for limits in pairwise((-inf, *borders, inf))
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

    def result(self, scale: float, regions: Mapping[str, str]) -> MethodResult:
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

    def error_bound(self, scale: float, coverage: float) -> float:
        """A bound of a case's mean absolute error relative to its mean half width: one-sided conformal over patients.

        Widths are averaged over the body that the image shows, because synthesis has no truth, and errors over the truth's
        body, as in scores.
        """
        ratios = []
        for case, widths in self.widths(scale):
            body = case.truth_parts[BODY]
            shown = case.image_parts[BODY]
            if body.any() and shown.any():
                size = np.abs((case.truth - case.image)[body]).mean()
                ratios.append((case.patient, 2 * float(size / widths[shown].mean())))
        return conformal_quantile(grouped(ratios).values(), coverage) if ratios else inf


def fit(
    cases: Sequence[CalibrationVoxels],
    regions: Mapping[str, str],
    guarantee: Guarantee,
    seed: int,
    ends: tuple[float, float] = (-1.0, 1.0),
    borders: Sequence[float] = (),
    synthetic: bool = False,
) -> tuple[Target, Widths]:
    """The intervals of a target, scaled on held-out patients, and their network, learned from all patients.

    regions: rules by name; ends: the limits of all intervals, in network units; borders: values of the image in network
    units that separate groups, each of which is to hold the coverage, if enough voxels show it; synthetic: of synthetic heads,
    no group has narrower intervals than one factor of all voxels gives it, and the tissues HELD hold the coverage, too.
    Raises BadInput where the patients are too few for the coverage.
    """
    if not any(case.truth_parts[BODY].any() for case in cases):
        raise BadInput(
            f"calibrate: expected true images that show a body, found none in {len(cases)} cases. Check their units."
        )
    patients = len({case.patient for case in cases})
    method: IntervalMethod = "learned" if patients >= QUANTILES_FROM else "difficulty"
    outside = 1 - guarantee.coverage
    shifted = method == "difficulty"
    distances = _distances(cases, method, borders, outside, seed)
    held_out = _HeldOut(cases, distances, ends, shifted)
    kept = _shown_borders(cases, borders)
    factors: tuple[float, ...] = (1.0,)
    if kept:
        floor = guarantee.scale(held_out.scores()) if synthetic else 0.0
        held_out, factors = held_out.grouped(kept, guarantee, floor)
    scores = held_out.scores()
    needed = [guarantee.scale(scores)]
    if synthetic:
        of_tissues = filter(None, map(held_out.scores, HELD))
        needed += map(guarantee.scale, of_tissues)
    if kept:
        needed.append(1.0)  # below, groups would lose what their factors hold
    scale = max(needed)
    if not np.isfinite(scale):
        raise BadInput(
            f"calibrate: expected enough patients for a coverage of {guarantee.coverage:.0%} with confidence {guarantee.confidence:.0%}, found {patients}. Hold back more, or ask for less (--coverage 0.8)."
        )
    scales = {guarantee.coverage: scale}
    for level in COVERAGE_LEVELS:  # groups may need a larger one than their voxels together
        of_level = guarantee.scale(scores, level)
        if level != guarantee.coverage and np.isfinite(of_level):
            bounded = max if level > guarantee.coverage else min
            scales[level] = bounded(of_level, scale)
    target = Target(
        method,
        dict(sorted(scales.items())),
        {method: held_out.result(scale, regions)},
        dict(regions),
        {"mae": held_out.error_bound(scale, guarantee.coverage)},
        ends,
        kept,
        factors,
        shifted,
    )
    return target, _learn(method, cases, borders, outside, seed)


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


def _distances(
    cases: Sequence[CalibrationVoxels],
    method: IntervalMethod,
    borders: Sequence[float],
    outside: float,
    seed: int,
) -> list[Array]:
    """The distances [2, N] of each case, by a network whose training excluded the case's patient."""
    patients = sorted({case.patient for case in cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    folds = min(FOLDS, len(patients))
    fold = {patients[place]: number % folds for number, place in enumerate(order)}
    networks = []
    for number in range(folds):
        others = [case for case in cases if fold[case.patient] != number]
        networks.append(_learn(method, others, borders, outside, seed))
    return [networks[fold[case.patient]].predict(case.features) for case in cases]


def _learn(
    method: IntervalMethod,
    cases: Sequence[CalibrationVoxels],
    borders: Sequence[float],
    outside: float,
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
        outside,
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
