"""A table of a cohort's cases, patients, modalities, grids and units on the terminal."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.table import Table

from voxlate.cases.checking import UNREAD, CheckedFile
from voxlate.cases.prepared import SPLITS
from voxlate.cli.app import err, say
from voxlate.cohorts.case_files import CohortFiles
from voxlate.system.errors import first_of

MOST_ROWS = 12  # files of a dry run; --all shows the others
MOST_NAMES = 12  # modalities in a row
Value = TypeVar("Value", bound=Hashable)


def show(table: Mapping[str, Any], plan: CohortFiles | None = None) -> None:
    """The table on stderr, with the grids (the commonest first) and, for a plan, what is left out."""
    drawn = Table("", "all", *SPLITS, "unit", box=None)
    rows = dict(table["rows"])
    cells = {
        name: (*counts.values(), table["units"].get(name, "")) for name, counts in rows.items()
    }
    for name in ("cases", "patients"):
        drawn.add_row(name, *map(str, cells.pop(name)))
    for names, row in by_value(cells):
        drawn.add_row(first_of(names, MOST_NAMES), *map(str, row))
    err.print(drawn)
    if grids := list(table["grids"].items()):
        say(f"grids: {first_of([f'{grid} ({count})' for grid, count in grids], 4)}", err)
    for sentence in plan.unclaimed if plan else ():
        say(f"left out: {sentence}", err)
    for sentence in plan.guessed if plan else ():
        say(f"assumed: {sentence}", err)


def by_value(table: Mapping[str, Value]) -> list[tuple[list[str], Value]]:
    """Each value of a table with all names that have it."""
    names = dict[Value, list[str]]()
    for name, value in table.items():
        names.setdefault(value, []).append(name)
    return [(own, value) for value, own in names.items()]


def show_files(seen: Sequence[CheckedFile], root: Path, every: bool) -> None:
    """Which file or series becomes what, on which grid and in which unit, a line each, on stderr.

    every: of all files; else of the first ones, and of those that cannot be read.
    """
    shown = [
        one for number, one in enumerate(seen) if every or number < MOST_ROWS or one.grid == UNREAD
    ]
    rows = [("case", "becomes", "file or series", "grid", "unit")]
    for one in shown:
        place = Path(one.path)
        short = place.relative_to(root) if place.is_relative_to(root) else place
        rows.append((one.case, one.name, str(short), one.grid, one.unit))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:  # no table of rich's: it would cut paths to the terminal's width
        say("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip(), err)
    if len(shown) < len(seen):
        say(f"… and {len(seen) - len(shown)} more files (--all lists them)", err)
