"""Tables of a cohort, read strictly, and the manifest, which states patient, case, modality, path, split and fold of each file."""

import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from voxlate.base.errors import BadInput, first_of, nearest
from voxlate.base.files import inside, whole_file
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, Row
from voxlate.scans.cohorts.path_names import split_named
from voxlate.scans.cohorts.presets import NOTES
from voxlate.scans.cohorts.split import FOLDS
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import format_by_ending, location_of, scan_endings

if TYPE_CHECKING:
    import pandas as pd

OWN_NAMES = ("cases.csv", "cohort.csv", "cases.tsv", "cohort.tsv")
TABLES = (".csv", ".tsv")
COLUMNS = ("patient", "case", "modality", "path", "split", "fold", "slice", "time")
SAME = {  # other names of our columns, their letters alone
    "patient": "patientid patientname subject subjects subjectid participant participantid pid mrn original originalid",
    "case": "cases caseid casename accession accessionnumber anonid",
    "split": "set splits splitting partition subset fold folds group",
    "fold": "folds cvfold",
    "modality": "modalities contrast",
    "path": "paths file files filename filepath",
}
NOTHING = ("na", "n/a", "nan", "none", "null", "-", "")  # cells that state nothing


@dataclass
class Table:
    """A table in a file: its cells by line numbers under our names of columns, and what was assumed of it."""

    path: Path
    cells: "pd.DataFrame"
    assumed: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The case of each row, or in a table without cases its patient, and the slice where it states one."""
        if "case" in self.cells or "slice" not in self.cells:
            return [*self.cells["case" if "case" in self.cells else "patient"]]
        named = zip(self.cells["patient"], self.cells["slice"])
        return ["_".join(filter(None, pair)) for pair in named]

    @property
    def owners(self) -> list[tuple[str, str]]:
        """The case and the patient of each row."""
        return [*zip(self.names, self.cells.get("patient", self.names))]


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file in UTF-8 or UTF-16, else in Windows-1252, and the encoding; raises BadInput where it is none of them."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}: expected a text file, found none that can be read. Check the path."
        ) from error
    is_wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    for encoding in ("utf-16" if is_wide else "utf-8-sig", "cp1252"):
        try:
            return raw.decode(encoding), encoding
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            byte = raw[error.start]
    raise BadInput(
        f"{path}, line {line}: expected text in UTF-8, found the byte {byte:#x} of another encoding. Save it as UTF-8."
    )


def read_lines(path: Path) -> dict[int, str]:
    """The lines of a text file by their numbers, without empty ones at its end."""
    lines = read_text(path)[0].rstrip().splitlines()
    if not lines:
        raise BadInput(f"{path}: expected a line for each slice, found an empty file. Fill it.")
    stripped = {number: line.strip() for number, line in enumerate(lines, start=1)}
    for number, line in stripped.items():
        if not line:
            raise BadInput(
                f"{path}: expected something in every line, found line {number} empty. Remove it."
            )
    return stripped


def read_table(path: Path) -> Table:
    """A table in a CSV or TSV file, under our names of columns where theirs mean the same, which is noted.

    Commas, semicolons or tabs. Cells such as 'n/a' become ''; rows and columns without any cell are left out. No row or
    cell is lost or put under another column: raises BadInput for a file that is no such text, a name twice, quotes that a
    line opens and does not close, and rows with more or fewer cells than names.
    """
    text, encoding = read_text(path)
    lines = {k: line for k, line in enumerate(text.splitlines(), start=1) if line.strip()}
    separator = max("\t;,", key=next(iter(lines.values()), "").count)
    rows = {k: _cells(f"{path}, line {k}", line, separator) for k, line in lines.items()}
    heads = rows.pop(min(rows), []) if rows else []
    names = [head.lower() or f"column {place}" for place, head in enumerate(heads, start=1)]
    for name, count in Counter(names).items():
        if count > 1:
            raise BadInput(
                f"{path}: expected each column once, found '{name}' twice. Rename or remove one of them."
            )
    for number, row in rows.items():
        if len(row) != len(names):
            raise BadInput(
                f"{path}, line {number}: expected {len(names)} cells, as in the first line, found {len(row)}. Add or remove cells; put quotes around one that holds '{separator}'."
            )
    import pandas as pd  # slow to import, and not needed where no table is read

    filled = {number: row for number, row in rows.items() if any(row)}
    cells = pd.DataFrame.from_dict(filled, orient="index", columns=names, dtype=str)
    if filled:
        cells = cells.loc[:, (cells != "").any()]
    renamed = _our_names(path, cells)
    assumed = [
        f"the column '{name}' of {path.name} is the {ours}" for name, ours in renamed.items()
    ]
    if encoding == "cp1252":
        assumed.append(f"{path.name} is text in Windows-1252, as it is none in UTF-8")
    return Table(path, cells.rename(columns=renamed), assumed)


def _cells(where: str, line: str, separator: str) -> list[str]:
    """The cells of one line, which is read by itself, so that an open quote cannot include the lines that follow."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise BadInput(
            f"{where}: expected quotes in pairs around a cell on one line, found others ({error}). Remove the quote, or the line break in the cell."
        ) from error
    return ["" if cell.strip().lower() in NOTHING else cell.strip() for cell in cells]


def _our_names(path: Path, cells: "pd.DataFrame") -> dict[str, str]:
    """Our names of columns whose own names mean the same; a column of words of splits is 'split', whatever its name."""
    renamed = dict[str, str]()
    for ours in [ours for ours in SAME if ours not in cells]:
        fitting = [
            name
            for name in cells
            if re.sub("[^a-z]", "", name) in SAME[ours].split()
            and name not in renamed
            and (ours != "split" or splits_in(cells[name]))
            and (ours != "fold" or all(cell.isdigit() for cell in cells[name] if cell))
        ]
        if len({tuple(cells[name]) for name in fitting}) > 1:
            raise BadInput(
                f"{path}: expected one column of each {ours}, found {' and '.join(fitting)}, which differ. Rename the right one to '{ours}'."
            )
        renamed |= dict.fromkeys(fitting[:1], ours)
    if not {"split"} & {*cells, *renamed.values()}:
        others = [name for name in cells if name not in COLUMNS]
        unnamed = [name for name in others if {"train"} < splits_in(cells[name])]
        renamed |= dict.fromkeys(unnamed[:1], "split")
    return renamed


def splits_in(cells: Collection[str]) -> set[str]:
    """The splits that cells name; none where a cell holds another word."""
    splits = {split_named(cell) for cell in cells if cell}
    return set() if "" in splits else splits


def root_and_manifest(
    root: Path | str, manifest: Path | str | None = None
) -> tuple[Path, Path | None]:
    """The folder of a cohort and its manifest, where `root` may itself be the manifest; None: there is none.

    By default the manifest is a file of the folder with one of OWN_NAMES, or its only table that lists files by modality.
    """
    root = Path(root)
    is_table = root.suffix.lower() in TABLES and not root.is_dir()
    if is_table and manifest is not None:
        raise BadInput(
            f"{root}: expected one manifest, found also {manifest} (--manifest). Give one of the two."
        )
    if is_table:
        return root.parent, root
    if manifest is not None:
        return root, Path(manifest)
    own = [root / name for name in OWN_NAMES if (root / name).is_file()]
    others = sorted(path for kind in TABLES for path in root.glob(f"*{kind}"))
    listing = own or [path for path in others if _lists_files(path)]
    return root, listing[0] if own or len(listing) == 1 else None


def _lists_files(path: Path) -> bool:
    """Whether a table has columns of modalities and of paths."""
    try:
        return {"modality", "path"} <= {*read_table(path).cells}
    except BadInput:  # which is said of it as of a list of splits
        return False


def write_manifest(path: Path, root: Path, cases: Sequence[CaseFiles]) -> None:
    """Write the manifest of cases below root, a row a file, for corrections; raises BadInput for a file of its name."""
    if path.exists():
        raise BadInput(
            f"{path}: expected a new file for the manifest, found one. Name another (--out), or remove it."
        )
    rows = [
        {
            "patient": case.patient,
            "case": case.case,
            "modality": name,
            "path": Path(os.path.relpath(place, root)).as_posix(),
            "split": case.split or "",
            "fold": "" if case.fold is None else case.fold,
        }
        for case in cases
        for name, place in case.paths.items()
    ]
    import pandas as pd  # as above

    table = pd.DataFrame(rows).astype(str)
    if not any(table["fold"]):
        del table["fold"]
    with whole_file(path) as new:
        table.to_csv(new, index=False, encoding="utf-8", lineterminator="\n")


def read_manifest(path: Path, bases: Sequence[Path], found: CohortFiles) -> Table:
    """The manifest in a file, with a row a file; or without a column of paths, as notes on cases or patients.

    A table with a row a case, and a column of paths for each modality, is brought into this form. bases: folders to which
    its paths are relative. Raises BadInput for a table that states no cases, contradicts itself, or mixes these forms.
    """
    table = read_table(path)
    cells = table.cells
    if cells.empty:
        raise BadInput(
            f"{path}: expected a row for each case, found none: an empty cohort. Fill the manifest."
        )
    if not {"case", "patient"} & {*cells}:
        raise BadInput(
            f"{path}: expected a column 'case' or 'patient', found {', '.join(cells)}. Name the columns so."
        )
    _check_cells(path, cells)
    is_long = {"modality", "path"} <= {*cells}
    others = [name for name in cells if name not in COLUMNS or (name == "path" and not is_long)]
    scans = [name for name in sorted(others) if any(_is_file(cell, bases) for cell in cells[name])]
    if is_long and scans:
        raise BadInput(
            f"{path}: expected a row for each file in a table with the columns modality and path, found scans in the column '{scans[0]}', too. Give them rows of their own."
        )
    if "path" in scans:
        raise BadInput(
            f"{path}: expected the columns modality and path together, found path alone. Add the column modality, or name the column path as its modality."
        )
    found.note(found.unclaimed, {*others} - {*scans}, f"columns of {path.name} that name no scans")
    found.guessed += table.assumed
    cells["name"] = table.names
    for column in ("patient", "split", "fold"):
        stated = cells.groupby("name")[column].unique() if column in cells else ()
        for name, values in dict(stated).items():
            if column != "name" and len(values) > 1:
                raise BadInput(
                    f"{path}: expected one {column} of case {name}, found {first_of(values)}. Fix them."
                )
    if scans:
        whose = [name for name in ("name", "case", "patient", "split", "fold") if name in cells]
        long = cells.reset_index(names="line").melt(["line", *whose], scans, "modality", "path")
        table.cells = long.set_index("line").sort_index(kind="stable")
    return table


def _check_cells(path: Path, cells: "pd.DataFrame") -> None:
    """Raise BadInput for a column that is almost called as one of ours, cells that are missing, unknown splits and folds."""
    for ours in {"patient", "split"} - {*cells}:
        if near := nearest(ours, [name for name in cells if name not in COLUMNS]):
            raise BadInput(
                f"{path}: expected a column '{ours}', found '{near[0]}', which looks like it. Rename it to '{ours}', or remove it."
            )
    for line, row in cells.iterrows():
        for name in ("case", "patient", "split"):
            if row.get(name) == "":
                raise BadInput(
                    f"{path}, line {line}: expected a {name} in every row or in none, found both. Fill the column."
                )
        split = checked_split(path, line, row.get("split", ""))
        fold = row.get("fold", "0")
        if fold not in map(str, range(FOLDS)) and not (split == "test" and not fold):
            raise BadInput(
                f"{path}, line {line}: expected a fold 0 to {FOLDS - 1}, as --fold takes, for every case that is not of the split test, found {fold or 'none'}. Number the folds from 0, or rename the column."
            )


def checked_split(path: Path, line: object, word: str) -> str | None:
    """The split that a cell names, None for an empty one; raises BadInput for another word."""
    if word and not split_named(word):
        raise BadInput(
            f"{path}, line {line}: expected a split train, val or test, found '{word}'. Use these words."
        )
    return split_named(word) or None


def rows_of(
    table: Table, bases: Sequence[Path], allow_outside: bool, found: CohortFiles
) -> list[Row]:
    """A row for each file that a manifest names, none of notes; cases without a file are noted.

    Raises BadInput for a file that is missing, of no known format, or outside of bases.
    """
    cells = table.cells
    if "path" not in cells:
        return []
    rows = []
    for line, cell in cells[cells["path"] != ""].iterrows():
        where = f"{table.path}, line {line}, {cell['modality']} of case {cell['name']}"
        place = _place(where, cell["path"], bases, allow_outside)
        parts = {"slice": cell.get("slice"), "frame": cell.get("time")}
        if stated := ",".join(f"{key}={value}" for key, value in parts.items() if value):
            place = Path(f"{place}#{stated}")
        fold = int(cell["fold"]) if cell.get("fold") else None
        split = split_named(cell.get("split", "")) or None
        row = Row(cell.get("patient"), cell["name"], cell["modality"], place, None, split, fold)
        rows.append(row)
    without = {*cells["name"]} - {row.case for row in rows}
    found.note(found.unclaimed, without, f"cases of {table.path.name} that have no scan in it")
    return rows


def _is_file(value: str, bases: Sequence[Path]) -> bool:
    """Whether a cell names a file or DICOM folder that may be a scan, there or not."""
    if not value or "://" in value or value.lower().endswith(NOTES):
        return False
    is_path = bool(re.search(r"[/\\#]", value))
    files = [location_of(place) for place in _places(value, bases)]
    has_ending = is_path and re.search(r"[/\\].*\.\w+$", value)
    return bool(
        has_ending
        or value.lower().endswith(scan_endings())
        or any(is_path or file.is_file() for file in files)
    )


def _places(value: str, bases: Sequence[Path]) -> list[Path]:
    """The paths that a cell may mean whose file or folder exists."""
    try:
        places = [base / name for base, name in product(bases, (value, value.replace("\\", "/")))]
        return [place for place in places if location_of(place).exists()]
    except OSError:  # a text that is too long to be a path
        return []


def _place(where: str, value: str, bases: Sequence[Path], allow_outside: bool) -> Path:
    """The scan that a cell names; raises BadInput where it is missing, or outside of the cohort's folders."""
    place = next(iter(_places(value, bases)), None)
    file = location_of(place or bases[0])
    is_scan = is_dicom_folder(file) if file.is_dir() else format_by_ending(file.name)
    if place is None or not is_scan:
        raise BadInput(
            f"{where}: expected a scan, as a path relative to {bases[-1]}, found {value}{' of another format' if place else ', which is not there'}. Correct the path, or remove the column."
        )
    if not allow_outside and not any(inside(base, file) for base in bases):
        raise BadInput(
            f"{where}: expected paths below {bases[-1]} or the manifest, found {value}, which leads out of them. Pass --allow-outside if it is meant."
        )
    return place
