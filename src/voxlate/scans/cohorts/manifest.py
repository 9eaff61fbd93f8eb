"""Manifests: tables of a cohort's cases with their patients and splits."""

import csv
import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.files import inside, safe_name, whole_file
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, cases_of, kind_of
from voxlate.scans.cohorts.csv_table import Cells, read_table
from voxlate.scans.cohorts.patient_names import patient_in
from voxlate.scans.cohorts.patterns import split_named
from voxlate.scans.cohorts.presets import NOTES, Preset
from voxlate.scans.cohorts.rows import Exclusion, Row
from voxlate.scans.cohorts.split import FOLDS
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import format_by_ending, location_of, scan_endings

OWN_NAMES = ("cases.csv", "cohort.csv", "cases.tsv", "cohort.tsv")
TABLES = (".csv", ".tsv")
SAME = {"subject": "patient", "set": "split", "fold": "split"}  # other names of our columns
SYNONYMS = {  # other names of our columns, their letters alone
    "patient": "patientid patientname subject subjects subjectid participant participantid pid",
    "case": "cases caseid casename",
    "split": "splitting fold folds partition subset",
    "modality": "modalities",
    "path": "paths file files filename filepath",
}
FOLD = "number of the fold"  # the name that a column 'fold' of numbers gets


def root_and_manifest(
    root: Path | str, manifest: Path | str | None = None
) -> tuple[Path, Path | None]:
    """The folder of a cohort and its manifest, where `root` may itself be the manifest; None: there is none.

    By default the manifest is a file of the folder with one of OWN_NAMES.
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
    return root, next((root / name for name in OWN_NAMES if (root / name).is_file()), None)


def read_manifest(
    path: Path,
    root: Path,
    layout: Preset,
    on_disk: Callable[[], list[CaseFiles]],
    exclusion: Exclusion,
    found: CohortFiles,
    allow_outside: bool = False,
) -> list[CaseFiles]:
    """The cases that a CSV or TSV table lists; columns and rows that are left out are noted in `found`.

    Three forms: long (case, modality, path), wide (case and a column of paths for each modality), or notes only (case
    or patient, split, whatever else), where the files are found by the layout. Optional columns: patient (or subject),
    split (or set, or fold, of these words), fold (0 to 4: in which a patient validates; without a split, those of fold
    0 validate and the others train). exclusion: which rows do not count.
    Paths are relative to the manifest or to root, and stay below one of them unless allow_outside.
    Raises BadInput for a case, a modality or a scan twice, a missing file, an unknown split, an unused column whose
    name is almost that of a used one.
    """
    every = _rows(path)
    rows = [row for row in every if exclusion.keep_case(_name(row), row.get("patient"))]
    if not rows:
        raise BadInput(
            f"{path}: expected a case that --exclude does not name, found none. Leave some in."
        )
    columns = rows[0].keys() - {"case", "patient", "split", FOLD}
    is_long = {"modality", "path"} <= columns
    columns -= {"modality", "path"} if is_long else set()
    bases = (path.parent, root)
    scans = [name for name in sorted(columns) if _holds_scans(path, name, rows, bases)]
    names = Counter(map(_name, rows))
    _check_form(path, is_long, scans, names)
    if is_long or scans:
        files = []
        for row, column in product(rows, ["path"] if is_long else scans):
            name, cell = row["modality"] if is_long else column, row[column]
            if cell:
                modality = layout.modality_of(name)
                files.append(_file(path, bases, _name(row), modality, cell, allow_outside))
        _refuse_scan_twice(path, files)
        cases = cases_of(files, exclusion, layout.patient)
        owners = {case.case: [case] for case in cases}
    else:
        cases = on_disk()
        owners = _cases_of_notes(path, cases, names, "case" if "case" in rows[0] else "patient")
    if not any(case.files for case in cases):
        raise BadInput(
            f"{path}: expected a scan of at least one case, found none but masks or notes. Add its path."
        )
    _note_unused(found, path, columns.difference(scans), names.keys() - owners)
    stated = _state_owners(path, rows, owners)
    listed = {case.case for case in stated} | {*map(_name, every)}  # also what --exclude names
    if unlisted := sorted(case.case for case in cases if not {case.case, case.patient} & listed):
        found.unclaimed.append(
            f"{plural(len(unlisted), 'case')} that {path.name} does not list ({first_of(unlisted, 3)})"
        )
    return stated


def write_manifest(path: Path, root: Path, cases: Sequence[CaseFiles]) -> None:
    """Write the wide form of a manifest of cases below root, for corrections; raises BadInput for a file of its name."""
    if path.exists():
        raise BadInput(
            f"{path}: expected a new file for the manifest, found one. Name another (--out), or remove it."
        )
    names = sorted({name for case in cases for name in case.paths})
    with whole_file(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["case", "patient", "split", *names])
        for case in cases:
            places = {
                name: place.relative_to(root).as_posix() for name, place in case.paths.items()
            }
            row = [case.case, case.patient, case.split or ""]
            table.writerow([*row, *(places.get(name, "") for name in names)])


def _note_unused(
    found: CohortFiles, path: Path, columns: Collection[str], without: Collection[str]
) -> None:
    """Note the columns that name no scans, and the cases without a scan."""
    notes = [f"'{name}'" for name in sorted(columns)]
    missing = [f"'{name}'" for name in sorted(without)]
    if notes:
        found.unclaimed.append(f"columns of {path.name} that name no scans ({', '.join(notes)})")
    if missing:
        found.unclaimed.append(
            f"{len(missing)} cases of {path.name} that have no scan in it ({first_of(missing, 1)})"
        )


def _check_form(path: Path, is_long: bool, scans: Sequence[str], names: Counter[str]) -> None:
    """Raise BadInput for a table that mixes the long and the wide form, or has a case in two rows of the wide one."""
    if is_long and scans:
        raise BadInput(
            f"{path}: expected a row for each file in a table with the columns modality and path, found scans in the column '{scans[0]}', too. Give them rows of their own."
        )
    if "path" in scans:
        raise BadInput(
            f"{path}: expected the columns modality and path together, found path alone. Add the column modality, or name the column path as its modality."
        )
    name, count = names.most_common(1)[0]
    if count > 1 and not is_long:
        raise BadInput(
            f"{path}: expected each case in one row, found {name} twice. Remove one of the rows."
        )


def _name(row: Cells) -> str:
    return row.get("case") or row.get("patient") or ""


def _rows(path: Path) -> list[Cells]:
    """The rows of a manifest; raises BadInput where they name no case, or only some name a case or a patient."""
    table = read_table(path)
    if not table:
        raise BadInput(
            f"{path}: expected a row for each case, found none: an empty cohort. Fill the manifest."
        )
    rows = [*table.values()]
    for name, ours in SAME.items():  # a column of another name and the same meaning gets ours
        if name not in rows[0] or ours in rows[0]:
            continue
        # 'set' or 'fold' are of splits where they hold their words: numbers of folds are not
        if ours != "split" or _are_splits([row[name] for row in rows]):
            for row in rows:
                row[ours] = row.pop(name)
    _take_folds(path, table)
    _refuse_misspelt(path, rows)
    first = rows[0]
    if not {"case", "patient"} & first.keys():
        raise BadInput(
            f"{path}: expected a column 'case' or 'patient', found {', '.join(first)}. Name the columns so."
        )
    for line, row in table.items():
        where = f"{path}, line {line}"
        safe_name(_name(row), f"{where}, case")
        safe_name(row.get("patient") or "none", f"{where}, patient")
        for name in ("case", "patient"):
            if bool(row.get(name)) != bool(first.get(name)):
                raise BadInput(
                    f"{where}: expected a {name} in every row or in none, found both. Fill the column."
                )
    return rows


def _are_splits(cells: Collection[str]) -> bool:
    """Whether cells hold words of splits and nothing else."""
    words = {*cells} - {""}
    return bool(words) and all(map(split_named, words))


def _take_folds(path: Path, table: dict[int, Cells]) -> None:
    """Check a column 'fold' of numbers and call it FOLD; where nothing states splits, fold 0 validates."""
    cells = {row.get("fold", "") for row in table.values()}
    if not any(cells) or not all(re.fullmatch(r"\d{0,9}", cell) for cell in cells):
        return
    for line, row in table.items():
        row[FOLD] = fold = row.pop("fold")
        is_test = split_named(row.get("split", "")) == "test"
        if (not fold and not is_test) or int(fold or 0) >= FOLDS:
            raise BadInput(
                f"{path}, line {line}: expected a fold 0 to {FOLDS - 1}, as --fold takes, for every case that is not of the split test, found {fold or 'none'}. Number the folds from 0, or rename the column."
            )
        row.setdefault("split", "train" if int(fold or 0) else "val")


def _refuse_misspelt(path: Path, rows: Sequence[Cells]) -> None:
    """Raise BadInput for a column that looks like a missing one of ours: it would be left out as a note."""
    columns = rows[0].keys()
    missing = SYNONYMS.keys() - columns
    if not columns & {"modality", "path"}:
        missing -= {"modality", "path"}
    for column in columns - SYNONYMS.keys():
        plain = re.sub("[^a-z]", "", column)
        cells = [row[column] for row in rows]
        near = [
            word
            for word, names in SYNONYMS.items()
            if plain in names.split() or _is_typo(plain, word)
        ]
        if _are_splits(cells) or {"train", "training"} & {cell.lower() for cell in cells}:
            near.append("split")
        for word in near:
            if word in missing:
                raise BadInput(
                    f"{path}: expected a column '{word}', found '{column}', which looks like it. Rename it to '{word}', or remove it."
                )


def _is_typo(name: str, word: str) -> bool:
    """Whether a column's name is a word with a letter lost or added, two exchanged, or one of a longer word changed."""
    if sorted(name) == sorted(word):
        return True
    similar = difflib.SequenceMatcher(None, name, word, autojunk=False).ratio() >= 0.8
    return similar and abs(len(name) - len(word)) <= 1


def _holds_scans(path: Path, column: str, rows: Sequence[Cells], bases: Sequence[Path]) -> bool:
    """Whether a column of a manifest names scans; raises BadInput for a column of files that are not read."""
    values = [*filter(None, dict.fromkeys(row[column] for row in rows))]
    unread = []
    for value in values:
        files = [location_of(place) for place in _places(value, bases)]
        # a folder only where the value is a path: any word may be its name
        is_path = re.search("[/#]", value)
        known = (is_path if file.is_dir() else format_by_ending(file.name) for file in files)
        if value.lower().endswith(scan_endings()) or any(known):
            return True
        if any(file.is_file() and not file.name.lower().endswith(NOTES) for file in files):
            unread.append(value)
    if values and all(map(_looks_like_scan, values)):
        unread = unread or values
    if unread:
        raise BadInput(
            f"{path}: expected scans of a known format ({', '.join(scan_endings())}, DICOM, arrays) in the column '{column}', found '{unread[0]}'. Convert or rename the files, or remove the column."
        )
    return False


def _looks_like_scan(value: str) -> bool:
    """Whether a value that names no file looks like a path: a known ending inside it, or folders and an ending."""
    text = value.lower()
    if re.search(r"[/\\].*\.\w+$", text) and "://" not in text and not text.endswith(NOTES):
        return True
    return any(re.search(rf"{re.escape(ending)}\b", text) for ending in scan_endings())


def _places(value: str, bases: Sequence[Path]) -> list[Path]:
    """The paths that a cell may mean whose file or folder exists."""
    try:
        places = [base / name for base, name in product(bases, (value, value.replace("\\", "/")))]
        return [place for place in places if location_of(place).exists()]
    except OSError:  # a text that is too long to be a path
        return []


def _file(
    path: Path, bases: Sequence[Path], case: str, modality: str, value: str, allow_outside: bool
) -> Row:
    """The row of a file that a cell names; raises BadInput where it is missing or outside of the cohort's folders."""
    place = next(iter(_places(value, bases)), None)
    if place is None or (place.is_dir() and not is_dicom_folder(place)):
        raise BadInput(
            f"{path}: expected the file {value} for {modality} of case {case}, found none. Fix the path."
        )
    if not allow_outside and not any(inside(base, location_of(place)) for base in bases):
        raise BadInput(
            f"{path}: expected paths below {bases[-1]} or the manifest, found {value} for {modality} of case {case}, which leads out of them. Pass --allow-outside if it is meant."
        )
    return Row(None, case, modality, place)


def _refuse_scan_twice(path: Path, rows: Sequence[Row]) -> None:
    """Raise BadInput where a scan has two uses; one mask may be that of several cases."""
    uses = dict[tuple[Path, str], str]()
    for row in rows:
        scan = location_of(row.path)
        key = (scan.resolve(), str(row.path).removeprefix(str(scan)))
        use = f"{row.modality} of case {row.case}"
        if kind_of(row.modality) != "mask" and uses.setdefault(key, use) != use:
            raise BadInput(
                f"{path}: expected each scan once, found it as {uses[key]} and as {use}: {row.path}. Fix one of the paths."
            )


def _cases_of_notes(
    path: Path, cases: Sequence[CaseFiles], names: Collection[str], key: str
) -> dict[str, list[CaseFiles]]:
    """The cases of each name; key: "case", or "patient" where names of patients count as well.

    Raises BadInput for a name that has no case.
    """
    by_name = defaultdict(list)
    for case in cases:
        own = {case.case}
        if key == "patient":
            own.add(case.patient or patient_in(case.case) or case.case)
        for name in own:
            by_name[name].append(case)
    for name in names:
        if name not in by_name:
            known = ", ".join(sorted(by_name)[:3])
            raise BadInput(
                f"{path}: expected files of the {key} {name}, found only others ({known}, …). Fix the manifest."
            )
    return by_name


def _state_owners(
    path: Path, rows: Sequence[Cells], owners: dict[str, list[CaseFiles]]
) -> list[CaseFiles]:
    """The cases of each row's name with the patient, split and fold that the row states."""
    cases = dict[str, CaseFiles]()
    for row in rows:
        word = row.get("split", "")
        if word and not split_named(word):
            raise BadInput(
                f"{path}: expected a split train, val or test, found '{word}'. Use these words."
            )
        for case in owners.get(_name(row), ()):
            stated = replace(
                case,
                patient=row.get("patient") or case.patient,
                split=split_named(word) or case.split,
                fold=int(row[FOLD]) if row.get(FOLD) else None,
            )
            first = cases.setdefault(case.case, stated)
            if first != stated:
                raise BadInput(
                    f"{path}: expected one patient and split of case {case.case}, found {first.patient or 'none'}, {first.split} and {stated.patient or 'none'}, {stated.split}. Fix them."
                )
    return [*cases.values()]


def check_stated(cases: Sequence[CaseFiles], path: Path) -> None:
    """Raise BadInput for a patient in two folds of a manifest, or splits of some cases alone."""
    first = dict[str, CaseFiles]()
    for case in cases:
        other = first.setdefault(case.patient, case)
        if other.fold != case.fold:
            raise BadInput(
                f"{path}: expected the cases of patient {case.patient} in one fold, found {other.case} in fold {other.fold} and {case.case} in fold {case.fold}. Give them one fold."
            )
    without = [case.case for case in cases if case.split is None]
    if 0 < len(without) < len(cases):
        raise BadInput(
            f"{path}: expected a split for every case or for none, found none for {without[0]}. Fill the column."
        )
