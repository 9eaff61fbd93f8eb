"""Summaries of scores with confidence intervals, as tables, CSV and JSON."""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from voxlate import __version__
from voxlate.images.ranges import Range
from voxlate.scoring.captions import caption, keys_of, short_caption
from voxlate.scoring.metrics import Metric, metrics_of
from voxlate.scoring.outliers import outlier_lines
from voxlate.scoring.resampling import RESAMPLES, bootstrap, mean_and_sd
from voxlate.scoring.verdict import SYNTHESIS, Verdict, coloured, verdicts
from voxlate.system.dataframe import dataframe
from voxlate.system.files import locked_if_free, whole_file, write_json

NARROWEST = 13  # width of a method's column, which fits 0.994 ± 0.001
# These metrics are printed without --all.
MAIN = ("mae", "ssim_2d", "coverage", "mae_bound", "mae_bound_held")


@dataclass(frozen=True)
class Row:
    """Scores of one answer (the synthesis, or a naive baseline) for one modality of one case.

    slices: number of the case's slices; pictures: scope, slice, place and scores of each picture of the scopes.
    """

    case: str
    patient: str
    modality: str
    answer: str
    scores: dict[str, float]
    slices: int
    pictures: Sequence[Mapping[str, Any]]

    @property
    def head(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "patient": self.patient,
            "modality": self.modality,
            "answer": self.answer,
        }

    def flat(self) -> dict[str, Any]:
        return self.head | _finite(self.scores)


def _finite(scores: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(scores)
    for key, value in scores.items():
        if isinstance(value, float) and not math.isfinite(value):
            plain[key] = None
    return plain


@dataclass(frozen=True)
class Scores:
    """All rows with the options of their evaluation.

    header: facts of the whole evaluation; choices: mask, paddings and weights, which must agree for a comparison;
    ranges, features: by modality; distances: pooled over all cases, by modality, answer and metric.
    """

    rows: tuple[Row, ...]
    header: Mapping[str, Any]
    choices: Mapping[str, Any]
    ranges: Mapping[str, Range]
    seed: int
    features: Mapping[str, Mapping[str, Any]]
    distances: Mapping[str, Mapping[str, Any]]

    def document(self) -> dict[str, Any]:
        """The content of metrics.json: each value with its unit, range, mask, window, reduction and number of cases."""
        modalities = dict.fromkeys(row.modality for row in self.rows)
        document = {
            "voxlate": __version__,
            "note": "Research software, not a medical device.",
            **self.header,
            "modalities": {name: self._modality(name) for name in modalities},
            "cases": [row.flat() for row in self.rows],
        }
        return document | {
            "outliers": outlier_lines(document),
            "verdict": {verdict.modality: verdict.document() for verdict in verdicts(document)},
        }

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each modality: whether its syntheses are better than the best naive baseline."""
        return verdicts(self.document())

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each answer to each modality of each case."""
        return dataframe(row.flat() for row in self.rows)

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
            of_answer = [row for row in rows if row.answer == answer]
            pooled = self.distances.get(name, {}).get(answer, {})
            answers[answer] = {
                key: (pooled.get(key) or summary(of_answer, metric, over, self.seed))
                | over_pictures(of_answer, metric)
                | _conventions(metric, scale, stated)
                for key, metric in metrics_of(self.header).items()
                if key in pooled or any(key in row.scores for row in of_answer)
            }
        return {"unit": scale.unit, **stated, "answers": answers}

    def table(self) -> "Tables":
        """All scores of the synthesis and of every naive baseline."""
        return score_tables(self.document())

    def short_table(self) -> "Tables":
        """The main scores of the synthesis and of the best naive baseline."""
        return short_tables(self.document())

    def _repr_html_(self) -> str:
        return in_html(coloured(self.verdicts), self.table())

    def write(self, out: Path) -> None:
        """Write OUT/metrics.json, OUT/metrics.csv and, where scopes have pictures, OUT/pictures.csv."""
        with locked_if_free(out):
            self._write(out)

    def _write(self, out: Path) -> None:
        write_json(out / "metrics.json", self.document())
        columns = [
            "case",
            "patient",
            "modality",
            "answer",
            "unit",
            "range_low",
            "range_high",
            "mask",
        ]
        scored = {key for row in self.rows for key in row.scores}
        known = metrics_of(self.header)
        columns += [
            key
            for key, metric in known.items()
            if not metric.pooled and ("." not in key or key in scored)
        ]
        _write_csv(
            out / "metrics.csv",
            columns,
            (row.flat() | self._stated(row) for row in self.rows),
        )
        pictures = [
            row.head | self._stated(row) | _finite(picture)
            for row in self.rows
            for picture in row.pictures
        ]
        if pictures:
            scores = [key for key in known if any(key in picture for picture in pictures)]
            _write_csv(
                out / "pictures.csv",
                [*columns[:8], "scope", "slice", "row", "column", *scores],
                pictures,
            )
        else:
            # The file may be from an earlier evaluation.
            (out / "pictures.csv").unlink(missing_ok=True)

    def _stated(self, row: Row) -> dict[str, Any]:
        scale = self.ranges[row.modality]
        return {
            "unit": scale.unit,
            "range_low": scale.low,
            "range_high": scale.high,
            "mask": self.choices["mask"],
        }


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with (
        whole_file(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def over_pictures(rows: Sequence[Row], metric: Metric) -> dict[str, Any]:
    """The entry "pictures": mean and standard deviation over all pictures of all cases, as papers on slices state."""
    scope, _, key = metric.key.rpartition(".")
    values = np.array(
        [picture[key] for row in rows for picture in row.pictures if picture["scope"] == scope]
    )
    kept = values[np.isfinite(values)]
    counts = {"n": len(kept), "not_finite": len(values) - len(kept)}
    return {"pictures": mean_and_sd(kept) | counts} if len(values) else {}


def summary(rows: Sequence[Row], metric: Metric, over: str, seed: int) -> dict[str, Any]:
    """Mean, standard deviation between cases, and bootstrap interval of the mean over the finite values.

    Patients (or cases) are drawn with replacement, each with all its cases, because cases of one patient are not
    independent.
    """
    kept = [row for row in rows if math.isfinite(row.scores.get(metric.key, math.nan))]
    values = np.array([row.scores[metric.key] for row in kept])
    interval = bootstrap(
        values, [row.patient if over == "patients" else row.case for row in kept], seed
    )
    counts = {"n": len(values), "not_finite": len(rows) - len(values)}
    return mean_and_sd(values) | {"ci95": list(interval) if interval else None} | counts


@dataclass(frozen=True)
class Cell:
    """The value of one metric for one method; below: further lines."""

    text: str
    below: str = ""
    bold: bool = False

    @property
    def width(self) -> int:
        """Characters of its longest line."""
        return max(map(len, [self.text, *self.below.splitlines()]))


@dataclass(frozen=True)
class Line:
    """One metric, with a cell for each method."""

    label: str
    unit: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Tables:
    """Scores of methods by modality ("" stands for all), for the terminal and the page.

    On a terminal, lines are metrics and columns are methods, in several tables if the methods do not fit.
    """

    title: str
    methods: tuple[str, ...]
    lines: Mapping[str, Sequence[Line]]
    caption: Sequence[str]

    @property
    def modalities(self) -> list[str]:
        return [name for name in self.lines if name]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        cells = [line.cells for lines in self.lines.values() for line in lines]
        wide = [max([NARROWEST, *(cell.width for cell in row)]) for row in zip(*cells)]
        heads = [self._head(name, line) for name, lines in self.lines.items() for line in lines]
        head = max((len(text) for texts in heads for text in texts), default=0)
        room = options.max_width - head - 4
        groups: list[list[int]] = [[]]
        for column in range(len(self.methods)):
            if sum(wide[other] + 3 for other in [*groups[-1], column]) > room:
                groups.append([])
            groups[-1].append(column)
        yield Text(self.title, style="italic")
        for columns in filter(None, groups):
            yield self._part(columns, wide)
        yield Text("\n".join(self.caption), style="dim")

    def _repr_html_(self) -> str:
        """The terminal's output for a notebook."""
        return in_html(self)

    def _head(self, modality: str, line: Line) -> tuple[str, str]:
        several = modality and len(self.modalities) > 1
        return (f"{modality} {line.label}" if several else line.label), line.unit

    def _part(self, columns: Sequence[int], wide: Sequence[int]) -> Table:
        result = Table()
        result.add_column("")
        for column in columns:
            name = _folded(self.methods[column], wide[column])
            width = wide[column]
            result.add_column(
                name, justify="right", min_width=width, max_width=width, overflow="fold"
            )
        for modality, lines in self.lines.items():
            for line in lines:
                cells = (line.cells[column] for column in columns)
                result.add_row("\n".join(self._head(modality, line)).rstrip(), *map(_marked, cells))
            result.add_section()
        return result


def in_html(*parts: RenderableType) -> str:
    """The terminal's output as HTML for a notebook."""
    console = Console(record=True, width=120, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_html(
        inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>'
    )


def _folded(name: str, wide: int) -> str:
    """A name in lines of at most `wide` letters, broken after _ or / or a blank if possible."""
    lines = [""]
    for part in re.findall(r"[^_/ ]*[_/ ]?", name):
        if len(lines[-1]) + len(part) > wide and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _marked(cell: Cell) -> Text:
    text = Text(cell.text, "bold" if cell.bold else "")
    return text.append(f"\n{cell.below}", "not bold") if cell.below else text


def score_tables(document: Mapping[str, Any]) -> Tables:
    """The scores in a metrics.json: a column for the synthesis and for each naive baseline, mean ± sd over cases."""
    keys = keys_of(document)
    metrics = [
        metric for key, metric in metrics_of(document).items() if key in keys and metric.in_table
    ]
    modalities = document["modalities"]
    answers = tuple(
        dict.fromkeys(answer for part in modalities.values() for answer in part["answers"])
    )
    lines = {
        modality: [
            Line(
                metric.label,
                metric.unit_for(part["unit"]),
                tuple(
                    _score_cell(part["answers"].get(answer, {}), answer, metric)
                    for answer in answers
                ),
            )
            for metric in metrics
        ]
        for modality, part in modalities.items()
    }
    title = "Scores: mean ± sd over cases; below, the 95 % interval of the mean"
    return Tables(title, answers, lines, caption(document))


def short_tables(document: Mapping[str, Any]) -> Tables:
    """The main and the requested scores in a metrics.json for the synthesis and the best naive baseline."""
    keys = keys_of(document)
    metrics = [
        metric
        for key, metric in metrics_of(document).items()
        if key in keys and metric.in_table and is_main(metric)
    ]
    best = {verdict.modality: verdict.baseline for verdict in verdicts(document)}
    lines = {
        modality: [_short_line(metric, part, best[modality]) for metric in metrics]
        for modality, part in document["modalities"].items()
    }
    title = "Scores: mean ± sd over cases; below, the 95 % interval of the mean"
    if any(best.values()):
        return Tables(title, (SYNTHESIS, "best naive baseline"), lines, short_caption(document))
    alone = {
        name: [replace(row, cells=row.cells[:1]) for row in rows] for name, rows in lines.items()
    }
    return Tables(title, (SYNTHESIS,), alone, short_caption(document))


def _short_line(metric: Metric, part: Mapping[str, Any], baseline: str | None) -> Line:
    """A metric of the synthesis and of one baseline, whose name is printed below the first metric."""
    answers = part["answers"]
    ours = _score_cell(answers.get(SYNTHESIS, {}), SYNTHESIS, metric)
    naive = _score_cell(answers.get(baseline, {}), baseline or "", metric)
    if baseline and metric.key == MAIN[0]:
        naive = replace(naive, below=f"{naive.below}\n{baseline}".lstrip())
    return Line(metric.label, metric.unit_for(part["unit"]), (ours, naive))


def is_main(metric: Metric) -> bool:
    """Whether a metric is printed without --all: a main metric, or one that is computed only on request."""
    return metric.key in MAIN or "." in metric.key or metric.pooled or metric.key == "lpips"


def _score_cell(scores: Mapping[str, Any], answer: str, metric: Metric) -> Cell:
    value = scores.get(metric.key)
    below = ""
    if value and value["mean"] is not None and value["ci95"]:
        low, high = (metric.text(end, like=value["mean"]) for end in value["ci95"])
        below = f"{low}…{high}" if low.startswith("-") else f"{low}–{high}"
    return Cell(metric.mean_text(value), below, bold=answer == SYNTHESIS)


def _conventions(metric: Metric, scale: Range, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The conventions that metrics.json states with each value."""
    of_ssim = ("ssim_padding", "ssim_from") if metric.score.startswith("ssim") else ()
    of_lpips = ("lpips",) if metric.score == "lpips" else ()
    kept = {key: stated[key] for key in ("range", "range_rule", "mask", *of_ssim, *of_lpips)}
    if metric.pooled:
        kept["features"] = stated["features"]["name"]
    unit = "share of the range" if metric.scale != 1 else metric.unit_for(scale.unit)
    return {
        "unit": unit,
        "better": metric.better,
        "reduction": metric.reduction,
        **kept,
    }
