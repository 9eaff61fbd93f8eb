"""Tables and lists of text, read strictly: no row or cell is lost or put under another column."""

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from voxlate.base.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

NOTHING = ("na", "n/a", "nan", "none", "null", "-", "")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16, else in Windows-1252; raises BadInput where it is none of them."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}: expected a text file, found none that can be read. Check the path."
        ) from error
    is_wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return raw.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            return raw.decode("cp1252")
        except UnicodeDecodeError:
            line = raw[: error.start].count(b"\n") + 1
            raise BadInput(
                f"{path}, line {line}: expected text in UTF-8, found the byte {raw[error.start]:#x} of another encoding. Save it as UTF-8."
            ) from error


def read_lines(path: Path) -> dict[int, str]:
    """The lines of a text file by their numbers, without empty ones at its end."""
    lines = read_text(path).rstrip().splitlines()
    if not lines:
        raise BadInput(f"{path}: expected a line for each slice, found an empty file. Fill it.")
    stripped = {number: line.strip() for number, line in enumerate(lines, start=1)}
    for number, line in stripped.items():
        if not line:
            raise BadInput(
                f"{path}: expected something in every line, found line {number} empty. Remove it."
            )
    return stripped


def read_table(path: Path) -> "pd.DataFrame":
    """The rows of a table by their line numbers, with the columns' names in lower case.

    Commas, semicolons or tabs. Cells such as 'n/a' become ''; a column of cells without a name becomes 'column 3'. Rows
    without any cell are left out. Raises BadInput for a file that is no such text, a name twice, quotes that a line opens
    and does not close (line breaks in cells, too), and rows with more or fewer cells than names.
    """
    lines = {
        k: line for k, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()
    }
    separator = max("\t;,", key=next(iter(lines.values()), "").count)
    cells = {k: _cells(f"{path}, line {k}", line, separator) for k, line in lines.items()}
    heads = cells.pop(min(cells), []) if cells else []
    names = [head.lower() or f"column {place}" for place, head in enumerate(heads, start=1)]
    most_frequent, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise BadInput(
            f"{path}: expected each column once, found '{most_frequent}' twice. Rename or remove one of them."
        )
    for number, row in cells.items():
        if len(row) != len(names):
            raise BadInput(
                f"{path}, line {number}: expected {len(names)} cells, as in the first line, found {len(row)}. Add or remove cells; put quotes around one that holds '{separator}'."
            )
    import pandas as pd  # a synthesis reads no table, and runs where there is no pandas

    filled = {number: row for number, row in cells.items() if any(row)}
    table = pd.DataFrame.from_dict(filled, orient="index", columns=names, dtype=str)
    empty = [name for name, head in zip(names, heads) if not head and not any(table[name])]
    return table.drop(columns=empty)


def _cells(where: str, line: str, separator: str) -> list[str]:
    """The cells of one line, which is read by itself, so that an open quote cannot include the lines that follow."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise BadInput(
            f"{where}: expected quotes in pairs around a cell on one line, found others ({error}). Remove the quote, or the line break in the cell."
        ) from error
    return ["" if cell.strip().lower() in NOTHING else cell.strip() for cell in cells]
