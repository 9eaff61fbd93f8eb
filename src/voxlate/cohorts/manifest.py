"""Manifests: tables of a cohort's cases with their patients and splits."""

import dataclasses
import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from voxlate.cohorts.choice import Choice, several
from voxlate.cohorts.leakage import refuse_leak
from voxlate.cohorts.patient_names import patient_in
from voxlate.cohorts.presets import (
    MASKS,
    NOTES,
    CaseFiles,
    Preset,
    case_of,
    modality_name,
    patient_of,
)
from voxlate.cohorts.split import FOLDS, SPLITS
from voxlate.cohorts.table import Row, read_table
from voxlate.formats.dicom import is_dicom_folder
from voxlate.formats.io import format_by_ending, location_of, scan_endings
from voxlate.system.errors import BadInput
from voxlate.system.files import inside, safe_name

OWN_NAMES = ("cases.csv", "cohort.csv", "cases.tsv", "cohort.tsv")
OTHER_WORDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
TABLES = (".csv", ".tsv")
SAME = {"subject": "patient", "set": "split", "fold": "split"}  # other names of our columns
OWN_COLUMNS = ("case", "patient", "split", "modality", "path")
SYNONYMS = {  # other names of our columns, their letters alone
    "patient": (
        "patientid",
        "patientname",
        "subject",
        "subjects",
        "subjectid",
        "participant",
        "participantid",
        "pid",
    ),
    "case": ("cases", "caseid", "casename"),
    "split": ("splitting", "fold", "folds", "partition", "subset"),
    "modality": ("modalities",),
    "path": ("paths", "file", "files", "filename", "filepath"),
}
FOLD = "number of the fold"  # the name that a column 'fold' of numbers gets


def manifest_in(root: Path) -> Path | None:
    """The manifest in a cohort's folder that is read by default, if there is one."""
    return next((root / name for name in OWN_NAMES if (root / name).is_file()), None)


def root_and_manifest(
    root: Path | str,
    manifest: Path | str | None = None,
) -> tuple[Path, Path | None]:
    """The folder of a cohort and its manifest, where `root` may itself be the manifest; None: there is none."""
    root = Path(root)
    if root.suffix.lower() not in TABLES or root.is_dir():
        return root, Path(manifest) if manifest is not None else manifest_in(root)
    if manifest is not None:
        raise BadInput(
            f"{root}: expected one manifest, found also {manifest} (--manifest). Give one of the two."
        )
    return root.parent, root


def read_manifest(
    path: Path,
    root: Path,
    layout: Preset,
    on_disk: Callable[[], list[CaseFiles]],
    owned: Callable[[list[CaseFiles]], list[CaseFiles]],
    allow_outside: bool = False,
    choice: Choice | None = None,
) -> tuple[list[CaseFiles], list[str]]:
    """The cases that a CSV or TSV table lists, and sentences on its columns and rows that are left out.

    Three forms: long (case, modality, path), wide (case and a column of paths for each modality), or notes only (case
    or patient, split, whatever else), where the files are found by the layout. Optional columns: patient (or subject),
    split (or set, or fold, of these words), fold (0 to 4: in which a patient validates; without a split, those of fold
    0 validate and the others train). owned: gives the cases their patients. choice: which rows and paths do not count.
    Paths are relative to the manifest or to root, and stay below one of them unless allow_outside.
    Raises BadInput for a patient in two splits, a case, a modality or a scan
    twice, a missing file, an unknown split, an unused column whose name is almost that of a used one.
    """
    choice = choice or Choice()
    rows = [row for row in _rows(path) if choice.has_case(_name(row), row.get("patient"))]
    if not rows:
        raise BadInput(
            f"{path}: expected a case that --exclude does not name, found none. Leave some in."
        )
    columns = set(rows[0]) - {"case", "patient", "split", FOLD}
    long = {"modality", "path"} <= columns
    scans, notes = _scan_columns(
        path,
        rows,
        columns - {"modality", "path"} if long else columns,
        root,
    )
    if long and scans:
        raise BadInput(
            f"{path}: expected a row for each file in a table with the columns modality and path, found scans in the column '{scans[0]}', too. Give them rows of their own."
        )
    if "path" in scans:
        raise BadInput(
            f"{path}: expected the columns modality and path together, found path alone. Add the column modality, or name the column path as its modality."
        )
    twice = [name for name, count in Counter(map(_name, rows)).items() if count > 1]
    if twice and not long:
        raise BadInput(
            f"{path}: expected each case in one row, found {twice[0]} twice. Remove one of the rows."
        )
    if long:
        entries = [(row, row["modality"], row["path"]) for row in rows if row["path"]]
    else:
        entries = [(row, name, row[name]) for row in rows for name in scans if row[name]]
    if long or scans:
        entries = [entry for entry in entries if choice.has_file(entry[2])]
        cases = _from_paths(path, entries, root, layout, allow_outside, choice)
    else:
        cases = _from_notes(path, rows, on_disk())
    if not any(case.files for case in cases):
        raise BadInput(
            f"{path}: expected a scan of at least one case, found none but masks or notes. Add its path."
        )
    cases = _with_folds(path, rows, owned(cases))
    refuse_leak(((case.patient, case.split) for case in cases), path)
    if len({case.split is None for case in cases}) > 1:
        unsplit = next(case.case for case in cases if case.split is None)
        raise BadInput(
            f"{path}: expected a split for every case or for none, found none for {unsplit}. Fill the column."
        )
    named = {name for case in cases for name in (case.case, case.patient)}
    return cases, _left_out(path, rows, notes, named)


def _left_out(path: Path, rows: list[Row], notes: list[str], found: set[str]) -> list[str]:
    """Sentences on the columns that are notes, and on rows that name no file."""
    sentences = list[str]()
    if notes:
        columns = ", ".join(f"'{name}'" for name in notes)
        sentences.append(f"columns of {path.name} that name no scans ({columns})")
    missing = [name for name in dict.fromkeys(map(_name, rows)) if name not in found]
    if missing:
        sentences.append(
            f"{len(missing)} cases of {path.name} that have no scan in it ('{missing[0]}', …)"
        )
    return sentences


def _name(row: Row) -> str:
    return row.get("case") or row.get("patient") or ""


def _rows(path: Path) -> list[Row]:
    """The rows of a manifest; raises BadInput where they name no case, or only some name a case or a patient."""
    table = read_table(path)
    if not table:
        raise BadInput(
            f"{path}: expected a row for each case, found none: an empty cohort. Fill the manifest."
        )
    table = _in_our_words(table)
    _take_folds(path, table)
    rows = [row for _, row in table]
    _refuse_misspelt(path, rows)
    columns = rows[0]
    if "case" not in columns and "patient" not in columns:
        raise BadInput(
            f"{path}: expected a column 'case' or 'patient', found {', '.join(columns)}. Name the columns so."
        )
    for line, row in table:
        safe_name(_name(row), f"{path}, line {line}, case")
        safe_name(row.get("patient") or "none", f"{path}, line {line}, patient")
        for name in ("case", "patient"):
            if name in columns and bool(row[name]) != bool(rows[0][name]):
                raise BadInput(
                    f"{path}, line {line}: expected a {name} in every row or in none, found both. Fill the column."
                )
    return rows


def _in_our_words(table: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
    """The table with our names of its columns, where a column has another name of the same meaning.

    A column 'set' or 'fold' is one of splits where it holds their words: numbers of folds are not.
    """
    columns = list(table[0][1])
    renamed = dict[str, str]()
    for name, word in SAME.items():
        if name not in columns or word in columns or word in renamed.values():
            continue
        words = {row[name].lower() for _, row in table} - {""}
        if word != "split" or (words and words <= {*SPLITS, *OTHER_WORDS}):
            renamed[name] = word
    rows = list[tuple[int, Row]]()
    for line, row in table:
        rows.append((line, {renamed.get(name, name): cell for name, cell in row.items()}))
    return rows


def _take_folds(path: Path, table: list[tuple[int, Row]]) -> None:
    """Check a column 'fold' of numbers and call it FOLD; where nothing states splits, fold 0 validates."""
    cells = {row.get("fold", "") for _, row in table}
    if not any(cells) or not all(re.fullmatch(r"\d{0,9}", cell) for cell in cells):
        return
    for line, row in table:
        row[FOLD] = fold = row.pop("fold")
        test = row.get("split", "").lower() in ("test", "testing")
        if (not fold and not test) or int(fold or 0) >= FOLDS:
            raise BadInput(
                f"{path}, line {line}: expected a fold 0 to {FOLDS - 1}, as --fold takes, for every case that is not of the split test, found {fold or 'none'}. Number the folds from 0, or rename the column."
            )
        row.setdefault("split", "train" if int(fold or 0) else "val")


def _with_folds(path: Path, rows: list[Row], cases: list[CaseFiles]) -> list[CaseFiles]:
    """The cases with their folds; raises BadInput for a patient in two of them."""
    stated = {_name(row): int(row[FOLD]) for row in rows if row.get(FOLD)}
    folds = {case.case: stated.get(case.case, stated.get(case.patient)) for case in cases}
    cases = [dataclasses.replace(case, fold=folds[case.case]) for case in cases]
    first = dict[str, CaseFiles]()
    for case in cases:
        other = first.setdefault(case.patient, case)
        if other.fold != case.fold:
            raise BadInput(
                f"{path}: expected the cases of patient {case.patient} in one fold, found {other.case} in fold {other.fold} and {case.case} in fold {case.fold}. Give them one fold."
            )
    return cases


def _refuse_misspelt(path: Path, rows: list[Row]) -> None:
    """Raise BadInput for a column that looks like a missing one of ours: it would be left out as a note."""
    columns = rows[0]
    known = {word for word in SYNONYMS if word in columns}
    if "modality" not in columns:
        known.add("path")
    if "path" not in columns:
        known.add("modality")
    for column in columns:
        plain = re.sub("[^a-z]", "", column)
        near = [word for word, names in SYNONYMS.items() if plain in names or _is_typo(plain, word)]
        words = {row[column].lower() for row in rows} - {""}
        if words & {"train", "training"} or (words and words <= {*SPLITS, *OTHER_WORDS}):
            near.append("split")
        meant = [word for word in near if word not in known]
        if meant and column not in OWN_COLUMNS:
            raise BadInput(
                f"{path}: expected a column '{meant[0]}', found '{column}', which looks like it. Rename it to '{meant[0]}', or remove it."
            )


def _is_typo(name: str, word: str) -> bool:
    """Whether a column's name is a word with a letter lost or added, two exchanged, or one of a longer word changed."""
    if sorted(name) == sorted(word):
        return True
    similar = difflib.SequenceMatcher(None, name, word, autojunk=False).ratio() >= 0.8
    return similar and abs(len(name) - len(word)) <= 1


def _split(row: Row, path: Path) -> str | None:
    word = row.get("split", "").lower()
    split = OTHER_WORDS.get(word, word)
    if split and split not in SPLITS:
        raise BadInput(
            f"{path}: expected a split train, val or test, found '{row['split']}'. Use these words."
        )
    return split or None


def _scan_columns(
    path: Path,
    rows: list[Row],
    columns: set[str],
    root: Path,
) -> tuple[list[str], list[str]]:
    """Which of these columns of a manifest name scans, and which are notes.

    Raises BadInput for a column of files that are not read.
    """
    scans, notes = list[str](), list[str]()
    for name in sorted(columns):
        values = list(dict.fromkeys(row[name] for row in rows if row[name]))
        files = {
            value: [file for _, file in _located(value, path.parent, root)] for value in values
        }
        if any(_names_scan(value, files[value]) for value in values):
            scans.append(name)
            continue
        unreadable = [value for value in values if any(map(_is_unknown, files[value]))]
        if not unreadable and values and all(map(_looks_like_scan, values)):
            unreadable = values
        if unreadable:
            raise BadInput(
                f"{path}: expected scans of a known format ({', '.join(scan_endings())}, DICOM, arrays) in the column '{name}', found '{unreadable[0]}'. Convert or rename the files, or remove the column."
            )
        notes.append(name)
    return scans, notes


def _is_unknown(file: Path) -> bool:
    """Whether a file is neither a note nor of a known format (the caller has checked the latter)."""
    return file.is_file() and not file.name.lower().endswith(NOTES)


def _located(value: str, *bases: Path) -> list[tuple[Path, Path]]:
    """The places of a cell's path, each with its file or folder on disk, without a frame or a series' key."""
    try:
        places = [
            base / name
            for base in bases
            for name in dict.fromkeys((value, value.replace("\\", "/")))
        ]
        found = [(place, location_of(place)) for place in places]
        return [(place, file) for place, file in found if file.exists()]
    except OSError:  # a text that is too long to be a path
        return []


def _names_scan(value: str, files: list[Path]) -> bool:
    """Whether a value names a scan; as a folder's name only where it is a path: any word may be that by chance."""
    if value.lower().endswith(scan_endings()):
        return True
    path_like = re.search("[/#]", value) is not None
    return any(
        path_like if file.is_dir() else format_by_ending(file.name) is not None for file in files
    )


def _looks_like_scan(value: str) -> bool:
    """Whether a value that names no file looks like a path: a known ending inside it, or folders and an ending."""
    text = value.lower()
    if re.search(r"[/\\].*\.\w+$", text) and "://" not in text and not text.endswith(NOTES):
        return True
    return any(re.search(rf"{re.escape(suffix)}\b", text) for suffix in scan_endings())


def _from_paths(
    path: Path,
    entries: list[tuple[Row, str, str]],
    root: Path,
    layout: Preset,
    allow_outside: bool,
    choice: Choice,
) -> list[CaseFiles]:
    found: dict[str, dict[str, list[tuple[Path, str]]]] = defaultdict(lambda: defaultdict(list))
    owners: dict[str, tuple[str, str | None]] = {}  # patient and split
    uses: dict[
        tuple[Path, str], str
    ] = {}  # of a file and what part of it; one mask may be that of several cases
    for row, modality, value in entries:
        case = _name(row)
        places = _located(value, path.parent, root)
        if not places or (places[0][0].is_dir() and not is_dicom_folder(places[0][0])):
            raise BadInput(
                f"{path}: expected the file {value} for {modality} of case {case}, found none. Fix the path."
            )
        place, scan = places[0]
        if not allow_outside and not any(inside(base, scan) for base in (path.parent, root)):
            raise BadInput(
                f"{path}: expected paths below {root} or the manifest, found {value} for {modality} of case {case}, which leads out of them. Pass --allow-outside if it is meant."
            )
        name = modality_name(modality, layout.aliases)
        found[case][name].append((place, ""))
        use = f"{name} of case {case}"
        part = str(place).removeprefix(str(scan))
        if name not in MASKS and uses.setdefault((scan.resolve(), part), use) != use:
            raise BadInput(
                f"{path}: expected each scan once, found it as {uses[scan.resolve(), part]} and as {use}: {value}. Fix one of the paths."
            )
        owner = (row.get("patient") or patient_of(case, layout.patient), _split(row, path))
        if owners.setdefault(case, owner) != owner:
            raise BadInput(
                f"{path}: expected one patient and split of case {case}, found {owners[case]} and {owner}. Fix them."
            )
    return [
        case_of(case, *owners[case], _one_each(files, case, choice))
        for case, files in found.items()
    ]


def _one_each(
    found: dict[str, list[tuple[Path, str]]],
    case: str,
    choice: Choice,
) -> dict[str, Path]:
    """A file for each modality of a case; raises BadInput where there are several, and none is preferred."""
    files = dict[str, Path]()
    for name, candidates in found.items():
        chosen = choice.one_of(candidates, name, case)
        if chosen is None:
            raise several(candidates, name, case)
        files[name] = chosen
    return files


def _from_notes(path: Path, rows: list[Row], on_disk: list[CaseFiles]) -> list[CaseFiles]:
    key = "case" if rows[0].get("case") else "patient"
    by_name: dict[str, list[CaseFiles]] = defaultdict(list)
    for case in on_disk:
        owner = case.patient or patient_in(case.case) or case.case
        for name in {case.case} if key == "case" else {case.case, owner}:
            by_name[name].append(case)
    cases = []
    for row in rows:
        if row[key] not in by_name:
            known = ", ".join(sorted(by_name)[:3])
            raise BadInput(
                f"{path}: expected files of the {key} {row[key]}, found only others ({known}, …). Fix the manifest."
            )
        for one in by_name[row[key]]:
            patient = row.get("patient") or one.patient
            split = _split(row, path) or one.split
            cases.append(dataclasses.replace(one, patient=patient, split=split))
    return cases
