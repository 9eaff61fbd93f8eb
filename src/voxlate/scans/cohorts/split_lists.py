"""Lists of splits and patients that lie beside scans: of nnU-Net, MONAI, BIDS, KonfAI, text files and tables of any name.

Each becomes patients, splits and folds of cases. What lies beside scans and is not read is named.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import FOLD, CaseFiles, CohortFiles
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


@dataclass(frozen=True)
class Statement:
    """What an entry of a list states of the cases that it names.

    where: the file, with the line; values: split, fold, patient; others: the other files of its row.
    """

    where: str
    entry: str
    values: Mapping[str, str]
    others: Sequence[str] = ()


class _Stated:
    """What folders and lists state of each case; a statement that contradicts an earlier one is refused."""

    def __init__(self, cases: Iterable[CaseFiles]) -> None:
        folder = "", "its folder"  # of no list
        self.known = {
            case.case: {"split": (case.split, *folder)} if case.split else {} for case in cases
        }
        self.listed = set[str]()

    def add(self, case: str, statement: Statement, group: str) -> None:
        """Add a statement of a group of lists; a list may say which cases of training by its folder, or by other lists, validate."""
        self.listed.add(case)
        for what, value in statement.values.items():
            before, other, place = self.known[case].get(what, (value, group, ""))
            may_change = group != other and (before, value) == ("train", "val")
            if before != value and not may_change:
                raise BadInput(
                    f"{statement.where}: expected one {what} of each case, found {case} in {value}, and in {before} by {place}. Remove one of the entries, or move the file away."
                )
            self.known[case][what] = value, group, statement.where

    def values(self, case: str) -> dict[str, str]:
        """Split, fold and patient of a case, where they are stated."""
        return {what: value for what, (value, *_) in self.known[case].items()}


def take_lists(
    root: Path,
    tables: Mapping[Path, Table | None],
    cases: Sequence[CaseFiles],
    found: CohortFiles,
    notes: Table | None = None,
) -> list[CaseFiles]:
    """The cases with what a table of notes, and lists beside the scans, state.

    tables: all files below root that may be lists, with the table of those that were read; notes: a manifest without
    paths, which lists all cases that count. Cases that the notes, or lists of training, leave out are left out, and noted.
    Raises BadInput where lists, or a list and folders, contradict each other, and for notes on cases that are not there.
    """
    keys = _keys(root, cases)
    stated = _Stated(cases)
    folds = [int(match[1]) for path in tables if (match := _fold_of(path))]
    used = []
    unread = dict[Path, str]()  # with the cause
    stating = []
    of_training = False
    if notes is not None:
        ids = "case" if "case" in notes.columns else "patient"
        for statement in _in_column(notes, ids):
            if not _named(statement.entry, keys):
                raise BadInput(
                    f"{statement.where}: expected files of {statement.entry}, found only others ({first_of(sorted(stated.known))}). Fix the manifest."
                )
            for name in _named(statement.entry, keys):
                stated.add(name, statement, f"{notes.path}")
        used.append(notes.path.name)
    for path in sorted(tables.keys() - {notes and notes.path}):
        try:
            every = _statements(path, tables[path], keys, min(folds, default=0), found)
        except BadInput as error:
            if SPLITTING.search(path.name):
                raise
            found.unread.append(str(error))
            unread[path] = ""
            continue
        _refuse_other_pairs(every, keys)
        statements = [statement for statement in every if statement.values]
        missing = [one for one in statements if not _named(one.entry, keys)]
        if every and not statements and _fold_of(path) and _split_in(path.stem):
            continue  # training cases of a further fold
        if len(missing) == len(statements):
            unread[path] = _cause(path, missing, [*stated.known])
            stating += [path] if any({"split", "fold"} & {*one.values} for one in missing) else []
            continue
        used.append(path.name)
        what = f"entries of {path.name} without scans"
        found.note(found.unclaimed, [statement.entry for statement in missing], what)
        # train.txt and val.txt are one list
        group = path.parent if _split_in(path.stem) else path
        for statement in statements:
            of_training |= statement.values.get("split") == "train"
            for name in _named(statement.entry, keys):
                stated.add(name, statement, f"{group}")
    _name_unread(unread, stating, cases, found)
    if not used:
        return [*cases]
    listed = stated.listed
    if notes is None:
        found.guessed.append(
            f"splits, folds or patients are those of {first_of([*dict.fromkeys(used)])}"
        )
        placed = {name for name in stated.known if "split" in stated.values(name)}
        listed = placed if of_training else {*stated.known}
    left_out = stated.known.keys() - listed
    found.note(found.unclaimed, left_out, f"cases not listed by {first_of([*dict.fromkeys(used)])}")
    taken = []
    for case in cases:
        values = stated.values(case.case)
        if case.case in listed:
            fold = int(values["fold"]) if "fold" in values else case.fold
            patient = values.get("patient", case.patient)
            taken.append(replace(case, split=values.get("split"), patient=patient, fold=fold))
    return taken


def _refuse_other_pairs(statements: Iterable[Statement], keys: Keys) -> None:
    """Raise BadInput where a row of a list has files that belong to different cases by their names."""
    for statement in statements:
        here = _named(statement.entry, keys)
        for other in statement.others:
            there = _named(other, keys)
            if here and there and not {*here} & {*there}:
                raise BadInput(
                    f"{statement.where}: expected the files of one case in each row, found {statement.entry} of case {here[0]} and {other} of case {there[0]}. Pass --manifest with a table that has the columns case, modality and path, or rename the files."
                )


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


def _split_in(stem: str) -> str:
    """The split that the words of a file's name state; "" for none, or several."""
    words = {split_named(word) for word in re.split(r"[^a-z]+", stem.lower())} - {""}
    return words.pop() if len(words) == 1 else ""


def _fold_of(path: Path) -> re.Match[str] | None:
    """The fold in the name of a list, or in that of its folder."""
    return FOLD.search(path.stem) or FOLD.fullmatch(path.parent.name)


def _in_fold(split: str, fold: int | None, first: int) -> dict[str, str]:
    """What a list of a split states, of a fold where it has one: only the first says who trains and validates without folds."""
    if fold is None:
        return {"split": split}
    values = {"fold": f"{fold}"} if split == "val" else {}
    return values | ({"split": split} if split == "test" or fold == first else {})


def _statements(
    path: Path, table: Table | None, keys: Keys, first: int, found: CohortFiles
) -> list[Statement]:
    """What a file states; nothing for a file of another kind; first: the first fold of all lists."""
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return []
    ending = path.suffix.lower()
    split = _split_in(path.stem)
    number = _fold_of(path)
    fold = int(number[1]) if number else None
    if ending == ".json":
        with suppress(ValueError, UnicodeDecodeError):
            document = json.loads(path.read_text(encoding="utf-8-sig"))
            return [*_in_document(f"{path}", document, split, fold, first)]
    elif ending in TABLES:
        return _in_table(table or read_table(path), split, fold, first, keys, found)
    elif ending == ".txt" and split:
        values = _in_fold(split, fold, first)
        lines = read_lines(path).items()
        return [Statement(f"{path}, line {line}", entry, values) for line, entry in lines]
    return []


def _in_document(
    where: str, document: Any, split: str, fold: int | None, first: int
) -> Iterator[Statement]:
    """What a JSON document states: folds by numbers, lists under words of splits as MONAI has them, or one list."""
    items = document if isinstance(document, list) else []
    if items and all(isinstance(item, dict) and {"train", "val"} <= item.keys() for item in items):
        document = {f"fold {number}": item for number, item in enumerate(items)}  # of nnU-Net
    if isinstance(document, dict):
        numbers = {word: int(match[1]) for word in document if (match := FOLD.fullmatch(word))}
        first = min(numbers.values(), default=first)
        for word, value in document.items():
            if isinstance(value, str):  # {"case": "train"}
                word, value = value, [word]
            yield from _in_document(where, value, split_named(word), numbers.get(word, fold), first)
    elif split:
        for item in items:
            fields = item if isinstance(item, dict) else {"image": item}
            entry = fields.get("image", next(iter(fields.values()), None))
            if isinstance(entry, list):
                entry = next(iter(entry), None)
            if isinstance(entry, str | int):
                values = _in_fold(split, fold, first)
                if isinstance(fields.get("fold"), int):
                    values["fold"] = f"{fields['fold']}"
                files = [value for value in fields.values() if isinstance(value, str)]
                yield Statement(where, f"{entry}", values, [*filter(names_scan, files)])


def _in_table(
    table: Table, split: str, fold: int | None, first: int, keys: Keys, found: CohortFiles
) -> list[Statement]:
    """What a table states of the cases, patients or files in the column that names most of them, or under the words of splits."""
    columns = {name: table.column(name) for name in table.columns}
    if columns and all(map(split_named, columns)):
        lists = {name: [*filter(None, cells)] for name, cells in columns.items()}
        return [*_in_document(f"{table.path}", lists, split, fold, first)]
    counts = {
        name: (sum(bool(_named(cell, keys)) for cell in cells), name in OURS)
        for name, cells in columns.items()
        if name not in ("split", "fold")  # a folder may be called as a split
    }
    if not counts:
        return []
    values = _in_fold(split, fold, first) if split else {}
    rows = [*_in_column(table, max(counts, key=counts.__getitem__), values)]
    if any(row.values and _named(row.entry, keys) for row in rows):
        found.guessed += table.assumed
    return rows


def _in_column(
    table: Table, ids: str, of_all: Mapping[str, str] | None = None
) -> Iterator[Statement]:
    """What the rows of a table state of the cases that one of its columns names; of_all: what its name states."""
    for line, row in table.rows.items():
        fold = row.get("fold", "")
        stated = {
            "split": checked_split(table.path, line, row.get("split", "")),
            "fold": fold if fold.isdecimal() else "",
            "patient": row.get("patient") if ids != "patient" else "",
        }
        values = {column: value for column, value in stated.items() if value}
        others = [*filter(names_scan, row.values())]
        where = f"{table.path}, line {line}"
        yield Statement(where, row[ids], {**(of_all or {}), **values}, others)


def _cause(path: Path, missing: Sequence[Statement], cases: Sequence[str]) -> str:
    """Why nothing is taken from a file."""
    if missing:
        first = missing[0]
        return f"{first.where}: expected cases such as {cases[0]}, found '{first.entry}', which is none"
    if path.suffix.lower() not in (*TABLES, ".json", ".txt"):
        return f"{path}: expected a list as text, JSON or a table (CSV), found {path.suffix}"
    return f"{path}: expected splits (train, val, test) or numbers of folds beside the names of cases, found none"


def _name_unread(
    files: Mapping[Path, str],
    stating: Sequence[Path],
    cases: Sequence[CaseFiles],
    found: CohortFiles,
) -> None:
    """Note the files that were not read, with the cause; those that state a split (stating), or may do so by their names, are doubts."""
    paths = [path for case in cases for path in case.paths.values()]
    stems = {without_ending(file_and_part(path)[0].name) for path in paths}
    named = [
        path
        for path in files
        if path.stem not in stems
        and path.name not in (*OWN_NAMES, PATIENTS)
        and not SILENT.fullmatch(path.name)
    ]
    doubted = [path for path in named if path in stating or SPLITTING.search(path.name)]
    if doubted:
        found.ignored = f"{files[doubted[0]]}. Correct the file, write the splits into the table of voxlate manifest (--manifest), or move the file away."
        found.unread.append(found.ignored)
    others = [path.name for path in named if path not in doubted]
    found.note(found.guessed, others, "files beside the scans not read")
