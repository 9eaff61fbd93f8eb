"""Rows of scores, their summary with confidence intervals, and the table, CSV and JSON that show them."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from voxlate.files import whole_file, write_json
from voxlate.images.ranges import Range
from voxlate.scoring.metric_catalogue import (
    LPIPS,
    METRICS,
    SSIM,
    Metric,
    cell,
    features_note,
    is_aside,
    measured,
    of_region,
)

RESAMPLES = 2000  # the 2.5 % tail then rests on 50 resamples


@dataclass(frozen=True)
class Row:
    """Scores of one answer (the synthesis, or a trivial one) for one modality of one case."""

    case: str
    patient: str
    modality: str
    answer: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Choices:
    """What was decided before scoring, and where the pictures lie (for the report)."""

    truth: str
    mask: str
    padding: str
    ssim_from: str
    regions: dict[str, str]
    features: dict[str, dict[str, Any]]
    lpips: str | None
    split: str | None
    seed: int
    ranges: dict[str, Range]
    trivial_cases: int | None
    without_truth: tuple[str, ...]
    files: dict[str, str]
    sources: dict[str, dict[str, str]]
    version: str


@dataclass(frozen=True)
class Scores:
    """All rows and how they were made; distances by modality, answer and metric are of all cases together."""

    rows: tuple[Row, ...]
    choices: Choices
    distances: dict[str, dict[str, Any]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """What metrics.json holds: each value beside its unit, range, mask, window, reduction and number of cases."""
        modalities = dict.fromkeys(row.modality for row in self.rows)
        return {
            "voxlate": self.choices.version,
            "note": "Research software, not a medical device.",
            "truth": self.choices.truth,
            "split": self.choices.split,
            "trivial_cases": self.choices.trivial_cases,
            "without_truth": list(self.choices.without_truth),
            "truth_files": self.choices.files,
            "source_files": self.choices.sources,
            "regions": self.choices.regions,
            "modalities": {name: self._modality(name) for name in modalities},
            "cases": [_flat(row) for row in self.rows],
        }

    def _modality(self, name: str) -> dict[str, Any]:
        rows = [row for row in self.rows if row.modality == name]
        scale = self.choices.ranges[name]
        patients = {row.patient for row in rows}
        over = "patients" if len(patients) > 1 else "cases"
        stated = {
            "range": [scale.low, scale.high],
            "range_rule": scale.rule,
            "own_peak": scale.own,
            "mask": self.choices.mask,
            "ssim_padding": self.choices.padding,
            "ssim_from": self.choices.ssim_from,
            "features": self.choices.features.get(name),
            "lpips": self.choices.lpips,
            "cases": len({row.case for row in rows}),
            "patients": len(patients),
            "bootstrap": f"95 % percentile interval, {RESAMPLES} resamples over {over}, seed {self.choices.seed}",
        }
        answers: dict[str, Any] = {}
        known = self._metrics()
        for answer in dict.fromkeys(row.answer for row in rows):
            mine = [row for row in rows if row.answer == answer]
            answers[answer] = {
                metric.key: summary(mine, metric, over, self.choices.seed) | _beside(metric, scale, stated)
                for metric in known
                if any(metric.key in row.scores for row in mine)
            }
            pooled = self.distances.get(name, {}).get(answer, {})
            answers[answer] |= {
                metric.key: pooled[metric.key] | _beside(metric, scale, stated)
                for metric in known
                if metric.key in pooled
            }
        return {"unit": scale.unit, **stated, "answers": answers}

    def _metrics(self) -> tuple[Metric, ...]:
        return measured({"regions": self.choices.regions})

    def table(self) -> Table:
        return table(self.document())

    def write(self, out: Path) -> None:
        """Write OUT/metrics.json and OUT/metrics.csv."""
        write_json(out / "metrics.json", self.document())
        columns = ["case", "patient", "modality", "answer", "unit", "range_low", "range_high", "mask"]
        with whole_file(out / "metrics.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            found = {key for row in self.rows for key in row.scores}
            fixed = [metric.key for metric in METRICS if not metric.pooled]
            mine = [metric.key for metric in self._metrics()[len(METRICS) :] if metric.key in found]
            writer = csv.DictWriter(file, columns + fixed + mine)
            writer.writeheader()
            for row in self.rows:
                scale = self.choices.ranges[row.modality]
                stated = {"unit": scale.unit, "range_low": scale.low, "range_high": scale.high}
                writer.writerow(_flat(row) | stated | {"mask": self.choices.mask})


def summary(rows: Sequence[Row], metric: Metric, over: str, seed: int) -> dict[str, Any]:
    """Mean, standard deviation between cases, and bootstrap interval of the mean, over the finite values.

    Patients (or cases) are drawn with replacement, each with all its cases, so that slices of one head do not
    pretend to be independent.
    """
    kept = [row for row in rows if math.isfinite(row.scores.get(metric.key, math.nan))]
    values = np.array([row.scores[metric.key] for row in kept])
    groups = [row.patient if over == "patients" else row.case for row in kept]
    interval = bootstrap(values, groups, seed)
    return {
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "ci95": list(interval) if interval else None,
        "n": len(values),
        "not_finite": len(rows) - len(values),
    }


def bootstrap(values: NDArray[Any], groups: Sequence[str], seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of the mean when whole groups are drawn with replacement; None below two groups.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return None
    sums, counts = np.bincount(member, values), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def table(document: Mapping[str, Any]) -> Table:
    """The score table of a metrics.json for the terminal: a line a score, a column an answer, mean ± sd over cases."""
    shown = shown_in(document)
    modalities = document["modalities"]
    answers = list(dict.fromkeys(answer for part in modalities.values() for answer in part["answers"]))
    title = "Scores: mean ± sd over cases; below, the 95 % interval of the mean"
    result = Table(title=title, caption=caption(document), caption_justify="left")
    result.add_column("")
    for answer in answers:
        result.add_column(answer, justify="right", style="bold" if answer == "synthesis" else "", min_width=13)
    for modality, part in modalities.items():
        for metric in shown:
            name = metric.label if len(modalities) == 1 else f"{modality} {metric.label}"
            label = f"{name}\n{metric.unit_for(part['unit'])}".rstrip()
            values = [(answer == "synthesis", part["answers"].get(answer, {}).get(metric.key)) for answer in answers]
            result.add_row(label, *(cell(value, metric, "\n", interval=ours) for ours, value in values))
        result.add_section()
    return result


def shown_in(document: Mapping[str, Any]) -> list[Metric]:
    """The metrics of the table: those that have a value somewhere, without those that only the files hold."""
    keys = keys_of(document)
    return [metric for metric in measured(document) if metric.key in keys and not is_aside(metric)]


def keys_of(document: Mapping[str, Any]) -> set[str]:
    """Keys of the metrics that have a value somewhere."""
    answers = [scores for part in document["modalities"].values() for scores in part["answers"].values()]
    return {key for scores in answers for key, value in scores.items() if value["mean"] is not None}


def header_unit(document: Mapping[str, Any], metric: Metric) -> str:
    units = {part["unit"] for part in document["modalities"].values()}
    return metric.unit_for(units.pop() if len(units) == 1 else "own unit")


def caption(document: Mapping[str, Any]) -> str:
    """Range, mask, window, units and numbers of cases, in words."""
    lines = []
    for name, part in document["modalities"].items():
        low, high = part["range"]
        lines.append(
            f"{name}: {count(part['cases'], 'case')} of {count(part['patients'], 'patient')}; "
            f"range {low:g} to {high:g} {part['unit']} ({part['range_rule']}); mask: {part['mask']}; "
            f"{part['bootstrap']}."
        )
        if part["patients"] == 1 and part["cases"] > 1:
            lines.append(f"{name}: one patient, so the intervals speak of these cases and not of other patients.")
    padding = next(iter(document["modalities"].values()))["ssim_padding"]
    windows = "whole windows only" if padding == "valid" else "edges extended with zeros"
    measured_from = next(iter(document["modalities"].values())).get("ssim_from", "low")
    if measured_from == "zero":
        windows += "; values measured from zero, not from the low end of the range"
    gradient = "Gradient: 1 right, below blur, above noise"
    if "gradient_z" in keys_of(document):
        gradient += "; z: the same from slice to slice, above is flicker"
    lines.append(f"SSIM: {SSIM}{windows}. NMI: 64 bins. {gradient}.")
    lines += [features_note(part["features"]) for part in document["modalities"].values() if part.get("features")]
    if judged := next(iter(document["modalities"].values())).get("lpips"):
        lines.append(f"LPIPS: {judged}; {LPIPS}.")
    lines += [region_note(name, rule, document) for name, rule in document.get("regions", {}).items()]
    if document.get("trivial_cases"):
        lines.append(f"Mean image, copy and intensity table: from {document['trivial_cases']} training cases.")
    if document.get("without_truth"):
        lines.append(f"Without truth, not scored: {', '.join(document['without_truth'])}.")
    return "\n".join(lines)


def region_note(name: str, rule: str, document: Mapping[str, Any]) -> str:
    """What a region is, and the truth's own mean, volume or ratio in it."""
    known = {metric.key: metric for metric in of_region(name)}
    means = []
    for part in document["modalities"].values():
        for what in ("mean", "volume", "ratio"):
            metric = known[f"{name}.truth_{what}"]
            value = part["answers"].get("synthesis", {}).get(metric.key)
            if value and value["mean"] is not None:
                text = f"{cell(value, metric, interval=False)} {metric.unit_for(part['unit'])}".rstrip()
                means.append(f"truth's {what} {text} ({value['n']} cases)")
    return f"{name}: {rule}; {', '.join(means)}."


def count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _beside(metric: Metric, scale: Range, stated: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: stated[key] for key in ("range", "range_rule", "mask")}
    if metric.key.startswith("ssim"):
        kept |= {key: stated[key] for key in ("ssim_padding", "ssim_from")}
    if metric.key == "lpips":
        kept["lpips"] = stated["lpips"]
    if metric.pooled:
        kept["features"] = stated["features"]["name"]
    unit = "share of the range" if metric.scale != 1 else metric.unit_for(scale.unit)
    return {"unit": unit, "better": metric.better, "reduction": metric.reduction, **kept}


def _flat(row: Row) -> dict[str, Any]:
    head = {"case": row.case, "patient": row.patient, "modality": row.modality, "answer": row.answer}
    return head | {key: value if math.isfinite(value) else None for key, value in row.scores.items()}
