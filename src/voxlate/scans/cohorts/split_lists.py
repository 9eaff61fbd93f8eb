"""Lists of splits and patients that lie beside scans: of nnU-Net, MONAI, BIDS, KonfAI, text files and tables of any name.

Each becomes patients, splits and folds of cases. What may state a split and is not read is named.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import FOLD, CaseFiles, CohortFiles
from voxlate.scans.cohorts.manifest import (
    TABLES,
    names_scan,
    read_lines,
    read_table,
    split_and_fold,
    split_in,
    split_of_key,
)
from voxlate.scans.cohorts.path_names import split_named
from voxlate.scans.formats.io import file_and_part, without_ending

PATIENTS = "patients.txt"  # in a cohort's folder: read where no other list of patients is named
SILENT = ("dataset.json", "provenance.json", PATIENTS)  # which state no split of these cases
SPLITTING = re.compile(r"split|fold|partition|train|valid|test|subset|data_?list", re.IGNORECASE)
# endings of files that may say something of the scans beside them, and of others that are no lists whatever their names
NOTES = (*TABLES, ".txt", ".json", ".xml", ".yaml", ".yml", ".toml", ".xlsx", ".pkl")
TEXTS = (".md", ".rst", ".pdf", ".html", ".log", ".py", ".ipynb", ".sh", ".bat", ".m", ".r")
NO_LISTS = (*TEXTS, ".pt", ".pth", ".ckpt", ".onnx", ".jpg", ".jpeg", ".gif", ".svg", ".zip", ".gz")
LISTED = {"listed": "yes"}  # what a manifest states of its cases
LARGEST_BYTES = 2**24  # of a list; a larger file is none
OURS = ("case", "patient", "path")  # columns that name cases

Keys = Mapping[str, Sequence[str]]  # by a text that a list may hold, the cases that it names
# a row of a list: where it is, its cells, and what the list states of all its rows
ListRow = tuple[str, Mapping[str, str], Mapping[str, str]]


@dataclass(frozen=True)
class Statement:
    """What an entry of a list states of the cases that it names: split, fold, and patient.

    where: the file, with the line; others: the other files of its row.
    """

    where: str
    entry: str
    values: Mapping[str, str]
    others: Sequence[str] = ()


# split, fold, patient of a case, each with the list, and where in it
Stated = dict[str, tuple[str, str, str]]


def may_be_list(name: str) -> bool:
    """Whether the name of a file of any ending speaks of splits."""
    is_of_kind = names_scan(name) or name.lower().endswith(NO_LISTS)
    return not is_of_kind and bool(SPLITTING.search(name) or split_in(name))


def take_lists(
    root: Path,
    files: Iterable[Path],
    cases: Sequence[CaseFiles],
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases with what lists beside the scans state; files: all that may be lists.

    Cases that lists of training leave out are left out, and noted. Raises BadInput where lists, or a list and folders,
    contradict each other.
    """
    keys = _keys(root, cases)
    stated: dict[str, Stated] = {
        case.case: {"split": (case.split, "", "its folder")} if case.split else {} for case in cases
    }
    has_folds = len({match[1] for path in files if (match := _fold_of(path))}) > 1
    used = dict[str, bool]()  # by the names of lists, whether they state who trains
    others = list[str]()
    for path in sorted(files):
        try:
            rows = [*_rows_in(path, has_folds, found)]
        except BadInput as error:
            if SPLITTING.search(path.name):
                raise
            found.unread.append(str(error))
            continue
        statements = _statements(rows, keys)
        if path == found.manifest:  # which names all cases that count
            statements = [replace(one, values={**LISTED, **one.values}) for one in statements]
        _refuse_other_pairs(statements, keys)
        wanted = [one for one in statements if one.values]
        missing = [one.entry for one in wanted if not _named(one.entry, keys)]
        if len(missing) == len(wanted):
            others += _name_unread(path, wanted, cases, found)
            continue
        used[path.name] = any({"train", "yes"} & {*one.values.values()} for one in wanted)
        doubts = found.unread if path == found.manifest else found.unclaimed
        found.note(doubts, missing, f"entries of {path.name} without scans")
        for one in wanted:
            for name in _named(one.entry, keys):
                # train.txt and val.txt are one list
                group = f"{path.parent if split_in(path.stem) else path}"
                _state(stated[name], one, group, name)
    found.note(found.guessed, others, "files beside the scans not read")
    if not used:
        return [*cases]
    found.guessed.append(f"splits, folds or patients are those of {first_of([*used])}")
    taken = []
    left_out = []
    for case in cases:
        values = {what: value for what, (value, *_) in stated[case.case].items()}
        if any(used.values()) and not values.keys() - {"patient"}:
            left_out.append(case.case)
            continue
        fold = int(values["fold"]) if "fold" in values else case.fold
        patient = values.get("patient", case.patient)
        taken.append(replace(case, split=values.get("split"), patient=patient, fold=fold))
    found.note(found.unclaimed, left_out, f"cases not listed by {first_of([*used])}")
    return taken


def _state(stated: Stated, statement: Statement, group: str, case: str) -> None:
    """Add what a list states of a case; raises BadInput where its folder or another list states something else.

    A list may say which of the cases that train by their folder, or by lists of another group, validate.
    """
    for what, value in statement.values.items():
        before, other, place = stated.get(what, (value, group, ""))
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
    """The ends of a path from each of its folders, without the ending of a scan."""
    parts = without_ending(path).split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _keys(root: Path, cases: Sequence[CaseFiles]) -> Keys:
    """The cases that a text may name: by case or patient, or by a file or folder of one case alone."""
    pairs = []
    for case in cases:
        for path in case.paths.values():
            file = file_and_part(path)[0]
            below = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
            for place in (below, below.parent):
                pairs += [(name, case.case) for name in _tails(place.as_posix())]
    by_file = grouped(dict.fromkeys(pairs))
    # t1 in the folder of every case names none of them
    named = {key: own for key, own in by_file.items() if len(own) == 1}
    owners = [(name, case.case) for case in cases for name in {case.case, case.patient} if name]
    return named | grouped(owners)


def _named(entry: str, keys: Keys) -> Sequence[str]:
    """The cases that an entry of a list means, by a name or path, or by a case or patient in it."""
    path = entry.strip().replace("\\", "/").removeprefix("./")
    tails = _tails(path)
    folders = reversed(PurePosixPath(path).parts[:-1])
    return next((keys[key] for key in (*tails, f"sub-{tails[-1]}", *folders) if key in keys), ())


def _fold_of(path: Path) -> re.Match[str] | None:
    """The fold in the name of a list, or in that of its folder."""
    return FOLD.search(path.stem) or FOLD.fullmatch(path.parent.name)


def _rows_in(path: Path, has_folds: bool, found: CohortFiles) -> Iterator[ListRow]:
    """The rows of a file; none of one of another kind."""
    split = split_in(path.stem)
    match = _fold_of(path) if has_folds else None
    fold = match[1] if match else ""
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return
    if path.suffix.lower() == ".json":
        with suppress(ValueError):
            document = json.loads(path.read_text(encoding="utf-8-sig"))
            yield from _in_document(f"{path}", document, split, fold)
    elif path.suffix.lower() in TABLES:
        table = read_table(path)
        # not numbers of rows
        named = [name for name in table.columns if not name.startswith("column ")]
        if named and all(map(split_of_key, named)):
            lists = {name: [*filter(None, table.column(name))] for name in named}
            yield from _in_document(f"{path}", lists, split, fold)
            return
        if {"split", "fold"} & {*table.columns}:
            found.guessed += table.assumed
        for where, row in table.rows.items():
            yield where, row, _place(split, fold)
    elif split and b"\0" not in path.read_bytes()[:1024]:
        for at, line in read_lines(path).items():
            paths = [word for word in re.split(r"[\s,;]+", line) if names_scan(word)]
            cells = enumerate(paths if len(paths) > 1 else [line])
            row = {f"column {place}": cell for place, cell in cells}
            yield f"{path}, line {at}", row, _place(split, fold)


def _place(split: str, fold: str) -> dict[str, str]:
    """What a list of a split, or of that of a fold, states of its cases: of folds, those that validate in it."""
    if not fold or split == "test":
        return {"split": split} if split else {}
    number = f"{int(fold)}"
    return {f"fold {number}": split} | ({"fold": number} if split == "val" else {})


def _in_document(where: str, document: Any, split: str, fold: str) -> Iterator[ListRow]:
    """The rows of a JSON document: folds by numbers, lists under words of splits as MONAI has them, or one list."""
    items = document if isinstance(document, list) else []
    if items and all(isinstance(item, dict) and {"train", "val"} <= item.keys() for item in items):
        document = {f"fold {number}": item for number, item in enumerate(items)}  # of nnU-Net
    if isinstance(document, dict):
        folds = {word: match[1] for word in document if (match := FOLD.fullmatch(word))}
        words = {word: text for word, text in document.items() if isinstance(text, str)}
        if sum(map(bool, map(split_named, words.values()))) > 1:  # {"case": "train"}
            for word, text in words.items():
                yield where, {"case": word}, _place(split_named(text), "")
        for word in document:
            number = folds.get(word, "") if len(folds) > 1 else fold
            is_fold = word in folds and isinstance(document[word], list)  # {"fold_0": ["case"]}
            below = "val" if is_fold else split_of_key(word)
            yield from _in_document(where, document[word], below, number)
    elif split:
        for item in items:
            row = item if isinstance(item, dict) else {"case": item}
            cells = {key: _first_of(value) for key, value in row.items()}
            yield where, cells, _place(split, fold)


def _first_of(value: Any) -> str:
    """A text or number of a document, or the first of a list, which is of the channels of a scan; else ""."""
    value = value[0] if isinstance(value, list) and value else value
    return f"{value}" if isinstance(value, str | int) else ""


def _statements(rows: Sequence[ListRow], keys: Keys) -> list[Statement]:
    """What rows state of the cases, patients or files in the column that names most of them."""
    names = dict.fromkeys(chain.from_iterable(row for _, row, _ in rows))
    counts = {
        name: (sum(bool(_named(row.get(name, ""), keys)) for _, row, _ in rows), name in OURS)
        for name in names
        if name not in ("split", "fold")  # a folder may be called as a split
    }
    ids = max(counts, key=counts.__getitem__, default="")
    statements = []
    for where, row, place in rows:
        split, fold = split_and_fold(where, row)
        values = {
            "split": split or "",
            "fold": "" if fold is None else f"{fold}",
            "patient": row.get("patient", "") if ids != "patient" else "",
        }
        stated = {**place} | {what: value for what, value in values.items() if value}
        if entry := row.get(ids) or row.get("case", ""):
            others = [*filter(names_scan, row.values())]
            statements.append(Statement(where, entry, stated, others))
    return statements


def _name_unread(
    path: Path, missing: Sequence[Statement], cases: Sequence[CaseFiles], found: CohortFiles
) -> list[str]:
    """Note a file of which nothing was taken as a doubt with its cause, where it states a split, or may do so; returns other files."""
    paths = [path for case in cases for path in case.paths.values()]
    stems = {without_ending(file_and_part(path)[0].name) for path in paths}
    if path.name in SILENT or path.stem in stems:
        return []
    if not (missing or may_be_list(path.name)):
        return [path.name]
    entries = [f"{one.where}: '{one.entry}'" for one in missing]
    found.ignored = f"{path}: expected a list or table (.txt, .json, .csv) of the splits or folds of cases such as {cases[0].case}, found {first_of(entries, 1) or 'none'}. Correct the file, write the splits into the table of voxlate manifest (--manifest), or move the file away."
    found.unread.append(found.ignored)
    return []
