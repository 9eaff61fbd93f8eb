"""Lists of splits and patients that lie beside scans: of nnU-Net, MONAI, BIDS, text files and tables of any name.

Each becomes patients, splits and folds of cases. What may state a split and is not read is named.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
)
from voxlate.scans.cohorts.path_names import split_in, split_named, splits_in
from voxlate.scans.formats.io import file_and_part, without_ending

PATIENTS = "patients.txt"  # in a cohort's folder: read where no other list of patients is named
SILENT = ("dataset.json", "provenance.json", PATIENTS)  # which state no split of these cases
SPLITTING = re.compile(r"split|fold|partition|train|valid|test|subset|data_?list", re.IGNORECASE)
# of columns and keys that name the cases of one split, and a cell that is a split and no more
FLAG = re.compile(
    r"\b(?:is|in)[-_ ]?(?:train|val|test)|\b(?:train|val|test)[a-z]*[-_ ]?(?:set|split)"
    r"|(?:^|[,;\t])(?:train|val|test)(?=[,;\t]|$)",
    re.IGNORECASE | re.MULTILINE,
)
# endings of files that may say something of the scans beside them, and of others that are no lists whatever their names
NOTES = (*TABLES, ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".xlsx", ".pkl")
TEXTS = (".md", ".rst", ".pdf", ".html", ".log", ".py", ".ipynb", ".sh", ".bat", ".m", ".r")
NO_LISTS = (*TEXTS, ".pt", ".pth", ".ckpt", ".onnx", ".jpg", ".jpeg", ".gif", ".svg", ".zip", ".gz")
SEPARATORS = re.compile(r"[\s,;:=\"'(){}\[\]]+")  # of the words of a file
# what a manifest states of its cases, and nnU-Net of those that train in a fold
LISTED = {"listed": "yes"}
LARGEST_BYTES = 2**24  # of a list; a larger file is none
OURS = ("case", "patient", "path")  # columns that name cases

Keys = Mapping[str, Sequence[str]]  # by a text that a list may hold, the cases that it names
# a row of a list: where it is, its cells, and what the list states of all its rows
ListRow = tuple[str, Mapping[str, str], Mapping[str, str]]


@dataclass(frozen=True)
class Statement:
    """What an entry of a list, at a place in a file, states of the cases that it names: split, fold, and patient."""

    where: str
    entry: str
    cases: Sequence[str]
    values: Mapping[str, str]


# split, fold, patient of a case, each with the list, and where in it
Stated = dict[str, tuple[str, str, str]]


def may_be_list(name: str) -> bool:
    """Whether the name of a file of any ending speaks of splits."""
    is_of_kind = names_scan(name) or name.lower().endswith(NO_LISTS)
    return not is_of_kind and bool(SPLITTING.search(name) or splits_in(name))


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
    used = dict[str, bool]()  # by the names of lists, whether they state who trains
    for path in sorted(files):
        lines = _lines_of(path)
        try:
            rows = [*_rows_in(path, lines, found)]
        except BadInput as error:
            if SPLITTING.search(path.name):
                raise
            found.unread.append(str(error))
            continue
        statements = _statements(rows, keys)
        if path == found.manifest:  # which names all cases that count
            statements = [replace(one, values={**LISTED, **one.values}) for one in statements]
        wanted = [one for one in statements if one.values]
        missing = [one for one in wanted if not one.cases]
        if len(missing) == len(wanted):
            _name_unread(path, lines, missing, keys, cases, found)
            continue
        used[path.name] = any({"train", "yes"} & {*one.values.values()} for one in wanted)
        doubts = found.unread if path == found.manifest else found.unclaimed
        entries = [one.entry for one in missing]
        found.note(doubts, entries, f"entries of {path.name} without scans")
        # train.txt and val.txt are one list
        group = f"{path.parent if split_in(path.stem) else path}"
        for one in wanted:
            for name in one.cases:
                _state(stated[name], one, group, name)
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
    folders = reversed(PurePosixPath(path).parts[:-1])
    return next((keys[key] for key in (*_tails(path), *folders) if key in keys), ())


def _lines_of(path: Path) -> Mapping[int, str]:
    """The lines of a text by their numbers; none of other files."""
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return {}
    return {} if b"\0" in path.read_bytes()[:1024] else read_lines(path)


def _rows_in(path: Path, lines: Mapping[int, str], found: CohortFiles) -> Iterator[ListRow]:
    """The rows of a file with these lines; none of one of another kind, such as a list of one fold."""
    split = split_in(path.stem)
    place = {"split": split} if split else {}
    if FOLD.search(path.stem) or FOLD.fullmatch(path.parent.name):
        return
    if path.suffix.lower() == ".json":
        with suppress(ValueError):
            for item, values in _items_of(json.loads("\n".join(lines.values())), place):
                row = item if isinstance(item, dict) else {"case": item}
                yield f"{path}", {key: _first_of(value) for key, value in row.items()}, values
    elif path.suffix.lower() in TABLES:
        table = read_table(path)
        if {"split", "fold"} & {*table.columns}:
            found.guessed += table.assumed
        for where, row in table.rows.items():
            yield where, row, place
    elif split:
        for number, line in lines.items():
            # of pairs of files, either may have the name of the case
            row = dict(zip(("case", "path"), re.split(r"[\s,;]+", line.strip())))
            yield f"{path}, line {number}", row, place


def _items_of(document: Any, place: Mapping[str, str]) -> Iterator[tuple[Any, Mapping[str, str]]]:
    """The items of a JSON document with what it states of each: lists under words of splits as MONAI has them, folds of nnU-Net, or one list."""
    if isinstance(document, dict):
        for key, items in document.items():
            if split := split_named(key):
                yield from _items_of(items, {"split": split})
        return
    items = document if isinstance(document, list) else []
    for number, item in enumerate(items):
        if not (isinstance(item, dict) and {"train", "val"} <= item.keys()):
            yield item, place
        elif len(items) == 1:
            yield from _items_of(item, {})
        else:
            yield from _items_of(item["train"], LISTED)
            yield from _items_of(item["val"], {"fold": f"{number}"})


def _first_of(value: Any) -> str:
    """A text or number of a document, or the first of a list, which is of the channels of a scan; else ""."""
    value = value[0] if isinstance(value, list) and value else value
    return f"{value}" if isinstance(value, str | int) else ""


def _statements(rows: Sequence[ListRow], keys: Keys) -> list[Statement]:
    """What rows state of the cases, patients or files in the column that names most of them."""
    counts = Counter(
        name
        for _, row, _ in rows
        for name, cell in row.items()
        if name not in ("split", "fold") and _named(cell, keys)  # a folder may be called as a split
    )
    ids = max(counts, key=lambda name: (counts[name], name in OURS), default="case")
    statements = []
    for where, row, place in rows:
        split, fold = split_and_fold(where, row)
        patient = row.get("patient") if ids != "patient" else ""
        own = {"split": split, "fold": fold, "patient": patient}
        values = {what: f"{value}" for what, value in own.items() if value not in (None, "")}
        named = (row[name] for name in (ids, *OURS) if row.get(name))
        if entry := next(named, ""):
            statements.append(Statement(where, entry, _named(entry, keys), {**place, **values}))
    return statements


def _name_unread(
    path: Path,
    lines: Mapping[int, str],
    missing: Sequence[Statement],
    keys: Keys,
    cases: Sequence[CaseFiles],
    found: CohortFiles,
) -> None:
    """Note a file of which nothing was taken as a doubt with its cause, where it states a split, or may do so by its name or its words."""
    paths = [path for case in cases for path in case.paths.values()]
    stems = {without_ending(file_and_part(path)[0].name) for path in paths}
    if path.name in SILENT or path.stem in stems:
        return
    text = "\n".join(lines.values())
    # columns such as test_score and training_years state no split
    has_words = path.suffix.lower() not in TABLES and len(splits_in(text)) > 1
    speaks_of_splits = has_words or FLAG.search(text)
    words = SEPARATORS.split(text) if speaks_of_splits else []
    named = {case for word in words for case in _named(word, keys)}
    if missing or may_be_list(path.name) or 2 * len(named) >= len(cases):
        entries = [f"{one.where}: '{one.entry}'" for one in missing]
        found.ignored = f"{path}: expected a list or table (.txt, .json, .csv) of the splits or folds of cases such as {cases[0].case}, found {first_of(entries, 1) or 'none'}. Correct the file, write the splits into the table of voxlate manifest (--manifest), or move the file away."
        found.unread.append(found.ignored)
