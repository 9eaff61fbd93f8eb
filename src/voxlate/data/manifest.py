"""Manifests: tables of a cohort's cases with their patients and splits."""

import csv
import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from voxlate.data.presets import SUFFIXES, CaseFiles, Preset, add_file, case_of, modality_name, patient_of
from voxlate.errors import BadInput
from voxlate.files import inside, safe_name
from voxlate.images.arrays import ARRAYS
from voxlate.images.dicom import is_dicom_folder, without_key
from voxlate.images.frames import without_frame
from voxlate.images.volume import is_there

OWN_NAMES = ("cases.csv", "cohort.csv", "cases.tsv", "cohort.tsv")
SPLITS = ("train", "val", "test")
OTHER_WORDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
NOTHING = ("na", "n/a", "nan", "none", "null", "-", "")
Row = dict[str, str]


def manifest_in(root: Path) -> Path | None:
    """The manifest in a cohort's folder that is read by default, if there is one."""
    return next((root / name for name in OWN_NAMES if (root / name).is_file()), None)


def read_manifest(
    path: Path, root: Path, layout: Preset, on_disk: Callable[[], list[CaseFiles]], allow_outside: bool = False
) -> list[CaseFiles]:
    """The cases that a CSV or TSV table lists.

    Three forms: long (case, modality, path), wide (case and a column of paths for each modality), or notes only (case
    or patient, split, whatever else), where the files are found by the layout. Optional columns: patient, split.
    Paths are relative to the manifest or to root, and stay below one of them unless allow_outside.
    Raises BadInput for a patient in two splits, a case or modality
    twice, a missing file, an unknown split.
    """
    rows = _rows(path)
    columns = set(rows[0])
    wide = sorted(
        name for name in columns - {"case", "patient", "split", "modality", "path"} if _is_paths(rows, name, path, root)
    )
    if {"modality", "path"} <= columns:
        entries = [(row, row["modality"], row["path"]) for row in rows if row["path"]]
        cases = _from_paths(path, entries, root, layout, allow_outside)
    elif wide:
        _refuse_doubles(path, rows)
        entries = [(row, name, row[name]) for row in rows for name in wide if row[name]]
        cases = _from_paths(path, entries, root, layout, allow_outside)
    else:
        cases = _from_notes(path, rows, on_disk())
    if not any(case.files for case in cases):
        raise BadInput(f"{path}: expected a scan of at least one case, found none but masks or notes. Add its path.")
    refuse_leak(((case.patient, case.split) for case in cases), path)
    if len({case.split is None for case in cases}) > 1:
        bare = next(case.case for case in cases if case.split is None)
        raise BadInput(f"{path}: expected a split for every case or for none, found none for {bare}. Fill the column.")
    return cases


def refuse_leak(pairs: Iterable[tuple[str, str | None]], where: Path | str) -> None:
    """Raise BadInput where one patient is in two splits; pairs: patient and split of each case."""
    splits: dict[str, str] = {}
    for patient, split in pairs:
        if split is not None and splits.setdefault(patient, split) != split:
            raise BadInput(
                f"{where}: expected each patient in one split, found {patient} in {splits[patient]} and {split}. "
                "Put all cases of a patient into the same split."
            )


def _rows(path: Path) -> list[Row]:
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path}: expected a CSV or TSV manifest, found none that can be read. Check the path."
        ) from error
    first = text.partition("\n")[0]
    separator = max("\t;,", key=first.count)
    reader = csv.DictReader(text.splitlines(), delimiter=separator)
    rows = [
        {(key or "").strip().lower(): _cell(value) for key, value in row.items() if isinstance(value, str)}
        for row in reader
    ]
    if not rows:
        raise BadInput(f"{path}: expected a row for each case, found none: an empty cohort. Fill the manifest.")
    columns = [name.strip().lower() for name in reader.fieldnames or []]
    if "case" not in columns and "patient" not in columns:
        raise BadInput(
            f"{path}: expected a column 'case' or 'patient', found {', '.join(columns)}. Name the columns so."
        )
    for line, row in enumerate(rows, start=2):
        row.update({name: "" for name in columns if name not in row})
        name = row.get("case") or row.get("patient") or ""
        safe_name(name, f"{path}, line {line}, case")
    return rows


def _cell(text: str) -> str:
    """A cell's text; '' where it says that there is nothing."""
    return "" if text.strip().lower() in NOTHING else text.strip()


def _split(row: Row, path: Path) -> str | None:
    word = row.get("split", "").lower()
    split = OTHER_WORDS.get(word, word)
    if split and split not in SPLITS:
        raise BadInput(f"{path}: expected a split train, val or test, found '{row['split']}'. Use these words.")
    return split or None


def _is_paths(rows: list[Row], name: str, manifest: Path, root: Path) -> bool:
    values = [row[name] for row in rows if row[name]]
    places = [(value, [without_frame(base / value)[0] for base in (manifest.parent, root)]) for value in values]
    return any(
        value.lower().endswith(SUFFIXES) or (re.search("[/#]", value) and any(_holds_scan(place) for place in bases))
        for value, bases in places
    )


def _holds_scan(place: Path) -> bool:
    """Whether a path without its frame is a folder, one series of a folder, or an image file."""
    return without_key(place)[0].is_dir() or (place.is_file() and place.name.lower().endswith((*SUFFIXES, *ARRAYS)))


def _refuse_doubles(path: Path, rows: list[Row]) -> None:
    cases: set[str] = set()
    for row in rows:
        case = row.get("case") or row["patient"]
        if case in cases:
            raise BadInput(f"{path}: expected each case in one row, found {case} twice. Remove one of the rows.")
        cases.add(case)


def _from_paths(
    path: Path, entries: list[tuple[Row, str, str]], root: Path, layout: Preset, allow_outside: bool
) -> list[CaseFiles]:
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    owners: dict[str, tuple[str, str | None]] = {}  # patient and split
    for row, modality, value in entries:
        case = row.get("case") or row["patient"]
        value = value if is_there(root / value) else value.replace("\\", "/")  # as Windows writes paths
        place = next((base / value for base in (path.parent, root) if is_there(base / value)), None)
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
        add_file(found[case], modality_name(modality, layout.aliases), place, case)
        owner = (row.get("patient") or patient_of(case, layout.patient), _split(row, path))
        if owners.setdefault(case, owner) != owner:
            raise BadInput(
                f"{path}: expected one patient and split of case {case}, found {owners[case]} and {owner}. Fix them."
            )
    return [case_of(case, *owners[case], files) for case, files in found.items()]


def _from_notes(path: Path, rows: list[Row], on_disk: list[CaseFiles]) -> list[CaseFiles]:
    key = "case" if rows[0].get("case") else "patient"
    if key == "case":
        _refuse_doubles(path, rows)
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
