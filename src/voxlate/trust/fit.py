"""Ways of intervals compared on held-back patients, each left out of what was learned, and the narrowest one scaled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxlate.errors import BadInput
from voxlate.trust.calibration import (
    BODY,
    LEVELS,
    OF_SAMPLES,
    WAYS,
    Compared,
    Prediction,
    Target,
    Way,
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
from voxlate.trust.widths import LESSONS, Learned, Widths, fit_widths

Array = NDArray[np.float32]

RAREST = 100.0  # times that a voxel of a small region weighs at most
QUANTILES_FROM = 6  # patients to learn quantiles of errors from
FOLDS = 5  # into which patients are divided, so that nothing learned is tested on those it was learned from


@dataclass(frozen=True)
class Evidence:
    """Of voxels [N] of a case, in network units: features [N, F], image, truth, their parts, and what samples say.

    truth_parts: where truth shows body and regions; made_parts: where the made image shows them.
    """

    case: str
    patient: str
    features: Array
    made: Array
    truth: Array
    truth_parts: dict[str, NDArray[np.bool_]]
    made_parts: dict[str, NDArray[np.bool_]]
    sd: Array | None = None
    low: Array | None = None
    high: Array | None = None

    @property
    def image(self) -> Prediction:
        return Prediction(self.made, self.sd, self.low, self.high)


@dataclass(frozen=True)
class _Tried:
    """A way's distances below and above of each case, made without the case's own patient where they are learned."""

    evidence: Sequence[Evidence]
    distances: Sequence[tuple[Array, Array]]
    ends: tuple[float, float]

    def scores(self, part: str = BODY) -> list[Array]:
        """Of each patient, sorted: how many times wider intervals must be to hold each voxel of a part."""
        found = []
        for one, (below, above) in zip(self.evidence, self.distances):
            inside = one.truth_parts.get(part)
            if inside is not None and inside.any():
                truth = one.truth[inside]
                error = truth - one.made[inside]
                needed = np.where(error < 0, -error / below[inside], error / above[inside])
                unreached = ((truth < self.ends[0]) & (error < 0)) | ((truth > self.ends[1]) & (error > 0))
                needed[unreached] = np.inf
                found.append((one.patient, needed))
        return [np.sort(np.concatenate(cases)) for cases in by_patient(found).values()]

    def widths(self, scale: float) -> Iterator[tuple[Evidence, Array]]:
        """Each case with the widths of its voxels' intervals."""
        for one, (below, above) in zip(self.evidence, self.distances):
            low, high = interval(one.made, scale * below, scale * above, self.ends)
            yield one, high - low

    def mean_width(self, scale: float) -> float:
        """Inside the body, over patients."""
        inside = ((one.patient, widths[one.truth_parts[BODY]]) for one, widths in self.widths(scale))
        means = by_patient((patient, float(widths.mean())) for patient, widths in inside if len(widths))
        return float(np.mean([np.mean(values) for values in means.values()]))


def fit(
    evidence: Sequence[Evidence],
    texts: Mapping[str, str],
    coverage: float,
    confidence: float,
    bound: Bound,
    seed: int,
    ends: tuple[float, float] = (-1.0, 1.0),
) -> tuple[Target, Widths | None]:
    """Compare the ways on patients left out, scale the narrowest, and learn it again from all.

    ends: beyond which intervals do not go, in network units.
    """
    alpha = 1 - coverage
    tried = {way: _tried(way, evidence, alpha, seed, ends) for way in _ways(evidence)}
    compared = dict[Way, Compared]()
    for way, one in tried.items():
        scores = one.scores()
        scale = least_scale(scores, alpha, confidence, bound)
        if np.isfinite(scale):
            least = 1 - shares_outside(scores, scale).max()
            compared[way] = Compared(scale, one.mean_width(scale), _coverage(one, texts, scale), float(least))
    if not compared:
        patients = len({one.patient for one in evidence})
        raise BadInput(
            f"calibrate: expected enough patients for a coverage of {coverage:.0%} with confidence {confidence:.0%}, "
            f"found {patients}, who can prove {1 - least_provable(patients, confidence):.0%} at best. Hold back more, "
            "ask for less (--coverage 0.8), or let shares of patients count as about normal (--bound normal)."
        )
    best = min(compared, key=lambda way: compared[way].width)
    scores, levels = tried[best].scores(), sorted({*LEVELS, coverage})
    scales = {level: least_scale(scores, 1 - level, confidence, bound) for level in levels}
    scales = {level: scale for level, scale in scales.items() if np.isfinite(scale)}
    learned = _learn(best, evidence, alpha, seed) if best in LESSONS else None
    bounds = _bounds(tried[best], scales[coverage], coverage)
    return Target(best, scales, compared, dict(texts), bounds, ends), learned


def _ways(evidence: Sequence[Evidence]) -> list[Way]:
    """Those that images and patients allow: a few patients' tails are not a new one's, their mean errors more so."""
    sampled = all(one.sd is not None for one in evidence)
    few = len({one.patient for one in evidence}) < QUANTILES_FROM
    return [way for way in WAYS if (sampled or way not in OF_SAMPLES) and not (few and way == "learned")]


def _tried(way: Way, evidence: Sequence[Evidence], alpha: float, seed: int, ends: tuple[float, float]) -> _Tried:
    """A way's distances of each case."""
    if way in LESSONS:
        return _Tried(evidence, _cross_fitted(way, evidence, alpha, seed), ends)
    return _Tried(evidence, [distances(way, one.image, (), None) for one in evidence], ends)


def _cross_fitted(way: Learned, evidence: Sequence[Evidence], alpha: float, seed: int) -> list[tuple[Array, Array]]:
    """Learned distances of each case, by a network that did not see its patient."""
    patients = sorted({one.patient for one in evidence})
    order = np.random.default_rng(seed).permutation(len(patients))
    fold = {patients[place]: number % min(FOLDS, len(patients)) for number, place in enumerate(order)}
    nets = {
        number: _learn(way, [one for one in evidence if fold[one.patient] != number], alpha, seed)
        for number in sorted(set(fold.values()))
    }
    return [nets[fold[one.patient]].predict(one.features) for one in evidence]


def _learn(way: Learned, evidence: Sequence[Evidence], alpha: float, seed: int) -> Widths:
    """The network of distances, in which each patient counts the same, and rare regions more than by their size."""
    count = {patient: sum(one.patient == patient for one in evidence) for patient in {one.patient for one in evidence}}
    features = np.concatenate([one.features for one in evidence])
    errors = np.concatenate([one.truth - one.made for one in evidence])
    weights = [_weights(one) / np.float32(count[one.patient]) for one in evidence]
    return fit_widths(way, features, errors, np.concatenate(weights), alpha, seed)


def _weights(one: Evidence) -> Array:
    """Voxels of a case weigh 1 / N, and those of a region so much more that it weighs as the whole body does."""
    body = one.truth_parts[BODY]
    weights = np.ones(len(one.made), np.float32)
    for name, part in one.truth_parts.items():
        if name != BODY and part.any():
            weights[part] = np.maximum(weights[part], min(body.sum() / part.sum(), RAREST))
    chosen: Array = weights / weights.sum()
    return chosen


def _coverage(tried: _Tried, texts: Mapping[str, str], scale: float) -> dict[str, tuple[float, float, float]]:
    """Of body and regions the mean over patients of the share inside, and its interval."""
    found = {}
    for part in (BODY, *texts):
        if scores := tried.scores(part):
            inside = 1 - shares_outside(scores, scale)
            found[part] = (float(inside.mean()), *mean_interval(inside))
    return found


def _bounds(tried: _Tried, scale: float, level: float) -> dict[str, float]:
    """By region, how many times its mean half width a case's error is at most: one-sided conformal over patients.

    Widths are those of the body that the image shows, which is all that synthesis has; the body's error is of the
    truth's body, as scores are, and a region's of where the image shows it.
    """
    ratios: dict[str, list[tuple[str, float]]] = {}
    for one, widths in tried.widths(scale):
        error, body = one.truth - one.made, one.truth_parts[BODY]
        for part, inside in one.made_parts.items():
            if inside.any() and (part != BODY or body.any()):
                own = np.abs(error[body]).mean() if part == BODY else abs(error[inside].mean())
                ratio = 2 * float(own / widths[inside].mean())
                ratios.setdefault("mae" if part == BODY else part, []).append((one.patient, ratio))
    return {key: conformal_quantile(by_patient(pairs).values(), level) for key, pairs in ratios.items()}
