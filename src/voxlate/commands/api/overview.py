"""A table of a cohort's cases, patients, modalities, grids and units on the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from voxlate.base.errors import first_of
from voxlate.base.groups import grouped
from voxlate.commands.api.entry import Aside

COLUMNS = ("all", "train", "val", "test")
MOST_NAMES = 12  # modalities in a row


def overview_lines(table: Mapping[str, Any]) -> Iterator[Aside]:
    """The table, with the grids (the commonest first)."""
    grid = Table("", *COLUMNS, "unit", box=None)
    rows = {
        name: (*counts.values(), table["units"].get(name, ""))
        for name, counts in table["rows"].items()
    }
    for name in ("cases", "patients"):
        grid.add_row(name, *map(str, rows.pop(name)))
    for names, row in by_value(rows):
        grid.add_row(first_of(names, MOST_NAMES), *map(str, row))
    yield Aside(grid)
    if grids := [f"{shape} ({count})" for shape, count in table["grids"].items()]:
        yield Aside(f"grids: {first_of(grids, 4)}")


def by_value(table: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    """Each value of a table with all names that have it."""
    names = grouped((value, name) for name, value in table.items())
    return [(own, value) for value, own in names.items()]


def file_lines(files: Sequence[Any], root: Path, most: int | None) -> Iterator[Aside]:
    """Which file or series becomes what, on which grid and in which unit.

    most: the number of files that are listed, and of those that cannot be read all; None for all.
    """
    listed = [file for n, file in enumerate(files) if most is None or n < most or not file.is_read]
    rows = [("case", "becomes", "file or series", "grid", "unit")]
    for file in listed:
        place = Path(file.path)
        short = place.relative_to(root) if place.is_relative_to(root) else place
        rows.append((file.case, file.name, str(short), file.grid, file.unit))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:  # no table of rich's: it would cut paths to the terminal's width
        yield Aside("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip())
    if len(listed) < len(files):
        yield Aside(f"… and {len(files) - len(listed)} more files (--all lists them)")
