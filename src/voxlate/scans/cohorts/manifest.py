"""The manifest, the table from which a cohort is read: patient, case, modality, path, split, fold."""

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pandas as pd

from voxlate.base.errors import BadInput, first_of, nearest, plural
from voxlate.base.files import inside, safe_name, whole_file
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, Row, kind_of
from voxlate.scans.cohorts.csv_table import read_table
from voxlate.scans.cohorts.patterns import split_named
from voxlate.scans.cohorts.presets import NOTES
from voxlate.scans.cohorts.split import FOLDS
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import format_by_ending, location_of, scan_endings

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


@dataclass
class Manifest:
    """What a table states: the files of cases (none in a table of notes), and who they are.

    table: by line numbers, with those of COLUMNS that it has; scans: the other columns that hold paths;
    assumed: sentences.
    """

    path: Path
    table: pd.DataFrame
    scans: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The case of each row, or its patient in a table without cases."""
        return [*self.table["case" if "case" in self.table else "patient"]]


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
    listing = own or [path for path in others if lists_files(path)]
    return root, listing[0] if own or len(listing) == 1 else None


def lists_files(path: Path) -> bool:
    """Whether a table has columns of modalities and of paths, by any of their names."""
    try:
        names = {re.sub("[^a-z]", "", name) for name in read_table(path)}
    except BadInput:  # which is said of it as of a list of splits
        return False
    return all(names & {ours, *SAME[ours].split()} for ours in ("modality", "path"))


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
    table = pd.DataFrame(rows).astype(str)
    unused = [name for name in ("fold",) if not any(table[name])]
    with whole_file(path) as new:
        table.drop(columns=unused).to_csv(new, index=False, encoding="utf-8", lineterminator="\n")


def read_manifest(path: Path, bases: Sequence[Path], found: CohortFiles) -> Manifest:
    """The manifest in a CSV or TSV file, a row a file (modality, path), a row a case, or notes on cases or patients.

    bases: folders to which its paths are relative. Raises BadInput for a table without a column of cases or patients, one
    that mixes these forms, and a column whose name is almost that of a missing one.
    """
    manifest = Manifest(path, read_table(path))
    if manifest.table.empty:
        raise BadInput(
            f"{path}: expected a row for each case, found none: an empty cohort. Fill the manifest."
        )
    name_columns(manifest)
    table = manifest.table
    if not {"case", "patient"} & {*table}:
        raise BadInput(
            f"{path}: expected a column 'case' or 'patient', found {', '.join(table)}. Name the columns so."
        )
    _check_cells(manifest)
    others = [name for name in table if name not in COLUMNS]
    is_long = {"modality", "path"} <= {*table}
    if not is_long:
        others += [name for name in ("modality", "path") if name in table]
    manifest.scans = [name for name in sorted(others) if _holds_scans(path, table[name], bases)]
    notes = sorted({*others} - {*manifest.scans})
    name, count = Counter(manifest.names).most_common(1)[0]
    if is_long and manifest.scans:
        problem = f"expected a row for each file in a table with the columns modality and path, found scans in the column '{manifest.scans[0]}', too. Give them rows of their own."
    elif "path" in manifest.scans:
        problem = "expected the columns modality and path together, found path alone. Add the column modality, or name the column path as its modality."
    elif count > 1 and not is_long:
        problem = f"expected each case in one row, found {name} twice. Remove one of the rows."
    else:
        if notes:
            named = ", ".join(f"'{name}'" for name in notes)
            found.unclaimed.append(f"columns of {path.name} that name no scans ({named})")
        found.guessed += manifest.assumed
        return manifest
    raise BadInput(f"{path}: {problem}")


def name_columns(manifest: Manifest) -> None:
    """Give the columns our names where theirs mean the same, which is said; a column of words of splits is 'split'."""
    table = manifest.table
    renamed = dict[str, str]()
    for ours, words in SAME.items():
        if ours in table:
            continue
        fitting = [
            name
            for name in table
            if re.sub("[^a-z]", "", name) in words.split()
            and name not in renamed
            and (name not in COLUMNS or (name, ours) == ("fold", "split"))
            and (ours != "split" or are_splits(table[name]))
            and (ours != "fold" or all(cell.isdigit() for cell in table[name] if cell))
        ]
        if len(fitting) > 1 and len({tuple(table[name]) for name in fitting}) > 1:
            raise BadInput(
                f"{manifest.path}: expected one column of each {ours}, found {' and '.join(fitting)}, which differ. Rename the right one to '{ours}'."
            )
        renamed |= dict.fromkeys(fitting[:1], ours)
    if "split" not in table and "split" not in renamed.values():
        unnamed = [name for name in table if name not in COLUMNS and _look_like_splits(table[name])]
        renamed |= dict.fromkeys(unnamed[:1], "split")
    manifest.assumed += [
        f"the column '{name}' of {manifest.path.name} is the {ours}"
        for name, ours in renamed.items()
    ]
    manifest.table = table.rename(columns=renamed)


def are_splits(cells: Collection[str]) -> bool:
    """Whether cells hold words of splits and nothing else."""
    words = {*cells} - {""}
    return bool(words) and all(map(split_named, words))


def _look_like_splits(cells: Collection[str]) -> bool:
    """Whether cells of a column of any name are of splits: words of splits, one of which is of training."""
    splits = {split_named(cell) for cell in cells if cell}
    return "train" in splits and len(splits) > 1


def _check_cells(manifest: Manifest) -> None:
    """Raise BadInput for names that are no names, cells that are missing, unknown splits and folds, by their lines."""
    path, table = manifest.path, manifest.table
    for name in ("case", "patient", "split"):
        if name in table and not any(table[name]):
            del table[name]
    missing = {*COLUMNS[:5]} - {*table}
    for column in [name for name in table if name not in COLUMNS]:
        near = [name for name in nearest(column, missing) if len(name) > 3]
        if (
            near
            and any(table[column])
            and (near[0] not in ("modality", "path") or {"modality", "path"} & {*table})
        ):
            raise BadInput(
                f"{path}: expected a column '{near[0]}', found '{column}', which looks like it. Rename it to '{near[0]}', or remove it."
            )
    for line, row in table.iterrows():
        where = f"{path}, line {line}"
        for name in ("case", "patient", "split"):
            cell = row.get(name)
            if cell == "":
                raise BadInput(
                    f"{where}: expected a {name} in every row or in none, found both. Fill the column."
                )
            if name != "split" and cell:
                safe_name(cell, f"{where}, {name}")
        if row.get("split") and not split_named(row["split"]):
            raise BadInput(
                f"{where}: expected a split train, val or test, found '{row['split']}'. Use these words."
            )
        is_test = split_named(row.get("split", "")) == "test"
        fold = row.get("fold")
        if fold is not None and not (is_test and not fold) and fold not in map(str, range(FOLDS)):
            raise BadInput(
                f"{where}: expected a fold 0 to {FOLDS - 1}, as --fold takes, for every case that is not of the split test, found {fold or 'none'}. Number the folds from 0, or rename the column."
            )


def rows_of(
    manifest: Manifest, bases: Sequence[Path], allow_outside: bool, found: CohortFiles
) -> list[Row]:
    """A row for each file that the manifest names; cases without one are noted.

    Raises BadInput for a file that is missing, outside of bases, or twice, and for a case of two patients or splits.
    """
    if not manifest.scans and "path" not in manifest.table:
        return []
    table = manifest.table.assign(name=manifest.names)
    if manifest.scans:
        whose = [name for name in ("name", "patient", "split", "fold") if name in table]
        table = table.reset_index(names="line").melt(
            ["line", *whose], manifest.scans, "modality", "path"
        )
        table = table.set_index("line").sort_index(kind="stable")
    stated = dict[str, Row]()
    rows = []
    uses = dict[tuple[Path, str], str]()
    for line, row in table[table["path"] != ""].iterrows():
        where = f"{manifest.path}, line {line}"
        use = f"{row['modality']} of case {row['name']}"
        place = _place(where, row["path"], use, bases, allow_outside)
        parts = [
            f"{key}={row[name]}"
            for name, key in (("slice", "slice"), ("time", "frame"))
            if row.get(name)
        ]
        if parts:
            place = Path(f"{place}#{','.join(parts)}")
        scan = location_of(place)
        key = scan.resolve(), str(place).removeprefix(str(scan))
        # one mask may be that of several cases
        if kind_of(row["modality"]) != "mask" and uses.setdefault(key, use) != use:
            raise BadInput(
                f"{where}: expected each scan once, found it as {uses[key]} and as {use}: {place}. Fix one of the paths."
            )
        fold = int(row["fold"]) if row.get("fold") else None
        split = split_named(row.get("split", "")) or None
        if fold is not None and "split" not in table:
            split = "train" if fold else "val"
        one = Row(row.get("patient"), row["name"], row["modality"], place, split=split, fold=fold)
        first = stated.setdefault(one.case, one)
        if (first.patient, first.split, first.fold) != (one.patient, split, fold):
            raise BadInput(
                f"{where}: expected one patient and split of case {one.case}, found {first.patient or 'none'}, {first.split} and {one.patient or 'none'}, {split}. Fix them."
            )
        rows.append(one)
    if without := sorted({*manifest.names} - stated.keys()):
        found.unclaimed.append(
            f"{plural(len(without), 'case')} of {manifest.path.name} that have no scan in it ({first_of(without)})"
        )
    return rows


def _holds_scans(path: Path, cells: "pd.Series[str]", bases: Sequence[Path]) -> bool:
    """Whether a column names scans; raises BadInput for a column of files that are not read."""
    values = [cell for cell in dict.fromkeys(cells) if cell]
    unread = ""
    for value in values:
        is_path = bool(re.search(r"[/\\#]", value)) and "://" not in value
        files = [location_of(place) for place in _places(value, bases)]
        if value.lower().endswith(scan_endings()) or any(
            is_path if file.is_dir() else format_by_ending(file.name) for file in files
        ):
            return True
        is_note = value.lower().endswith(NOTES)
        has_ending = bool(re.search(r"[/\\].*\.\w+$", value)) and is_path
        if not is_note and (has_ending or any(map(Path.is_file, files))):
            unread = unread or value
    if unread:
        raise BadInput(
            f"{path}: expected scans of a known format ({', '.join(scan_endings())}, DICOM, arrays) in the column '{cells.name}', found '{unread}'. Convert or rename the files, or remove the column."
        )
    return False


def _places(value: str, bases: Sequence[Path]) -> list[Path]:
    """The paths that a cell may mean whose file or folder exists."""
    try:
        places = [base / name for base, name in product(bases, (value, value.replace("\\", "/")))]
        return [place for place in places if location_of(place).exists()]
    except OSError:  # a text that is too long to be a path
        return []


def _place(where: str, value: str, use: str, bases: Sequence[Path], allow_outside: bool) -> Path:
    """The file that a cell names; raises BadInput where it is missing or outside of the cohort's folders."""
    place = next(iter(_places(value, bases)), None)
    if place is None or (place.is_dir() and not is_dicom_folder(place)):
        is_windows = re.match(r"[A-Za-z]:[\\/]", value)
        advice = f"Write it relative to {bases[-1]}." if is_windows else "Fix the path."
        raise BadInput(f"{where}: expected the file {value} for {use}, found none. {advice}")
    if not allow_outside and not any(inside(base, location_of(place)) for base in bases):
        raise BadInput(
            f"{where}: expected paths below {bases[-1]} or the manifest, found {value} for {use}, which leads out of them. Pass --allow-outside if it is meant."
        )
    return place
