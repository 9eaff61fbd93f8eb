"""The verdict on syntheses: a sentence on whether their error is lower than that of the best naive baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    others = [name for name in errors if name != SYNTHESIS]
    pairs = [_pair(name, ours, errors[name], patients) for name in others]
    shared = [pair for pair in pairs if pair.cases]
    if not shared:
        finite = [error for error in ours.values() if np.isfinite(error)]
        own = f"MAE {_in_unit(float(np.mean(finite)), unit)}; no" if finite else "No"
        said = f"{own} naive baseline was scored (--prepared PREPARED or --naive RUN gives one)."
        said += f" No result on other patients: {not_held_out}." if not_held_out else ""
        return Verdict(modality, "unknown", said, unit=unit)
    best = min(shared, key=lambda pair: (-pair.cases, pair.naive.mean()))
    outcome, said = _judge(best, unit, where, not_held_out)
    if best.cases < len(ours):
        said += f" Over the {best.cases} of {len(ours)} cases that this baseline has."
    numbers = [str(number) for number in range(len(best.naive))]
    return Verdict(
        modality,
        outcome,
        said,
        unit=unit,
        baseline=best.baseline,
        synthesis=float(best.synthesis.mean()),
        naive=float(best.naive.mean()),
        share=best.share if np.isfinite(best.share) else None,
        lower_on=best.lower_on,
        patients=len(numbers),
        difference_ci95=bootstrap(best.synthesis - best.naive, numbers, seed=0),
        p=wilcoxon_p(best.synthesis, best.naive),
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    """Mean errors by patient of the synthesis and one baseline, on the cases that both have."""

    baseline: str
    synthesis: Float64
    naive: Float64
    cases: int

    @property
    def share(self) -> float:
        """The relative reduction of the baseline's error; −∞ if the baseline has no error."""
        ours, theirs = float(self.synthesis.mean()), float(self.naive.mean())
        if theirs > 0:
            return 1 - ours / theirs
        return 0.0 if ours == 0 else -np.inf

    @property
    def lower_on(self) -> int:
        """Number of patients on whom the synthesis has the lower error."""
        return int((self.synthesis < self.naive).sum())


def _judge(pair: _Pair, unit: str, where: str, not_held_out: str) -> tuple[Outcome, str]:
    """The outcome and its sentence: better needs most patients and a significant difference; worse needs most patients."""
    ours, theirs = (_in_unit(float(both.mean()), unit) for both in (pair.synthesis, pair.naive))
    size = len(pair.naive)
    errors = f"MAE {ours}{where}; {pair.baseline} {theirs}".removesuffix(".")  # of a.u.
    share = pair.share
    least = ONE_WORSE if size == 1 else TIE
    higher = int((pair.synthesis > pair.naive).sum())
    if share <= -least and 2 * higher > size:
        alone = " One patient does not represent others." if size == 1 else ""
        return (
            "worse",
            f"{errors}. Do not use: higher for {higher} of {plural(size, 'patient')}.{alone}",
        )
    if not_held_out:
        return "unclear", f"{errors}. No result on other patients: {not_held_out}."
    lower = f"for {pair.lower_on} of {plural(size, 'patient')}"
    p = wilcoxon_p(pair.synthesis, pair.naive)
    if share >= TIE and p < SIGNIFICANT and 2 * pair.lower_on > size:
        return "better", f"{errors}. Lower {lower}."
    if enough := patients_needed(size):
        return (
            "unclear",
            f"{errors}. Too few patients to compare: {size}, at least {enough} are needed.",
        )
    return "unclear", f"{errors}. Not clearly lower: {lower} (signed-rank test, p {p:.2g})."


def _in_unit(error: float, unit: str) -> str:
    return f"{fixed_text(error, error, fits=True)} {unit}".rstrip()


def _pair(baseline: str, ours: Errors, theirs: Errors, patients: Mapping[str, str]) -> _Pair:
    """The mean errors of the patients with a case that both have, each patient once."""
    errors = {case: [ours[case], theirs.get(case, np.nan)] for case in ours}
    by_patient = grouped(
        (patients[case], both) for case, both in errors.items() if np.isfinite(both).all()
    )
    means = [np.mean(pairs, axis=0) for pairs in by_patient.values()]
    synthesis, naive = np.reshape(means, (-1, 2)).T
    return _Pair(baseline, synthesis, naive, sum(map(len, by_patient.values())))


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each verdict, with the modality if there are several."""
    if len(verdicts) < 2:
        return list(map(str, verdicts))
    return [f"{verdict.modality}: {verdict.sentence}" for verdict in verdicts]


def colour_lines(verdicts: Sequence[Verdict]) -> Text:
    """The same lines, coloured for a terminal."""
    lines = zip(verdict_lines(verdicts), verdicts)
    return Text("\n").join([Text(line, STYLES[verdict.outcome]) for line, verdict in lines])
