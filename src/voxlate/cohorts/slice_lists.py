"""Lists of the splits and patients of slices, for array files whose names state neither."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from voxlate.cohorts.leakage import refuse_leak
from voxlate.cohorts.patient_names import EACH, by_names, patient_in
from voxlate.cohorts.presets import Arrays, CaseFiles
from voxlate.cohorts.split import patient_order
from voxlate.formats.arrays import slice_size, stack_shape, states_spacing
from voxlate.formats.io import file_and_part, holds_slices, is_picture
from voxlate.system.errors import BadInput, plural
from voxlate.system.files import safe_name

PATIENTS = "patients.txt"  # in a cohort's folder: read where no other list is named
LARGEST_SHARE = 4  # at most one in so many training items is held out
STACKED = re.compile(r"slice=\{case\}")


def slices_of(file: Path, part: str, common: str) -> Iterator[tuple[str | None, Path]]:
    """The paths of the slices that a pattern's part ('channel=0', 'slice={case}') names in a file, and their cases.

    The case is None where the file's name states it; common: settings of all files, which the part may override.
    """
    stated = [setting for setting in f"{common},{part}".split(",") if setting]
    settings = {setting.partition("=")[0]: setting for setting in stated}
    keys = sorted(settings, key=lambda key: key in ("axes", "mm", "unit"))
    text = ",".join(settings[key] for key in keys)
    if not STACKED.search(text):
        yield None, Path(f"{file}#{text}") if text and holds_slices(file) else file
        return
    count = stack_shape(file, STACKED.sub("slice=0", text))[0]
    width = max(4, len(str(count - 1)))
    for k in range(count):
        yield f"slice{k:0{width}d}", Path(f"{file}#{STACKED.sub(f'slice={k}', text)}")


def arranged(
    cases: list[CaseFiles],
    arrays: Arrays,
    root: Path,
    patients: Path | str | None,
) -> tuple[list[CaseFiles], list[str], list[str]]:
    """The cases of array files with their splits and patients, and sentences on cases in no list and on their patients.

    patients: see `with_patients` (default: PATIENTS in root, where it is). Where neither a list nor the names of all
    cases tell the patients, they are '' (see `known_patients`), and nothing is held out for validation.
    Raises BadInput for stacks of other shapes, and for lists that do not fit.
    """
    _refuse_unequal_stacks(cases)
    cases, left_out = _with_splits(cases, arrays, root)
    if patients is None and (root / PATIENTS).is_file():
        patients = root / PATIENTS
    said = list[str]()
    if patients is not None:
        cases = with_patients(cases, patients)
    elif _name_patients(cases):
        cases, said = by_names(cases)
    if all(case.patient for case in cases):
        refuse_leak(((case.patient, case.split) for case in cases), patients or root)
    return _held_back(cases, arrays.held_back), left_out, said


def _name_patients(cases: Sequence[CaseFiles]) -> bool:
    """Whether the names of cases without a patient tell a patient and a slice each, of several patients."""
    owners = {patient_in(case.case) for case in cases if not case.patient}
    return None not in owners and len(owners) > 1


def known_patients(cases: Sequence[CaseFiles], root: Path) -> None:
    """Raise BadInput where nothing states the patients of slices: slices of one patient may reach two splits."""
    if all(case.patient for case in cases):
        return
    form = "'ID PATIENT' a line, or an ID alone where it is a patient of its own"
    if _are_stacked(cases):
        form = "the patient of each slice, one a line"
    raise BadInput(
        f"{root}: expected a list of patients, because such files do not state them and the slices of one patient must not be in two splits, found none. Pass --patients FILE, or save it there as {PATIENTS}: {form}."
    )


def with_patients(cases: list[CaseFiles], patients: Path | str) -> list[CaseFiles]:
    """The cases with the patients that a text file names: of a stack one a line, in order, else 'ID PATIENT'.

    patients: the file, or EACH, by which every case is a patient of its own.
    """
    if str(patients) == EACH:
        return [replace(case, patient=case.case) for case in cases]
    path = Path(patients)
    lines = _lines(path)
    rows = [
        [safe_name(word, f"{path}, line {n}") for word in re.split(r"[\s,;]+", one)]
        for n, one in lines
    ]
    if _are_stacked(cases):
        if len(rows) != len(cases) or any(len(row) != 1 for row in rows):
            found = f"{len(rows)} lines" if len(rows) != len(cases) else "lines of several words"
            raise BadInput(
                f"{path}: expected a patient for each of {len(cases)} slices, one a line, found {found}. Fix the list."
            )
        ordered = sorted(cases, key=lambda case: case.case)
        return [replace(case, patient=row[0]) for case, row in zip(ordered, rows)]
    owners = dict[str, str]()
    for (number, line), row in zip(lines, rows):
        if len(row) > 2 or owners.setdefault(row[0], row[-1]) != row[-1]:
            raise BadInput(
                f"{path}, line {number}: expected 'ID PATIENT', each ID once, found '{line}'. Fix the line."
            )
    lacking = sorted(case.case for case in cases if case.case not in owners)
    if lacking:
        raise BadInput(
            f"{path}: expected 'ID PATIENT' for every case, found none for {lacking[0]} ({len(lacking)} of {len(cases)} lack it). Add them; an ID alone is a patient of its own."
        )
    return [replace(case, patient=owners[case.case]) for case in cases]


def refuse_unfit(cases: Sequence[CaseFiles], root: Path) -> None:
    """Raise BadInput where a case lacks a file that others have, or its slices differ in size.

    Neither can be corrected: slices state no position by which they could be resampled to each other.
    """
    every = {name for case in cases for name in case.paths}
    for case in cases:
        lacking = sorted(every - case.paths.keys())
        if lacking:
            raise BadInput(
                f"{root}: expected {', '.join(sorted(case.paths))} and {lacking[0]} of {case.case}, found no {lacking[0]}. Add the file, take the case out, or name the modalities to prepare (--modality)."
            )
        parts = {path: file_and_part(path) for path in case.paths.values()}
        sizes = [
            (path, slice_size(*part))
            for path, part in parts.items()
            if part[0].suffix.lower() in (".npy", ".npz")
        ]
        known = [(path, size) for path, size in sizes if size is not None]
        _refuse_unequal(
            known,
            "height and width",
            "slices state no position by which to resample them",
        )


def _refuse_unequal_stacks(cases: list[CaseFiles]) -> None:
    files = dict(file_and_part(path) for case in cases for path in case.files.values())
    shapes = [(path, stack_shape(path, part)) for path, part in files.items() if "slice=" in part]
    _refuse_unequal(shapes, "slices, height and width", "the two are paired by index")


def _refuse_unequal(shapes: Sequence[tuple[Path, tuple[int, ...]]], what: str, why: str) -> None:
    """Raise BadInput where an array has another shape than the first array."""
    for path, shape in shapes:
        first, expected = shapes[0]
        if shape != expected:
            raise BadInput(
                f"{path}: expected the {what} of {first.name}, as {why} ({'×'.join(map(str, expected))}), found {'×'.join(map(str, shape))}. Save them on one grid, slice by slice."
            )


def unstated_spacing(cases: Sequence[CaseFiles]) -> list[str]:
    """Sentences where the spacing of slices in arrays, or spacing and orientation of pictures, are assumed."""
    sentences = list[str]()
    parts = [file_and_part(path) for case in cases for path in case.files.values()]
    if any(holds_slices(path) and not states_spacing(part) for path, part in parts):
        sentences.append(
            "spacing is 1 mm: nothing states it (a preset of your own may: a base, and [arrays] part = 'mm=0.6x0.6x5')"
        )
    pictures = sum(any(is_picture(path) for path in case.files.values()) for case in cases)
    if pictures:
        sentences.append(
            f"{plural(pictures, 'case')} {'has' if pictures == 1 else 'have'} pictures, which state neither voxel size nor orientation: pixels of 1 mm, rows that run to the back and columns to the left are assumed, so that mm mean pixels, and left and right are a guess"
        )
    return sentences


def _with_splits(
    cases: list[CaseFiles],
    arrays: Arrays,
    root: Path,
) -> tuple[list[CaseFiles], list[str]]:
    if not arrays.lists:
        return cases, []
    splits = dict[str, str]()
    for split, name in arrays.lists.items():
        beside = root.resolve().parent / name
        path = beside if beside.is_file() and not (root / name).is_file() else root / name
        ids = [line for _, line in _lines(path)]
        twice = [one for one, count in Counter(ids).items() if count > 1]
        if twice:
            raise BadInput(
                f"{path}: expected each ID once, found '{twice[0]}' twice. Remove one of the lines."
            )
        both = [one for one in ids if one in splits]
        if both:
            raise BadInput(
                f"{path}: expected no ID of another list, found '{both[0]}', which is in that of {splits[both[0]]} too ({len(both)} such). Take it out of one of them."
            )
        splits |= dict.fromkeys(ids, split)
        missing = sorted(set(ids) - {case.case for case in cases})
        if missing:
            raise BadInput(
                f"{path}: expected files of every ID, found none of '{missing[0]}' ({len(missing)} of {len(ids)} have none). Add them, or take the lines out."
            )
    unlisted = [case.case for case in cases if case.case not in splits]
    left_out = (
        [f"{len(unlisted)} slices that no list names ('{unlisted[0]}', …)"] if unlisted else []
    )
    return [
        replace(case, split=splits[case.case]) for case in cases if case.case in splits
    ], left_out


def _held_back(cases: list[CaseFiles], count: int) -> list[CaseFiles]:
    """The cases with `count` training items moved to validation, patient by patient in the order of hashed names."""
    training = [case for case in cases if case.split == "train"]
    if not count or not training:
        return cases
    if not all(case.patient for case in cases):  # decided once the patients are known
        return [replace(case, split=None) if case.split == "train" else case for case in cases]
    of_patient = Counter(case.patient for case in training)
    wanted = min(count, len(training) // LARGEST_SHARE)
    chosen = set[str]()
    for patient in sorted(of_patient, key=lambda name: patient_order(0, name))[
        :-1
    ]:  # one patient stays in training
        if sum(of_patient[one] for one in chosen) < wanted:
            chosen.add(patient)
    return [
        replace(case, split="val") if case.split == "train" and case.patient in chosen else case
        for case in cases
    ]


def _are_stacked(cases: Sequence[CaseFiles]) -> bool:
    return any("slice=" in file_and_part(path)[1] for case in cases for path in case.files.values())


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file with their numbers, without empty ones at its end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path}: expected a text file, a line for each slice, found none. Check the path."
        ) from error
    lines = [
        (number, line.strip()) for number, line in enumerate(text.rstrip().splitlines(), start=1)
    ]
    empty = [number for number, line in lines if not line]
    if empty:
        raise BadInput(
            f"{path}: expected something in every line, found line {empty[0]} empty. Remove it."
        )
    if not lines:
        raise BadInput(f"{path}: expected a line for each slice, found an empty file. Fill it.")
    return lines
