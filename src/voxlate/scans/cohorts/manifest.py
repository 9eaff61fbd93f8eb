"""Tables of a cohort, read strictly, and the manifest, which states patient, case, modality, path, split and fold of each file."""

import csv
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from voxlate.base.errors import BadInput, first_of, nearest
from voxlate.base.files import inside, whole_file
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import KNOWN, CaseFiles, CohortFiles, Row, is_known
from voxlate.scans.cohorts.path_names import split_named
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import format_by_ending, location_of, scan_endings

OWN_NAMES = ("cases.csv", "cohort.csv", "cases.tsv", "cohort.tsv")
TABLES = (".csv", ".tsv")
NOTES = (
    *TABLES,
    *[".txt", ".md", ".rst", ".json", ".pdf", ".xml", ".html", ".log", ".yaml", ".yml", ".toml"],
)
COLUMNS = ("patient", "case", "modality", "path", "split", "fold", "slice", "time")
OF_CASE = ("patient", "split", "fold")  # columns that state one thing of all rows of a case
SAME = {  # other names of our columns, their letters alone
    "patient": "patientid patientname subject subjects subjectid participant participantid pid mrn original originalid",
    "case": "cases caseid casename accession accessionnumber anonid id",
    "split": "set splits splitting partition subset fold folds group",
    "fold": "folds cvfold",
    "modality": "modalities contrast sequence sequencetype series scantype",
    "path": "paths file files filename filepath",
}
OF_KEYS = frozenset(  # words of keys beside that of a split
    f"is in my s list set split data dataset sample samples name names key keys ids mrns patient patients case file path scan scans image images volume volumes {SAME['patient']} {SAME['case']} {SAME['path']}".split()
)
YES, NO = ("1", "1.0", "true", "yes", "y", "x"), ("0", "0.0", "false", "no")
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
    """The case of a row; in a table without cases its patient, and the slice where it states one."""
    return row.get("case") or "_".join(filter(None, map(row.get, ("patient", "slice"))))


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
    raise BadInput(
        f"{path}, line {line}: expected text in UTF-8, found another encoding. Save it as UTF-8."
    )


def read_lines(path: Path) -> dict[int, str]:
    """The lines of a text file by their numbers, without empty ones; raises BadInput where it has none."""
    numbered = enumerate(read_text(path)[0].splitlines(), start=1)
    lines = {number: line.strip() for number, line in numbered if line.strip()}
    if not lines:
        raise BadInput(f"{path}: expected a line for each case, found an empty file. Fill it.")
    return lines


def read_table(path: Path) -> Table:
    """A table in a CSV or TSV file, under our names of columns where theirs mean the same, which is noted.

    Commas, semicolons or tabs. Cells such as 'n/a' become ''; rows and columns without any cell are left out. No row or
    cell is lost or put under another column: raises BadInput for a file that is no such text, a name twice, quotes that a
    line opens and does not close, and rows with more or fewer cells than names.
    """
    text, encoding = read_text(path)
    lines = {k: line for k, line in enumerate(text.splitlines(), start=1) if line.strip()}
    separator = max("\t;,", key=next(iter(lines.values()), "").count)
    read = {k: _cells(f"{path}, line {k}", line, separator) for k, line in lines.items()}
    heads = read.pop(min(read), []) if read else []
    names = [head.lower() or f"column {place}" for place, head in enumerate(heads, start=1)]
    if len({*names}) < len(names):
        raise BadInput(
            f"{path}: expected each column once, found '{max(names, key=names.count)}' twice. Rename or remove one of them."
        )
    for number, row in read.items():
        if len(row) != len(names):
            raise BadInput(
                f"{path}, line {number}: expected {len(names)} cells, as in the first line, found {len(row)}. Add or remove cells; put quotes around one that holds '{separator}'."
            )
    filled = {number: dict(zip(names, row)) for number, row in read.items() if any(row)}
    of_names = {name: [row[name] for row in filled.values()] for name in names}
    columns = {name: column for name, column in of_names.items() if any(column)}
    renamed = _our_names(path, columns)
    assumed = [
        f"the column '{name}' of {path.name} is the {ours}" for name, ours in renamed.items()
    ]
    if encoding == "cp1252":
        assumed.append(f"{path.name} is text in Windows-1252, as it is none in UTF-8")
    rows = {
        f"{path}, line {number}": {renamed.get(name, name): row[name] for name in columns}
        for number, row in filled.items()
    }
    as_written = dict(zip(names, heads))  # isTest
    flags = {name: split for name in columns if (split := split_of_key(as_written[name]))}
    if flags and "split" not in (*columns, *renamed.values()):
        assumed += _take_flags(path, rows, flags)
    if any(split_named(cells.get("fold", "")) for cells in rows.values()):
        for cells in rows.values():  # folds 0, 1, 2 and test
            word = cells["fold"] if split_named(cells["fold"]) else ""
            cells["split"] = cells.get("split") or word
            cells["fold"] = "" if word else cells["fold"]
    return Table(path, rows, assumed)


def _cells(where: str, line: str, separator: str) -> list[str]:
    """The cells of one line, which is read by itself, so that an open quote cannot include the lines that follow."""
    try:
        (cells,) = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise BadInput(
            f"{where}: expected quotes in pairs around a cell on one line, found others ({error}). Remove the quote, or the line break in the cell."
        ) from error
    return ["" if cell.strip().lower() in NOTHING else cell.strip() for cell in cells]


def _take_flags(
    path: Path, rows: Mapping[str, dict[str, str]], flags: Mapping[str, str]
) -> list[str]:
    """Put the split into rows with columns such as is_test, which hold yes or no alone; what was assumed of them."""
    cells = {row[name].lower() for row in rows.values() for name in flags}
    if not cells <= {*YES, *NO, ""} or not cells & {*YES}:
        return []
    for where, row in rows.items():
        named = {split for name, split in flags.items() if row[name].lower() in YES}
        if len(named) > 1:
            raise BadInput(
                f"{where}: expected one split, found {' and '.join(sorted(named))}. Leave one of them."
            )
        row["split"] = named.pop() if named else ("" if "train" in flags.values() else "train")
    return [f"the columns {first_of([*flags])} of {path.name} state the splits"]


def _our_names(path: Path, columns: Mapping[str, list[str]]) -> dict[str, str]:
    """Our names of columns whose own names mean the same, and of columns of words of splits, of modalities, and of their paths."""
    renamed = dict[str, str]()
    for ours in [ours for ours in SAME if ours not in columns]:
        fitting = [
            name
            for name, cells in columns.items()
            if re.sub("[^a-z]", "", name) in SAME[ours].split() and _may_be(ours, cells)
        ]
        if len({tuple(columns[name]) for name in fitting}) > 1:
            raise BadInput(
                f"{path}: expected one column of each {ours}, found {' and '.join(fitting)}, which differ. Rename the right one to '{ours}'."
            )
        renamed |= dict.fromkeys(fitting[:1], ours)
    for ours in ("split", "modality", "path"):
        stated = {*columns, *renamed.values()}
        unnamed = [
            name
            for name, cells in columns.items()
            if name not in (*COLUMNS, *renamed) and _is_surely(ours, cells)
        ]
        if ours not in stated and (ours != "path" or "modality" in stated):
            renamed |= dict.fromkeys(unnamed[:1], ours)
    return renamed


def _may_be(ours: str, cells: Sequence[str]) -> bool:
    """Whether a column whose name means ours may be it."""
    if ours == "split":
        return _may_be_splits(cells)
    if ours == "fold":
        return all(cell.isdecimal() or split_named(cell) for cell in cells if cell)
    return ours != "modality" or any(map(is_known, cells))


def _is_surely(ours: str, cells: Sequence[str]) -> bool:
    """Whether a column of any name is one of splits, of modalities or of the paths of scans."""
    if ours == "split":
        return "train" in map(split_named, cells) and len({*cells}) > 1 and _may_be_splits(cells)
    if ours == "modality":
        return {cell.lower() for cell in cells} <= KNOWN
    return all(map(names_scan, cells))


def _may_be_splits(cells: Collection[str]) -> bool:
    """Whether all words of a column are splits, or training and at least a half; the others are then refused as misspelled."""
    words = {cell.lower() for cell in cells if cell}
    splits = [*filter(None, map(split_named, words))]
    return 0 < len(words) <= len(splits) or ("train" in splits and len(words) <= 2 * len(splits))


def split_in(name: str) -> str:
    """The split that one of the words of a name states; "" for none, or several."""
    splits = {*map(split_named, _words_of(name))} - {""}
    return splits.pop() if len(splits) == 1 else ""


def split_of_key(name: str) -> str:
    """The split whose cases a key or a column names (train, val_ids, is_test); "" for any other, such as train_loss."""
    others = (word.lower() for word in _words_of(name) if not split_named(word))
    return split_in(name) if all(word in OF_KEYS for word in others) else ""


def _words_of(name: str) -> list[str]:
    """The words of a name: is and Test of isTest."""
    return re.findall("[A-Z]?[a-z]+|[A-Z]+", name)


def modality_in(column: str) -> str:
    """The modality of a column of scans: mri of mri_path."""
    return OF_PATHS.sub("", column) or column


def names_scan(text: str) -> bool:
    """Whether a text ends as the name of a scan does."""
    return text.lower().endswith(scan_endings())


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
    for ours in {"patient", "split"} - {*columns}:
        if near := nearest(ours, [name for name in columns if name not in COLUMNS]):
            raise BadInput(
                f"{path}: expected a column '{ours}', found '{near[0]}', which looks like it. Rename it to '{ours}', or remove it."
            )
    for where, row in table.rows.items():
        for name in ("case", "patient", "split"):
            if row.get(name) == "" and not (name == "split" and row.get("fold")):
                raise BadInput(
                    f"{where}: expected a {name} in every row or in none, found both. Fill the column."
                )
        checked_split(where, row.get("split", ""))
        fold = row.get("fold", "")
        if fold and not fold.isdecimal():
            raise BadInput(
                f"{where}: expected the number of a fold, found '{fold}'. Number the folds, or rename the column."
            )
    for column in OF_CASE:
        stated = grouped((case_in(row), row.get(column)) for row in table.rows.values())
        for case, values in stated.items():
            if len({*values}) > 1:
                raise BadInput(
                    f"{path}: expected one {column} of case {case}, found {first_of([*dict.fromkeys(values)])}. Fix them."
                )


def checked_split(where: str, word: str) -> str | None:
    """The split that a cell names, None for an empty one; raises BadInput for another word."""
    if word and not split_named(word):
        raise BadInput(
            f"{where}: expected a split train, val or test, found '{word}'. Write one of these words in its place."
        )
    return split_named(word) or None


def rows_of(
    table: Table, bases: Sequence[Path], allow_outside: bool, found: CohortFiles
) -> Iterator[Row]:
    """A row for each file that a manifest names, in its column of paths or in columns of modalities; none of notes.

    bases: folders to which its paths are relative. Columns that name no scan, and cases without a file, are noted.
    Raises BadInput for a file that is missing, of no known format, or outside of bases.
    """
    columns = table.columns
    others = [name for name in columns if name not in COLUMNS]
    if "path" in columns and "modality" not in columns:
        others.append("path")
    scans = [
        name for name in sorted(others) if any(_is_file(cell, bases) for cell in table.column(name))
    ]
    found.note(
        found.unclaimed, {*others} - {*scans}, f"columns of {table.path.name} that name no scans"
    )
    if not scans and not {"modality", "path"} <= {*columns}:
        return
    if "path" in scans:
        cases = [case_in(row) for row in table.rows.values() if row["path"]]
        if len({*cases}) < len(cases):
            raise BadInput(
                f"{table.path}: expected a column 'modality' beside the paths, as cases have several rows, found {', '.join(columns)}. Rename the column that names the kind of scan to 'modality'."
            )
    without = []
    for line, row in table.rows.items():
        named = {modality_in(name): row[name] for name in scans if row[name]}
        if row.get("modality") and row.get("path"):
            named[row["modality"]] = row["path"]
        case = case_in(row)
        parts = {"slice": row.get("slice"), "frame": row.get("time")}
        part = ",".join(f"{key}={value}" for key, value in parts.items() if value)
        for modality, value in named.items():
            where = f"{line}, {modality} of case {case}"
            place = _place(where, value, bases, allow_outside)
            yield Row(
                row.get("patient"),
                case,
                modality,
                Path(f"{place}#{part}") if part else place,
                split_named(row.get("split", "")) or None,
                int(row["fold"]) if row.get("fold") else None,
            )
        without += [] if named else [case]
    found.note(found.unclaimed, without, f"cases of {table.path.name} that have no scan in it")


def _is_file(value: str, bases: Sequence[Path]) -> bool:
    """Whether a cell names a file or DICOM folder that may be a scan, there or not."""
    if "://" in value or value.lower().endswith(NOTES):
        return False
    if names_scan(value) or re.search(r"[/\\].*\.\w+$", value):
        return True
    is_path = re.search(r"[/\\#]", value)
    return any(is_path or location_of(place).is_file() for place in places(value, bases))


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
