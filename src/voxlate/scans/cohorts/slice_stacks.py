"""Slices in array files and stacks, which state neither patient nor position, and what is assumed of them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from voxlate.base.errors import BadInput, plural
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.split import held_out_order
from voxlate.scans.formats.array_files import slice_size, stack_shape
from voxlate.scans.formats.io import file_and_part, holds_slices, is_picture

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


def refuse_unequal_stacks(cases: Iterable[CaseFiles]) -> None:
    """Raise BadInput for stacks of other shapes, which are paired by index."""
    stacks = [(path, part) for path, part in _parts(cases) if "slice=" in part]
    shapes = {path: stack_shape(path, part) for path, part in dict(stacks).items()}
    _refuse_unequal(shapes, "slices, height and width", "the two are paired by index")


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
                f"{root}: expected {', '.join(sorted(paths))} and {lacking[0]} of {case.case}, found no {lacking[0]}. Add the file, take the case out, or name the modalities to prepare (--modality)."
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


def hold_out(cases: list[CaseFiles], count: int) -> list[CaseFiles]:
    """The cases with `count` training items moved to validation, patient by patient as `held_out_order` states."""
    of_patient = Counter(case.patient for case in cases if case.split == "train")
    if not count or not of_patient:
        return cases
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
