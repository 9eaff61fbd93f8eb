"""Summaries of scores with confidence intervals, as tables, CSV and JSON."""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from voxlate import __version__
from voxlate.files import whole_file, write_json
from voxlate.images.ranges import Range
from voxlate.scoring.ledger import sentence as ledger_sentence
from voxlate.scoring.metrics import LPIPS, SSIM, UNIT, Metric, metrics_of
from voxlate.scoring.provenance import not_held_out

RESAMPLES = 2000  # the 2.5 % tail then rests on 50 resamples
NARROWEST = 13  # of a method's column: 0.994 ± 0.001
OWN_PEAK = (
    "Divided by its own peak, an image that is too bright or too dark as a whole scores as one that is not; "
    "--units network counts that."
)

WIDE = 0.6  # of the scored range, from which intervals say next to nothing


@dataclass(frozen=True)
class Row:
    """Scores of one answer (the synthesis, or a naive baseline) for one modality of one case.

    slices: how many the case has; pictures: scope, slice, place and scores of each picture that scopes count.
    """

    case: str
    patient: str
    modality: str
    answer: str
    scores: dict[str, float]
    slices: int = 0
    pictures: Sequence[Mapping[str, Any]] = ()

    @property
    def head(self) -> dict[str, Any]:
        return {"case": self.case, "patient": self.patient, "modality": self.modality, "answer": self.answer}

    def flat(self) -> dict[str, Any]:
        return self.head | _finite(self.scores)


def _finite(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in scores.items()
    }


@dataclass(frozen=True)
class Scores:
    """All rows with the options that they were computed with.

    header: facts of the whole; choices: mask, paddings and weights, which must agree for numbers to compare;
    ranges and features by modality; distances, of all cases together, by modality, answer and metric.
    """

    rows: tuple[Row, ...]
    header: Mapping[str, Any]
    choices: Mapping[str, Any]
    ranges: Mapping[str, Range]
    seed: int = 0
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    distances: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The content of metrics.json: each value with its unit, range, mask, window, reduction and number of cases."""
        modalities = dict.fromkeys(row.modality for row in self.rows)
        return {
            "voxlate": __version__,
            "note": "Research software, not a medical device.",
            **self.header,
            "modalities": {name: self._modality(name) for name in modalities},
            "cases": [row.flat() for row in self.rows],
        }

    def _modality(self, name: str) -> dict[str, Any]:
        rows = [row for row in self.rows if row.modality == name]
        scale = self.ranges[name]
        patients = {row.patient for row in rows}
        over = "patients" if len(patients) > 1 else "cases"
        stated = {
            "range": [scale.low, scale.high],
            "range_rule": scale.rule,
            "own_peak": scale.own,
            **self.choices,
            "features": self.features.get(name),
            "cases": len({row.case for row in rows}),
            "slices": sum(row.slices for row in rows if row.answer == rows[0].answer),
            "patients": len(patients),
            "bootstrap": f"95 % percentile interval, {RESAMPLES} resamples over {over}, seed {self.seed}",
        }
        answers: dict[str, Any] = {}
        for answer in dict.fromkeys(row.answer for row in rows):
            mine = [row for row in rows if row.answer == answer]
            pooled = self.distances.get(name, {}).get(answer, {})
            answers[answer] = {
                key: (pooled.get(key) or summary(mine, metric, over, self.seed))
                | over_pictures(mine, metric)
                | _conventions(metric, scale, stated)
                for key, metric in metrics_of(self.header).items()
                if key in pooled or any(key in row.scores for row in mine)
            }
        return {"unit": scale.unit, **stated, "answers": answers}

    def table(self) -> "Tables":
        return score_tables(self.document())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def write(self, out: Path) -> None:
        """Write OUT/metrics.json, OUT/metrics.csv and, where scopes have pictures, OUT/pictures.csv."""
        write_json(out / "metrics.json", self.document())
        columns = ["case", "patient", "modality", "answer", "unit", "range_low", "range_high", "mask"]
        found = {key for row in self.rows for key in row.scores}
        known = metrics_of(self.header)
        columns += [key for key, metric in known.items() if not metric.pooled and ("." not in key or key in found)]
        _write_csv(out / "metrics.csv", columns, (row.flat() | self._stated(row) for row in self.rows))
        pictures = [row.head | self._stated(row) | _finite(one) for row in self.rows for one in row.pictures]
        if pictures:
            scores = [key for key in known if any(key in one for one in pictures)]
            _write_csv(out / "pictures.csv", [*columns[:8], "scope", "slice", "row", "column", *scores], pictures)
        else:
            (out / "pictures.csv").unlink(missing_ok=True)  # of an evaluation before this one

    def _stated(self, row: Row) -> dict[str, Any]:
        scale = self.ranges[row.modality]
        return {"unit": scale.unit, "range_low": scale.low, "range_high": scale.high, "mask": self.choices["mask"]}


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def over_pictures(rows: Sequence[Row], metric: Metric) -> dict[str, Any]:
    """Under "pictures": mean and standard deviation over all pictures of all cases, as papers on slices state them."""
    scope, _, key = metric.key.rpartition(".")
    found = [one[key] for row in rows for one in row.pictures if one["scope"] == scope]
    kept = np.array([value for value in found if math.isfinite(value)])
    if not found:
        return {}
    return {
        "pictures": {
            "mean": float(kept.mean()) if len(kept) else None,
            "sd": float(kept.std(ddof=1)) if len(kept) > 1 else None,
            "n": len(kept),
            "not_finite": len(found) - len(kept),
        }
    }


def summary(rows: Sequence[Row], metric: Metric, over: str, seed: int) -> dict[str, Any]:
    """Mean, standard deviation between cases, and bootstrap interval of the mean, over the finite values.

    Patients (or cases) are drawn with replacement, each with all its cases, so that slices of one head are not
    counted as independent.
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


@dataclass(frozen=True)
class Cell:
    """The value of one metric for one method."""

    text: str
    below: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One metric, with a cell for each method."""

    label: str
    unit: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Tables:
    """Scores of methods by modality ("": of all), for the terminal and the page.

    On a terminal a line is a metric and a column a method, in several tables where the methods do not fit.
    """

    title: str
    methods: tuple[str, ...]
    lines: Mapping[str, Sequence[Line]]
    caption: Sequence[str]

    @property
    def modalities(self) -> list[str]:
        return [name for name in self.lines if name]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        cells = [line.cells for mine in self.lines.values() for line in mine]
        wide = [max([NARROWEST, *(len(text) for one in row for text in (one.text, one.below))]) for row in zip(*cells)]
        heads = [len(text) for name, mine in self.lines.items() for line in mine for text in self._head(name, line)]
        groups: list[list[int]] = [[]]
        for column in range(len(self.methods)):
            if sum(wide[other] + 3 for other in [*groups[-1], column]) > options.max_width - max(heads, default=0) - 4:
                groups.append([])
            groups[-1].append(column)
        yield Text(self.title, style="italic")
        for columns in filter(None, groups):
            yield self._part(columns, wide)
        yield Text("\n".join(self.caption), style="dim")

    def _repr_html_(self) -> str:
        """As on a terminal, in a notebook."""
        console = Console(record=True, width=120, file=io.StringIO())
        console.print(self)
        return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>')

    def _head(self, modality: str, line: Line) -> tuple[str, str]:
        several = modality and len(self.modalities) > 1
        return (f"{modality} {line.label}" if several else line.label), line.unit

    def _part(self, columns: Sequence[int], wide: Sequence[int]) -> Table:
        result = Table()
        result.add_column("")
        for column in columns:
            name, width = _folded(self.methods[column], wide[column]), wide[column]
            result.add_column(name, justify="right", min_width=width, max_width=width, overflow="fold")
        for modality, mine in self.lines.items():
            for line in mine:
                cells = (line.cells[column] for column in columns)
                result.add_row("\n".join(self._head(modality, line)).rstrip(), *map(_marked, cells))
            result.add_section()
        return result


def _folded(name: str, wide: int) -> str:
    """A name in lines of at most `wide` letters, broken after _ or / or a blank where that is possible."""
    lines = [""]
    for part in re.findall(r"[^_/ ]*[_/ ]?", name):
        if len(lines[-1]) + len(part) > wide and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _marked(one: Cell) -> Text:
    text = Text(one.text, "bold" if one.bold else "")
    return text.append(f"\n{one.below}", "not bold") if one.below else text


def score_tables(document: Mapping[str, Any]) -> Tables:
    """The scores in a metrics.json: a column for the synthesis and for each naive baseline, mean ± sd over cases."""
    found = keys_of(document)
    metrics = [one for key, one in metrics_of(document).items() if key in found and one.in_table]
    modalities = document["modalities"]
    answers = tuple(dict.fromkeys(answer for part in modalities.values() for answer in part["answers"]))
    lines = {
        modality: [
            Line(
                metric.label,
                metric.unit_for(part["unit"]),
                tuple(_score_cell(part["answers"].get(answer, {}), answer, metric) for answer in answers),
            )
            for metric in metrics
        ]
        for modality, part in modalities.items()
    }
    return Tables(
        "Scores: mean ± sd over cases; below, the 95 % interval of the mean", answers, lines, caption(document)
    )


def _score_cell(scores: Mapping[str, Any], answer: str, metric: Metric) -> Cell:
    value = scores.get(metric.key)
    below = ""
    if value and value["mean"] is not None and value["ci95"]:
        low, high = (figure(end, metric, like=value["mean"]) for end in value["ci95"])
        below = f"{low}…{high}" if low.startswith("-") else f"{low}–{high}"
    return Cell(cell(value, metric), below, bold=answer == "synthesis")


def rows_of(document: Mapping[str, Any], modality: str, answer: str = "synthesis") -> dict[str, Mapping[str, Any]]:
    """The scores in a metrics.json by case."""
    rows = [row for row in document.get("cases", []) if (row["modality"], row["answer"]) == (modality, answer)]
    return {row["case"]: row for row in rows}


def keys_of(document: Mapping[str, Any]) -> set[str]:
    """Keys of the metrics that have a value somewhere."""
    answers = [scores for part in document["modalities"].values() for scores in part["answers"].values()]
    return {key for scores in answers for key, value in scores.items() if value["mean"] is not None}


def held_out_note(document: Mapping[str, Any]) -> str:
    """A sentence on the cases of a metrics.json that were in the model's training; "" where none is known to be."""
    return not_held_out(len(document.get("trained_on", [])), len({row["case"] for row in document.get("cases", [])}))


def _learned(stated: Mapping[str, Any]) -> str:
    """Of how many patients intervals are, and what that is worth."""
    margin = {
        "none": "WITHOUT A MARGIN FOR CHANCE: other patients would have given other intervals",
        "normal": f"with confidence {stated['confidence']:g} if shares of patients are about normal",
        "any": f"with confidence {stated['confidence']:g}",
    }
    held = f"{stated['coverage']:.0%} of a new patient's voxels inside the body"
    return f"Intervals are to hold {held}, learned of {stated['patients']} patients, {margin[stated['bound']]}."


def _of_intervals(document: Mapping[str, Any]) -> list[str]:
    """What coverage is worth: how intervals were learned, how wide they are, and which cases say nothing of them."""
    rows = [row for row in document.get("cases", []) if row["answer"] == "synthesis"]
    lacking = sum(row.get("coverage") is None for row in rows)
    taught, cases = len(document.get("calibrated_on", [])), len({row["case"] for row in rows})
    found = [_learned(one) for one in document.get("calibrations", [])]
    for name, part in document["modalities"].items():
        ours = part["answers"].get("synthesis", {})
        wide, whole = (ours.get("interval") or {}).get("mean"), part["range"][1] - part["range"][0]
        if wide is not None and wide > WIDE * whole:
            found.append(
                f"{name}: intervals are {wide / whole:.0%} of the scored range wide: they say next to nothing."
            )
        if wide is not None and "peak" in part["unit"]:
            found.append(f"{name}: coverage is up to each scan's own gain, as all scores in arbitrary units are.")
    if taught:
        found.append(
            f"{taught} of {cases} cases are of those that the calibration was learned from: that truth lies within "
            "their intervals, and that their bounds hold, is no test."
        )
    if 0 < lacking < len(rows):
        found.append(f"{lacking} of {len(rows)} images have no intervals, and do not count in their coverage.")
    return found


def caption(document: Mapping[str, Any]) -> list[str]:
    """Range, mask, window, units and numbers of cases, in words."""
    modalities = document["modalities"]
    first = next(iter(modalities.values()))
    lines = [sentence] if (sentence := held_out_note(document)) else []
    lines += _of_intervals(document)
    for name, part in modalities.items():
        lines.append(f"{scope_note(name, part)} ({part['range_rule']}); mask: {part['mask']}; {part['bootstrap']}.")
        if part["patients"] == 1 and part["cases"] > 1:
            lines.append(f"{name}: one patient, so the intervals describe these cases and not other patients.")
        if part["patients"] == 2:
            lines.append(f"{name}: two patients, so the intervals say next to nothing of other patients.")
    lines += [_misaligned_line(name, part, document) for name, part in document.get("misaligned", {}).items()]
    if any(part["own_peak"] for part in modalities.values()):
        lines.append(OWN_PEAK)
    windows = "whole windows only" if first["ssim_padding"] == "valid" else "edges extended with zeros"
    if first.get("ssim_from", "low") == "zero":
        windows += "; values measured from zero, not from the low end of the range"
    gradient = "Gradient: 1 right, below blur, above noise"
    if "gradient_z" in keys_of(document):
        gradient += "; z: the same from slice to slice, above is flicker"
    lines.append(f"SSIM: {SSIM}{windows}. NMI: 64 bins. {gradient}.")
    if "mae_z" in keys_of(document):
        lines.append(
            "Coherence of slices (ours, no paper's): SSIM coronal and sagittal, of every fourth slice; MAE z, of "
            "differences of neighbouring slices."
        )
    lines += [_features_note(part["features"]) for part in modalities.values() if part.get("features")]
    if weights := first.get("lpips"):
        lines.append(f"LPIPS: {weights}; {LPIPS}.")
    lines += [_scope_rule(name, rule, document) for name, rule in document.get("scopes", {}).items()]
    lines += [_region_note(name, rule, document) for name, rule in document.get("regions", {}).items()]
    ours = [row for row in document.get("cases", ()) if row.get("answer") == "synthesis"]
    lines += [said for name in document.get("regions", {}) if (said := ledger_sentence(name, ours))]
    if number := document.get("naive_cases"):
        several = isinstance(number, dict)
        shown = ", ".join(f"{count} ({name})" for name, count in number.items()) if several else number
        lines.append(f"Mean image, copy and intensity table: from {shown} training cases.")
    for name, bound in document.get("bounds", {}).items():
        lines.append(
            f"{name}: the autoencoder alone gives whole validation slices back with an MAE of {bound:.2f} of 255 "
            "network units; a model of its latents is hardly nearer."
        )
    if document.get("without_truth"):
        lines.append(f"Without truth, not scored: {', '.join(document['without_truth'])}.")
    if missing := document.get("not_synthesised"):
        lines.append(f"Not scored: {'; '.join(f'{case} ({why})' for case, why in missing.items())}.")
    lines += [f"{case}: {' '.join(notes)}" for case, notes in document.get("scan_warnings", {}).items()]
    for notes in (document.get("moved", {}), document.get("naive_left_out", {})):
        for note in dict.fromkeys(notes.values()):
            cases = [case for case, one in notes.items() if one == note]
            lines.append(f"{', '.join(cases)}: {note.removesuffix('.')}.")
    return lines


def scope_note(name: str, part: Mapping[str, Any]) -> str:
    """How many cases and patients a modality has, and the range of its scores."""
    low, high = part["range"]
    cases, patients = plural(part["cases"], "case"), plural(part["patients"], "patient")
    return f"{name}: {cases} of {patients}; range {low:g} to {high:g} {part['unit']}"


def plural(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _misaligned_line(modality: str, part: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What share of the error comes from scans that do not lie on each other, over the cases where that is so."""
    metric, unit = metrics_of(document)["mae"], document["modalities"][modality]["unit"]
    rows, cases = rows_of(document, modality), part["cases"]
    error = float(np.mean([row["mae"] for case, row in rows.items() if case in cases]))
    shown, of = (f"{figure(value, metric, like=error)} {metric.unit_for(unit)}" for value in (part["mae"], error))
    share = f"about {shown} come" if part["mae"] < error else f"as good as all ({shown}) comes"
    source = next(iter(cases.values()))["source"]
    return (
        f"{modality}: {len(cases)} of {plural(len(rows), 'case')} do not lie on {source}, by prepare's estimate "
        f"({part['mm']:.1f} mm on average). Of their MAE of {of} {share} from that: so much the truth differs from "
        "itself when it is moved as far."
    )


def _features_note(part: Mapping[str, Any]) -> str:
    """The features of the distances, the number of images and its effect."""
    name = "FD, FD∞ and KD" if part["kind"] == "fd" else "Texture distances (not FD: other features, another scale)"
    text = (
        f"{name}: features: {part['name']}; {part['dimensions']} numbers a slice; "
        f"{part['images']} axial slices pooled, resize {part['resize']}; "
        f"± is the standard error ({part['errors']}). The plain distance is too high with few images, so it compares "
        "only at one number of them; ∞ extrapolates it, the kernel distance has no such bias."
    )
    if part["images"] < part["images_for_limit"]:
        text += f" ∞ needs {part['images_for_limit']} images."
    return text


def _scope_rule(name: str, rule: str, document: Mapping[str, Any]) -> str:
    """The rule of a scope, and how many of its pictures count."""
    numbers = []
    for modality, part in document["modalities"].items():
        counted = part["answers"].get("synthesis", {}).get(f"{name}.mae", {}).get("pictures")
        if counted is not None:
            numbers.append(f"{modality}: {counted['n']} of {plural(part['slices'], 'slice')} count")
    return f"{name.replace('_', ' ').replace('.', ', ')}: {'; '.join([rule, *numbers])}."


def _region_note(name: str, rule: str, document: Mapping[str, Any]) -> str:
    """The rule of a region, and the truth's mean, volume or ratio in it."""
    known, means = metrics_of(document), []
    for part in document["modalities"].values():
        for what in ("mean", "volume", "ratio"):
            metric = known[f"{name}.truth_{what}"]
            value = part["answers"].get("synthesis", {}).get(metric.key)
            if value and value["mean"] is not None:
                text = f"{cell(value, metric)} {metric.unit_for(part['unit'])}".rstrip()
                means.append(f"truth's {what} {text} ({value['n']} cases)")
    return f"{name}: {rule}; {', '.join(means)}."


def _conventions(metric: Metric, scale: Range, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The conventions of one value, which metrics.json states with it."""
    kept = {key: stated[key] for key in ("range", "range_rule", "mask")}
    if metric.score.startswith("ssim"):
        kept |= {key: stated[key] for key in ("ssim_padding", "ssim_from")}
    if metric.score == "lpips":
        kept["lpips"] = stated["lpips"]
    if metric.pooled:
        kept["features"] = stated["features"]["name"]
    unit = "share of the range" if metric.scale != 1 else metric.unit_for(scale.unit)
    return {"unit": unit, "better": metric.better, "reduction": metric.reduction, **kept}


def cell(value: Mapping[str, Any] | None, metric: Metric) -> str:
    """One value as text: 0.068 ± 0.012; ± is the standard deviation, of pooled values the standard error."""
    if not value or value["mean"] is None:
        return "–"
    spread = value["sd"] if value["sd"] is not None else value.get("se")
    text = figure(value["mean"], metric)
    return text if spread is None else f"{text} ± {figure(spread, metric, like=value['mean'])}"


def figure(value: float, metric: Metric, like: float | None = None) -> str:
    """A value with the digits that fit its size, or that of another value that it is printed with.

    Where that would round to zero: three significant digits.
    """
    size = abs(value if like is None else like)
    digits = metric.digits if metric.unit != UNIT or size < 1 else 2 if size < 10 else 1
    rounds_to_zero = size > 0 and round(size * metric.scale, digits) == 0
    return f"{value * metric.scale:.3g}" if rounds_to_zero else f"{value * metric.scale:.{digits}f}"
