"""Scores of methods as one kind of table with its caption, from which terminal, notebook and page are printed."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import read_messages, summarise
from voxlate.evaluation.scoring.metrics import BONE, METRIC_OF, Metric
from voxlate.training.verdict import SYNTHESIS

Part = Mapping[str, Any]  # of a section
Scores = Any  # of scores.py, whose scores print themselves by these tables
Which = Literal["all", "main"]

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
TITLE = "Scores: mean ± sd over patients, of a single patient over its cases; below, the 95 % interval of the mean"
BEST = "best naive baseline"  # the second column of the short table
# Times the share that may be outside of intervals, from which they hold too little: chance and few patients explain less.
FAR_OUTSIDE = 1.5


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
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Tables:
    """Scores of the methods of each section, for the terminal and the page; above: lines of a summary over folds.

    On a terminal, lines are metrics and columns are methods.
    """

    title: str
    methods: Mapping[str, Sequence[str]]
    lines: Mapping[str, Sequence[Line]]
    caption: Sequence[str]
    above: Sequence[str]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield from (Text(line, style="bold") for line in self.above)
        yield Text(self.title, style="italic")
        for name, lines in self.lines.items():
            table = rich_table.Table(name if len(self.lines) > 1 else "")
            for method in self.methods[name]:
                table.add_column(method, justify="right", overflow="fold")
            for line in lines:
                table.add_row(f"{line.label}\n{line.unit}".rstrip(), *line.cells)
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


def score_tables(scores: Scores, which: Which = "all") -> Tables:
    """The scores, mean ± sd over patients: a column for the synthesis and for each naive baseline.

    which: "main" has the main and the requested scores of the synthesis and of the best naive baseline alone, whose name
    is printed below its first metric.
    """
    best = {verdict.modality: verdict.baseline for verdict in scores.verdicts}
    methods = {name: [*of_methods] for name, of_methods in scores.means.items()}
    lines = {}
    for name, part in scores.parts.items():
        if which == "main":
            methods[name] = [SYNTHESIS, BEST] if best[name] else [SYNTHESIS]
        lines[name] = [
            Line(
                metric.label,
                metric.unit_for(part["unit"]),
                [_cell(scores, name, method, best[name], metric) for method in methods[name]],
            )
            for metric in shown_metrics(scores, name, which)
        ]
    return Tables(TITLE, methods, lines, [*caption(scores, which)], fold_lines(scores))


def shown_metrics(scores: Scores, section: str, which: Which) -> list[Metric]:
    """The metrics of a section that have a line: those in which a method has a mean, and the user's own.

    which: "main" leaves out regions and scopes that nobody asked for, but for main metrics.
    """
    known = {*scores.header.get("own_metrics", ())}
    for of_method in scores.means[section].values():
        known |= {key for key, value in of_method.items() if value["mean"] is not None}
    standard = scores.header.get("standard", ())
    shown = []
    for key, metric in scores.metrics.items():
        area = key.rpartition(".")[0]
        on_request = area not in standard if area else key not in METRIC_OF or metric.pooled
        if key in known and metric.in_table and (which == "all" or key in MAIN or on_request):
            shown.append(metric)
    return shown


def _cell(scores: Scores, section: str, method: str, best: str | None, metric: Metric) -> Cell:
    """The score of a method, its interval, and what restricts it."""
    is_best = method == BEST
    value = scores.means[section].get(best if is_best else method, {}).get(metric.key)
    below = []
    if value and value["mean"] is not None and value["ci95"]:
        below.append(metric.interval_text(value["ci95"], value["mean"]))
    cases = scores.parts[section]["cases"]
    if value and not metric.pooled and value["n"] < cases:
        below.append(f"{value['n']} of {plural(cases, 'case')}")
    if is_best and metric.key == MAIN[0]:
        below.append(str(best))
    return Cell(metric.mean_text(value), "\n".join(below), bold=method == SYNTHESIS)


def fold_lines(scores: Scores) -> list[str]:
    """A line for each section of a cross-validation: mean ± sd over the means of its folds."""
    lines = []
    for name, summaries in scores.folds.items():
        texts = []
        for key, summary in summaries.items():
            metric = METRIC_OF[key]
            unit = metric.unit_for(scores.parts[name]["unit"])
            texts.append(f"{metric.label} {metric.mean_text(summary)} {unit}".rstrip())
        folds = plural(len(summaries["mae"]["by_fold"]), "fold")
        lines.append(
            f"{name}, mean ± sd of {folds}: {'; '.join(texts)} (publish the table's mean, which counts each patient once)."
        )
    return lines


def caption(scores: Scores, which: Which = "all") -> Iterator[str]:
    """The caption of a table: ranges, masks, numbers of cases, and what restricts the scores.

    which: "main" leaves out the rules of what nobody asked for.
    """
    header = scores.header
    if trained := training_note(scores):
        yield trained
    for name, part in scores.parts.items():
        yield f"{range_note(name, part)} ({part['range_rule']}); mask: {part['mask']}."
    yield from _on_intervals(scores)
    yield from map(str, summarise(read_messages(header, "messages")))
    hidden = () if which == "all" else {*header.get("standard", ())} - {BONE}  # its Dice is printed
    for name, rule in chain(header.get("scopes", {}).items(), header.get("regions", {}).items()):
        if name not in hidden:
            yield f"{name}: {rule}."
    if which == "all":
        yield from map(str, read_messages(header, "truth_messages"))
    moved = header.get("moved", {}).items()
    for note, images in grouped((note, image) for image, note in moved).items():
        yield f"{first_of(images)}: {note}."
    if without := header.get("without_truth"):
        yield f"Without truth, not scored: {first_of(without)}."


def _on_intervals(scores: Scores) -> Iterator[str]:
    """Intervals that hold far too little, or were fitted on these cases."""
    header = scores.header
    least = header.get("nominal_coverage", 0)
    for name, of_methods in scores.means.items():
        missed = []
        for key, value in of_methods.get(SYNTHESIS, {}).items():
            high = (value["ci95"] or (None, value["mean"]))[1]
            is_coverage = key.endswith("coverage") and high is not None
            if is_coverage and 1 - high > FAR_OUTSIDE * (1 - least):
                missed.append(f"{scores.metrics[key].label} {value['mean']:.0%}")
        if missed:
            yield f"{name}: below the {least:.0%} that the intervals state: {', '.join(missed)}."
    if calibrated_on := header.get("calibrated_on"):
        yield f"{len(calibrated_on)} of {len(scores.patients)} cases were used for the calibration: their coverage is no test."


def training_note(scores: Scores) -> str:
    """A sentence on the scored cases that were in the model's training; "" if none is known."""
    trained = len(scores.header.get("trained_on", []))
    if not trained:
        return ""
    cases = f"{plural(len(scores.patients), 'case')} {'was' if trained == 1 else 'were'}"
    return f"{trained} of {cases} in the model's training (by name), so their scores are not held-out scores."


def not_scored_texts(reasons: Mapping[str, str]) -> Iterable[str]:
    """Each reason against a score with the cases or images that have it, of many the first and their number."""
    for why, names in grouped((why, name) for name, why in reasons.items()).items():
        count = f"{len(names)} of them: " if len(names) > 1 else ""
        yield f"{first_of(names)} ({count}{why})"


def range_note(name: str, part: Part) -> str:
    """The numbers of whole cases and patients of a section, and the range of its scores."""
    low, high = part["range"]
    cases = plural(part["cases"], "whole case")
    patients = plural(part["patients"], "patient")
    return f"{name}: {cases} of {patients}; range {low:g} to {high:g} {part['unit']}"
