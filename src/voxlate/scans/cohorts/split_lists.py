"""Lists of splits and patients that lie beside scans: of nnU-Net, MONAI, BIDS, KonfAI, text files and tables of any name.

Each becomes patients, splits and folds of cases. What lies beside scans and is not read is named.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.scans.cohorts.manifest import (
    OWN_NAMES,
    TABLES,
    Table,
    checked_split,
    names_scan,
    read_lines,
    read_table,
)
from voxlate.scans.cohorts.path_names import split_named
from voxlate.scans.cohorts.split import FOLDS
from voxlate.scans.formats.io import file_and_part, without_ending

PATIENTS = "patients.txt"  # in a cohort's folder: read where no other list of patients is named
# Files that state nothing of splits or patients by their usual names.
SILENT = re.compile(
    r"readme.*|licen[cs]e.*|changes.*|changelog.*|citation.*|dataset_description.*|dataset\.json|\._.*|provenance\.json|phantom\.json|messages\.jsonl|checksum.*|md5.*|.*\.(?:md|rst|pdf|html|log)",
    re.IGNORECASE,
)
SPLITTING = re.compile(r"split|fold|partition|train|valid|test|subset|data_?list", re.IGNORECASE)
LARGEST_BYTES = 2**24  # of a list; a larger file is none
CHANNEL = re.compile(r"_\d{4}$")
OURS = ("case", "patient", "path")  # columns that name cases

Keys = Mapping[str, Sequence[str]]  # by a text that a list may hold, the cases that it names
# An entry of a list, what it states (split, fold, patient), and the other files of its row.
Statement = tuple[str, dict[str, str], list[str]]


def take_lists(
    root: Path,
    files: Iterable[Path],
    cases: Sequence[CaseFiles],
    found: CohortFiles,
    notes: Table | None = None,
) -> list[CaseFiles]:
    """The cases with what a table of notes, and lists beside the scans, state.

    files: all files below root that are no scans; notes: a manifest without paths, which lists all cases that count.
    Cases that the notes, or lists of training, leave out are left out, and noted. Raises BadInput where lists, or a list
    and folders, contradict each other, and for notes on cases that are not there.
    """
    keys = _keys(root, cases)
    stated = {case.case: {"split": case.split} if case.split else {} for case in cases}
    sources = []
    if notes is not None:
        ids = "case" if "case" in notes.columns else "patient"
        sources.append((notes.path, [*_in_column(notes, ids)]))
    others = sorted({*files} - {path for path, _ in sources})
    sources += [(path, _statements(path, keys, found)) for path in others]
    listed = set[str]()
    used = []
    unread = []
    stating = []
    of_training = False
    for path, rows in sources:
        _refuse_other_pairs(path, rows, keys)
        statements = rows if path not in others else [row for row in rows if row[1]]
        missing = {entry for entry, *_ in statements if not _named(entry, keys)}
        if missing and path not in others:
            raise BadInput(
                f"{path}: expected files of {min(missing)}, found only others ({first_of(sorted(stated))}). Fix the manifest."
            )
        if len(missing) == len({entry for entry, *_ in statements}):
            unread.append(path)
            if any({"split", "fold"} & values.keys() for _, values, _ in statements):
                stating.append(path.name)
            continue
        used.append(path.name)
        found.note(found.unclaimed, missing, f"entries of {path.name} without scans")
        for entry, values, _ in statements:
            of_training |= values.get("split") == "train"
            for name in _named(entry, keys):
                listed.add(name)
                _state(stated[name], values, path, name)
    _name_unread(unread, stating, cases, found)
    if not used:
        return [*cases]
    if notes is None:
        found.guessed.append(f"splits, folds or patients are those of {first_of(used)}")
        placed = {name for name, values in stated.items() if "split" in values}
        listed = placed if of_training else {*stated}
    found.note(found.unclaimed, stated.keys() - listed, f"cases not listed by {first_of(used)}")
    taken = []
    for case in cases:
        values = stated[case.case]
        if case.case in listed:
            fold = int(values["fold"]) if "fold" in values else case.fold
            patient = values.get("patient", case.patient)
            taken.append(replace(case, split=values.get("split"), patient=patient, fold=fold))
    return taken


def _refuse_other_pairs(path: Path, statements: Sequence[Statement], keys: Keys) -> None:
    """Raise BadInput where a row of a list has files that belong to different cases by their names."""
    for entry, _, others in statements:
        for other in others:
            here, there = _named(entry, keys), _named(other, keys)
            if here and there and not {*here} & {*there}:
                raise BadInput(
                    f"{path}: expected the files of one case in each row, found {entry} of case {here[0]} and {other} of case {there[0]}. Pass --manifest with a table that has the columns case, modality and path, or rename the files."
                )


def _state(known: dict[str, str], values: Mapping[str, str], path: Path, case: str) -> None:
    """Add what a list states to what is known of a case; raises BadInput for two splits.

    A list may say which cases of training validate.
    """
    split = values.get("split", "")
    before = known.get("split", split)
    if split and (before, split) not in ((split, split), ("train", "val")):
        raise BadInput(
            f"{path}: expected one split of each case, found {case} in {split}, and before in {before}, by its folder or another list. Remove one of the entries, or move the file away."
        )
    known |= values


def _tails(path: str) -> list[str]:
    """The ends of a path from each of its folders, without the ending of a scan, and the last without the number of a channel."""
    parts = without_ending(path).split("/")
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    return [*tails, CHANNEL.sub("", parts[-1])]


def _keys(root: Path, cases: Sequence[CaseFiles]) -> Keys:
    """The cases that a text may name: by case or patient, by a file of one case alone, or by a folder (with '/')."""
    pairs = []
    for case in cases:
        for path in case.paths.values():
            file = file_and_part(path)[0]
            below = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
            folders = [f"{folder.name}/" for folder in below.parents if folder.name]
            pairs += [(name, case.case) for name in (*_tails(below.as_posix()), *folders)]
    by_file = grouped(dict.fromkeys(pairs))
    # t1 in the folder of every case names none of them
    named = {key: own for key, own in by_file.items() if key.endswith("/") or len(own) == 1}
    owners = [(name, case.case) for case in cases for name in {case.case, case.patient} if name]
    # spreadsheets write 001 as 1
    numbers = [(f"{int(name)}", case) for name, case in owners if name.isdecimal()]
    return grouped(numbers) | named | grouped(owners)


def _named(entry: str, keys: Keys) -> Sequence[str]:
    """The cases that an entry of a list means, by a name or path, a case or patient in it, or a folder."""
    path = entry.strip().replace("\\", "/").removeprefix("./")
    *tails, stem = _tails(path)
    folders = reversed(PurePosixPath(path).parts[:-1])
    others = (stem, f"sub-{tails[-1]}", *folders, f"{path}/")
    return next((keys[key] for key in (*tails, *others) if key in keys), ())


def _statements(path: Path, keys: Keys, found: CohortFiles) -> list[Statement]:
    """What a file states; nothing for a file of another kind."""
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return []
    ending = path.suffix.lower()
    words = {split_named(word) for word in re.split(r"[^a-z]+", path.stem.lower())} - {""}
    split = words.pop() if len(words) == 1 else ""
    try:
        if ending == ".json":
            with suppress(ValueError, UnicodeDecodeError):
                return [*_in_document(json.loads(path.read_text(encoding="utf-8-sig")), split)]
        elif ending in TABLES:
            return _in_table(read_table(path), split, keys, found)
        elif ending == ".txt" and split:
            return [(line, {"split": split}, []) for line in read_lines(path).values()]
    except BadInput as error:
        if SPLITTING.search(path.name):
            raise
        found.unread.append(str(error))
    return []


def _in_document(document: Any, split: str) -> Iterator[Statement]:
    """What a JSON document states: folds as nnU-Net has them, lists under words of splits as MONAI has them, or one list."""
    if isinstance(document, dict):
        for word, value in document.items():
            if isinstance(value, str):  # {"case": "train"}
                word, value = value, [word]
            yield from _in_document(value, split_named(word))
        return
    items = document if isinstance(document, list) else []
    if items and all(isinstance(item, dict) and {"train", "val"} <= item.keys() for item in items):
        for number, fold in enumerate(items[:FOLDS]):
            yield from ((str(name), {"fold": str(number)}, []) for name in fold["val"])
        yield from _in_document(items[0], "")
    elif split:
        for item in items:
            fields = item if isinstance(item, dict) else {"image": item}
            entry = fields.get("image", next(iter(fields.values()), None))
            if isinstance(entry, list):
                entry = next(iter(entry), None)
            if isinstance(entry, str | int):
                fold = fields.get("fold")
                stated = {"fold": str(fold)} if isinstance(fold, int) else {}
                files = [value for value in fields.values() if isinstance(value, str)]
                yield str(entry), {"split": split, **stated}, [*filter(names_scan, files)]


def _in_table(table: Table, split: str, keys: Keys, found: CohortFiles) -> list[Statement]:
    """What a table states of the cases, patients or files in the column that names most of them."""
    counts = {
        name: (sum(bool(_named(cell, keys)) for cell in table.column(name)), name in OURS)
        for name in table.columns
        if name not in ("split", "fold")  # a folder may be called as a split
    }
    if not counts:
        return []
    ids = max(counts, key=counts.__getitem__)
    rows = [*_in_column(table, ids, split)]
    if any(values and _named(entry, keys) for entry, values, _ in rows):
        found.guessed += table.assumed
    return rows


def _in_column(table: Table, ids: str, split: str = "") -> Iterator[Statement]:
    """What the rows of a table state of the cases that one of its columns names."""
    are_folds = "fold" in table.columns and {*table.column("fold")} <= {"", *map(str, range(FOLDS))}
    for line, row in table.rows.items():
        stated = {
            "split": checked_split(table.path, line, row.get("split", split)),
            "fold": row["fold"] if are_folds else "",
            "patient": row.get("patient") if ids != "patient" else "",
        }
        values = {column: value for column, value in stated.items() if value}
        yield row[ids], values, [*filter(names_scan, row.values())]


def _name_unread(
    files: Sequence[Path], stating: Sequence[str], cases: Sequence[CaseFiles], found: CohortFiles
) -> None:
    """Note the files that were not read; those that state a split (stating), or may do so by their names, are doubts."""
    paths = [path for case in cases for path in case.paths.values()]
    stems = {without_ending(file_and_part(path)[0].name) for path in paths}
    named = {
        path.name
        for path in files
        if path.stem not in stems
        and path.name not in (*OWN_NAMES, PATIENTS)
        and not SILENT.fullmatch(path.name)
    }
    doubted = sorted(name for name in named if name in stating or SPLITTING.search(name))
    if doubted:
        found.ignored = f"{first_of(doubted)}: expected a list of splits whose names and words can be read, found none. Write the splits into the table of voxlate manifest (--manifest), or move the file away."
        found.unread.append(found.ignored)
    found.note(found.guessed, named - {*doubted}, "files beside the scans not read")
