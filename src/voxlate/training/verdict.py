"""The verdict on syntheses: a sentence on whether their error is lower than that of the best naive baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from rich.text import Text

from voxlate.base.array_types import Float64
from voxlate.base.errors import plural
from voxlate.base.groups import grouped
from voxlate.base.statistics import SIGNIFICANT, bootstrap, fixed_text, patients_needed, wilcoxon_p

Outcome = Literal["better", "unclear", "worse", "unknown"]
Errors = Mapping[str, float]  # by case

SYNTHESIS = "synthesis"  # the answer of rows that are no naive baseline
METRIC = "mae"
TIE = 0.005  # share of the baseline's error below which a difference does not count
ONE_WORSE = 0.05  # share by which a synthesis of one patient is worse
UNOWNED_CLAUSE = (
    "the patients of the training's slices are unknown, so neighbours of these may be among them"
)
STYLES: Mapping[Outcome, str] = {
    "better": "bold green",
    "unclear": "yellow",
    "worse": "bold white on red",
    "unknown": "",
}


@dataclass(frozen=True)
class Verdict:
    """Whether syntheses of a modality are better than the best naive baseline on the same patients, voxels and range.

    synthesis, naive: mean absolute error of both in `unit`, where each patient counts once; share: relative reduction of
    the baseline's error; lower_on: number of `patients` with a lower error; difference_ci95: interval of the paired
    difference (synthesis − baseline), None below two patients; p: of the test of this difference; worse_in: regions in which
    the synthesis is the worse one. Numbers are None if no baseline was scored.
    """

    modality: str
    outcome: Outcome
    sentence: str
    metric: str = METRIC
    unit: str = ""
    baseline: str | None = None
    synthesis: float | None = None
    naive: float | None = None
    share: float | None = None
    lower_on: int | None = None
    patients: int | None = None
    difference_ci95: tuple[float, float] | None = None
    p: float | None = None
    worse_in: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.sentence


def verdict_on(
    modality: str,
    errors: Mapping[str, Errors],
    patients: Mapping[str, str],
    unit: str,
    where: str,
    not_held_out: str = "",
) -> Verdict:
    """The verdict on syntheses by their mean absolute errors and those of the naive baselines.

    errors: by answer ("synthesis", or a baseline's name) and case, all measured with the same conventions; patients: by
    case; where: a clause on the voxels or items of the errors; not_held_out: a clause if cases say nothing of other patients.
    """
    ours = errors.get(SYNTHESIS, {})
    baseline, shared, least = "", 0, np.inf
    synthesis = naive = np.zeros(0)
    for name, theirs in errors.items():
        both = [case for case in ours if np.isfinite([ours[case], theirs.get(case, np.nan)]).all()]
        if name == SYNTHESIS or not both:
            continue
        own, other = (_by_patient(one, both, patients) for one in (ours, theirs))
        if (len(both), -other.mean()) > (shared, -least):
            baseline, shared, least = name, len(both), other.mean()
            synthesis, naive = own, other
    if not shared:
        finite = [error for error in ours.values() if np.isfinite(error)]
        own_error = f"MAE {_in_unit(float(np.mean(finite)), unit)}; no" if finite else "No"
        said = f"{own_error} naive baseline was scored (--naive RUN gives one)."
        said += f" No result on other patients: {not_held_out}." if not_held_out else ""
        return Verdict(modality, "unknown", said, unit=unit)
    mean, best = float(synthesis.mean()), float(naive.mean())
    # of the baseline's error, which may be 0
    share = 1 - mean / best if best > 0 else -np.inf * mean if mean else 0.0
    p = wilcoxon_p(synthesis, naive)
    lower, higher = int((synthesis < naive).sum()), int((synthesis > naive).sum())
    outcome, reason = _judge(len(naive), share, p, lower, higher, not_held_out)
    begin = f"MAE {_in_unit(mean, unit)}{where}; {baseline} {_in_unit(best, unit)}"
    said = f"{begin.removesuffix('.')}. {reason}"  # a.u. ends with one
    if shared < len(ours):
        said += f" Over the {shared} of {len(ours)} cases that this baseline has."
    return Verdict(
        modality,
        outcome,
        said,
        unit=unit,
        baseline=baseline,
        synthesis=mean,
        naive=best,
        share=share if np.isfinite(share) else None,
        lower_on=lower,
        patients=len(naive),
        difference_ci95=bootstrap(synthesis - naive, list(map(str, range(len(naive)))), seed=0),
        p=p,
    )


def without_gain(verdict: Verdict) -> Verdict:
    """The verdict on a training whose first weights are the best ones, which it states first."""
    text = "Training did not improve on the weights from which it began, and these are kept. Train on more patients, or use the start itself."
    return replace(verdict, sentence=f"{text} {verdict.sentence}")


def _by_patient(errors: Errors, cases: Sequence[str], patients: Mapping[str, str]) -> Float64:
    """The mean error of each patient."""
    of_patients = grouped((patients[case], errors[case]) for case in cases).values()
    return np.array([np.mean(of_cases) for of_cases in of_patients])


def _judge(
    size: int, share: float, p: float, lower: int, higher: int, not_held_out: str
) -> tuple[Outcome, str]:
    """The outcome and its reason: better needs most patients and a significant difference; worse needs most patients.

    size: number of patients; share: relative reduction of the baseline's error; lower, higher: patients with such an error.
    """
    everyone = plural(size, "patient")
    if share <= -(ONE_WORSE if size == 1 else TIE) and 2 * higher > size:
        alone = " One patient does not represent others." if size == 1 else ""
        return "worse", f"Do not use: higher for {higher} of {everyone}.{alone}"
    if not_held_out:
        return "unclear", f"No result on other patients: {not_held_out}."
    if share >= TIE and p < SIGNIFICANT and 2 * lower > size:
        return "better", f"Lower for {lower} of {everyone}."
    if enough := patients_needed(size):
        return "unclear", f"Too few patients to compare: {size}, at least {enough} are needed."
    return "unclear", f"Not clearly lower: for {lower} of {everyone} (signed-rank test, p {p:.2g})."


def _in_unit(error: float, unit: str) -> str:
    return f"{fixed_text(error, error, fits=True)} {unit}".rstrip()


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each verdict, with the modality if there are several."""
    if len(verdicts) < 2:
        return list(map(str, verdicts))
    return [f"{verdict.modality}: {verdict.sentence}" for verdict in verdicts]


def colour_lines(verdicts: Sequence[Verdict]) -> Text:
    """The same lines, coloured for a terminal."""
    lines = zip(verdict_lines(verdicts), verdicts)
    return Text("\n").join([Text(line, STYLES[verdict.outcome]) for line, verdict in lines])
