"""A table of a cohort's cases, patients, modalities, grids and units."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from voxlate.cli.app import err, say
from voxlate.data.checking import UNREAD, CheckedFile
from voxlate.data.find import CaseFiles, CohortFiles
from voxlate.data.prepared import SPLITS, Entry
from voxlate.errors import first_of

MOST_ROWS = 12  # files of a dry run; --all shows the others


def overview(
    cases: Sequence[CaseFiles | Entry],
    splits: Mapping[str, str],
    units: Mapping[str, str],
    masked: Collection[str],
) -> dict[str, Any]:
    """Cases and patients in all and by split, and the same for each modality and label map; grids once prepared.

    masked: the cases that have a mask file.
    """
    rows = {
        "cases": _by_split(cases, splits),
        "patients": _by_split({one.patient: one for one in cases}.values(), splits),
    }
    for name in sorted({name for one in cases for name in _present(one)}):
        rows[name] = _by_split([one for one in cases if name in _present(one)], splits)
    if masked:
        rows["mask"] = _by_split([one for one in cases if one.case in masked], splits)
    grids = Counter(
        "×".join(map(str, reversed(one.shape))) for one in cases if isinstance(one, Entry)
    )
    return {"rows": rows, "units": dict(units), "grids": dict(grids.most_common())}


def _present(one: CaseFiles | Entry) -> list[str]:
    return [*(one.present if isinstance(one, Entry) else one.files), *one.labels]


def _by_split(cases: Iterable[CaseFiles | Entry], splits: Mapping[str, str]) -> dict[str, int]:
    counts = Counter(splits[one.patient] for one in cases)
    return {"all": sum(counts.values()), **{name: counts[name] for name in SPLITS}}


def show(table: Mapping[str, Any], plan: CohortFiles | None = None) -> None:
    """The table on stderr, with the grids (the commonest first) and, for a plan, what is left out."""
    drawn = Table("", "all", *SPLITS, "unit", box=None)
    for name, counts in table["rows"].items():
        drawn.add_row(
            name, *(str(counts[key]) for key in ("all", *SPLITS)), table["units"].get(name, "")
        )
    err.print(drawn)
    if grids := list(table["grids"].items()):
        say(f"grids: {first_of([f'{grid} ({count})' for grid, count in grids], 4)}", err)
    for sentence in plan.unclaimed if plan else ():
        say(f"left out: {sentence}", err)
    for sentence in plan.guessed if plan else ():
        say(f"assumed: {sentence}", err)


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
