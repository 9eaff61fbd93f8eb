"""The table of several methods, cell by cell, for the terminal and for the page."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from voxlate.scoring.metric_catalogue import Metric, cell, measured
from voxlate.scoring.tables import count

SIGNIFICANT = 0.05
WIDTH = 15  # of a method's column: 0.994 ± 0.001, and a little more
TITLE = "mean ± sd; below, p of the paired difference to the reference (=), * where below 0.05"


@dataclass(frozen=True)
class Cell:
    """What one method has for one line."""

    text: str
    below: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One score, or what the syntheses took, with a cell for each method."""

    label: str
    unit: str
    cells: tuple[Cell, ...]


def lines_of(document: Mapping[str, Any]) -> dict[str, list[Line]]:
    """The lines of each modality, and under "" what the syntheses of all of them took."""
    names = list(document["methods"])
    known = {metric.key: metric for metric in measured(document)}
    found = {}
    for modality, part in document["modalities"].items():
        found[modality] = [
            Line(
                known[key].label,
                known[key].unit_for(part["unit"]),
                tuple(_cell(one, name, known[key]) for name in names),
            )
            for key, one in part["metrics"].items()
            if any(value["mean"] is not None for value in one["methods"].values())
        ]
    effort = document.get("effort", {})
    if any(effort.values()):
        found[""] = [
            Line("Time", "s/slice", tuple(Cell(_seconds(effort.get(name))) for name in names)),
            Line("Network calls", "× samples", tuple(Cell(_calls(effort.get(name))) for name in names)),
        ]
    return found


@dataclass(frozen=True)
class Tables:
    """A line a metric, a column a method; in several tables, one below the other, where the methods do not fit."""

    document: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names, lines = list(self.document["methods"]), lines_of(self.document)
        heads = [(_label(self.document, modality, line), line.unit) for modality in lines for line in lines[modality]]
        wide = max((len(text) for head in heads for text in head), default=0)
        fit = max(1, (options.max_width - wide - 4) // (WIDTH + 3))
        yield Text(f"Methods: {TITLE}", style="italic")
        for first in range(0, len(names), fit):
            yield _table(self.document, lines, range(first, min(first + fit, len(names))))
        yield Text("\n".join(caption(self.document)), style="dim")


def _table(document: Mapping[str, Any], lines: Mapping[str, list[Line]], columns: range) -> Table:
    result = Table()
    result.add_column("")
    for name in [list(document["methods"])[column] for column in columns]:
        result.add_column(_folded(name), justify="right", min_width=WIDTH, max_width=WIDTH, overflow="fold")
    for modality, mine in lines.items():
        for line in mine:
            cells = (_marked(line.cells[column]) for column in columns)
            result.add_row(f"{_label(document, modality, line)}\n{line.unit}".rstrip(), *cells)
        result.add_section()
    return result


def _folded(name: str) -> str:
    """A name in lines of at most WIDTH letters, broken after _ or / where that is possible."""
    lines = [""]
    for part in re.findall(r"[^_/]*[_/]?", name):
        if len(lines[-1]) + len(part) > WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _label(document: Mapping[str, Any], modality: str, line: Line) -> str:
    return f"{modality} {line.label}" if modality and len(document["modalities"]) > 1 else line.label


def caption(document: Mapping[str, Any]) -> list[str]:
    """Range, mask, tests and times, in words."""
    lines = []
    for name, part in document["modalities"].items():
        low, high = part["range"]
        size = part[part["over"]]
        lines.append(
            f"{name}: {count(part['cases'], 'case')} of {count(part['patients'], 'patient')}; "
            f"range {low:g} to {high:g} {part['unit']}; mask: {part['mask']}. Tests over {size} {part['over']}: "
            f"no p lies below {2.0 ** (1 - size):.2g}."
        )
        if part["over"] == "cases":
            lines.append(f"{name}: one patient, so nothing is said of other patients.")
    chosen = document["reference"] or "the best of each line (chosen after the fact, so p is a little too small)"
    lines.append(
        f"Bold: best mean. Reference: {chosen}. Wilcoxon signed-rank, two-sided, Holm over the methods of a line; "
        "the lines themselves are not corrected for their number. Pooled distances: ± standard error, no test."
    )
    if any("std" in part["metrics"] for part in document["modalities"].values()):
        lines.append("Uncertainty: mean over the mask of the samples' standard deviation; no test, less is not better.")
    return lines + _about_time(document.get("effort", {}))


def _about_time(effort: Mapping[str, Any]) -> list[str]:
    taken = {name: one for name, one in effort.items() if one}
    if not taken:
        return []
    devices = {name: ", ".join(one["devices"]) for name, one in taken.items()}
    where = sorted(set(devices.values()))
    on = f"on {where[0]}" if len(where) == 1 else "; ".join(f"{name} on {place}" for name, place in devices.items())
    beware = " Times on different devices do not compare." if len(where) > 1 else ""
    return [
        f"Time: wall clock for a slice with all its samples, mean over the cases, {on}.{beware} "
        "Network calls: evaluations of the network for one sample of a slice or patch."
    ]


def _cell(found: Mapping[str, Any], name: str, metric: Metric) -> Cell:
    value = found["methods"].get(name)
    text, best = cell(value, metric), found["best"] == name
    if found["reference"] == name:
        return Cell(text, "=", best)
    if value is None or "p_holm" not in value:
        return Cell(text, "", best)
    return Cell(text, f"p {value['p_holm']:.2g}{'*' if value['p_holm'] < SIGNIFICANT else ''}", best)


def _marked(one: Cell) -> str:
    text = f"[bold]{one.text}[/]" if one.best else one.text
    return f"{text}\n{one.below}" if one.below else text


def _seconds(effort: Mapping[str, Any] | None) -> str:
    if not effort:
        return "–"
    seconds = effort["seconds_per_slice"]["mean"]
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _calls(effort: Mapping[str, Any] | None) -> str:
    if not effort:
        return "–"
    calls = effort["network_calls"]["mean"]
    samples = ", ".join(map(str, effort["samples"]))
    return f"{calls:.0f}" if samples == "1" else f"{calls:.0f} × {samples}"
