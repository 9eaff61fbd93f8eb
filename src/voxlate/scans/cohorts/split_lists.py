"""Lists of splits and patients that lie beside scans: of nnU-Net, MONAI, BIDS, KonfAI, text files and tables of any name.

Each becomes patients, splits and folds of cases. What lies beside scans and is not read is named.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.scans.cohorts.csv_table import read_lines, read_table
from voxlate.scans.cohorts.manifest import OWN_NAMES, Manifest, name_columns
from voxlate.scans.cohorts.owners import PATIENTS
from voxlate.scans.cohorts.patterns import split_named
from voxlate.scans.cohorts.presets import NOTES
from voxlate.scans.cohorts.rows import quote_some
from voxlate.scans.cohorts.split import FOLDS
from voxlate.scans.formats.io import file_and_part, scan_endings, without_ending

# Files that state nothing of splits or patients by their usual names.
SILENT = re.compile(
    r"readme.*|licen[cs]e.*|changes.*|changelog.*|citation.*|dataset_description.*|dataset\.json|\._.*|provenance\.json|phantom\.json|messages\.jsonl|checksum.*|md5.*|.*\.(?:md|rst|pdf|html|log)",
    re.IGNORECASE,
)
SPLITTING = re.compile(r"split|fold|partition|train|valid|test|subset|data_?list", re.IGNORECASE)
LARGEST_BYTES = 2**24  # of a list; a larger file is none


@dataclass
class Listed:
    """What one file states of cases: splits, folds and patients by the names that it uses."""

    splits: list[tuple[str, str]] = field(default_factory=list)  # of an entry
    folds: dict[str, int] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)


def take_lists(
    root: Path, files: Iterable[Path], cases: Sequence[CaseFiles], found: CohortFiles
) -> list[CaseFiles]:
    """The cases with what lists beside them state; those of no list of splits are left out, and noted.

    files: all files below root that are no scans. Raises BadInput where lists, or a list and folders, contradict each other.
    """
    splits = dict[str, tuple[str, Path]]()
    folds = dict[str, int]()
    patients = dict[str, str]()
    unread = []
    used = []
    keys = _keys(root, cases)
    for path in sorted(files):
        listed = _read(path, found)
        named = [(keys[key], word) for entry, word in listed.splits if (key := _key(entry, keys))]
        owners = {key: owner for key, owner in listed.patients.items() if key in keys}
        if not named and not owners:
            unread.append(path)
            continue
        used.append(path)
        for names, word in named:
            for name in names:
                _place(splits, name, word, path)
        for entry, fold in listed.folds.items():
            folds |= dict.fromkeys(keys.get(_key(entry, keys), ()), fold)
        for key, owner in owners.items():
            patients |= dict.fromkeys(keys[key], owner)
        missing = sorted({entry for entry, _ in listed.splits if not _key(entry, keys)})
        if missing:
            found.unclaimed.append(
                f"{len(missing)} entries of {path.name} that have no scans ({quote_some(missing)})"
            )
        what = "splits" if named else "patients"
        found.guessed.append(
            f"{what} are those of {path.relative_to(root.parent)}"
            if path.is_relative_to(root.parent)
            else f"{what} are those of {path}"
        )
    _name_unread(root, unread, cases, found)
    splits_of = {case.case: splits.get(case.case, (case.split, root))[0] for case in cases}
    if any(split != "test" and name not in folds for name, split in splits_of.items()):
        folds = {}  # of one fold alone, or of some cases
    stated = []
    lacking = []
    lists_training = any(word == "train" for word, _ in splits.values())
    for case in cases:
        split, where = splits.get(case.case, (case.split, root))
        if {case.split, split} in ({"train", "test"}, {"val", "test"}):
            raise BadInput(
                f"{where}: expected one split of each case, found {case.case} in {split}, and in a folder of {case.split}. Correct one of them, or write a manifest (voxlate manifest)."
            )
        if lists_training and split is None:
            lacking.append(case.case)
            continue
        owner = patients.get(case.case, case.patient)
        stated.append(replace(case, split=split, patient=owner, fold=folds.get(case.case)))
    if lacking:
        found.unclaimed.append(
            f"{plural(len(lacking), 'case')} that {first_of([path.name for path in used])} does not list ({first_of(lacking, 3)})"
        )
    return stated


def _place(splits: dict[str, tuple[str, Path]], name: str, word: str, path: Path) -> None:
    """Note the split of a case; validation takes precedence over training, as MONAI and nnU-Net list both."""
    before, where = splits.setdefault(name, (word, path))
    if before == word:
        return
    if "test" in (before, word) or where == path:
        raise BadInput(
            f"{path}: expected one split of each case, found {name} in {word}, and in {before} in {where.name}. Remove one of the entries."
        )
    splits[name] = ("val", path)


def _keys(root: Path, cases: Sequence[CaseFiles]) -> dict[str, list[str]]:
    """The cases that a text may name, as a case, a patient, a file, or a path below root."""
    pairs = []
    for case in cases:
        names = {case.case, case.patient}
        for path in case.paths.values():
            file = file_and_part(path)[0]
            stem = without_ending(file.name)
            below = [*file.relative_to(root).parts] if file.is_relative_to(root) else [file.name]
            names |= {stem, re.sub(r"_\d{4}$", "", stem), *below[:-1]}
            names |= {without_ending("/".join(below[start:])) for start in range(len(below))}
        pairs += [(name, case.case) for name in names if name]
    return grouped(pairs)


def _key(entry: str, keys: dict[str, list[str]]) -> str:
    """The key that an entry of a list means: a name or path, or a folder in it; "" for none."""
    path = without_ending(entry.strip().replace("\\", "/").removeprefix("./"))
    parts = PurePosixPath(path).parts
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    stem = parts[-1] if parts else ""
    others = [re.sub(r"_\d{4}$", "", stem), f"sub-{stem}", *reversed(parts[:-1])]
    return next((key for key in (*tails, *others) if key in keys), "")


def _read(path: Path, found: CohortFiles) -> Listed:
    """What a file states; nothing for a file of another kind."""
    listed = Listed()
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return listed
    ending = path.suffix.lower()
    try:
        if ending == ".json":
            with suppress(ValueError, UnicodeDecodeError):
                _read_document(json.loads(path.read_text(encoding="utf-8-sig")), listed)
        elif ending in (".csv", ".tsv"):
            _read_columns(path, listed, found)
        elif ending == ".txt" and path.name == PATIENTS:
            rows = [re.split(r"[\s,;]+", line) for line in read_lines(path).values()]
            listed.patients |= {row[0]: row[-1] for row in rows}
        elif ending == ".txt" and (split := _split_in(path.stem)):
            listed.splits += [(line, split) for line in read_lines(path).values()]
    except BadInput as error:
        if SPLITTING.search(path.name):
            raise
        found.unread.append(str(error))
    return listed


def _split_in(stem: str) -> str:
    """The split that a word in the name of a file means, such as 'train_list'; "" for none, or several."""
    words = {split for word in re.split(r"[^a-z]+", stem.lower()) if (split := split_named(word))}
    return words.pop() if len(words) == 1 else ""


def _read_document(document: Any, listed: Listed) -> None:
    """The lists in a JSON document: folds as nnU-Net has them, or lists under words of splits as MONAI has them."""
    if isinstance(document, list):
        for number, fold in enumerate(document):
            if not isinstance(fold, dict) or not {"train", "val"} <= fold.keys():
                return
            if number < FOLDS:
                listed.folds |= dict.fromkeys(map(str, fold["val"]), number)
            if number == 0:
                _read_document(fold, listed)
    elif isinstance(document, dict):
        for word, value in document.items():
            split = split_named(str(word))
            if split and isinstance(value, list):
                for item in value:
                    for entry in _entries(item):
                        listed.splits.append((entry, split))
                    fold = item.get("fold") if isinstance(item, dict) else None
                    if isinstance(fold, int):
                        listed.folds |= dict.fromkeys(_entries(item), fold)
            elif isinstance(value, str) and split_named(value):
                listed.splits.append((str(word), split_named(value)))


def _entries(item: Any) -> Iterator[str]:
    """The name or the first path in an item of a list."""
    if isinstance(item, dict):
        item = item.get("image", next(iter(item.values()), None))
    if isinstance(item, list):
        item = next(iter(item), None)
    if isinstance(item, str | int):
        yield str(item)


def _read_columns(path: Path, listed: Listed, found: CohortFiles) -> None:
    """The columns of cases or patients, splits, folds and patients in a table."""
    manifest = Manifest(path, read_table(path))
    if manifest.table.empty:
        return
    name_columns(manifest)
    table = manifest.table
    names = next((name for name in ("case", "patient", "path") if name in table), "")
    if not names:
        return
    ids = [*table[names]]
    if "split" in table:
        for line, name, word in zip(table.index, ids, table["split"]):
            if word and not split_named(word):
                raise BadInput(
                    f"{path}, line {line}: expected a split train, val or test, found '{word}'. Use these words."
                )
            listed.splits += [(name, split_named(word))] if word else []
    elif "fold" in table and all(cell in map(str, range(FOLDS)) for cell in table["fold"]):
        listed.folds |= {name: int(fold) for name, fold in zip(ids, table["fold"])}
        listed.splits += [
            (name, "train" if int(fold) else "val") for name, fold in zip(ids, table["fold"])
        ]
    if names == "case" and "patient" in table:
        listed.patients |= {name: owner for name, owner in zip(ids, table["patient"]) if owner}
    if listed.splits or listed.patients:
        found.guessed += manifest.assumed


def _name_unread(
    root: Path, files: Sequence[Path], cases: Sequence[CaseFiles], found: CohortFiles
) -> None:
    """Note the files that were not read; those that may state a split are doubts."""
    stems = {
        without_ending(file_and_part(path)[0].name)
        for case in cases
        for path in case.paths.values()
    }
    named = [
        path.name
        for path in files
        if not SILENT.fullmatch(path.name) and path.stem not in stems and path.name not in OWN_NAMES
    ]
    doubted = [name for name in named if SPLITTING.search(name)]
    others = [name for name in named if name not in doubted]
    if doubted:
        found.unread.append(
            f"{first_of(doubted)}: expected a list that names cases, patients or files of this cohort, found none. Name the cases as the table of voxlate manifest does, or move the file away"
        )
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
