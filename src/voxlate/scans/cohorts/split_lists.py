"""Lists of splits and patients that lie beside scans: of nnU-Net, MONAI, BIDS, KonfAI, text files and tables of any name.

Each becomes patients, splits and folds of cases. What lies beside scans and is not read is named.
"""

import json
import re
import tomllib
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
    split_in,
    split_of_key,
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
# Endings of files beside scans that are no lists, whatever their names: programs, weights, pictures, archives.
NO_LIST = re.compile(
    r"\.(?:py|ipynb|sh|bat|m|r|pth?|ckpt|onnx|png|jpe?g|gif|svg|tiff?|bmp|zip|tar|t?gz|7z)$",
    re.IGNORECASE,
)
DOCUMENTS = {".json": json.loads, ".toml": tomllib.loads}
LARGEST_BYTES = 2**24  # of a list; a larger file is none
CHANNEL = re.compile(r"_\d{4}$")
OURS = ("case", "patient", "path")  # columns that name cases

Keys = Mapping[str, Sequence[str]]  # by a text that a list may hold, the cases that it names
Stated = dict[
    str, tuple[str, str, str]
]  # split, fold, patient: each with its list, and where in it


@dataclass(frozen=True)
class Statement:
    """What an entry of a list states of the cases that it names.

    where: the file, with the line; values: split, fold, patient, and the owner, whose cases it names; others: the other
    files of its row.
    """

    where: str
    entry: str
    values: Mapping[str, str]
    others: Sequence[str] = ()


@dataclass(frozen=True)
class Place:
    """The split and the fold that a list, or a key in it, states of its cases ("", None: none); first: the first fold of all."""

    split: str
    fold: int | None
    first: int

    @property
    def values(self) -> dict[str, str]:
        """What it states of a case: only the first fold says who trains and validates without folds."""
        if self.fold is None or not self.split:
            return {"split": self.split} if self.split else {}
        values = {"fold": f"{self.fold}"} if self.split == "val" else {}
        is_stated = self.split == "test" or self.fold == self.first
        return values | ({"split": self.split} if is_stated else {})


def may_be_list(name: str) -> bool:
    """Whether the name of a file of any ending speaks of splits."""
    is_of_kind = names_scan(name) or NO_LIST.search(name)
    return not is_of_kind and bool(SPLITTING.search(name) or split_in(name))


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
    stated: dict[str, Stated] = {case.case: {} for case in cases}
    for case in cases:
        if case.split:
            stated[case.case]["split"] = case.split, "", "its folder"
    folds = [int(match[1]) for path in tables if (match := _fold_of(path))]
    lists = dict(sorted(tables.items()))
    used = dict[str, bool]()  # by the names of lists, whether they state who trains
    listed = set[str]()
    unread = dict[Path, list[Statement]]()
    for path, table in (lists if notes is None else {notes.path: notes, **lists}).items():
        is_list = path in lists
        try:
            every = _statements(path, table, keys, min(folds, default=0), found)
        except BadInput as error:
            if SPLITTING.search(path.name):
                raise
            found.unread.append(str(error))
            continue
        _refuse_other_pairs(every, keys)
        wanted = [one for one in every if one.values or not is_list]
        missing = [one for one in wanted if not _named(one.entry, keys)]
        if missing and not is_list:
            raise BadInput(
                f"{missing[0].where}: expected files of {missing[0].entry}, found only others ({first_of(sorted(stated))}). Fix the manifest."
            )
        if len(missing) == len(wanted):
            # further folds' training cases state nothing
            unread |= {} if every and _fold_of(path) else {path: missing}
            continue
        used[path.name] = any(one.values.get("split") == "train" for one in wanted)
        what = f"entries of {path.name} without scans"
        found.note(found.unclaimed, [one.entry for one in missing], what)
        # train.txt and val.txt are one list
        group = f"{path.parent if split_in(path.stem) else path}"
        for one in wanted:
            for name in _named(one.entry, keys):
                listed.add(name)
                _state(stated[name], one, group, name)
    _name_unread(unread, cases, found)
    if not used:
        return [*cases]
    if notes is None:
        found.guessed.append(f"splits, folds or patients are those of {first_of([*used])}")
        placed = {name for name, values in stated.items() if "split" in values}
        listed = placed if any(used.values()) else {*stated}
    found.note(found.unclaimed, stated.keys() - listed, f"cases not listed by {first_of([*used])}")
    taken = []
    for case in cases:
        values = {what: value for what, (value, *_) in stated[case.case].items()}
        if case.case in listed:
            fold = int(values["fold"]) if "fold" in values else case.fold
            patient = values.get("patient") or case.patient or values.get("owner", "")
            taken.append(replace(case, split=values.get("split"), patient=patient, fold=fold))
    return taken


def _state(stated: Stated, statement: Statement, group: str, case: str) -> None:
    """Add what a list states of a case; raises BadInput where its folder or another list states something else.

    A list may say which of the cases that train by their folder, or by lists of another group, validate.
    """
    for what, value in statement.values.items():
        before, other, place = stated.get(what, (value, group, ""))
        if what == "owner" and before != value:  # then nobody knows
            value = before = ""
        if before != value and (group == other or (before, value) != ("train", "val")):
            raise BadInput(
                f"{statement.where}: expected one {what} of each case, found {case} in {value}, and in {before} by {place}. Remove one of the entries, or move the file away."
            )
        stated[what] = value, group, statement.where


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


def _fold_of(path: Path) -> re.Match[str] | None:
    """The fold in the name of a list, or in that of its folder."""
    return FOLD.search(path.stem) or FOLD.fullmatch(path.parent.name)


def _statements(
    path: Path, table: Table | None, keys: Keys, first: int, found: CohortFiles
) -> list[Statement]:
    """What a file states; nothing for a file of another kind; first: the first fold of all lists."""
    split = split_in(path.stem)
    number = _fold_of(path)
    place = Place(split, int(number[1]) if number else None, first)
    ending = path.suffix.lower()
    if table is None and (not path.is_file() or path.stat().st_size > LARGEST_BYTES):
        return []
    if ending in DOCUMENTS:
        with suppress(ValueError):
            document = DOCUMENTS[ending](path.read_text(encoding="utf-8-sig"))
            return [*_in_document(f"{path}", document, place, keys)]
        return []
    if table is None and ending in TABLES:
        table = read_table(path)
    if table is None:
        if not split or b"\0" in path.read_bytes()[:1024]:
            return []
        rows = []
        for at, line in read_lines(path).items():
            paths = [word for word in re.split(r"[\s,;]+", line) if names_scan(word)]
            cells = enumerate(paths if len(paths) > 1 else [line])
            rows.append((f"{path}, line {at}", {f"column {k}": cell for k, cell in cells}))
        return [*_in_rows(rows, place, keys)]
    named = [name for name in table.columns if not name.startswith("column ")]  # numbers of rows
    if named and all(map(split_of_key, named)):
        lists = {name: [*filter(None, table.column(name))] for name in named}
        return [*_in_document(f"{path}", lists, place, keys)]
    statements = [*_in_rows([*table.rows.items()], place, keys)]
    if any(one.values and _named(one.entry, keys) for one in statements):
        found.guessed += [one for one in table.assumed if one not in found.guessed]
    return statements


def _in_document(where: str, document: Any, place: Place, keys: Keys) -> Iterator[Statement]:
    """What a JSON document states: folds by numbers, lists under words of splits as MONAI has them, or one list."""
    items = document if isinstance(document, list) else []
    if items and all(isinstance(item, dict) and {"train", "val"} <= item.keys() for item in items):
        document = {f"fold {number}": item for number, item in enumerate(items)}  # of nnU-Net
    if isinstance(document, dict):
        numbers = {word: int(match[1]) for word in document if (match := FOLD.fullmatch(word))}
        first = min(numbers.values(), default=place.first)
        of_cases = sum(isinstance(one, str) and bool(split_named(one)) for one in document.values())
        for word, value in document.items():
            if isinstance(value, str) and of_cases < 2 <= len(document):
                continue  # {"mode": "train", "lr": 0.1}
            if isinstance(value, str):  # {"case": "train"}
                word, value = value, [word]
            below = Place(split_of_key(word), numbers.get(word, place.fold), first)
            if word in numbers and isinstance(value, list):  # {"fold_0": ["case"]}
                below = replace(below, split="val", first=below.first - 1)
            yield from _in_document(where, value, below, keys)
    elif place.split:
        rows = [item if isinstance(item, dict) else {"case": item} for item in items]
        cells = [{key: _first_of(value) for key, value in row.items()} for row in rows]
        yield from _in_rows([(where, row) for row in cells], place, keys)


def _first_of(value: Any) -> str:
    """A text or number of a document, or the first of a list, which is of the channels of a scan; else ""."""
    value = value[0] if isinstance(value, list) and value else value
    return f"{value}" if isinstance(value, str | int) else ""


def _in_rows(
    rows: Sequence[tuple[str, Mapping[str, str]]], place: Place, keys: Keys
) -> Iterator[Statement]:
    """What rows, each with where it is, state of the cases, patients or files in the column that names most of them."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    counts = {
        name: (sum(bool(_named(row.get(name, ""), keys)) for _, row in rows), name in OURS)
        for name in names
        if name not in ("split", "fold")  # a folder may be called as a split
    }
    ids = max(counts, key=counts.__getitem__, default="")
    for where, row in rows:
        entry = row.get(ids, "")
        number = row.get("fold", "")
        values = {
            "split": checked_split(where, row.get("split", "")),
            "fold": number if number.isdecimal() else "",
            "patient": row.get("patient") if ids != "patient" else "",
            "owner": _owner(entry, keys) if ids == "patient" else "",
        }
        stated = place.values | {what: value for what, value in values.items() if value}
        if entry:
            yield Statement(where, entry, stated, [*filter(names_scan, row.values())])


def _owner(patient: str, keys: Keys) -> str:
    """The patient by whose name or folder a table names cases; "" where it is written otherwise, as 001 is 1 in spreadsheets."""
    cases = keys.get(patient, keys.get(f"{patient}/", ()))
    is_short = patient.isdecimal() and any(case.isdecimal() and case != patient for case in cases)
    return patient if cases and not is_short else ""


def _name_unread(
    files: Mapping[Path, Sequence[Statement]], cases: Sequence[CaseFiles], found: CohortFiles
) -> None:
    """Note the files of which nothing was taken; those that state a split, or may do so by their names, are doubts with their cause."""
    paths = [path for case in cases for path in case.paths.values()]
    stems = {without_ending(file_and_part(path)[0].name) for path in paths}
    others = []
    for path, statements in files.items():
        is_silent = SILENT.fullmatch(path.name) or path.name in (*OWN_NAMES, PATIENTS)
        if is_silent or path.stem in stems:
            continue
        states = any({"split", "fold"} & {*one.values} for one in statements)
        if not (states or may_be_list(path.name)):
            others.append(path.name)
            continue
        cause = f"{path}: expected a list or table (.txt, .json, .csv) of the splits or folds of cases, found none"
        if statements:
            entry = statements[0]
            cause = f"{entry.where}: expected cases such as {cases[0].case}, found '{entry.entry}', which is none"
        found.ignored = f"{cause}. Correct the file, write the splits into the table of voxlate manifest (--manifest), or move the file away."
        found.unread.append(found.ignored)
    found.note(found.guessed, others, "files beside the scans not read")
