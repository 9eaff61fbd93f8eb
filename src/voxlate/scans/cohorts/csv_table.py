"""CSV and TSV files, read strictly: no row or cell is lost or put under another column."""

import csv
from collections import Counter
from pathlib import Path

from voxlate.base.errors import BadInput

NOTHING = ("na", "n/a", "nan", "none", "null", "-", "")
Cells = dict[str, str]


def read_table(path: Path) -> dict[int, Cells]:
    """The rows of a table by their line numbers, each by the columns' names in lower case.

    Cells such as 'n/a' become ''; a column of cells without a name becomes 'column 3'. Rows without any cell are left
    out. Raises BadInput for a file that is no such text, a name twice, quotes that a line opens and
    does not close (line breaks in cells, too), and rows with more or fewer cells than names.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput(
            f"{path}, line {line}: expected text in UTF-8, found the byte {raw[error.start]:#x} of another encoding (Windows-1252?). Save the table as 'CSV UTF-8'."
        ) from error
    except OSError as error:
        raise BadInput(
            f"{path}: expected a CSV or TSV manifest, found none that can be read. Check the path."
        ) from error
    lines = {k: line for k, line in enumerate(text.splitlines(), start=1) if line.strip()}
    separator = max("\t;,", key=next(iter(lines.values()), "").count)
    table = {k: _cells(f"{path}, line {k}", line, separator) for k, line in lines.items()}
    if not table:
        return {}
    heads = table.pop(min(table))
    names = [head.lower() or f"column {place}" for place, head in enumerate(heads, start=1)]
    most_frequent, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise BadInput(
            f"{path}: expected each column once, found '{most_frequent}' twice. Rename or remove one of them."
        )
    rows = {}
    for number, cells in table.items():
        if len(cells) != len(names):
            raise BadInput(
                f"{path}, line {number}: expected {len(names)} cells, as in the first line, found {len(cells)}. Add or remove cells; put quotes around one that holds '{separator}'."
            )
        if any(cells):
            rows[number] = dict(zip(names, cells))
    for name, head in zip(names, heads):
        if not head and not any(row[name] for row in rows.values()):
            for row in rows.values():
                del row[name]
    return rows


def _cells(where: str, line: str, separator: str) -> list[str]:
    """The cells of one line, which is read by itself, so that an open quote cannot include the lines that follow."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise BadInput(
            f"{where}: expected quotes in pairs around a cell on one line, found others ({error}). Remove the quote, or the line break in the cell."
        ) from error
    return ["" if cell.strip().lower() in NOTHING else cell.strip() for cell in cells]
