"""The evidence ledger: results as lines of a TSV, the reference of each row as TOML, and the verdict on a group of rows.

The first part of a score's name is its kind, such as dice of dice_bone, which has its best value and its tolerance
(MEASURES). Scores of other kinds are reported and not compared. See evidence.py.
"""

import csv
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from voxlate.base.groups import grouped

DIRTY = "+"  # at the end of a commit whose code has changes that are not committed
COLUMNS = ("commit", "date", "machine", "row", "steps", "minutes", "scores")
ROUNDING = 1e-9
NAIVE = "naive_mae"  # of the best naive baseline
COVERAGE = "coverage"
HELD = (0.85, 0.95)  # of 90 % intervals
HEAD = """\
# The best that each row of `make evidence` has reached, and the commit that did. Written by
# python benchmarks/evidence.py --accept, which moves a number in the better direction alone; another direction takes a
# change by hand and a line in docs/design/decisions.md. naive_mae: of the best naive baseline on the same patients.
# A row may state a range of its coverage (default: 0.85 to 0.95) as coverage_range = [LOW, HIGH], with the reason as why.
"""


@dataclass(frozen=True)
class Measure:
    """How scores of a kind are compared: their best value, and by how much a group's mean may be worse.

    relative: whether the tolerance is a share of the reference's distance from the best value.
    """

    title: str
    best: float
    tolerance: float
    relative: bool = False

    def worsening(self, now: float, reference: float) -> float:
        """How much farther from the best value a score is than its reference; negative where it is better."""
        before = abs(reference - self.best)
        change = abs(now - self.best) - before
        return change / max(before, ROUNDING) if self.relative else change


MEASURES = {
    "mae": Measure("MAE", 0.0, 0.02, relative=True),
    "ssim": Measure("SSIM", 1.0, 0.008),
    "dice": Measure("Dice", 1.0, 0.015),
    "mistaken": Measure("mistaken share", 0.0, 0.015),  # of a tissue that became another one
    "gradient": Measure("gradient ratio", 1.0, 0.05),
    "equal": Measure("equal weights", 1.0, 0.0),
}

# Times the tolerance for groups whose rows are so short that rounding, which differs between processors, changes them: on an
# Intel and an AMD processor single rows of brains differed by 4 to 9 % of their MAE, one of heads by 1.7 %, one of phantoms by
# 0.008 of its SSIM (docs/reference/measured.md).
SPREAD: Mapping[str, float] = {"brains": 4.0, "heads": 1.5, "phantoms": 2.0}


@dataclass(frozen=True)
class Result:
    """What one commit reached on one row; steps: of each stage, joined by +; minutes: of the whole row."""

    commit: str
    date: str
    machine: str
    row: str
    steps: str = ""
    minutes: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """What a row has reached at best; commits: by score; span: within which its coverage has to lie, and why."""

    scores: Mapping[str, float]
    commits: Mapping[str, str]
    naive: float | None = None
    span: tuple[float, float] = HELD
    why: str = ""


@dataclass(frozen=True)
class Compared:
    """A score of a row beside its reference, which is None where the row has none."""

    row: str
    score: str
    now: float
    reference: float | None
    span: tuple[float, float] = HELD

    @property
    def kind(self) -> str:
        """The kind of score, which has a measure, is coverage, or is not compared."""
        return kind_of(self.score)

    @property
    def is_held(self) -> bool:
        """Whether it is a coverage whose reference lies in its span, where it has to stay."""
        return self.kind == COVERAGE and self.reference is not None and self._lies(self.reference)

    @property
    def worsening(self) -> float:
        """How much worse than its reference it is by its measure."""
        assert self.reference is not None
        return MEASURES[self.kind].worsening(self.now, self.reference)

    @property
    def verdict(self) -> str:
        """Improved, equal or WORSE than the reference by more than the tolerance, which decides for no single row."""
        if self.reference is None:
            return "no reference"
        if self.kind == COVERAGE:
            return "equal" if not self.is_held or self._lies(self.now) else "WORSE"
        allowed = MEASURES[self.kind].tolerance + ROUNDING
        if self.worsening > allowed:
            return "WORSE"
        return "improved" if self.worsening < -allowed else "equal"

    def _lies(self, value: float) -> bool:
        return self.span[0] <= value <= self.span[1]


@dataclass(frozen=True)
class Change:
    """The mean change of a kind of score over a group of rows, as a sentence, and whether it is worse than allowed."""

    text: str
    is_worse: bool


def kind_of(score: str) -> str:
    """The first part of a score's name."""
    return score.split("_")[0]


def is_compared(score: str) -> bool:
    """Whether scores of this name have references."""
    return kind_of(score) in (*MEASURES, COVERAGE)


def compare(result: Result, references: Mapping[str, Reference]) -> list[Compared]:
    """The scores of a row beside their references."""
    known = references.get(result.row, Reference({}, {}))
    return [
        Compared(result.row, name, value, known.scores.get(name), known.span)
        for name, value in result.scores.items()
        if is_compared(name)
    ]


def changes_of(group: Sequence[Compared], spread: float = 1.0) -> list[Change]:
    """The mean change of each kind of score over the rows of a group that have a reference; spread: times the tolerance."""
    found = []
    known = [one for one in group if one.reference is not None and one.kind in MEASURES]
    for kind, several in grouped((one.kind, one) for one in known).items():
        measure = MEASURES[kind]
        mean = fmean(one.worsening for one in several)
        is_worse = mean > spread * measure.tolerance + ROUNDING
        shown = f"{100 * mean:+.1f} %" if measure.relative else f"{mean:+.4f}"
        text = f"{measure.title} {shown} from the reference over {len(several)}"
        found.append(Change(text, is_worse))
    held = [one for one in group if one.is_held]
    if held:
        mean = fmean(one.now for one in held)
        low, high = (fmean(one.span[side] for one in held) for side in (0, 1))
        is_worse = not low - ROUNDING <= mean <= high + ROUNDING
        text = f"coverage {mean:.3f} of {low:.3g} to {high:.3g} over {len(held)}"
        found.append(Change(text, is_worse))
    return found


def better(new: Result, old: Reference | None) -> Reference:
    """The reference of a row after a result: of each score the better one."""
    before = old or Reference({}, {})
    scores, commits = dict(before.scores), dict(before.commits)
    for name, value in new.scores.items():
        if is_compared(name) and _is_better(name, value, scores.get(name)):
            scores[name], commits[name] = value, new.commit
    return Reference(scores, commits, new.scores.get(NAIVE, before.naive), before.span, before.why)


def _is_better(name: str, value: float, known: float | None) -> bool:
    """Whether a score is better than the known one."""
    if known is None:
        return True
    if kind_of(name) == COVERAGE:
        middle = sum(HELD) / 2
        return abs(value - middle) < abs(known - middle)
    return MEASURES[kind_of(name)].worsening(value, known) < 0


def read_references(path: Path) -> dict[str, Reference]:
    """The references by row; none without a file."""
    if not path.exists():
        return {}
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {row: _reference(table) for row, table in tables.items()}


def _reference(table: Mapping[str, Any]) -> Reference:
    """The reference of a row from its table."""
    scores = {name: one for name, one in table.items() if isinstance(one, dict)}
    low, high = table.get("coverage_range", HELD)
    return Reference(
        {name: one["value"] for name, one in scores.items()},
        {name: one["commit"] for name, one in scores.items()},
        table.get(NAIVE),
        (low, high),
        table.get("why", ""),
    )


def write_references(path: Path, references: Mapping[str, Reference]) -> None:
    """Write the references, a table for each row."""
    lines = [HEAD.rstrip()]
    for row, one in references.items():
        lines += ["", f"[{row}]"]
        if one.span != HELD:
            low, high = one.span
            lines += [f"coverage_range = [{low}, {high}]", f'why = "{one.why}"']
        if one.naive is not None:
            lines.append(f"{NAIVE} = {one.naive}")
        for name, value in one.scores.items():
            lines.append(f'{name} = {{ value = {value}, commit = "{one.commits[name]}" }}')
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def append(path: Path, results: Iterable[Result]) -> None:
    """Add results to a file, which begins with the names of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begins = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        if begins:
            writer.writerow(COLUMNS)
        for one in results:
            minutes = "" if one.minutes is None else f"{one.minutes:.2f}"
            scores = " ".join(f"{name}={value:.6g}" for name, value in one.scores.items())
            head = (one.commit, one.date, one.machine, one.row, one.steps)
            writer.writerow([*head, minutes, scores])


def table(groups: Mapping[str, Sequence[Compared]], naive: Mapping[str, float]) -> tuple[str, bool]:
    """The table of row, reference, now and verdict by group, and whether a group is worse than its reference.

    naive: MAE of the best naive baseline, by row.
    """
    cells = [("row", "score", "reference", "now", "verdict")]
    is_worse = False
    for name, group in groups.items():
        changes = changes_of(group, SPREAD.get(name, 1.0))
        group_worse = any(one.is_worse for one in changes)
        is_worse |= group_worse
        cells.append((f"{name.upper()}", "", "", "", "WORSE" if group_worse else "holds"))
        for change in changes:
            cells.append((f"  {change.text}", "", "", "", "WORSE" if change.is_worse else ""))
        for row, several in grouped((one.row, one) for one in group).items():
            first = f"  {row}"
            for one in several:
                cells.append((first, one.score, _text(one.reference), _text(one.now), one.verdict))
                first = ""
            if row in naive:
                cells.append(("", "best naive MAE", "", _text(naive[row]), ""))
    return _aligned(cells), is_worse


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Cells in columns; the sentences of groups, which have no other cell but a verdict, are longer than theirs."""
    rows = [line for line in cells if line[1]]
    widths = [max(len(line[column]) for line in rows) for column in range(len(cells[0]))]
    lines = []
    for line in cells:
        if line[1]:
            parts = [text.ljust(width) for text, width in zip(line, widths)]
            lines.append("  ".join(parts).rstrip())
        else:
            lines.append(f"{line[0].ljust(sum(widths[:4]) + 6)}  {line[4]}".rstrip())
    return "\n".join(lines)
