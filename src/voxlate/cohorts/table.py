"""CSV and TSV files, read strictly: no row or cell is lost or put under another column."""

import csv
from collections import Counter
from pathlib import Path

from voxlate.system.errors import BadInput

NOTHING = ("na", "n/a", "nan", "none", "null", "-", "")
Row = dict[str, str]


def read_table(path: Path) -> list[tuple[int, Row]]:
    """The rows of a table with their line numbers, by the columns' names in lower case.

    Cells such as 'n/a' become ''; a column of cells without a name becomes 'column 3'. Rows without any cell are left
    out. Raises BadInput for a file that is no such text, a name twice, quotes that a line opens and
    does not close (line breaks in cells, too), and rows with more or fewer cells than names.
    """
    numbered = enumerate(_text(path).splitlines(), start=1)
    lines = [(number, line) for number, line in numbered if line.strip()]
    separator = max("\t;,", key=lines[0][1].count) if lines else ","
    table = [(number, _cells(path, number, line, separator)) for number, line in lines]
    if not table:
        return []
    names = [name.lower() or f"column {place}" for place, name in enumerate(table[0][1], start=1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadInput(
            f"{path}: expected each column once, found '{twice[0]}' twice. Rename or remove one of them."
        )
    rows = []
    for number, cells in table[1:]:
        if len(cells) != len(names):
            raise BadInput(
                f"{path}, line {number}: expected {len(names)} cells, as in the first line, found {len(cells)}. Add or remove cells; put quotes around one that holds '{separator}'."
            )
        row = {name: "" if cell.lower() in NOTHING else cell for name, cell in zip(names, cells)}
        if any(row.values()):
            rows.append((number, row))
    named = {name for name, cell in zip(names, table[0][1]) if cell}
    for _, row in rows:
        named |= {name for name, cell in row.items() if cell}
    return [
        (number, {name: cell for name, cell in row.items() if name in named})
        for number, row in rows
    ]


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path}: expected a CSV or TSV manifest, found none that can be read. Check the path."
        ) from error


def _cells(path: Path, number: int, line: str, separator: str) -> list[str]:
    """The cells of one line, which is read by itself, so that an open quote cannot include the lines that follow."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise BadInput(
            f"{path}, line {number}: expected quotes in pairs around a cell on one line, found others ({error}). Remove the quote, or the line break in the cell."
        ) from error
    return [cell.strip() for cell in cells]
