"""Manifests: tables of a cohort's cases with their patients and splits."""

import dataclasses
import difflib
import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from voxlate.data.doubles import refuse_leak
from voxlate.data.presets import (
    MASKS,
    NOTES,
    SUFFIXES,
    CaseFiles,
    Preset,
    add_file,
    case_of,
    modality_name,
    patient_of,
)
from voxlate.data.table import Row, read_table
from voxlate.errors import BadInput
from voxlate.files import inside, safe_name
from voxlate.images.dicom import is_dicom_folder, without_key
from voxlate.images.frames import without_frame
from voxlate.images.volume import FAMILIES, is_there, suffix_of

OWN_NAMES = ("cases.csv", "cohort.csv", "cases.tsv", "cohort.tsv")
SPLITS = ("train", "val", "test")
OTHER_WORDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
OWN_COLUMNS = ("case", "patient", "split", "modality", "path")
NEAR = {  # what others call our columns, without anything but letters
    "patient": ("patientid", "patientname", "subject", "subjects", "subjectid", "participant", "participantid", "pid"),
    "case": ("cases", "caseid", "casename"),
    "split": ("splitting", "fold", "folds", "partition", "subset"),
    "modality": ("modalities",),
    "path": ("paths", "file", "files", "filename", "filepath"),
}
KINDS = tuple(FAMILIES)


def manifest_in(root: Path) -> Path | None:
    """The manifest in a cohort's folder that is read by default, if there is one."""
    return next((root / name for name in OWN_NAMES if (root / name).is_file()), None)


def read_manifest(
    path: Path, root: Path, layout: Preset, on_disk: Callable[[], list[CaseFiles]], allow_outside: bool = False
) -> tuple[list[CaseFiles], list[str]]:
    """The cases that a CSV or TSV table lists, and sentences on what of it was left out.

    Three forms: long (case, modality, path), wide (case and a column of paths for each modality), or notes only (case
    or patient, split, whatever else), where the files are found by the layout. Optional columns: patient, split.
    Paths are relative to the manifest or to root, and stay below one of them unless allow_outside.
    Raises BadInput for a patient in two splits, a case, a modality or a scan
    twice, a missing file, an unknown split, a column that is not used but looks as if it should be.
    """
    rows = _rows(path)
    long = {"modality", "path"} if {"modality", "path"} <= set(rows[0]) else set[str]()
    scans, notes = _scan_columns(path, rows, set(rows[0]) - {"case", "patient", "split"} - long, root)
    if long:
        if scans:
            raise BadInput(
                f"{path}: expected a row for each file in a table with the columns modality and path, found scans in "
                f"the column '{scans[0]}', too. Give them rows of their own."
            )
        entries = [(row, row["modality"], row["path"]) for row in rows if row["path"]]
        cases = _from_paths(path, entries, root, layout, allow_outside)
    elif "path" in scans:
        raise BadInput(
            f"{path}: expected the columns modality and path together, found path alone. Add the column modality, or "
            "name the column path as its modality."
        )
    elif scans:
        _refuse_doubles(path, rows)
        entries = [(row, name, row[name]) for row in rows for name in scans if row[name]]
        cases = _from_paths(path, entries, root, layout, allow_outside)
    else:
        _refuse_doubles(path, rows)
        cases = _from_notes(path, rows, on_disk())
    if not any(case.files for case in cases):
        raise BadInput(f"{path}: expected a scan of at least one case, found none but masks or notes. Add its path.")
    refuse_leak(((case.patient, case.split) for case in cases), path)
    if len({case.split is None for case in cases}) > 1:
        bare = next(case.case for case in cases if case.split is None)
        raise BadInput(f"{path}: expected a split for every case or for none, found none for {bare}. Fill the column.")
    return cases, _left_out(path, rows, notes, {name for case in cases for name in (case.case, case.patient)})


def _left_out(path: Path, rows: list[Row], notes: list[str], found: set[str]) -> list[str]:
    """Sentences on the columns that are notes, and on rows that name no file."""
    said = list[str]()
    if notes:
        columns = ", ".join(f"'{name}'" for name in notes)
        said.append(f"columns of {path.name} that name no scans ({columns})")
    bare = dict.fromkeys(name for row in rows if (name := _name(row)) not in found)
    if bare:
        said.append(f"{len(bare)} cases of {path.name} that have no scan in it ('{next(iter(bare))}', …)")
    return said


def _name(row: Row) -> str:
    return row.get("case") or row["patient"]


def _rows(path: Path) -> list[Row]:
    """The rows of a manifest; raises BadInput where they name no case, or the cases or patients of some only."""
    table = read_table(path)
    if not table:
        raise BadInput(f"{path}: expected a row for each case, found none: an empty cohort. Fill the manifest.")
    rows = [row for _, row in table]
    _refuse_near(path, rows)
    columns = rows[0]
    if "case" not in columns and "patient" not in columns:
        raise BadInput(
            f"{path}: expected a column 'case' or 'patient', found {', '.join(columns)}. Name the columns so."
        )
    for line, row in table:
        safe_name(row.get("case") or row.get("patient") or "", f"{path}, line {line}, case")
        safe_name(row.get("patient") or "none", f"{path}, line {line}, patient")
        for name in ("case", "patient"):
            if name in columns and bool(row[name]) != bool(rows[0][name]):
                raise BadInput(
                    f"{path}, line {line}: expected a {name} in every row or in none, found both. Fill the column."
                )
    return rows


def _refuse_near(path: Path, rows: list[Row]) -> None:
    """Raise BadInput for a column that looks like one of ours which is not there: it would be left out as a note."""
    columns = rows[0]
    known = {word for word in NEAR if word in columns}
    known |= {word for word, other in (("path", "modality"), ("modality", "path")) if other not in columns}
    for column in columns:
        plain = re.sub("[^a-z]", "", column)
        near = [word for word, names in NEAR.items() if plain in names or _is_typo(plain, word)]
        words = {row[column].lower() for row in rows} - {""}
        if words & {"train", "training"} or (words and words <= {*SPLITS, *OTHER_WORDS}):
            near.append("split")
        meant = [word for word in near if word not in known]
        if meant and column not in OWN_COLUMNS:
            raise BadInput(
                f"{path}: expected a column '{meant[0]}', found '{column}', which looks like it. Rename it to "
                f"'{meant[0]}', or remove it."
            )


def _is_typo(name: str, word: str) -> bool:
    """Whether a column's name is a word with a letter lost or added, two exchanged, or one of a longer word changed."""
    alike = difflib.SequenceMatcher(None, name, word, autojunk=False).ratio() >= 0.8
    return sorted(name) == sorted(word) or (abs(len(name) - len(word)) <= 1 and alike)


def _split(row: Row, path: Path) -> str | None:
    word = row.get("split", "").lower()
    split = OTHER_WORDS.get(word, word)
    if split and split not in SPLITS:
        raise BadInput(f"{path}: expected a split train, val or test, found '{row['split']}'. Use these words.")
    return split or None


def _scan_columns(path: Path, rows: list[Row], columns: set[str], root: Path) -> tuple[list[str], list[str]]:
    """Which of these columns of a manifest name scans, and which are notes.

    Raises BadInput for a column of files that are not read.
    """
    scans, notes = list[str](), list[str]()
    for name in sorted(columns):
        values = list(dict.fromkeys(row[name] for row in rows if row[name]))
        places = [(value, _places(value, path.parent, root)) for value in values]
        if any(_names_scan(value, bases) for value, bases in places):
            scans.append(name)
            continue
        strange = [value for value, bases in places if any(map(_is_strange, bases))]
        if not strange and values and all(map(_looks_like_scan, values)):
            strange = values
        if strange:
            raise BadInput(
                f"{path}: expected scans of a kind that is read ({', '.join(SUFFIXES)}, DICOM, arrays) in the column "
                f"'{name}', found '{strange[0]}'. Convert or rename the files, or remove the column."
            )
        notes.append(name)
    return scans, notes


def _places(value: str, *bases: Path) -> list[Path]:
    """Where a cell's path would lie, without its frame; nowhere, for a text that is too long to be one."""
    try:
        return [without_frame(base / name)[0] for base in bases for name in {value, value.replace("\\", "/")}]
    except OSError:
        return []


def _names_scan(value: str, places: list[Path]) -> bool:
    if value.lower().endswith(SUFFIXES) or any(os.path.isfile(place) and suffix_of(place) in KINDS for place in places):
        return True
    # a folder, or one series of it; a word without '/' or '#' may be a folder's name by chance
    return bool(re.search("[/#]", value)) and any(os.path.isdir(without_key(place)[0]) for place in places)


def _is_strange(place: Path) -> bool:
    """Whether a path is a file of a kind that is neither read nor a note."""
    return os.path.isfile(place) and not place.name.lower().endswith(NOTES)


def _looks_like_scan(value: str) -> bool:
    """Whether a value that names no file was meant to name one: a known suffix inside it, or folders and a suffix."""
    text = value.lower()
    in_folder = re.search(r"[/\\].*\.\w+$", text) and "://" not in text and not text.endswith(NOTES)
    return bool(in_folder) or any(re.search(rf"{re.escape(suffix)}\b", text) for suffix in SUFFIXES)


def _exists(place: Path) -> bool:
    try:
        return is_there(place)
    except OSError:  # a name too long for a file
        return False


def _refuse_doubles(path: Path, rows: list[Row]) -> None:
    cases: set[str] = set()
    for row in rows:
        case = _name(row)
        if case in cases:
            raise BadInput(f"{path}: expected each case in one row, found {case} twice. Remove one of the rows.")
        cases.add(case)


def _from_paths(
    path: Path, entries: list[tuple[Row, str, str]], root: Path, layout: Preset, allow_outside: bool
) -> list[CaseFiles]:
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    owners: dict[str, tuple[str, str | None]] = {}  # patient and split
    uses: dict[tuple[Path, str], str] = {}  # of a file and what part of it; one mask may be that of several cases
    for row, modality, value in entries:
        case = _name(row)
        value = value if _exists(root / value) else value.replace("\\", "/")  # as Windows writes paths
        place = next((base / value for base in (path.parent, root) if _exists(base / value)), None)
        if place is None or (place.is_dir() and not is_dicom_folder(place)):
            raise BadInput(
                f"{path}: expected the file {value} for {modality} of case {case}, found none. Fix the path."
            )
        scan = without_key(without_frame(place)[0])[0]
        if not allow_outside and not any(inside(base, scan) for base in (path.parent, root)):
            raise BadInput(
                f"{path}: expected paths below {root} or the manifest, found {value} for {modality} of case {case}, "
                "which leads out of them. Pass --allow-outside if it is meant."
            )
        name = modality_name(modality, layout.aliases)
        add_file(found[case], name, place, case)
        use, part = f"{name} of case {case}", str(place).removeprefix(str(scan))
        if name not in MASKS and uses.setdefault((scan.resolve(), part), use) != use:
            raise BadInput(
                f"{path}: expected each scan once, found it as {uses[scan.resolve(), part]} and as {use}: {value}. "
                "Fix one of the paths."
            )
        owner = (row.get("patient") or patient_of(case, layout.patient), _split(row, path))
        if owners.setdefault(case, owner) != owner:
            raise BadInput(
                f"{path}: expected one patient and split of case {case}, found {owners[case]} and {owner}. Fix them."
            )
    return [case_of(case, *owners[case], files) for case, files in found.items()]


def _from_notes(path: Path, rows: list[Row], on_disk: list[CaseFiles]) -> list[CaseFiles]:
    key = "case" if rows[0].get("case") else "patient"
    by_name: dict[str, list[CaseFiles]] = defaultdict(list)
    for one in on_disk:
        by_name[one.case if key == "case" else one.patient].append(one)
    cases = []
    for row in rows:
        if row[key] not in by_name:
            known = ", ".join(sorted(by_name)[:3])
            raise BadInput(
                f"{path}: expected files of the {key} {row[key]}, found only others ({known}, …). Fix the manifest."
            )
        for one in by_name[row[key]]:
            patient, split = row.get("patient") or one.patient, _split(row, path) or one.split
            cases.append(dataclasses.replace(one, patient=patient, split=split))
    return cases
