"""The rows of the default layout: which scans are of one case, and where the patient and the modality stand in their paths.

The case is made of as few names, from the outermost folder, as keep its scans apart.
"""

import posixpath
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CohortFiles, Row, is_known, plain_name, quote_some
from voxlate.scans.cohorts.owners import person_in
from voxlate.scans.cohorts.path_names import (
    Names,
    is_person,
    patient_of,
    read_names,
    refuse_numbers,
    split_folders,
)
from voxlate.scans.cohorts.presets import (
    Arrays,
    rows_by_tags,
    with_part,
)
from voxlate.scans.formats.array_files import halves
from voxlate.scans.formats.io import is_picture, read_volume, without_ending
from voxlate.scans.images.units import plain_modality


def rows_by_names(
    root: Path, paths: Sequence[str], arrays: Arrays | None, found: CohortFiles
) -> tuple[list[Row], list[str]]:
    """A row for each scan with its case, and patient where one is stated, and the paths in folders below a case.

    arrays: what is assumed of array files. Pictures beside scans are noted. found.questions gets why patients are not known. Raises BadInput for scans whose
    names state no modality.
    """
    pictures = {path for path in paths if is_picture(Path(path))}
    if pictures != {*paths}:
        # whose names are those of no modality
        unknown = [path for path in pictures if not is_known(without_ending(Path(path).name))]
        found.note(found.unclaimed, unknown, "pictures beside scans")
        paths = sorted({*paths}.difference(unknown))
    splits = split_folders(paths)
    every = []
    for path in paths:
        names = read_names(path, (root / path).is_dir(), splits)
        if path == ".":  # root itself holds DICOM files
            names = replace(names, ids=(root.resolve().name,), modality="")
        if not names.is_dicom or names.modality:
            every.append(replace(names, path=with_part(path, arrays)))
            continue
        every += [
            replace(
                names,
                path=f"{row.path}",
                modality=row.modality,
                series=row.series,
                person=person_in(row.path),
            )
            for row in rows_by_tags(root, path)
        ]
    refuse_numbers(root, every)
    return _name_cases(root, _by_persons(root, every), found)


def _by_persons(root: Path, every: Sequence[Names]) -> list[Names]:
    """The names, those of DICOM series as far down as the folder of a person by their tags, or of a study where a person has several.

    Where several persons or studies share that folder, its name gets a number.
    """
    groups = list[list[Names]]()
    for scans in grouped((one.person, one) for one in every if one.person).values():
        are_apart = len({one.modality for one in scans}) == len(scans)
        studies = grouped((one.series and one.series.study, one) for one in scans)
        groups += [scans] if are_apart else studies.values()
    common = [posixpath.commonpath(["/".join(names.ids) for names in own]) for own in groups]
    placed = dict[str, Names]()
    for place, (folder, group) in enumerate(zip(common, groups)):
        *above, name = (folder or root.resolve().name).split("/")
        if common.count(folder) > 1:
            name = f"{name}_{common[: place + 1].count(folder)}"
        placed |= {names.path: replace(names, ids=(*above, name)) for names in group}
    return [placed.get(names.path, names) for names in every]


def _name_cases(
    root: Path, every: Sequence[Names], found: CohortFiles
) -> tuple[list[Row], list[str]]:
    """The rows, and the paths in folders below a case."""
    every = _without_outermost(every)
    cases = {names.ids for names in every if names.modality}
    below = [
        names.path
        for names in every
        if any(names.ids[:end] in cases for end in range(1, len(names.ids)))
    ]
    every = [names for names in every if names.path not in below]
    if _are_unclear(every) or not all(names.modality for names in every):
        every = _with_halves(root, every, found)
    levels = _levels(every)
    with_groups = _differ((one.ids[one.first :][:levels], one.ids[: one.first]) for one in every)
    has_studies = _differ(
        (one.ids[: one.first + 1], one.ids[: one.first + levels]) for one in every
    )
    people = grouped((names.ids[:1], names.person) for names in every)
    persons = {person for own in people.values() for person in own}
    # the folder of a patient holds the series of one person
    are_owned = "" not in persons and len(persons) == len(people) > 1
    are_owned = are_owned and all(len({*own}) == 1 for own in people.values())
    rows = []
    undecided = set[str]()
    for names in every:
        ids = names.ids[0 if with_groups else names.first : names.first + levels]
        studies = names.ids[names.first + 1 : names.first + levels]
        owner = names.ids[names.first] if names.ids else ""
        repeats = bool(studies) and studies[-1].startswith((f"{owner}_", f"{owner}-"))
        case = studies[-1] if repeats else "_".join(ids)  # pat01/pat01_tp2
        case = case or root.resolve().name
        is_stated = bool(studies) and (repeats or is_person(owner) or are_owned)
        patient = patient_of(owner) if is_stated and not with_groups else None
        if with_groups or (has_studies and studies and not is_stated):
            undecided.add(plain_name(case))
        place = names.series.path if names.series else root / names.path
        rows.append(
            Row(patient, case, names.modality.lower(), place, names.split, series=names.series)
        )
    if undecided:
        found.undecided |= undecided
        found.questions.append(
            f"folders in folders ({first_of(sorted(undecided), 3)}), of which any may be that of a patient"
        )
    return rows, below


def _differ(pairs: Iterable[tuple[Hashable, Hashable]]) -> bool:
    """Whether one of the first has several of the second."""
    return any(len({*several}) > 1 for several in grouped(pairs).values())


def _are_unclear(every: Sequence[Names]) -> bool:
    """Whether files of unknown names in folders of unknown names may be of cases: where they are more than their folders."""
    known = {
        names.ids
        for names in every
        if not names.is_guess
        or is_person(names.ids[-1])
        or is_known(plain_modality(names.modality))
    }
    guesses = [names for names in every if names.ids not in known]
    return len({names.modality for names in guesses}) > len({names.ids for names in guesses})


def _without_outermost(every: Sequence[Names]) -> list[Names]:
    """The names without outermost folders that all scans share and that name no patient."""
    while all(len(names.ids) > 1 for names in every):
        outermost = {names.ids[0] for names in every}
        if len(outermost) > 1 or any(map(is_person, outermost)):
            break
        every = [replace(names, ids=names.ids[1:]) for names in every]
    return [*every]


def _levels(every: Sequence[Names]) -> int:
    """The fewest levels of folders, from the patient's, that keep all scans of one modality apart.

    A DICOM folder is a level of its own only where one holds several modalities, so that it is no series.
    """
    held = grouped((names.ids, names.modality) for names in every if names.is_dicom)
    are_series = all(len({*modalities}) == 1 for modalities in held.values())
    most = max(len(names.ids) - names.first - (names.is_dicom and are_series) for names in every)
    for levels in range(1, most):
        keys = {
            (names.ids[: names.first + levels], names.split, names.modality.lower())
            for names in every
        }
        if len(keys) == len(every):
            return levels
    return max(most, 1)


def _with_halves(root: Path, every: Sequence[Names], found: CohortFiles) -> list[Names]:
    """The two sides of each picture, where all are two side by side; raises BadInput for scans whose names state no modality."""
    first = root / every[0].path
    if not is_picture(first) or not halves(read_volume(first).data[0]):
        shown = quote_some([names.path for names in every if names.is_guess or not names.modality])
        raise BadInput(
            f"{root}: expected a folder for each case, or names that end with a modality, found scans of another form ({shown}). Rename them; or pass --pattern '**/{{case}}' if each is the one scan of a case, '**/{{case}}_{{modality}}' if their ends are modalities, '**/{{modality}}/{{case}}' (or '{{modality}}/**/{{case}}') if their folders are, --manifest with a table of case, modality and path, or --preset FILE.toml (docs/guides/own_data.md)."
        )
    found.guessed.append(
        "pictures are two side by side: their left half is the modality a, their right half b"
    )
    return [
        replace(names, path=f"{names.path}#frame={number}", modality=side)
        for names in every
        for number, side in enumerate("ab", start=1)
    ]
