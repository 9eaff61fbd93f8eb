"""Lists of the splits and patients of slices, for array files whose names state neither."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from voxlate.base.errors import BadInput, plural
from voxlate.base.files import safe_name
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.scans.cohorts.patient_names import EACH, find_owners, patient_in
from voxlate.scans.cohorts.presets import Arrays
from voxlate.scans.cohorts.split import held_out_order, refuse_leak
from voxlate.scans.formats.array_files import slice_size, stack_shape
from voxlate.scans.formats.io import file_and_part, holds_slices, is_picture

PATIENTS = "patients.txt"  # in a cohort's folder: read where no other list is named
LARGEST_SHARE = 4  # at most one in so many training items is held out
STACKED = "slice={case}"


def slices_of(file: Path, part: str, common: str) -> Iterator[tuple[str | None, Path]]:
    """The paths of the slices that a pattern's part ('channel=0', 'slice={case}') names in a file, and their cases.

    The case is None where the file's name states it; common: settings of all files, which the part may override.
    """
    stated = filter(None, f"{common},{part}".split(","))
    settings = {setting.partition("=")[0]: setting for setting in stated}
    keys = sorted(settings, key=lambda key: key in ("axes", "mm", "unit"))
    text = ",".join(settings[key] for key in keys)
    if STACKED not in text:
        yield None, Path(f"{file}#{text}") if text and holds_slices(file) else file
        return
    count = stack_shape(file, text.replace(STACKED, "slice=0"))[0]
    width = max(4, len(str(count - 1)))
    for k in range(count):
        yield f"slice{k:0{width}d}", Path(f"{file}#{text.replace(STACKED, f'slice={k}')}")


def arrange(
    cases: list[CaseFiles],
    arrays: Arrays,
    root: Path,
    patients: Path | str | None,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases of array files with their splits and patients; cases in no list are noted in `found`.

    patients: see `take_patients` (default: PATIENTS in root, where it is). Where neither a list nor the names of all
    cases state the patients, they are '' (see `require_patients`), and nothing is held out for validation.
    Raises BadInput for stacks of other shapes, and for lists that do not fit.
    """
    stacks = [(path, part) for path, part in _parts(cases) if "slice=" in part]
    shapes = {path: stack_shape(path, part) for path, part in dict(stacks).items()}
    _refuse_unequal(shapes, "slices, height and width", "the two are paired by index")
    if arrays.lists:
        cases = _take_splits(cases, arrays, root, found)
    if patients is None and (root / PATIENTS).is_file():
        patients = root / PATIENTS
    if patients is not None:
        cases = take_patients(cases, patients)
    else:
        owners = {patient_in(case.case) for case in cases if not case.patient}
        if (
            None not in owners and len(owners) > 1
        ):  # of several patients, all of whom the names state
            cases = find_owners(cases, found)
    refuse_leak(cases, patients or root)
    return hold_out(cases, arrays.held_back)


def require_patients(cases: Sequence[CaseFiles], root: Path) -> None:
    """Raise BadInput where nothing states the patients of slices: slices of one patient may reach two splits."""
    if all(case.patient for case in cases):
        return
    form = "'ID PATIENT' a line, or an ID alone where it is a patient of its own"
    if _are_stacked(cases):
        form = "the patient of each slice, one a line"
    raise BadInput(
        f"{root}: expected a list of patients, because such files do not state them and the slices of one patient must not be in two splits, found none. Pass --patients FILE, or save it there as {PATIENTS}: {form}."
    )


def take_patients(cases: list[CaseFiles], patients: Path | str) -> list[CaseFiles]:
    """The cases with the patients that a text file names: of a stack one a line, in order, else 'ID PATIENT'.

    patients: the file, or EACH, by which every case is a patient of its own.
    """
    if str(patients) == EACH:
        return [replace(case, patient=case.case) for case in cases]
    path = Path(patients)
    rows = {}
    for number, line in _lines(path).items():
        rows[number] = re.split(r"[\s,;]+", line)
        for word in rows[number]:
            safe_name(word, f"{path}, line {number}")
    if _are_stacked(cases):
        if any(len(row) != 1 for row in rows.values()) or len(rows) != len(cases):
            found = "lines of several words" if len(rows) == len(cases) else f"{len(rows)} lines"
            raise BadInput(
                f"{path}: expected a patient for each of {len(cases)} slices, one a line, found {found}. Fix the list."
            )
        ordered = sorted(cases, key=lambda case: case.case)
        return [replace(case, patient=row[0]) for case, row in zip(ordered, rows.values())]
    owners = dict[str, str]()
    for number, row in rows.items():
        if len(row) > 2 or owners.setdefault(row[0], row[-1]) != row[-1]:
            raise BadInput(
                f"{path}, line {number}: expected 'ID PATIENT', each ID once, found '{' '.join(row)}'. Fix the line."
            )
    lacking = sorted({case.case for case in cases} - owners.keys())
    if lacking:
        raise BadInput(
            f"{path}: expected 'ID PATIENT' for every case, found none for {lacking[0]} ({len(lacking)} of {len(cases)} lack it). Add them; an ID alone is a patient of its own."
        )
    return [replace(case, patient=owners[case.case]) for case in cases]


def refuse_unfit(cases: Sequence[CaseFiles], root: Path) -> None:
    """Raise BadInput where a case lacks a file that others have, or its slices differ in size.

    Neither can be corrected: slices state no position by which they could be resampled to each other.
    """
    every = set(chain.from_iterable(case.paths for case in cases))
    for case in cases:
        paths = case.paths
        lacking = sorted(every - paths.keys())
        if lacking:
            raise BadInput(
                f"{root}: expected {', '.join(sorted(paths))} and {lacking[0]} of {case.case}, found no {lacking[0]}. Add the file, take the case out, or name the modalities to prepare (--modalities)."
            )
        sizes = {}
        for path in paths.values():
            file, part = file_and_part(path)
            size = slice_size(file, part) if file.suffix.lower() in (".npy", ".npz") else None
            if size is not None:
                sizes[path] = size
        _refuse_unequal(
            sizes, "height and width", "slices state no position by which to resample them"
        )


def _refuse_unequal(shapes: Mapping[Path, tuple[int, ...]], what: str, why: str) -> None:
    """Raise BadInput where an array has another shape than the first array."""
    for path, shape in shapes.items():
        first, expected = next(iter(shapes.items()))
        if shape != expected:
            raise BadInput(
                f"{path}: expected the {what} of {first.name}, as {why} ({'×'.join(map(str, expected))}), found {'×'.join(map(str, shape))}. Save them on one grid, slice by slice."
            )


def assumptions(cases: Sequence[CaseFiles]) -> list[str]:
    """Sentences where the spacing of slices in arrays, or spacing and orientation of pictures, are assumed."""
    sentences = []
    if any(holds_slices(path) and ",mm=" not in f",{part}" for path, part in _parts(cases)):
        sentences.append(
            "spacing is 1 mm: nothing states it (a preset of your own may: a base, and [arrays] part = 'mm=0.6x0.6x5')"
        )
    pictures = sum(any(map(is_picture, case.files.values())) for case in cases)
    if pictures:
        sentences.append(
            f"{plural(pictures, 'case')} {'has' if pictures == 1 else 'have'} pictures, which state neither voxel size nor orientation: pixels of 1 mm, rows that run to the back and columns to the left are assumed, so that mm mean pixels, and left and right are a guess"
        )
    return sentences


def _parts(cases: Iterable[CaseFiles]) -> Iterator[tuple[Path, str]]:
    """The file of each scan, and the part of it that is meant."""
    return map(file_and_part, chain.from_iterable(case.files.values() for case in cases))


def _are_stacked(cases: Sequence[CaseFiles]) -> bool:
    return any("slice=" in part for _, part in _parts(cases))


def _take_splits(
    cases: list[CaseFiles], arrays: Arrays, root: Path, found: CohortFiles
) -> list[CaseFiles]:
    """The cases that the lists of splits name, with their splits; the others are noted."""
    names = {case.case for case in cases}
    splits = dict[str, str]()
    for split, name in arrays.lists.items():
        beside = root.resolve().parent / name
        path = beside if beside.is_file() and not (root / name).is_file() else root / name
        ids = [*_lines(path).values()]
        for ID in ids:
            if ID in splits:
                raise BadInput(
                    f"{path}: expected each ID once in all lists, found '{ID}' again, after that of {splits[ID]}. Remove one of the lines."
                )
            splits[ID] = split
        missing = sorted(set(ids) - names)
        if missing:
            raise BadInput(
                f"{path}: expected files of every ID, found none of '{missing[0]}' ({len(missing)} of {len(ids)} have none). Add them, or take the lines out."
            )
    unlisted = sorted(names - splits.keys())
    if unlisted:
        found.unclaimed.append(f"{len(unlisted)} slices that no list names ('{unlisted[0]}', …)")
    return [replace(case, split=splits[case.case]) for case in cases if case.case in splits]


def hold_out(cases: list[CaseFiles], count: int) -> list[CaseFiles]:
    """The cases with `count` training items moved to validation, patient by patient as `held_out_order` states."""
    of_patient = Counter(case.patient for case in cases if case.split == "train")
    if not count or not of_patient:
        return cases
    if "" in of_patient:  # decided once the patients are known
        return [replace(case, split=None) if case.split == "train" else case for case in cases]
    wanted = min(count, of_patient.total() // LARGEST_SHARE)
    held_out = set[str]()
    in_order = held_out_order(case for case in cases if case.split == "train")
    for patient in in_order[:-1]:  # one patient stays in training
        if sum(of_patient[name] for name in held_out) < wanted:
            held_out.add(patient)
    return [
        replace(case, split="val") if case.split == "train" and case.patient in held_out else case
        for case in cases
    ]


def _lines(path: Path) -> dict[int, str]:
    """The lines of a text file by their numbers, without empty ones at its end."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path}: expected a text file, a line for each slice, found none. Check the path."
        ) from error
    if not lines:
        raise BadInput(f"{path}: expected a line for each slice, found an empty file. Fill it.")
    stripped = {number: line.strip() for number, line in enumerate(lines, start=1)}
    for number, line in stripped.items():
        if not line:
            raise BadInput(
                f"{path}: expected something in every line, found line {number} empty. Remove it."
            )
    return stripped
