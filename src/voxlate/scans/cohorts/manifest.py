"""Tables of a cohort, read strictly, and the manifest, which states patient, case, modality, path, split and fold of each file."""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from voxlate.base.errors import BadInput, first_of
from voxlate.base.files import inside, whole_file
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, Row, is_known
from voxlate.scans.cohorts.path_names import split_named
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import format_by_ending, location_of, scan_endings

OWN_NAMES = ("cases.csv", "cohort.csv", "cases.tsv", "cohort.tsv")
TABLES = (".csv", ".tsv")
COLUMNS = ("patient", "case", "modality", "path", "split", "fold")
SAME = {  # other names of our columns, their letters alone
    "patient": "patientid patientname subject subjects subjectid participant participantid pid mrn original originalid",
    "case": "cases caseid casename accession accessionnumber anonid id",
    "fold": "folds cvfold",
    "modality": "modalities contrast sequence sequencetype series scantype",
    "path": "paths file files filename filepath",
}
OF_PATHS = re.compile(r"[ _-](?:path|file|filename|image|scan)s?$")  # mri_path is a column of mri
NOTHING = ("na", "n/a", "nan", "none", "null", "-", "")  # cells that state nothing


@dataclass
class Table:
    """A table in a file: its rows by file and line, under our names of columns, and what was assumed of it."""

    path: Path
    rows: dict[str, dict[str, str]]
    assumed: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return [*next(iter(self.rows.values()), {})]

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        return [row[name] for row in self.rows.values()]


def case_in(row: Mapping[str, str]) -> str:
    """The case of a row; in a table without cases its patient."""
    return row.get("case") or row["patient"]


def read_lines(path: Path) -> dict[int, str]:
    """The lines of a text file by their numbers, without empty ones: in UTF-8 or UTF-16, else in Windows-1252."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}: expected a text file, found none that can be read. Check the path."
        ) from error
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    return {number: line for number, line in enumerate(text.splitlines(), 1) if line.strip()}


def read_table(path: Path) -> Table:
    """A table in a CSV or TSV file, under our names of columns where theirs mean the same, which is noted.

    Commas, semicolons or tabs. Cells such as 'n/a' become ''; rows and columns without any cell are left out. No row or
    cell is lost or put under another column: raises BadInput for a name twice, quotes that a line opens and does not
    close, and rows with more or fewer cells than names.
    """
    lines = read_lines(path)
    separator = max("\t;,", key=next(iter(lines.values()), "").count)
    read = dict[str, list[str]]()
    for number, line in lines.items():
        where = f"{path}, line {number}"
        read[where] = _cells(where, line, separator)
    heads = read.pop(next(iter(read), ""), [])
    names = [head.lower() or f"column {place}" for place, head in enumerate(heads, start=1)]
    if len({*names}) < len(names):
        raise BadInput(
            f"{path}: expected each column once, found '{max(names, key=names.count)}' twice. Rename or remove one of them."
        )
    for where, row in read.items():
        if len(row) != len(names):
            raise BadInput(
                f"{where}: expected {len(names)} cells, as in the first line, found {len(row)}. Add or remove cells; put quotes around one that holds '{separator}'."
            )
    filled = {where: dict(zip(names, row)) for where, row in read.items() if any(row)}
    of_names = {name: [row[name] for row in filled.values()] for name in names}
    columns = {name: column for name, column in of_names.items() if any(column)}
    renamed = _our_names(path, columns)
    rows = {
        where: {renamed.get(name, name): row[name] for name in columns}
        for where, row in filled.items()
    }
    table = Table(path, rows)
    table.assumed += (
        f"the column '{name}' of {path.name} is the {ours}" for name, ours in renamed.items()
    )
    return table


def _cells(where: str, line: str, separator: str) -> list[str]:
    """The cells of one line, which is read by itself, so that an open quote cannot include the lines that follow."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise BadInput(
            f"{where}: expected quotes in pairs around a cell on one line, found others ({error}). Remove the quote, or the line break in the cell."
        ) from error
    return ["" if cell.strip().lower() in NOTHING else cell.strip() for cell in cells]


def _our_names(path: Path, columns: Mapping[str, list[str]]) -> dict[str, str]:
    """Our names of columns whose own names mean the same, and of one with words of splits under any name."""
    renamed = dict[str, str]()
    for ours in [ours for ours in (*SAME, "split") if ours not in columns]:
        fitting = [
            name
            for name, cells in columns.items()
            if name not in (*COLUMNS, *renamed) and _may_be(ours, name, cells)
        ]
        if len({tuple(columns[name]) for name in fitting}) > 1:
            raise BadInput(
                f"{path}: expected one column of each {ours}, found {' and '.join(fitting)}, which differ. Rename the right one to '{ours}'."
            )
        renamed |= dict.fromkeys(fitting[:1], ours)
    return renamed


def _may_be(ours: str, name: str, cells: Sequence[str]) -> bool:
    """Whether a column may be ours: its name means the same, and folds are numbers; of splits, its words are those of several.

    Beside training, half of the words are enough; the others are then refused as misspelled.
    """
    words = {cell.lower() for cell in cells if cell}
    if ours == "split":
        splits = [*filter(None, map(split_named, words))]
        least = len(words) / 2 if "train" in splits else len(words)
        return len({*splits}) > 1 and len(splits) >= least
    is_named = re.sub("[^a-z]", "", name) in SAME[ours].split()
    if ours == "fold":
        return is_named and all(map(str.isdecimal, words))
    return is_named and (ours != "modality" or any(map(is_known, words)))


def names_scan(text: str) -> bool:
    """Whether a text ends as the name of a scan does."""
    return text.lower().endswith(scan_endings())


def root_and_manifest(
    root: Path | str, manifest: Path | str | None = None
) -> tuple[Path, Table | None]:
    """The folder of a cohort, and its manifest (None: there is none).

    `root` may itself be the manifest. By default that is a file of the folder with one of OWN_NAMES, or its only table that
    lists scans by modality.
    """
    root = Path(root)
    place = None if manifest is None else Path(manifest)
    if root.suffix.lower() in TABLES and not root.is_dir():
        if place is not None:
            raise BadInput(
                f"{root}: expected one manifest, found also {manifest} (--manifest). Give one of the two."
            )
        root, place = root.parent, root
    place = place or next((root / name for name in OWN_NAMES if (root / name).is_file()), None)
    if place is not None:
        return root, read_table(place)
    listing = []
    for path in sorted(root.glob("*.[ct]sv")):
        with suppress(BadInput):  # which is said of it as of a list of splits
            listing.append(read_table(path))
    listing = [table for table in listing if _lists_scans(table, root)]
    if len(listing) != 1:
        return root, None
    listing[0].assumed.append(f"{listing[0].path.name} is the manifest of the cohort")
    return root, listing[0]


def _lists_scans(table: Table, root: Path) -> bool:
    """Whether a table lists scans that are there; raises BadInput for one of modalities that lacks the case of each row."""
    columns = {*table.columns}
    if {"modality", "path"} <= columns:
        return True
    scans = [
        name
        for name in scan_columns(table, [root])
        if any(places(cell, [root]) for cell in table.column(name))
    ]
    if len(scans) > 1 and any(map(is_known, scans)) and not {"case", "patient"} & columns:
        raise BadInput(
            f"{table.path}: expected a column 'case' beside the scans of {first_of(scans)}, found none. Name the column of cases so, or add one; or move the file away."
        )
    return len(scans) > 1 and bool({"case", "patient"} & columns)


def write_manifest(path: Path, root: Path, cases: Sequence[CaseFiles]) -> None:
    """Write the manifest of cases below root, a row a file, for corrections; raises BadInput for a file of its name."""
    if path.exists():
        raise BadInput(
            f"{path}: expected a new file for the manifest, found one. Name another (--out), or remove it."
        )
    with whole_file(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("patient", "case", "modality", "path", "split", "fold"))
        for case in cases:
            for name, place in case.paths.items():
                below = Path(os.path.relpath(place, root)).as_posix()
                row = (case.patient, case.case, name, below, case.split, case.fold)
                table.writerow(row)


def check_manifest(table: Table) -> None:
    """Raise BadInput for a table that states no cases, or contradicts itself."""
    path = table.path
    columns = table.columns
    if not columns:
        raise BadInput(
            f"{path}: expected a row for each case, found none: an empty cohort. Fill the manifest."
        )
    if not {"case", "patient"} & {*columns}:
        raise BadInput(
            f"{path}: expected a column 'case' or 'patient', found {', '.join(columns)}. Name the columns so."
        )
    if "path" in columns and "modality" not in columns:
        raise BadInput(
            f"{path}: expected a column 'modality' beside the paths, found {', '.join(columns)}. Rename the column that names the kind of scan to 'modality'."
        )
    for where, row in table.rows.items():
        for name in ("case", "patient", "split"):
            if row.get(name) == "" and not (name == "split" and row.get("fold")):
                raise BadInput(
                    f"{where}: expected a {name} in every row or in none, found both. Fill the column."
                )
    for column in ("patient", "split", "fold"):
        stated = grouped((case_in(row), row.get(column)) for row in table.rows.values())
        for case, values in stated.items():
            if len({*values}) > 1:
                raise BadInput(
                    f"{path}: expected one {column} of case {case}, found {first_of([*dict.fromkeys(values)])}. Fix them."
                )


def split_and_fold(where: str, row: Mapping[str, str]) -> tuple[str | None, int | None]:
    """The split and the fold that a row states, None for none; raises BadInput for other words."""
    word = row.get("split", "")
    if word and not split_named(word):
        raise BadInput(
            f"{where}: expected a split train, val or test, found '{word}'. Write one of these words in its place."
        )
    fold = row.get("fold", "")
    if fold and not fold.isdecimal():
        raise BadInput(
            f"{where}: expected the number of a fold, found '{fold}'. Number the folds, or rename the column."
        )
    return split_named(word) or None, int(fold) if fold else None


def rows_of(
    table: Table, bases: Sequence[Path], allow_outside: bool, found: CohortFiles
) -> Iterator[Row]:
    """A row for each file that a manifest names, in its column of paths or in columns of modalities; none of notes.

    bases: folders to which its paths are relative. Columns that name no scan, and cases without a file, are noted.
    Raises BadInput for a file that is missing, of no known format, or outside of bases.
    """
    scans = scan_columns(table, bases)
    others = {*table.columns} - {*COLUMNS, *scans}
    found.note(found.unclaimed, others, f"columns of {table.path.name} that name no scans")
    cases = [case_in(row) for row in table.rows.values()]
    if "path" not in table.columns and scans and len({*cases}) < len(cases):
        raise BadInput(
            f"{table.path}: expected a row for each case, found several of {max(cases, key=cases.count)}. Add a column 'case' with another name in each row."
        )
    without = []
    for case, (line, row) in zip(cases, table.rows.items()):
        split, fold = split_and_fold(line, row)
        named = {OF_PATHS.sub("", name) or name: row[name] for name in scans if row[name]}
        if row.get("modality") and row.get("path"):
            named[row["modality"]] = row["path"]
        for modality, value in named.items():
            path = _place(f"{line}, {modality} of case {case}", value, bases, allow_outside)
            yield Row(row.get("patient"), case, modality, path, split, fold)
        without += [] if named else [case]
    if scans or "path" in table.columns:
        found.note(found.unclaimed, without, f"cases of {table.path.name} that have no scan in it")


def scan_columns(table: Table, bases: Sequence[Path]) -> list[str]:
    """The columns beside ours in which a cell names a scan, there or not."""
    return [
        name
        for name in table.columns
        if name not in COLUMNS
        and any(
            names_scan(cell)
            or (re.search(r"[/\\#]", cell) and any(map(_is_scan, places(cell, bases))))
            for cell in table.column(name)
        )
    ]


def _is_scan(place: Path) -> bool:
    """Whether a path is that of a DICOM folder, or ends as one of a scan."""
    file = location_of(place)
    return is_dicom_folder(file) if file.is_dir() else format_by_ending(file.name) is not None


def places(value: str, bases: Sequence[Path]) -> list[Path]:
    """The paths that a cell may mean whose file or folder exists."""
    names = (value, value.replace("\\", "/")) if value else ()
    try:
        places = [base / name for base, name in product(bases, names)]
        return [place for place in places if location_of(place).exists()]
    except OSError:  # a text that is too long to be a path
        return []


def _place(where: str, value: str, bases: Sequence[Path], allow_outside: bool) -> Path:
    """The scan that a cell names; raises BadInput where it is missing, or outside of the cohort's folders."""
    place = next(iter(places(value, bases)), None)
    if place is None or not _is_scan(place):
        raise BadInput(
            f"{where}: expected a scan, as a path relative to {bases[-1]}, found {value}{' of another format' if place else ', which is not there'}. Correct the path, or remove the column."
        )
    if not allow_outside and not any(inside(base, location_of(place)) for base in bases):
        raise BadInput(
            f"{where}: expected paths below {bases[-1]} or the manifest, found {value}, which leads out of them. Pass --allow-outside if it is meant."
        )
    return place
