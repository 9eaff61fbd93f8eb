"""Fitting a calibration: the distances of intervals are learned on held-out patients, and scaled until they hold the coverage."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from voxlate.base.array_types import Bool, Float32
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
    WIDEST,
    Bound,
    IntervalMethod,
    MethodResult,
    Target,
    Widths,
    group_factors,
    interval,
)

# A few patients do not show the tails of a new patient's errors; their mean errors are more representative.
QUANTILES_FROM = 6  # patients that are needed to learn quantiles of errors
# Voxels of a patient's image, in most patients and so many, that a group needs for a factor of its own.
LEAST_OF_GROUP = 30
PATIENTS_OF_GROUP = 6
FOLDS = 5  # of patients, so that nothing is tested on the patients from which it was learned
HELD = ("bone", "inner_air")  # tissues of synthetic heads that hold the coverage each


@dataclass(frozen=True)
class CalibrationVoxels:
    """Voxels [N] of a held-out case in network units: features [N, F], image, truth, and regions.

    parts: the body and the regions that the truth shows; shown: the body that the image shows.
    """

    patient: str
    features: Float32
    image: Float32
    truth: Float32
    parts: dict[str, Bool]
    shown: Bool

    @property
    def error(self) -> Float32:
        """The truth less the image."""
        return self.truth - self.image

    def between(self, low: float, high: float) -> Bool:
        """The voxels of the body whose image has a value from `low` to below `high`."""
        return self.parts[BODY] & (self.image >= low) & (self.image < high)


Cases = Sequence[CalibrationVoxels]


@dataclass(frozen=True)
class Guarantee:
    """The share of a new patient's voxels that intervals contain, and how sure that is (see conformal.upper_bound)."""

    coverage: float
    confidence: float
    bound: Bound

    def scale(self, scores: Sequence[Float32], coverage: float | None = None) -> float:
        """The least factor for intervals of these scores; coverage: another one."""
        outside = 1 - (coverage or self.coverage)
        return least_scale(scores, outside, self.confidence, self.bound)


@dataclass(frozen=True)
class _HeldOut:
    """Cases with the distances [2, N] below and above their image, by a network that did not learn from their patient.

    ends, shifted: as in `Target`.
    """

    cases: Cases
    distances: Sequence[Float32]
    ends: tuple[float, float]
    shifted: bool

    def scores(self, chosen: Sequence[Bool | None]) -> list[Float32]:
        """For each patient, sorted: the factor that the interval of each chosen voxel needs to hold the truth.

        chosen: [N] of each case.
        """
        scores = []
        for case, (below, above), inside in zip(self.cases, self.distances, chosen):
            if inside is None or not inside.any():
                continue
            truth, image = case.truth[inside], case.image[inside]
            error = truth - image
            reached = shifted_error(error, image, self.ends) if self.shifted else error
            needed = needed_scale(reached, below[inside], above[inside])
            low, high = self.ends
            needed[((truth < low) & (error < 0)) | ((truth > high) & (error > 0))] = np.inf
            scores.append((case.patient, needed))
        return [np.sort(np.concatenate(own)) for own in grouped(scores).values()]

    def of_region(self, region: str) -> list[Float32]:
        """The scores of a region of the truth."""
        return self.scores([case.parts.get(region) for case in self.cases])

    def factor(self, low: float, high: float, guarantee: Guarantee, of_all: float) -> float:
        """The factor by which the voxels whose image is between two values hold their coverage.

        Group-conditional (Mondrian) conformal prediction by predicted values: Vovk et al. 2003; Romano et al. 2020. It is
        that of all voxels where most patients' images show too few of them, or no factor is enough.
        """
        scores = self.scores([case.between(low, high) for case in self.cases])
        shown = [own for own in scores if len(own) >= LEAST_OF_GROUP]
        patients = {case.patient for case in self.cases}
        if len(shown) < PATIENTS_OF_GROUP or 2 * len(shown) <= len(patients):
            return of_all
        least = guarantee.scale(scores)
        return least if 0 < least < inf else of_all

    def result(self, scale: float, regions: Mapping[str, str]) -> MethodResult:
        """The results with this scale: the mean width, and the coverage in the body and in each region."""
        bodies = [(case.patient, width[case.parts[BODY]]) for case, width in self.widths(scale)]
        means = grouped((patient, float(width.mean())) for patient, width in bodies if width.size)
        shares = {}
        for region in BODY, *regions:
            if scores := self.of_region(region):
                shares[region] = 1 - shares_outside(scores, scale)
        coverage = {name: (float(own.mean()), *mean_interval(own)) for name, own in shares.items()}
        width = float(np.mean([np.mean(own) for own in means.values()]))
        return MethodResult(scale, width, coverage, float(shares[BODY].min()))

    def widths(self, scale: float) -> list[tuple[CalibrationVoxels, Float32]]:
        """Each case with the widths of its voxels' intervals."""
        widths = []
        for case, distances in zip(self.cases, self.distances):
            low, high = interval(case.image, scale * distances, self.ends, self.shifted)
            widths.append((case, high - low))
        return widths

    def error_bound(self, scale: float, coverage: float) -> float:
        """A bound of a case's mean absolute error relative to its mean half width: one-sided conformal over patients.

        Widths are averaged over the body that the image shows, because synthesis has no truth, and errors over the truth's
        body, as in scores.
        """
        ratios = []
        for case, widths in self.widths(scale):
            body = case.parts[BODY]
            if body.any() and case.shown.any():
                size = np.abs(case.error[body]).mean()
                ratios.append((case.patient, 2 * float(size / widths[case.shown].mean())))
        return conformal_quantile(grouped(ratios).values(), coverage) if ratios else inf


def fit(
    cases: Cases,
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
    if not any(case.parts[BODY].any() for case in cases):
        raise BadInput(
            f"calibrate: expected true images that show a body, found none in {len(cases)} cases. Check their units."
        )
    patients = len({case.patient for case in cases})
    method: IntervalMethod = "learned" if patients >= QUANTILES_FROM else "difficulty"
    outside = 1 - guarantee.coverage
    shifted = method == "difficulty"
    distances = _distances(cases, method, borders, outside, seed)
    held_out = _HeldOut(cases, distances, ends, shifted)
    of_all = guarantee.scale(held_out.of_region(BODY))
    if not np.isfinite(of_all):
        raise BadInput(
            f"calibrate: expected enough patients for a coverage of {guarantee.coverage:.0%} with confidence {guarantee.confidence:.0%}, found {patients}. Hold back more, or ask for less (--coverage 0.8)."
        )
    groups = pairwise((-inf, *borders, inf))
    factors = [held_out.factor(*group, guarantee, of_all) for group in groups]
    if synthetic:
        factors = [max(factor, of_all) for factor in factors]
    scaled = [
        own * group_factors(case.image, borders, factors) for case, own in zip(cases, distances)
    ]
    held_out = replace(held_out, distances=scaled)
    of_body = held_out.of_region(BODY)
    needed = [1.0, guarantee.scale(of_body)]  # below 1, groups would lose what their factors hold
    if synthetic:
        needed += map(guarantee.scale, filter(None, map(held_out.of_region, HELD)))
    scale = min(max(needed), WIDEST)
    scales = {guarantee.coverage: scale}
    for level in COVERAGE_LEVELS:  # groups may need a larger one than their voxels together
        of_level = guarantee.scale(of_body, level)
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
        tuple(borders),
        tuple(factors),
        shifted,
    )
    return target, _learn(method, cases, borders, outside, seed)


def _distances(
    cases: Cases, method: IntervalMethod, borders: Sequence[float], outside: float, seed: int
) -> list[Float32]:
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
    method: IntervalMethod, cases: Cases, borders: Sequence[float], outside: float, seed: int
) -> Widths:
    """The network of distances; all patients have one weight, and quantiles cover every tissue and region of the truth."""
    if method == "difficulty":
        shown = [case for case in cases if case.parts[BODY].any()]
        cases = [_relative_errors(case) for case in shown] or cases
        borders = ()
    patients = Counter(case.patient for case in cases)
    named = sorted(set[str]().union(*(case.parts for case in cases)))
    sizes = [len(case.image) for case in cases]
    weights = [1 / size / patients[case.patient] for case, size in zip(cases, sizes)]
    return fit_widths(
        method,
        np.concatenate([case.features for case in cases]),
        np.concatenate([case.error for case in cases]),
        np.repeat(weights, sizes),
        np.concatenate([_regions(case, named, borders) for case in cases]),
        outside,
        seed,
    )


def _relative_errors(case: CalibrationVoxels) -> CalibrationVoxels:
    """Voxels of a case as one region, with errors relative to their mean in the true body.

    Else a few cases with large errors, and voxels that only the image shows as body, would decide what seems difficult.
    """
    body = case.parts[BODY]
    kept = body | ~case.shown
    error = case.error
    relative = (error / np.abs(error[body]).mean().clip(LEAST_DIVISOR))[kept]
    image = np.zeros_like(relative)
    everywhere = np.ones(len(image), bool)
    return CalibrationVoxels(
        case.patient, case.features[kept], image, relative, {BODY: everywhere}, everywhere
    )


def _regions(
    case: CalibrationVoxels, named: Sequence[str], borders: Sequence[float]
) -> NDArray[np.bool_]:
    """The regions [N, R] of voxels by the truth: the surroundings, the body and others by name, and tissues in the body."""
    body = case.parts[BODY]
    none = np.zeros(len(case.image), bool)
    by_name = [case.parts.get(name, none) for name in named]
    tissue = np.searchsorted(borders, case.truth, side="right")
    tissues = [body & (tissue == number) for number in range(len(borders) + 1)]
    return np.stack([~body, *by_name, *tissues], 1)
