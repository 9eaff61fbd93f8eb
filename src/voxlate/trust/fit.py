"""Ways of intervals compared on held-back patients, each left out of what was learned, and the narrowest one scaled."""

from collections.abc import Mapping, Sequence
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
    Image,
    Target,
    Way,
    distances,
    interval,
)
from voxlate.trust.conformal import (
    Bound,
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
    """Of voxels [N] of a case, in network units: features [N, F], image, truth, what samples say, and their parts.

    truth_parts: where truth shows body and regions; made_parts: where the made image shows them.
    """

    case: str
    patient: str
    features: Array
    made: Array
    truth: Array
    sd: Array | None
    low: Array | None
    high: Array | None
    truth_parts: dict[str, NDArray[np.bool_]]
    made_parts: dict[str, NDArray[np.bool_]]

    @property
    def image(self) -> Image:
        return Image(self.made, self.sd, self.low, self.high)

    def tensors(self) -> dict[str, np.ndarray]:
        """All arrays by name, for a file."""
        plain = {name: getattr(self, name) for name in ("features", "made", "truth", "sd", "low", "high")}
        found = {name: one for name, one in plain.items() if one is not None}
        for kind in ("truth_parts", "made_parts"):
            found |= {f"{kind}.{name}": one for name, one in getattr(self, kind).items()}
        return found


def evidence_from(case: str, patient: str, tensors: Mapping[str, np.ndarray]) -> Evidence:
    """What Evidence.tensors gave."""
    parts: dict[str, dict[str, np.ndarray]] = {"truth_parts": {}, "made_parts": {}}
    for name, one in tensors.items():
        kind, _, part = name.partition(".")
        if part:
            parts[kind][part] = one
    plain = {name: tensors.get(name) for name in ("features", "made", "truth", "sd", "low", "high")}
    return Evidence(case, patient, **plain, **parts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Tried:
    """Distances below and above of each case by one way, made without the case's own patient where they are learned."""

    below: list[Array]
    above: list[Array]
    ends: tuple[float, float]

    def scores(self, evidence: Sequence[Evidence], part: str = BODY) -> dict[str, Array]:
        """By patient, sorted: how many times wider intervals must be to hold each voxel of a part."""
        found: dict[str, list[Array]] = {}
        for one, below, above in zip(evidence, self.below, self.above):
            inside = one.truth_parts.get(part)
            if inside is not None and inside.any():
                truth = one.truth[inside]
                error = truth - one.made[inside]
                needed = np.where(error < 0, -error / below[inside], error / above[inside])
                unreached = ((truth < self.ends[0]) & (error < 0)) | ((truth > self.ends[1]) & (error > 0))
                needed[unreached] = np.inf
                found.setdefault(one.patient, []).append(needed)
        return {patient: np.sort(np.concatenate(all_)) for patient, all_ in found.items()}

    def width(self, evidence: Sequence[Evidence], scale: float) -> float:
        """Mean width inside the body, over patients, of intervals that end at -1 and 1."""
        by_patient: dict[str, list[float]] = {}
        for one, below, above in zip(evidence, self.below, self.above):
            low, high = interval(one.made, scale * below, scale * above, self.ends)
            ends = high - low
            if one.truth_parts[BODY].any():
                by_patient.setdefault(one.patient, []).append(float(ends[one.truth_parts[BODY]].mean()))
        return float(np.mean([np.mean(values) for values in by_patient.values()]))


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
        scale = least_scale([*one.scores(evidence).values()], alpha, confidence, bound)
        if np.isfinite(scale):
            least = 1 - shares_outside([*one.scores(evidence).values()], scale).max()
            inside = _coverage(one, evidence, texts, scale)
            compared[way] = Compared(scale, one.width(evidence, scale), inside, float(least))
    if not compared:
        patients = len({one.patient for one in evidence})
        raise BadInput(
            f"calibrate: expected enough patients for a coverage of {coverage:.0%} with confidence {confidence:.0%}, "
            f"found {patients}, who can prove {1 - least_provable(patients, confidence):.0%} at best. Hold back more, "
            "ask for less (--coverage 0.8), or let shares of patients count as about normal (--bound normal)."
        )
    best = min(compared, key=lambda way: compared[way].width)
    scores = [*tried[best].scores(evidence).values()]
    levels = {*LEVELS, coverage}
    scales = {level: least_scale(scores, 1 - level, confidence, bound) for level in sorted(levels)}
    scales = {level: scale for level, scale in scales.items() if np.isfinite(scale)}
    learned = _learn(best, evidence, alpha, seed) if best in LESSONS else None
    bounds = _bounds(tried[best], evidence, texts, scales[coverage], coverage)
    return Target(best, scales, compared, dict(texts), bounds, ends), learned


def _ways(evidence: Sequence[Evidence]) -> list[Way]:
    """Those that images and patients allow: a few patients' tails are not a new one's, their mean errors more so."""
    sampled = all(one.sd is not None for one in evidence)
    few = len({one.patient for one in evidence}) < QUANTILES_FROM
    return [way for way in WAYS if (sampled or way not in OF_SAMPLES) and not (few and way == "learned")]


def _tried(way: Way, evidence: Sequence[Evidence], alpha: float, seed: int, ends: tuple[float, float]) -> _Tried:
    """A way's distances of each case."""
    if way in LESSONS:
        pairs = _cross_fitted(way, evidence, alpha, seed)
    else:
        pairs = [distances(way, one.image, (), None) for one in evidence]
    return _Tried([below for below, _ in pairs], [above for _, above in pairs], ends)


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


def _coverage(
    tried: _Tried, evidence: Sequence[Evidence], texts: Mapping[str, str], scale: float
) -> dict[str, tuple[float, float, float]]:
    """Of body and regions the mean over patients of the share inside, and its interval."""
    found = {}
    for part in (BODY, *texts):
        scores = tried.scores(evidence, part)
        if scores:
            inside = 1 - shares_outside([*scores.values()], scale)
            found[part] = (float(inside.mean()), *mean_interval(inside))
    return found


def _bounds(
    tried: _Tried, evidence: Sequence[Evidence], texts: Mapping[str, str], scale: float, level: float
) -> dict[str, float]:
    """By region, how many times its mean half width a case's error is at most: one-sided conformal over patients.

    Widths are those of the body that the image shows, which is all that synthesis has; the body's error is of the
    truth's body, as scores are, and a region's of where the image shows it.
    """
    ratios: dict[str, dict[str, list[float]]] = {}
    for one, below, above in zip(evidence, tried.below, tried.above):
        low, high = interval(one.made, scale * below, scale * above, tried.ends)
        ends, error = high - low, one.truth - one.made
        for part, inside in one.made_parts.items():
            if inside.any():
                if part == BODY and not one.truth_parts[BODY].any():
                    continue
                own = np.abs(error[one.truth_parts[BODY]]).mean() if part == BODY else abs(error[inside].mean())
                key = "mae" if part == BODY else part
                ratios.setdefault(key, {}).setdefault(one.patient, []).append(2 * float(own / ends[inside].mean()))
    return {key: conformal_quantile([np.array(one) for one in all_.values()], level) for key, all_ in ratios.items()}
