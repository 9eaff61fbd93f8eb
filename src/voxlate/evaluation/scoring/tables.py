"""Scores of methods as one kind of table with its caption, from which terminal, notebook and page are printed."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import read_messages, summarise
from voxlate.base.statistics import RESAMPLES
from voxlate.evaluation.scoring.interval_scores import describe_coverage
from voxlate.evaluation.scoring.metrics import ABSENT, METRIC_OF, Metric
from voxlate.evaluation.scoring.scored_regions import BONE
from voxlate.training.verdict import SYNTHESIS

Part = Mapping[str, Any]  # of a section
Scores = Any  # of scores.py, whose scores print themselves by these tables
Which = Literal["all", "main"]

LABEL_WIDTH = 26  # of the metrics' column, in characters
NARROWEST = 17  # of a method's column, with its borders
# These metrics are printed.
MAIN = (
    "mae",
    "psnr",
    "ssim_2d",
    "lpips",
    "coverage",
    "mae_bound",
    "mae_bound_held",
    "whole.mae",
    f"{BONE}.dice",
)
OF_ONE = "Scores of one case"
TITLE = "Scores: mean ± sd over patients; below, the 95 % interval of the mean"
BEST = "best naive baseline"  # the second column of the short table
NO_SCORE = f"{ABSENT}: no score."  # the legend


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
    """Scores of the methods of each section, for the terminal and the page; above: lines of a summary over folds.

    On a terminal, lines are metrics and columns are methods, in several tables if the methods do not fit.
    """

    title: str
    methods: Mapping[str, Sequence[str]]
    lines: Mapping[str, Sequence[Line]]
    caption: Sequence[str]
    above: Sequence[str] = ()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if self.above:
            yield Text("\n".join(self.above), style="bold")
        yield Text(self.title, style="italic")
        for name, lines in self.lines.items():
            cells = chain.from_iterable(line.cells for line in lines)
            widest = max((console.measure(cell).maximum for cell in cells), default=0)
            fitting = max(1, (options.max_width - LABEL_WIDTH) // max(widest + 3, NARROWEST))
            for first in range(0, len(self.methods[name]), fitting):
                columns = slice(first, first + fitting)
                table = rich_table.Table(name if len(self.lines) > 1 else "")
                for method in self.methods[name][columns]:
                    table.add_column(method, justify="right", overflow="fold")
                for line in lines:
                    table.add_row(f"{line.label}\n{line.unit}".rstrip(), *line.cells[columns])
                yield table
        yield Text("\n".join(self.caption), style="dim")

    def _repr_html_(self) -> str:
        """The terminal's output for a notebook."""
        return in_html(self)


def in_html(*parts: RenderableType) -> str:
    """The terminal's output as HTML for a notebook."""
    return printed(*parts).export_html(
        inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>'
    )


def printed(*parts: RenderableType) -> Console:
    """A console that recorded the terminal's output."""
    console = Console(record=True, width=120, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console


def tables_of(
    title: str,
    methods: Mapping[str, Sequence[str]],
    units: Mapping[str, str],
    metrics: Iterable[Metric],
    cells_of: Callable[[str, Metric], Iterable[Cell]],
    caption: Iterable[str],
    above: Sequence[str],
) -> Tables:
    """A line for each metric of each section; units: of the sections; cells_of: none if the metric is left out."""
    lines = dict[str, list[Line]]()
    for name, unit in units.items():
        lines[name] = []
        for metric in metrics:
            if cells := tuple(cells_of(name, metric)):
                lines[name].append(Line(metric.label, metric.unit_for(unit), cells))
    texts = (cell.text for of in lines.values() for line in of for cell in line.cells)
    legend = [NO_SCORE] if ABSENT in texts else []
    return Tables(title, methods, lines, [*caption, *legend], above)


def score_tables(scores: Scores, which: Which = "all") -> Tables:
    """The scores, mean ± sd over patients: a column for the synthesis and for each naive baseline.

    which: "main" has the main and the requested scores of the synthesis and of the best naive baseline alone, whose name
    is printed below its first metric.
    """
    best = {verdict.modality: verdict.baseline or "" for verdict in scores.verdicts}
    methods = {name: [*of_methods] for name, of_methods in scores.means.items()}
    if which == "main":
        methods = {name: [SYNTHESIS, BEST] if best[name] else [SYNTHESIS] for name in best}

    def cells(name: str, metric: Metric) -> Iterator[Cell]:
        """The score of each method."""
        if metric.key not in scores.known or not metric.in_table:
            return
        if which == "main" and not is_main(metric, scores.header.get("standard", ())):
            return
        for method in methods[name]:
            own = best[name] if method == BEST else method
            value = scores.means[name].get(own, {}).get(metric.key)
            below = []
            if value and value["mean"] is not None and value["ci95"]:
                below.append(metric.interval_text(value["ci95"], value["mean"]))
            cases = scores.parts[name]["cases"]
            if value and not metric.pooled and value["n"] < cases:
                below.append(f"{value['n']} of {plural(cases, 'case')}")
            if method == BEST and metric.key == MAIN[0] and own:
                below.append(own)
            yield Cell(metric.mean_text(value), "\n".join(below), bold=own == SYNTHESIS)

    is_one = all(part["cases"] == 1 for part in scores.parts.values())
    units = {name: part["unit"] for name, part in scores.parts.items()}
    title = OF_ONE if is_one else TITLE
    metrics = scores.metrics.values()
    return tables_of(
        title, methods, units, metrics, cells, caption(scores, which), fold_lines(scores)
    )


def is_main(metric: Metric, standard: Iterable[str]) -> bool:
    """Whether a metric is printed: a main metric, or one that is computed only on request.

    standard: regions and scopes that nobody asked for.
    """
    area = metric.key.rpartition(".")[0]
    on_request = area not in standard if area else metric.key not in METRIC_OF
    return metric.key in MAIN or on_request or metric.pooled


def fold_lines(scores: Scores) -> list[str]:
    """A line for each section of a cross-validation: mean ± sd over the means of its folds."""
    lines = []
    for name, summaries in scores.folds.items():
        texts = []
        for key, summary in summaries.items():
            metric = METRIC_OF[key]
            unit = metric.unit_for(scores.parts[name]["unit"])
            texts.append(f"{metric.label} {metric.mean_text(summary)} {unit}".rstrip())
        folds = plural(len(next(iter(summaries.values()))["by_fold"]), "fold")
        lines.append(
            f"{name}, mean ± sd of {folds}: {'; '.join(texts)} (publish the table's mean, which counts each patient once)."
        )
    return lines


def caption(scores: Scores, which: Which = "all") -> Iterator[str]:
    """The caption of a table: ranges, masks, numbers of cases, and what restricts the scores.

    which: "main" leaves out the conventions, and the rules of what nobody asked for.
    """
    header = scores.header
    if trained := training_note(scores):
        yield trained
    for name, part in scores.parts.items():
        yield f"{range_note(name, part)} ({part['range_rule']}); mask: {part['mask']}."
    yield from _on_sections(scores)
    yield from map(str, summarise(read_messages(header, "messages")))
    hidden = () if which == "all" else {*header.get("standard", ())} - {BONE}  # its Dice is printed
    for name, rule in chain(header.get("scopes", {}).items(), header.get("regions", {}).items()):
        if name not in hidden:
            yield f"{name}: {rule}."
    if which == "all":
        yield from map(str, read_messages(header, "truth_messages"))
        yield from _conventions(scores)
    moved = header.get("moved", {}).items()
    for note, images in grouped((note, image) for image, note in moved).items():
        yield f"{first_of(images)}: {note}."
    if without := header.get("without_truth"):
        yield f"Without truth, not scored: {first_of(without)}."


def _on_sections(scores: Scores) -> Iterator[str]:
    """Intervals that hold too little or were fitted on these cases, and single patients."""
    header = scores.header
    least = min((one["coverage"] for one in header.get("calibrations", ())), default=0)
    for name, part in scores.parts.items():
        if part["patients"] == 1 and part["cases"] > 1:
            yield f"{name}: one patient, so the scores describe this patient alone."
        missed = []
        for key, value in scores.means[name].get(SYNTHESIS, {}).items():
            high = (value["ci95"] or (None, value["mean"]))[1]
            if key.endswith("coverage") and high is not None and high < least:
                missed.append(f"{scores.metrics[key].label} {value['mean']:.0%}")
        if missed:
            yield f"{name}: below the {least:.0%} that the intervals state: {', '.join(missed)}."
    if calibrated_on := header.get("calibrated_on"):
        yield f"{len(calibrated_on)} of {len(scores.patients)} cases were used for the calibration: their coverage is no test."


def _conventions(scores: Scores) -> Iterator[str]:
    """How many voxels become one number in each metric, and how many patients an interval."""
    yield f"Intervals: 95 % bootstrap percentile, {RESAMPLES} resamples over patients (six or more), seed 0."
    yield from map(describe_coverage, scores.header.get("calibrations", ()))
    for metric in METRIC_OF.values():
        if metric.key in scores.known and metric.in_table:
            yield f"{metric.label}: {metric.reduction}."
    if missing := not_scored_texts(scores.header.get("not_synthesised", {})):
        yield f"Not scored: {'; '.join(missing)}."


def training_note(scores: Scores) -> str:
    """A sentence on the scored cases that were in the model's training; "" if none is known."""
    trained = len(scores.header.get("trained_on", []))
    if not trained:
        return ""
    cases = f"{plural(len(scores.patients), 'case')} {'was' if trained == 1 else 'were'}"
    return f"{trained} of {cases} in the model's training (by name), so their scores are not held-out scores."


def not_scored_texts(reasons: Mapping[str, str]) -> list[str]:
    """Each reason against a score with the cases or images that have it, of many the first and their number."""
    texts = []
    for why, names in grouped((why, name) for name, why in reasons.items()).items():
        count = f"{len(names)} of them: " if len(names) > 1 else ""
        texts.append(f"{first_of(names)} ({count}{why})")
    return texts


def range_note(name: str, part: Part) -> str:
    """The numbers of whole cases and patients of a section, and the range of its scores."""
    low, high = part["range"]
    cases = plural(part["cases"], "whole case")
    patients = plural(part["patients"], "patient")
    return f"{name}: {cases} of {patients}; range {low:g} to {high:g} {part['unit']}"
