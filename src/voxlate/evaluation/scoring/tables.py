"""Scores of methods as one kind of table with its caption, from which terminal, notebook and page are printed."""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

from pandas import DataFrame
from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, read_messages, summarise, worst_grade
from voxlate.base.statistics import RESAMPLES
from voxlate.evaluation.scoring.interval_scores import describe_coverage
from voxlate.evaluation.scoring.metrics import ABSENT, METRIC_OF, Metric, metrics_of
from voxlate.evaluation.scoring.scored_regions import BONE
from voxlate.training.verdict import SYNTHESIS, Verdict

Part = Mapping[str, Any]  # of a section
Which = Literal["all", "main"]

NARROWEST = 13  # width of a method's column, which fits 0.994 ± 0.001
# These metrics are printed without --all.
MAIN = (
    "mae",
    "psnr",
    "ssim_2d",
    "coverage",
    "mae_bound",
    "mae_bound_held",
    "whole.mae",
    f"{BONE}.dice",
    f"{BONE}.surface_95",
)
OF_ONE = "Scores of one case"
TITLE = "Scores: mean ± sd over patients; below, the 95 % interval of the mean"
BEST = "best naive baseline"  # the second column of the short table
NO_SCORE = f"{ABSENT}: no score."  # the legend
FEW = 4  # notes on cases that are printed without --all


class Values(Protocol):
    """What of scores a table shows (see scores.Scores)."""

    @property
    def header(self) -> Mapping[str, Any]: ...

    @property
    def parts(self) -> Mapping[str, Part]: ...

    @property
    def means(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]: ...

    @property
    def folds(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def metrics(self) -> Mapping[str, Metric]: ...

    @property
    def patients(self) -> Mapping[str, str]: ...

    @property
    def known(self) -> Collection[str]: ...

    @property
    def verdicts(self) -> Sequence[Verdict]: ...

    @property
    def keyed(self) -> DataFrame: ...


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
    """Scores of methods by section, for the terminal and the page; above: lines of a summary over folds.

    On a terminal, lines are metrics and columns are methods, in several tables if the methods do not fit.
    """

    title: str
    methods: tuple[str, ...]
    lines: Mapping[str, Sequence[Line]]
    caption: Sequence[str]
    above: Sequence[str] = ()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if self.above:
            yield Text("\n".join(self.above), style="bold")
        sections = {
            name: [(Text(f"{line.label}\n{line.unit}".rstrip()), line.cells) for line in lines]
            for name, lines in self.lines.items()
        }
        rows = list(chain.from_iterable(sections.values()))
        names = [Text(name, "bold") for name in sections if len(sections) > 1]
        heads = [*names, *(text for text, _ in rows)]
        head = max((console.measure(text).maximum for text in heads), default=0)
        texts = chain.from_iterable(cells for _, cells in rows)
        width = max([NARROWEST, *(console.measure(cell).maximum for cell in texts)])
        fitting = max(1, (options.max_width - head - 4) // (width + 3))
        yield Text(self.title, style="italic")
        for first in range(0, len(self.methods), fitting):
            columns = slice(first, first + fitting)
            table = rich_table.Table("")
            for method in self.methods[columns]:
                table.add_column(method, justify="right", width=width, overflow="fold")
            for name, lines in sections.items():
                if len(sections) > 1:
                    table.add_row(Text(name, "bold"))
                for text, cells in lines:
                    table.add_row(text, *cells[columns])
                table.add_section()
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


def metric_lines(
    header: Mapping[str, Any], cells_of: Callable[[str, Metric], Iterable[Cell]]
) -> dict[str, list[Line]]:
    """A line for each metric of each section; cells_of: its cells, none if the metric is left out."""
    return {
        name: [
            Line(metric.label, metric.unit_for(part["unit"]), cells)
            for metric in metrics_of(header).values()
            if (cells := tuple(cells_of(name, metric)))
        ]
        for name, part in header["modalities"].items()
    }


def score_tables(scores: Values, which: Which = "all") -> Tables:
    """The scores, mean ± sd over cases: a column for the synthesis and for each naive baseline.

    which: "main" has the main and the requested scores of the synthesis and of the best naive baseline alone, whose name
    is printed below its first metric.
    """
    standard = scores.header.get("standard", ())
    best = {verdict.modality: verdict.baseline or "" for verdict in scores.verdicts}
    if which == "all":
        methods = tuple(dict.fromkeys(chain.from_iterable(scores.means.values())))
    else:
        methods = (SYNTHESIS, BEST) if any(best.values()) else (SYNTHESIS,)

    def cells(name: str, metric: Metric) -> Iterator[Cell]:
        """The score of each method."""
        if metric.key not in scores.known or not metric.in_table:
            return
        if which == "main" and not is_main(metric, standard):
            return
        for method in methods:
            answer = best[name] if method == BEST else method
            value = scores.means[name].get(answer, {}).get(metric.key)
            below = []
            if value and value["mean"] is not None and value["ci95"]:
                low, high = (metric.text(end, like=value["mean"]) for end in value["ci95"])
                below.append(f"{low}{'…' if low.startswith('-') else '–'}{high}")
            cases = scores.parts[name]["cases"]
            if value and not metric.pooled and value["n"] < cases:
                below.append(f"{value['n']} of {plural(cases, 'case')}")
            if method == BEST and metric.key == MAIN[0] and answer:
                below.append(answer)
            yield Cell(metric.mean_text(value), "\n".join(below), bold=answer == SYNTHESIS)

    lines = metric_lines(scores.header, cells)
    legend = [NO_SCORE] if has_gap(lines) else []
    is_one = all(part["cases"] == 1 for part in scores.parts.values())
    title = OF_ONE if is_one else TITLE
    return Tables(title, methods, lines, caption(scores, which) + legend, fold_lines(scores))


def has_gap(lines: Mapping[str, Sequence[Line]]) -> bool:
    """Whether a cell of a table has no score."""
    rows = chain.from_iterable(lines.values())
    return any(cell.text == ABSENT for row in rows for cell in row.cells)


def is_main(metric: Metric, standard: Collection[str]) -> bool:
    """Whether a metric is printed without --all: a main metric, or one that is computed only on request.

    standard: regions and scopes that nobody asked for.
    """
    area = metric.key.rpartition(".")[0]
    on_request = area not in standard if area else metric.key not in METRIC_OF
    return metric.key in MAIN or on_request or metric.pooled or metric.key == "lpips"


def fold_lines(scores: Values) -> list[str]:
    """A line for each section of a cross-validation: mean ± sd over the means of its folds."""
    lines = []
    for name, summaries in scores.folds.items():
        texts = []
        for key, summary in summaries.items():
            metric = METRIC_OF[key]
            unit = metric.unit_for(scores.parts[name]["unit"])
            texts.append(f"{metric.label} {metric.mean_text(summary)} {unit}".rstrip())
        folds = plural(len(next(iter(summaries.values()))["by_fold"]), "fold")
        lines.append(f"{name}, mean ± sd of {folds}: {'; '.join(texts)}.")
    return lines


def caption(scores: Values, which: Which = "all") -> list[str]:
    """The caption of a table: ranges, masks, numbers of cases, and what restricts the scores.

    which: "main" leaves out the conventions, and all but a few notes.
    """
    is_all = which == "all"
    header = scores.header
    lines = [training_note(scores)]
    for name, part in scores.parts.items():
        rule = f" ({part['range_rule']})" if is_all else ""
        lines.append(f"{range_note(name, part)}{rule}; mask: {part['mask']}.")
    lines += [*_on_sections(scores), *map(str, summarise(read_messages(header, "messages")))]
    hidden = () if is_all else {*header.get("standard", ())} - {BONE}  # whose Dice is printed
    for rules in (header.get("scopes", {}), header.get("regions", {})):
        lines += [f"{name}: {rule}." for name, rule in rules.items() if name not in hidden]
    cases_of = grouped(
        (note.removesuffix("."), case)
        for key in ("moved", "naive_left_out")
        for case, note in header.get(key, {}).items()
    )
    notes = [f"{', '.join(cases)}: {note}." for note, cases in cases_of.items()]
    warnings = header.get("scan_warnings", {})
    if is_all:
        lines += [*map(str, truth_messages(scores)), *_conventions(scores), *notes]
        for case in warnings:
            lines.append(f"{case}: {' '.join(map(str, read_messages(warnings, case)))}")
    else:
        warned = [case for case in warnings if worst_grade(read_messages(warnings, case)) != "note"]
        if warned:
            cases = f"{plural(len(warned), 'case')} ({first_of(warned)})"
            lines.append(f"synth warned of {cases}: --all prints why.")
        lines += notes[:FEW]
    if without := header.get("without_truth"):
        lines.append(f"Without truth, not scored: {first_of(without)}.")
    return [*filter(None, lines)]


def _on_sections(scores: Values) -> Iterator[str]:
    """Intervals that hold too little or were fitted on these cases, clipped truths, and single patients."""
    header = scores.header
    coverages = [one["coverage"] for one in header.get("calibrations", ())]
    for name, part in scores.parts.items():
        if part["patients"] == 1 and part["cases"] > 1:
            yield f"{name}: one patient, so the intervals describe these cases and not other patients."
        rows = scores.keyed[scores.keyed["section"] == name]
        if (most := rows["clipped"].max()) > 0:
            yield f"{name}: up to {most:.1%} of a case's scored voxels have a truth beyond the range, and are clipped."
        missed = []
        for key, value in scores.means[name].get(SYNTHESIS, {}).items():
            high = (value["ci95"] or (None, value["mean"]))[1]
            if key.endswith("coverage") and high is not None and high < min(coverages, default=0):
                missed.append(f"{scores.metrics[key].label} {value['mean']:.0%}")
        if missed:
            yield f"{name}: below the {min(coverages):.0%} that the intervals state: {', '.join(missed)}."
    if calibrated_on := header.get("calibrated_on"):
        yield f"{len(calibrated_on)} of {len(scores.patients)} cases were used for the calibration: their coverage is no test."


def _conventions(scores: Values) -> Iterator[str]:
    """How many voxels become one number in each metric, and how many patients an interval."""
    yield f"Intervals: 95 % bootstrap percentile, {RESAMPLES} resamples over patients, seed {scores.header['seed']}."
    yield from map(describe_coverage, scores.header.get("calibrations", ()))
    for metric in METRIC_OF.values():
        if metric.key in scores.known and metric.in_table:
            yield f"{metric.label}: {metric.reduction}."
    if missing := not_scored_texts(scores.header.get("not_synthesised", {})):
        yield f"Not scored: {'; '.join(missing)}."


def training_note(scores: Values) -> str:
    """A sentence on the scored cases that were in the model's training; "" if none is known."""
    return not_held_out(len(scores.header.get("trained_on", [])), len(scores.patients))


def not_held_out(trained: int, scored: int) -> str:
    """A sentence on scored cases that were in the training; "" if there are none."""
    if not trained:
        return ""
    cases = f"{plural(scored, 'case')} {'was' if trained == 1 else 'were'}"
    return f"{trained} of {cases} in the model's training (by name), so their scores are not held-out scores."


def truth_messages(scores: Values) -> list[Message]:
    """A message for each kind of truth that cannot be that of its image, with the cases."""
    return read_messages(scores.header, "truth_messages")


def not_scored_texts(reasons: Mapping[str, str]) -> list[str]:
    """Each reason against a score with the cases or images that have it, of many the first and their number."""
    texts = []
    for why, names in grouped((why, name) for name, why in reasons.items()).items():
        count = f"{len(names)} of them: " if len(names) > 1 else ""
        texts.append(f"{first_of(names)} ({count}{why})")
    return texts


def range_note(name: str, part: Part) -> str:
    """The numbers of cases and patients of a section, and the range of its scores."""
    low, high = part["range"]
    cases = plural(part["cases"], "case")
    patients = plural(part["patients"], "patient")
    return f"{name}: {cases} of {patients}; range {low:g} to {high:g} {part['unit']}"
