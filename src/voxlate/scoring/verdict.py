"""The verdict on syntheses: a sentence on whether their error is lower than that of the best naive baseline."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError
from rich.text import Text

from voxlate.scoring.metrics import METRIC_OF
from voxlate.scoring.paired import SIGNIFICANT, too_few, wilcoxon_p
from voxlate.scoring.resampling import bootstrap
from voxlate.system.config import adapter
from voxlate.system.errors import plural

Outcome = Literal["better", "unclear", "worse", "unknown"]

SYNTHESIS = "synthesis"  # the answer of rows that are no naive baseline
METRIC = METRIC_OF["mae"]
NETWORK_METRIC = METRIC_OF["mae_network"]  # of MR that is scored in shares of its own peak
TIE = 0.005  # share of the baseline's error below which a difference prints as 0 %
SYMBOLS: Mapping[Outcome, str] = {
    "better": "✓",
    "unclear": "?",
    "worse": "✗",
    "unknown": "–",
}
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
    difference (synthesis − baseline), None below two patients; p: of the test of this difference. Numbers are None if no
    baseline was scored.
    """

    modality: str
    outcome: Outcome
    sentence: str
    metric: str = METRIC.key
    unit: str = ""
    baseline: str | None = None
    synthesis: float | None = None
    naive: float | None = None
    share: float | None = None
    lower_on: int | None = None
    patients: int | None = None
    difference_ci95: tuple[float, float] | None = None
    p: float | None = None

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.outcome]

    def document(self) -> dict[str, Any]:
        """The verdict as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.symbol} {self.sentence}"


@dataclass(frozen=True)
class Compared:
    """Mean errors by patient of the synthesis and one baseline, on the cases that both have."""

    baseline: str
    synthesis: np.ndarray
    naive: np.ndarray
    cases: int

    @property
    def share(self) -> float:
        """The relative reduction of the baseline's error; −∞ if the baseline has no error."""
        own = float(self.synthesis.mean())
        other = float(self.naive.mean())
        if other > 0:
            return 1 - own / other
        return 0.0 if own == 0 else -np.inf

    @property
    def lower_on(self) -> int:
        return int((self.synthesis < self.naive).sum())

    @property
    def interval(self) -> tuple[float, float] | None:
        differences = self.synthesis - self.naive
        return bootstrap(differences, [str(number) for number in range(len(differences))], seed=0)

    @property
    def p(self) -> float:
        return wilcoxon_p(self.synthesis, self.naive)


def verdict_on(
    modality: str,
    errors: Mapping[str, Mapping[str, float]],
    patients: Mapping[str, str],
    unit: str,
    where: str,
    not_held_out: str = "",
) -> Verdict:
    """The verdict on syntheses by their mean absolute errors and those of the naive baselines.

    errors: by answer ("synthesis", or a baseline's name) and case, all measured with the same conventions; patients: by
    case; where: words on the voxels or items of the errors; not_held_out: a clause if cases were in the training.
    """
    own = errors.get(SYNTHESIS, {})
    every = [_compared(name, own, errors[name], patients) for name in errors if name != SYNTHESIS]
    compared = [pair for pair in every if pair is not None]
    if not compared:
        said = "no verdict: no naive baseline was scored, so it is unknown whether the model is worth its training"
        return Verdict(modality, "unknown", said, unit=unit)
    most = max(pair.cases for pair in compared)
    largest = [pair for pair in compared if pair.cases == most]
    best = min(largest, key=lambda pair: float(pair.naive.mean()))
    outcome = _outcome(best)
    missing = (
        f"over the {best.cases} of {len(own)} cases that this baseline has"
        if best.cases < len(own)
        else ""
    )
    return Verdict(
        modality,
        "unclear" if outcome == "better" and not_held_out else outcome,
        "; ".join(filter(None, [_sentence(best, outcome, unit, where), not_held_out, missing])),
        unit=unit,
        baseline=best.baseline,
        synthesis=float(best.synthesis.mean()),
        naive=float(best.naive.mean()),
        share=best.share if np.isfinite(best.share) else None,
        lower_on=best.lower_on,
        patients=len(best.naive),
        difference_ci95=best.interval,
        p=best.p,
    )


def _compared(
    baseline: str,
    own: Mapping[str, float],
    other: Mapping[str, float],
    patients: Mapping[str, str],
) -> Compared | None:
    """Errors on the cases that both have; None if there is no such case."""
    shared = [case for case in own if case in other]
    cases = [case for case in shared if np.isfinite([own[case], other[case]]).all()]
    groups = list(dict.fromkeys(patients[case] for case in cases))
    if not cases:
        return None
    means = [
        [
            float(np.mean([errors[case] for case in cases if patients[case] == patient]))
            for patient in groups
        ]
        for errors in (own, other)
    ]
    return Compared(baseline, np.array(means[0]), np.array(means[1]), len(cases))


def _outcome(compared: Compared) -> Outcome:
    """The outcome: better needs most patients and a significant difference; worse needs most patients."""
    half = len(compared.naive) / 2
    share = compared.share
    if abs(share) < TIE:
        return "unclear"
    if share < 0:
        return "worse" if (compared.synthesis > compared.naive).sum() > half else "unclear"
    proven = compared.p < SIGNIFICANT
    return "better" if proven and compared.lower_on > half else "unclear"


def _sentence(compared: Compared, outcome: Outcome, unit: str, where: str) -> str:
    """The sentence of an outcome."""
    count = len(compared.naive)
    own, other = (
        _value(float(errors.mean()), unit) for errors in (compared.synthesis, compared.naive)
    )
    best = f"the best naive baseline ({compared.baseline}, {other})"
    share = _percent(compared.share)
    patients = f"{compared.lower_on} of {plural(count, 'patient')}"
    if outcome == "better":
        return f"beats {best} by {share} on {patients}: MAE {own}, {where}"
    side = "lower" if compared.share > 0 else "higher"
    means = f"MAE {own}, {where}, {side} by {share} on average, lower for {patients}"
    few = too_few(count)
    if outcome == "worse":
        one = "; one patient does not represent others" if count == 1 else ""
        return f"WORSE THAN {best}: do not use; {means}{one}"
    if few:
        return f"CANNOT BE TOLD from {few} whether it is better than {best}: {means}"
    return f"NOT CLEARLY BETTER than {best}: {means} (signed-rank test, p {compared.p:.2g})"


def _value(error: float, unit: str) -> str:
    return f"{METRIC.text(error)} {METRIC.unit_for(unit)}".rstrip()


def _percent(share: float) -> str:
    if not np.isfinite(share):
        return "any share of a baseline without error"
    if share < -10:
        return f"a factor of {1 - share:.0f}"
    return f"{100 * abs(share):.0f} %" if abs(share) >= TIE else "less than 1 %"


def verdicts(document: Mapping[str, Any]) -> list[Verdict]:
    """The verdict on each modality of a metrics.json."""
    return [_of_modality(name, part, document) for name, part in document["modalities"].items()]


def _of_modality(name: str, part: Mapping[str, Any], document: Mapping[str, Any]) -> Verdict:
    if name in document.get("given_truth", ()):
        said = "no verdict: the truth itself was given to the model, so this is a bound and no synthesis"
        return Verdict(name, "unknown", said, unit=part["unit"])
    rows = [row for row in document["cases"] if row["modality"] == name]
    if most := _most_truths_at_fault(name, rows, document):
        return Verdict(name, "unknown", most, unit=part["unit"])
    errors = _errors(rows, METRIC.key)
    patients = {row["case"]: row["patient"] for row in rows}
    own = errors.get(SYNTHESIS, {})
    trained = len(own.keys() & set(document.get("trained_on", ())))
    cases = f"{len(own)} case{'' if len(own) == 1 else 's'}"
    clause = (
        f"{trained} of {cases} in the training, so this is no result on other patients"
        if trained
        else ""
    )
    mask = part["mask"]
    where = mask if mask == "whole image" else f"inside the mask {mask}"
    stated = verdict_on(name, errors, patients, part["unit"], where, clause)
    on_255 = _errors(rows, NETWORK_METRIC.key)
    if not on_255:
        return stated
    other = verdict_on(name, on_255, patients, NETWORK_METRIC.unit, where, clause)
    return _agreed(stated, other)


def _most_truths_at_fault(
    name: str, rows: Iterable[Mapping[str, Any]], document: Mapping[str, Any]
) -> str:
    """A sentence where more than half of the truths of a modality are at fault and left out, else ''."""
    wrong = {label for label in document.get("wrong_truths", ()) if label.endswith(f"/{name}")}
    every = wrong | {f"{row['case']}/{name}" for row in rows}
    if document.get("wrong_truths_scored") or 2 * len(wrong) <= len(every):
        return ""
    return f"no verdict: most truths ({len(wrong)} of {len(every)}) cannot be those of their images: check the cohort"


def _errors(rows: Iterable[Mapping[str, Any]], key: str) -> dict[str, dict[str, float]]:
    """A score by answer and case."""
    errors = dict[str, dict[str, float]]()
    for row in rows:
        if row.get(key) is not None:
            errors.setdefault(row["answer"], {})[row["case"]] = row[key]
    return errors


def _agreed(stated: Verdict, in_network_units: Verdict) -> Verdict:
    """The verdict on images divided by their own peaks, which states a different outcome in network units.

    Training judges in network units, in which a wrong overall brightness is an error.
    """
    if "unknown" in (stated.outcome, in_network_units.outcome):
        return stated
    if stated.outcome == in_network_units.outcome:
        return stated
    sentence = f"DEPENDS ON THE UNIT. With each image divided by its own peak: {stated.sentence}. In network units (0 to 255, as in training; --units network), where a wrong brightness is an error: {in_network_units.sentence}"
    return replace(stated, outcome="unclear", sentence=sentence)


def logged(log: Path) -> dict[str, list[Verdict]]:
    """The last verdicts of each stage of a training by its log.jsonl; other lines are skipped."""
    by_stage = dict[str, list[Verdict]]()
    for text in (
        log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ()
    ):
        with contextlib.suppress(
            json.JSONDecodeError, ValidationError
        ):  # a killed run may end in half a line
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("verdict"), dict):
                stated = [adapter(Verdict).validate_python(one) for one in line["verdict"].values()]
                by_stage[str(line.get("stage", ""))] = stated
    return by_stage


def lines(verdicts: Iterable[Verdict]) -> list[str]:
    """A line for each verdict with its symbol, and with the modality if there are several."""
    several = list(verdicts)
    return [
        f"{verdict.symbol} {verdict.modality}: {verdict.sentence}"
        if len(several) > 1
        else str(verdict)
        for verdict in several
    ]


def coloured(verdicts: Iterable[Verdict]) -> Text:
    """The same lines, coloured for a terminal."""
    several = list(verdicts)
    styled = [Text(line, STYLES[verdict.outcome]) for line, verdict in zip(lines(several), several)]
    return Text("\n").join(styled)
