"""Scores of methods as one kind of table, from which terminal, notebook and page are printed."""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from voxlate.base.errors import plural
from voxlate.evaluation.scoring.captions import caption
from voxlate.evaluation.scoring.metrics import METRIC_OF, Metric, metrics_of
from voxlate.evaluation.scoring.score_frame import ScoreFrame
from voxlate.evaluation.scoring.scored_regions import BONE
from voxlate.training.verdict import SYNTHESIS

NARROWEST = 13  # width of a method's column, which fits 0.994 ± 0.001
# These metrics are printed without --all.
OF_BONE = ("dice", "surface_95", "dice_low", "dice_middle", "dice_high")
MAIN = (
    "mae",
    "floor",
    "floor_mm",
    "psnr",
    "ssim_2d",
    "coverage",
    "mae_bound",
    "mae_bound_held",
    "whole.mae",
    *(f"{BONE}.{key}" for key in OF_BONE),
)
OF_ONE = "Scores of one case"
TITLE = "Scores: mean ± sd over cases; below, the 95 % interval of the mean"
BEST = "best naive baseline"  # the second column of the short table


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
    """Scores of methods by modality, for the terminal and the page.

    On a terminal, lines are metrics and columns are methods, in several tables if the methods do not fit.
    """

    title: str
    methods: tuple[str, ...]
    lines: Mapping[str, Sequence[Line]]
    caption: Sequence[str]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        sections = []
        for modality, lines in self.lines.items():
            name = f"{modality} " if len(self.lines) > 1 else ""
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
    """A line for each metric of each modality; cells_of: its cells, none if the metric is left out."""
    return {
        name: [
            Line(metric.label, metric.unit_for(part["unit"]), cells)
            for metric in metrics_of(header).values()
            if (cells := tuple(cells_of(name, metric)))
        ]
        for name, part in header["modalities"].items()
    }


def score_tables(scores: ScoreFrame, which: Literal["all", "main"] = "all") -> Tables:
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
    is_one = all(part["cases"] == 1 for part in scores.parts.values())
    return Tables(OF_ONE if is_one else TITLE, methods, lines, caption(scores, which))


def is_main(metric: Metric, standard: Collection[str]) -> bool:
    """Whether a metric is printed without --all: a main metric, or one that is computed only on request.

    standard: regions and scopes that nobody asked for.
    """
    area = metric.key.rpartition(".")[0]
    on_request = area not in standard if area else metric.key not in METRIC_OF
    return metric.key in MAIN or on_request or metric.pooled or metric.key == "lpips"
