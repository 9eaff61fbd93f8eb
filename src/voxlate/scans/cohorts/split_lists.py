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

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, quote_some
from voxlate.scans.cohorts.csv_table import read_lines, read_table
from voxlate.scans.cohorts.manifest import OWN_NAMES, TABLES, Manifest, name_columns
from voxlate.scans.cohorts.owners import PATIENTS
from voxlate.scans.cohorts.patterns import split_named
from voxlate.scans.cohorts.presets import NOTES
from voxlate.scans.cohorts.split import FOLDS
from voxlate.scans.formats.io import file_and_part, scan_endings, without_ending

# Files that state nothing of splits or patients by their usual names.
SILENT = re.compile(
    r"readme.*|licen[cs]e.*|changes.*|changelog.*|citation.*|dataset_description.*|dataset\.json|\._.*|provenance\.json|phantom\.json|messages\.jsonl|checksum.*|md5.*|.*\.(?:md|rst|pdf|html|log)",
    re.IGNORECASE,
)
SPLITTING = re.compile(r"split|fold|partition|train|valid|test|subset|data_?list", re.IGNORECASE)
DATASET = "dataset.json"  # of nnU-Net, in which training includes validation
LARGEST_BYTES = 2**24  # of a list; a larger file is none
FOLDERS = Path("folders")  # in place of a list, where folders state folds
FOLD_FOLDER = re.compile(r"folds?[-_ ]?([0-4])", re.IGNORECASE)

Statement = tuple[str, str, str]  # an entry of a list, and the column and value that it gets


def take_lists(
    root: Path,
    files: Iterable[Path],
    cases: Sequence[CaseFiles],
    found: CohortFiles,
    notes: Manifest | None = None,
) -> list[CaseFiles]:
    """The cases with what folders of folds, a table of notes and lists beside them state.

    files: all files below root that are no scans; notes: a manifest without paths, which lists all cases that count.
    Cases that the notes, or lists of training, leave out are left out, and noted. Raises BadInput where lists, or a list
    and folders, contradict each other, and for notes on cases that are not there.
    """
    keys = _keys(root, cases)
    stated: dict[str, dict[str, str]] = {"split": {}, "fold": {}, "patient": {}, "listed": {}}
    sources: dict[Path, list[Statement]] = {FOLDERS: _folds_by_folders(root, cases)}
    if notes is not None:
        column = "case" if "case" in notes.table else "patient"
        sources[notes.path] = [*_in_columns(notes, column, "")]
    used = []
    unread = []
    for path in [*sources, *sorted({*files} - sources.keys())]:
        statements = sources[path] if path in sources else _read(path, keys, found)
        named = [(key, *rest) for entry, *rest in statements if (key := _key(entry, keys))]
        missing = sorted({entry for entry, *_ in statements if not _key(entry, keys)})
        if missing and notes is not None and path == notes.path:
            raise BadInput(
                f"{path}: expected files of {missing[0]}, found only others ({first_of(sorted(case.case for case in cases))}). Fix the manifest."
            )
        if not named:
            unread += [] if path in sources else [path]
            continue
        used.append(path.name)
        if missing:
            found.unclaimed.append(
                f"{plural(len(missing), 'entry')} of {path.name} without scans ({quote_some(missing)})"
            )
        for key, column, value in named:
            for name in keys[key]:
                before = stated[column].setdefault(name, value)
                is_detail = (before, value) == ("train", "val") and DATASET in used
                if before != value and column == "split" and not is_detail:
                    raise BadInput(
                        f"{path}: expected one split of each case, found {name} in {value}, and before in {before}, in {first_of(used)}. Remove one of the entries, or move the file away."
                    )
                stated[column][name] = value
    _name_unread(unread, cases, found)
    if not used:
        return [*cases]
    splits, folds, owners, of_notes = stated.values()
    wanted = {case.case for case in cases if splits.get(case.case, case.split) != "test"}
    if not wanted <= folds.keys():
        folds.clear()  # of one fold alone, or of some cases
    elif "val" not in splits.values():
        splits |= {name: "val" for name, fold in folds.items() if fold == "0"}
    listed = {*of_notes}
    if notes is None:
        listed = {case.case for case in cases if splits.get(case.case, case.split)}
        columns = [key for key, own in stated.items() if own and key != "listed"]
        found.guessed.append(f"{' and '.join(sorted(columns))} by {first_of(used)}")
    lacking = [case.case for case in cases if case.case not in listed]
    if notes is None and "train" not in splits.values():
        lacking = []
    elif lacking:
        found.unclaimed.append(
            f"{plural(len(lacking), 'case')} that {first_of(used)} does not list ({first_of(lacking, 3)})"
        )
    taken = []
    for case in cases:
        split = splits.get(case.case, case.split)
        # a list may say which cases of a folder of training validate
        if case.split not in (split, None) and (case.split, split) != ("train", "val"):
            raise BadInput(
                f"{root}: expected one split of each case, found {case.case} in {split} by {first_of(used)}, and in a folder of {case.split}. Correct one of them, or write a manifest (voxlate manifest)."
            )
        fold = folds.get(case.case)
        owner = owners.get(case.case, case.patient)
        one = replace(case, split=split, patient=owner, fold=None if fold is None else int(fold))
        taken += [] if case.case in lacking else [one]
    return taken


def _folds_by_folders(root: Path, cases: Sequence[CaseFiles]) -> list[Statement]:
    """The folds of cases in folders called fold0 to fold4, where there is more than one."""
    folds = []
    for case in cases:
        path = next(iter(case.files.values()))
        names = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
        matches = filter(None, map(FOLD_FOLDER.fullmatch, names))
        folds += [(case.case, "fold", match[1]) for match in matches]
    return folds if {"0"} < {fold for *_, fold in folds} else []


def _keys(root: Path, cases: Sequence[CaseFiles]) -> dict[str, list[str]]:
    """The cases that a text may name: by case or patient, by a file of one case alone, or by a folder (with '/')."""
    owners = [(name, case.case) for case in cases for name in {case.case, case.patient} if name]
    pairs = []
    for case in cases:
        names = set()
        for path in case.paths.values():
            file = file_and_part(path)[0]
            below = [*file.relative_to(root).parts] if file.is_relative_to(root) else [file.name]
            tails = {without_ending("/".join(below[start:])) for start in range(len(below))}
            names |= {*tails, re.sub(r"_\d{4}$", "", without_ending(file.name))}
            names |= {f"{folder}/" for folder in below[:-1]}
        pairs += [(name, case.case) for name in names]
    by_file = grouped(pairs)
    # t1 in the folder of every case names none of them
    named = {key: own for key, own in by_file.items() if key.endswith("/") or len(own) == 1}
    return named | grouped(owners)


def _key(entry: str, keys: Mapping[str, Sequence[str]]) -> str:
    """The key that an entry of a list means: a name or path, a case or patient in it, or a folder; "" for none."""
    path = without_ending(entry.strip().replace("\\", "/").removeprefix("./"))
    parts = PurePosixPath(path).parts
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    stem = parts[-1] if parts else ""
    others = [re.sub(r"_\d{4}$", "", stem), f"sub-{stem}", *reversed(parts[:-1]), f"{path}/"]
    return next((key for key in (*tails, *others) if key in keys), "")


def _read(path: Path, keys: Mapping[str, Sequence[str]], found: CohortFiles) -> list[Statement]:
    """What a file states; nothing for a file of another kind."""
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return []
    ending = path.suffix.lower()
    split = _split_in(path.stem)
    try:
        if ending == ".json":
            with suppress(ValueError, UnicodeDecodeError):
                return [*_in_document(json.loads(path.read_text(encoding="utf-8-sig")), split)]
        elif ending in TABLES:
            return [*_in_table(path, split, keys, found)]
        elif ending == ".txt" and split:
            return [(line, "split", split) for line in read_lines(path).values()]
    except BadInput as error:
        if SPLITTING.search(path.name):
            raise
        found.unread.append(str(error))
    return []


def _split_in(stem: str) -> str:
    """The split that a word in the name of a file means, such as 'train_list'; "" for none, or several."""
    words = {split for word in re.split(r"[^a-z]+", stem.lower()) if (split := split_named(word))}
    return words.pop() if len(words) == 1 else ""


def _in_document(document: Any, split: str) -> Iterator[Statement]:
    """What a JSON document states: folds as nnU-Net has them, lists under words of splits as MONAI has them, or one list."""
    if isinstance(document, dict):
        for word, value in document.items():
            named = split_named(str(word))
            if named and isinstance(value, list):
                yield from _in_document(value, named)
            elif isinstance(value, str) and split_named(value):
                yield str(word), "split", split_named(value)
        return
    items = document if isinstance(document, list) else []
    if items and all(isinstance(item, dict) and {"train", "val"} <= item.keys() for item in items):
        for number, fold in enumerate(items[:FOLDS]):
            yield from ((str(name), "fold", str(number)) for name in fold["val"])
        yield from _in_document(items[0], "")
    elif split:
        for item in items:
            fields = item if isinstance(item, dict) else {"image": item}
            entry = fields.get("image", next(iter(fields.values()), None))
            entry = entry[0] if isinstance(entry, list) and entry else entry
            if isinstance(entry, str | int):
                yield str(entry), "split", split
                if isinstance(fields.get("fold"), int):
                    yield str(entry), "fold", str(fields["fold"])


def _in_table(
    path: Path, split: str, keys: Mapping[str, Sequence[str]], found: CohortFiles
) -> Iterator[Statement]:
    """What a table states of the cases, patients or files in the column that names most of them."""
    manifest = Manifest(path, read_table(path))
    if manifest.table.empty:
        return
    name_columns(manifest)
    table = manifest.table
    counts = {name: sum(bool(_key(cell, keys)) for cell in table[name]) for name in table}
    ids = max(table, key=lambda name: (counts[name], name in ("case", "patient", "path")))
    if counts[ids]:
        found.guessed += manifest.assumed
        yield from (one for one in _in_columns(manifest, ids, split) if one[1] != "listed")


def _in_columns(manifest: Manifest, ids: str, split: str) -> Iterator[Statement]:
    """What the rows of a table state of the cases that one of its columns names."""
    table = manifest.table
    is_fold = "fold" in table and all(
        cell in ("", *map(str, range(FOLDS))) for cell in table["fold"]
    )
    for line, row in table.iterrows():
        yield row[ids], "listed", ""
        word = row.get("split", split)
        if word and not split_named(word):
            raise BadInput(
                f"{manifest.path}, line {line}: expected a split train, val or test, found '{word}'. Use these words."
            )
        if word:
            yield row[ids], "split", split_named(word)
        if is_fold and row["fold"]:
            yield row[ids], "fold", row["fold"]
            if not word:
                yield row[ids], "split", "val" if row["fold"] == "0" else "train"
        if ids != "patient" and row.get("patient"):
            yield row[ids], "patient", row["patient"]


def _name_unread(files: Sequence[Path], cases: Sequence[CaseFiles], found: CohortFiles) -> None:
    """Note the files that were not read; those that may state a split are doubts."""
    stems = {
        without_ending(file_and_part(path)[0].name)
        for case in cases
        for path in case.paths.values()
    }
    named = [
        path.name
        for path in files
        if not SILENT.fullmatch(path.name)
        and path.stem not in stems
        and path.name not in (*OWN_NAMES, PATIENTS)
    ]
    doubted = [name for name in named if SPLITTING.search(name)]
    others = [name for name in named if name not in doubted]
    if doubted:
        found.ignored = f"{first_of(doubted)}: expected a list of splits whose names and words can be read, found none. Write the splits into the table of voxlate manifest (--manifest), or move the file away."
        found.unread.append(found.ignored)
    if others:
        found.guessed.append(
            f"{plural(len(others), 'file')} beside the scans not read ({quote_some(sorted({*others}))})"
        )


def lists_beside(root: Path, folders: Iterable[tuple[Path, Sequence[str]]]) -> list[Path]:
    """The files below root that may be lists; and lists of splits in the folder above it, as the authors of paper 000 have them."""
    listing = (*NOTES, ".xlsx", ".pkl", ".npz.txt")
    beside = [
        folder / name
        for folder, names in folders
        for name in names
        if name.lower().endswith(listing) and not name.lower().endswith(scan_endings())
    ]
    above = [
        path
        for path in root.resolve().parent.glob("*.txt")
        if re.fullmatch(r"(?:train|val|test)_list\.txt", path.name)
    ]
    return beside + [path for path in above if not (root / path.name).is_file()]
