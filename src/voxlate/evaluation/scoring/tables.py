"""Scores of methods as one kind of table, from which terminal, notebook and page are printed; and the files of an evaluation."""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from voxlate import __version__
from voxlate.base.dataframe import dataframe
from voxlate.base.files import lock_if_free, whole_file, write_json
from voxlate.base.groups import grouped
from voxlate.base.messages import Message
from voxlate.base.statistics import RESAMPLES, bootstrap, mean_and_sd
from voxlate.evaluation.scoring.captions import caption, keys_of
from voxlate.evaluation.scoring.documents import Document, Part, Table
from voxlate.evaluation.scoring.metrics import METRIC_OF, SCOPE_METRICS, Metric, metrics_of
from voxlate.evaluation.scoring.outliers import outlier_messages
from voxlate.evaluation.scoring.standard import BONE
from voxlate.evaluation.scoring.verdicts import verdicts
from voxlate.scans.images.ranges import Range
from voxlate.training.verdict import SYNTHESIS, Verdict, colour_lines

NARROWEST = 13  # width of a method's column, which fits 0.994 ± 0.001
# These metrics are printed without --all.
OF_BONE = ("dice", "surface_95", "dice_low", "dice_middle", "dice_high")
MAIN = (
    *("mae", "psnr", "ssim_2d", "coverage", "mae_bound", "mae_bound_held"),
    *("whole.mae", *(f"{BONE}.{key}" for key in OF_BONE)),
)
TITLE = "Scores: mean ± sd over cases; below, the 95 % interval of the mean"
BEST = "best naive baseline"  # the second column of the short table
COLUMNS = ("case", "patient", "modality", "answer", "unit", "range_low", "range_high", "mask")
PLACE = ("scope", "slice", "row", "column")


@dataclass(frozen=True)
class Cell:
    """The value of one metric for one method; below: further lines."""

    text: str
    below: str = ""
    bold: bool = False

    def __rich__(self) -> Text:
        below = f"\n{self.below}" if self.below else ""
        return Text.assemble((self.text, "bold" if self.bold else ""), below)


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
        """The modalities, without the entry for all."""
        return [name for name in self.lines if name]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        sections = []
        for modality, lines in self.lines.items():
            name = f"{modality} " if modality and len(self.modalities) > 1 else ""
            heads = (Text(f"{name}{line.label}\n{line.unit}".rstrip()) for line in lines)
            sections.append([(head, line.cells) for head, line in zip(heads, lines)])
        rows = list(chain.from_iterable(sections))
        head = max((console.measure(text).maximum for text, _ in rows), default=0)
        texts = chain.from_iterable(cells for _, cells in rows)
        width = max([NARROWEST, *(console.measure(cell).maximum for cell in texts)])
        fitting = max(1, (options.max_width - head - 4) // (width + 3))
        yield Text(self.title, style="italic")
        for first in range(0, len(self.methods), fitting):
            columns = slice(first, first + fitting)
            table = rich_table.Table("")
            for method in self.methods[columns]:
                table.add_column(method, justify="right", width=width, overflow="fold")
            for section in sections:
                for text, cells in section:
                    table.add_row(text, *cells[columns])
                table.add_section()
            yield table
        yield Text("\n".join(self.caption), style="dim")

    def _repr_html_(self) -> str:
        """The terminal's output for a notebook."""
        return in_html(self)


def in_html(*parts: RenderableType) -> str:
    """The terminal's output as HTML for a notebook."""
    console = Console(record=True, width=120, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_html(
        inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>'
    )


def metric_lines(
    document: Document, cells_of: Callable[[str, Part, Metric], Iterable[Cell]]
) -> dict[str, list[Line]]:
    """A line for each metric of each modality; cells_of: its cells, none if the metric is left out."""
    lines = {}
    for name, part in document["modalities"].items():
        lines[name] = [
            Line(metric.label, metric.unit_for(part["unit"]), cells)
            for metric in metrics_of(document).values()
            if (cells := tuple(cells_of(name, part, metric)))
        ]
    return lines


def score_tables(document: Document, which: Literal["all", "main"] = "all") -> Tables:
    """The scores in a metrics.json, mean ± sd over cases: a column for the synthesis and for each naive baseline.

    which: "main" has the main and the requested scores of the synthesis and of the best naive baseline alone, whose name
    is printed below its first metric.
    """
    keys = keys_of(document)
    standard = document.get("standard", ())
    best = {verdict.modality: verdict.baseline or "" for verdict in verdicts(document)}
    if which == "all":
        parts = document["modalities"].values()
        methods = tuple(dict.fromkeys(chain.from_iterable(part["answers"] for part in parts)))
    else:
        methods = (SYNTHESIS, BEST) if any(best.values()) else (SYNTHESIS,)

    def cells(name: str, part: Part, metric: Metric) -> Iterator[Cell]:
        """The score of each method."""
        if metric.key in keys and metric.in_table and (which == "all" or is_main(metric, standard)):
            for method in methods:
                answer = best[name] if method == BEST else method
                value = part["answers"].get(answer, {}).get(metric.key)
                below = []
                if value and value["mean"] is not None and value["ci95"]:
                    low, high = (metric.text(end, like=value["mean"]) for end in value["ci95"])
                    below.append(f"{low}{'…' if low.startswith('-') else '–'}{high}")
                if method == BEST and metric.key == MAIN[0] and answer:
                    below.append(answer)
                text = metric.mean_text(value)
                yield Cell(text, "\n".join(below), bold=answer == SYNTHESIS)

    return Tables(TITLE, methods, metric_lines(document, cells), caption(document, which))


def is_main(metric: Metric, standard: Collection[str]) -> bool:
    """Whether a metric is printed without --all: a main metric, or one that is computed only on request.

    standard: regions and scopes that nobody asked for.
    """
    area = metric.key.rpartition(".")[0]
    on_request = area not in standard if area else metric.key not in METRIC_OF
    return metric.key in MAIN or on_request or metric.pooled or metric.key == "lpips"


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
    pictures: Sequence[Document]

    def flat(self, scores: Document | None = None) -> Table:
        """The row as a table's line, in which numbers that are not finite are None; scores: default the case's own."""
        line: Table = {key: getattr(self, key) for key in COLUMNS[:4]}
        for key, value in (self.scores if scores is None else scores).items():
            line[key] = value if isinstance(value, str) or math.isfinite(value) else None
        return line


@dataclass(frozen=True)
class Scores:
    """The scores of an evaluation, as `voxlate.evaluate` returns them.

    Args:
        rows: one for each answer (the synthesis, or a naive baseline) to each modality of each case; `row.scores` has
            the values by metric, in the units that `document` states.
        header: facts of the whole evaluation, such as the images that could not be scored and why.
        choices: paddings and weights, which must agree for a comparison.
        masks: the mask of each modality, which must agree, too.
        ranges: the scored range of each modality, with its unit.
        seed: of crops and bootstrap intervals.
        features: what distances of slices rest on, by modality.
        distances: pooled over all cases, by modality, answer and metric.
        messages: what is to be known of the truths.

    Example:
        >>> import shutil, voxlate
        >>> cases = voxlate.phantom("COHORT", cases=1, size=(24, 32, 24), progress=False)
        >>> _ = shutil.copytree("COHORT", "OUT")  # images without any error
        >>> scores = voxlate.evaluate("OUT", "COHORT", mask="body", progress=False)
        >>> {row.scores["mae"] for row in scores.rows}
        {0.0}
        >>> scores.document()["modalities"]["ct"]["unit"]
        'HU'
    """

    rows: tuple[Row, ...]
    header: Document
    choices: Document
    masks: Mapping[str, str]
    ranges: Mapping[str, Range]
    seed: int
    features: Mapping[str, Document]
    distances: Mapping[str, Document]
    messages: Sequence[Message] = ()

    def document(self) -> Table:
        """The content of metrics.json: each value with its unit, range, mask, window, reduction and number of cases."""
        return self._document

    @cached_property
    def _document(self) -> Table:
        by_modality = grouped((row.modality, row) for row in self.rows)
        document = {
            "voxlate": __version__,
            "note": "Research software, not a medical device.",
            **self.header,
            "modalities": {name: self._modality(name, rows) for name, rows in by_modality.items()},
            "cases": [row.flat() for row in self.rows],
        }
        messages = [*self.messages, *outlier_messages(document)]
        return document | {
            "messages": [message.table for message in messages],
            "verdict": {verdict.modality: verdict.document() for verdict in verdicts(document)},
        }

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each modality: whether its syntheses are better than the best naive baseline."""
        return verdicts(self.document())

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each answer to each modality of each case."""
        return dataframe(row.flat() for row in self.rows)

    def _modality(self, name: str, rows: Sequence[Row]) -> Table:
        """The conventions and the scores of a modality by answer and metric."""
        by_answer = grouped((row.answer, row) for row in rows)
        scale = self.ranges[name]
        patients = len({row.patient for row in rows})
        over = "patients" if patients > 1 else "cases"
        conventions = {
            "range": [scale.low, scale.high],
            "range_rule": scale.rule,
            "own_peak": scale.own,
            "mask": self.masks[name],
            **self.choices,
            "features": self.features.get(name),
            "cases": len({row.case for row in rows}),
            "slices": sum(row.slices for row in by_answer[rows[0].answer]),
            "patients": patients,
            "bootstrap": f"95 % percentile interval, {RESAMPLES} resamples over {over}, seed {self.seed}",
        }
        answers: Table = {}
        for answer, of_answer in by_answer.items():
            pooled = self.distances.get(name, {}).get(answer, {})
            scored = set(pooled).union(*(row.scores for row in of_answer))
            answers[answer] = {
                key: (pooled.get(key) or _summarise(of_answer, key, over, self.seed))
                | _over_pictures(of_answer, key)
                | _conventions(metric, scale, conventions)
                for key, metric in metrics_of(self.header).items()
                if key in scored
            }
        return {"unit": scale.unit, **conventions, "answers": answers}

    def table(self) -> Tables:
        """All scores of the synthesis and of every naive baseline."""
        return score_tables(self.document())

    def short_table(self) -> Tables:
        """The main scores of the synthesis and of the best naive baseline."""
        return score_tables(self.document(), "main")

    def _repr_html_(self) -> str:
        return in_html(colour_lines(self.verdicts), self.table())

    def write(self, out: Path) -> None:
        """Write OUT/metrics.json, OUT/metrics.csv and, where scopes have pictures, OUT/pictures.csv."""
        cases = list[Table]()
        pictures = list[Table]()
        for row in self.rows:
            scale = self.ranges[row.modality]
            shared = {"unit": scale.unit, "range_low": scale.low, "range_high": scale.high}
            shared["mask"] = self.masks[row.modality]
            cases.append(row.flat() | shared)
            pictures += [row.flat(picture) | shared for picture in row.pictures]
        in_cases, in_pictures = (set[str]().union(*lines) for lines in (cases, pictures))
        known = metrics_of(self.header)
        # Scores of a scope have a column only where there are some.
        keys = [
            key for key in known if not known[key].pooled and ("." not in key or key in in_cases)
        ]
        with lock_if_free(out):
            write_json(out / "metrics.json", self.document())
            _write_csv(out / "metrics.csv", [*COLUMNS, *keys], cases)
            if pictures:
                keys = [*PLACE, *(key for key in known if key in in_pictures)]
                _write_csv(out / "pictures.csv", [*COLUMNS, *keys], pictures)
            else:
                # The file may be from an earlier evaluation.
                (out / "pictures.csv").unlink(missing_ok=True)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Document]) -> None:
    with (
        whole_file(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _over_pictures(rows: Sequence[Row], key: str) -> Table:
    """The entry "pictures": mean and standard deviation over all pictures of all cases, as papers on slices state."""
    scope, _, score = key.rpartition(".")
    pictures = chain.from_iterable(row.pictures for row in rows)
    values = np.array([picture[score] for picture in pictures if picture["scope"] == scope])
    kept = values[np.isfinite(values)]
    counts = {"n": len(kept), "not_finite": len(values) - len(kept)}
    return {"pictures": mean_and_sd(kept) | counts} if len(values) else {}


def _summarise(rows: Sequence[Row], key: str, over: str, seed: int) -> Table:
    """Mean, standard deviation between cases, and bootstrap interval of the mean over the finite values.

    Patients (or cases) are drawn with replacement, each with all its cases, because cases of one patient are not
    independent.
    """
    kept = [row for row in rows if math.isfinite(row.scores.get(key, math.nan))]
    values = np.array([row.scores[key] for row in kept])
    groups = [row.patient if over == "patients" else row.case for row in kept]
    return mean_and_sd(values) | {
        "ci95": bootstrap(values, groups, seed),
        "n": len(values),
        "not_finite": len(rows) - len(values),
    }


def _conventions(metric: Metric, scale: Range, conventions: Document) -> Table:
    """The conventions that metrics.json states with each value."""
    keys = ["range", "range_rule", "mask"]
    if metric in SCOPE_METRICS:
        keys = []  # its reduction states them
    elif metric.score.startswith("ssim"):
        keys += ["ssim_padding", "ssim_from"]
    if metric.score == "lpips":
        keys.append("lpips")
    features = {"features": conventions["features"]["name"]} if metric.pooled else {}
    return {
        "unit": "share" if metric.scale != 1 else metric.unit_for(scale.unit),
        "better": metric.better,
        "reduction": metric.reduction,
        **{key: conventions[key] for key in keys},
        **features,
    }
