"""The cases of a cohort: a manifest, a pattern, a preset or the default layout makes rows of its files, and the rows make cases."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, known_name, plural
from voxlate.base.groups import grouped
from voxlate.base.option import merge
from voxlate.scans.cohorts.case_files import (
    LABELS,
    CaseFiles,
    CohortFiles,
    Exclusion,
    Row,
    as_names,
    cases_of,
    is_known,
    quote_some,
)
from voxlate.scans.cohorts.files_below import (
    Folders,
    folders_below,
    folders_without_images,
    images_below,
    lists_below,
    note_unlisted,
)
from voxlate.scans.cohorts.manifest import (
    case_in,
    check_manifest,
    root_and_manifest,
    rows_of,
)
from voxlate.scans.cohorts.owners import (
    join_by_person,
    owners_by,
    state_owners,
    state_pairs,
    take_patients,
)
from voxlate.scans.cohorts.path_names import split_folders, split_of_name, split_of_path
from voxlate.scans.cohorts.presets import (
    Preset,
    arrays_of,
    load_preset,
    recognise,
    rows_by_patterns,
)
from voxlate.scans.cohorts.rows_by_names import rows_by_names
from voxlate.scans.cohorts.split import (
    FOLDS,
    hold_out,
    refuse_leak,
    refuse_similar_names,
)
from voxlate.scans.cohorts.split_lists import PATIENTS, take_lists
from voxlate.scans.formats.array_files import stack_shape
from voxlate.scans.formats.dicom import (
    is_dicom_folder,
)
from voxlate.scans.formats.io import (
    file_and_part,
    is_picture,
    location_of,
)
from voxlate.scans.images.units import plain_modality
from voxlate.scans.layout_options import Layout

BY_NAMES = Preset(patterns=["{case}/{modality}"])  # paths are then read by their names
VALIDATE = 0.15  # of training cases, where folders state a test split and no validation


def find_cohort(
    root: Path | str,
    options: Layout | None = None,
    modalities: Sequence[str] | None = None,
    **changes: Any,
) -> CohortFiles:
    """The cases below a folder, sorted by name, and sentences on what was left out.

    changes: fields of the options. pattern: a path below root with {patient}, {case}, {modality}, {split},
    * and **; without a file suffix it takes any that can be read, DICOM folders too. Without any option: public data sets,
    BIDS, nnU-Net and nnsyn by what marks them, else by names (see path_names.py): <root>/<case>/<modality>.<suffix> or
    <root>/<case>_<modality>.<suffix>, below folders of sites and splits, with folders of studies or modalities; or, where
    root is itself one case, <root>/<modality>.<suffix>. A manifest (see manifest.py) is taken from root/cases.csv or
    root/cohort.csv when none is named; allow_outside: its paths may lead out of its folder and root. Lists beside the scans
    state splits (see split_lists.py).
    With a preset that has [series] tables, patterns are those of the folders with DICOM files, and their series are
    chosen by tags; with [arrays] files hold slices.
    patients: see owners.take_patients (default: root/patients.txt). Where nothing states the patient of a case and its name
    leaves it open, the patient is '' (see owners.require_patients).
    modalities: only these are kept; cases without any are left out, and of some public data sets those that lack one.
    exclude: cases or patients that are left out. root may also be a manifest, whose folder is then the root.
    Raises BadInput for an empty cohort, a pattern that matches nothing, two files of one name.
    """
    asked = merge(Layout, options, changes)
    root, table = root_and_manifest(root, asked.manifest)
    if not root.is_dir():
        raise BadInput(
            f"{root}: expected a folder of cases, found {'a file' if root.exists() else 'nothing'}. Check the path."
        )
    exclusion = Exclusion(as_names(asked.exclude))
    found = CohortFiles(root=root)
    layout = load_preset(asked.preset) if asked.preset else None
    rows = []
    columns = set[str]()
    if table is not None:
        found.manifest = table.path
        columns = {*table.columns}
        check_manifest(table)
        found.guessed += table.assumed
        for line, row in [*table.rows.items()]:
            if not exclusion.keep_case(case_in(row), row.get("patient")):
                del table.rows[line]
        rows = [*rows_of(table, (table.path.parent, root), asked.allow_outside, found)]
    patients = asked.patients
    if patients is None and (root / PATIENTS).is_file():
        patients = root / PATIENTS
    if rows:
        folders = folders_below(root, CohortFiles())
        layout = layout or BY_NAMES
        rows = [replace(row, modality=layout.modality_of(row.modality)) for row in rows]
        note_unlisted(root, folders, [row.path for row in rows], found)
        cases = cases_of(_with_folder_splits(rows, root), exclusion, layout.runs, found)
    else:
        folders = folders_below(root, found)
        layout, cases = _cases_below(root, folders, layout, asked.pattern, exclusion, found)
    if patients is not None:  # whose names lists may hold
        owners = owners_by(cases, patients)
        cases = [replace(case, patient=owners.get(case.case, case.patient)) for case in cases]
    files = {*lists_below(root, folders, layout)}
    if {"split", "fold"} & columns:
        files.clear()
    if table is not None:
        files = files - {table.path} if rows else files | {table.path}
    cases = take_lists(root, files, cases, found)
    is_stated = patients is not None or all(case.patient for case in cases)
    if patients is not None:
        cases = take_patients(cases, patients)
    elif not (layout.arrays and layout.arrays.anonymous):
        cases = state_owners(cases, found)
    cases = join_by_person(cases, found, is_stated, found.guessed if rows else found.unread)
    where = found.manifest or patients or root
    cases = _settle_folds(cases, where)
    if "split" not in columns:
        cases = _settle_splits(cases, layout, found)
    refuse_leak(cases, where)
    # lists and names have stated the patients only now
    cases = [case for case in cases if exclusion.keep_case(case.case, case.patient)]
    exclusion.check(root)
    found.note(found.unclaimed, exclusion.left_out, "cases that --exclude names")
    if not any(case.files for case in cases):
        raise BadInput(
            f"{where}: expected at least one case with an image, found none but masks and label maps: an empty cohort. Add the path of a scan, or exclude fewer cases."
        )
    refuse_similar_names((case.patient or case.case for case in cases), where)
    found.cases = _unify_spelling(sorted(cases, key=attrgetter("case")), found)
    if modalities is not None:
        found.cases = _take_modalities(modalities, layout, root, found)
    if all(case.patient for case in found.cases):
        found.questions.clear()
    _state_assumptions(found, layout)
    state_pairs(found)
    return found


def _cases_below(
    root: Path,
    folders: Folders,
    layout: Preset | None,
    pattern: str | None,
    exclusion: Exclusion,
    found: CohortFiles,
) -> tuple[Preset, list[CaseFiles]]:
    """The layout of a folder, and the cases on disk.

    A path belongs to the first pattern that it matches; paths that match none, and cases without a scan, are noted.
    """
    base = root
    if layout is not None and layout.series and is_dicom_folder(root):  # root is itself one case
        base = root.parent
    if layout is None and pattern is None:
        every = [(folder / name).relative_to(base) for folder, names in folders for name in names]
        layout = recognise(root, [path.as_posix() for path in every])
        found.guessed += [f"the layout is that of {layout.title}"] if layout else []
    layout = layout or BY_NAMES
    by_names = layout is BY_NAMES and pattern is None
    if pattern is not None:
        layout = replace(layout, patterns=[pattern], files={})
    images = images_below(base, folders, layout, found)
    if layout.arrays is None:
        layout = replace(layout, arrays=arrays_of([base / image for image in images]))
    if by_names:
        rows, unmatched = rows_by_names(root, images, layout.arrays, found)
    else:
        rows, unmatched = rows_by_patterns(base, images, layout)
    if any(row.series for row in rows) and not layout.series:
        found.guessed.append(
            "modalities of DICOM series are named by their tags (--preset FILE.toml chooses others)"
        )
    cases = cases_of(rows, exclusion, layout.runs, found)
    if not cases:
        expected = "' or '".join(pattern for _, pattern in layout.forms)
        what = "DICOM series in folders" if layout.series else "paths"
        raise BadInput(
            f"{base}: expected {what} like '{expected}', found {len(images)} of another form ({quote_some(images)}; voxlate info lists the series of a folder). Pass --pattern with {{patient}}, {{case}} and {{modality}} where they stand in the path, or change the preset."
        )
    found.note(found.unclaimed, unmatched, "scans that no pattern claims")
    found.without_scan += [case.case for case in cases if not case.files]
    what = "cases of label maps or a mask without a scan"
    found.note(found.unread, found.without_scan, what)
    found.unread += folders_without_images(base, cases, folders)
    cases = [case for case in cases if case.files]
    if layout.arrays is not None:
        _refuse_unequal_stacks(cases)
    return layout, cases


def _with_folder_splits(rows: list[Row], root: Path) -> list[Row]:
    """The rows of a manifest with the splits of their folders where it states none; a case in folders of several splits has none of these."""
    places = [Path(os.path.relpath(location_of(row.path), root)).as_posix() for row in rows]
    folders = split_folders(places)
    of_cases = grouped(
        (row.case, split_of_path(place, folders)) for row, place in zip(rows, places)
    )
    stated = {case: splits[0] for case, splits in of_cases.items() if len({*splits}) == 1}
    return [replace(row, split=row.split or stated.get(row.case)) for row in rows]


def _settle_folds(cases: list[CaseFiles], where: Path | str) -> list[CaseFiles]:
    """The cases with folds that count from 0; one fold alone is none. Raises BadInput for more than FOLDS of them."""
    folds = {case.fold for case in cases if case.fold is not None and case.split != "test"}
    first = min(1, *folds) if folds else 0
    if len(folds) > 1 and max(folds) >= first + FOLDS:
        raise BadInput(
            f"{where}: expected folds 0 to {FOLDS - 1} or 1 to {FOLDS}, as --fold takes, found fold {max(folds)}. Number at most {FOLDS} folds, or state the split of each case in their place."
        )
    learning = [case for case in cases if case.split != "test" and len(folds) > 1]
    numbers = {case.case: case.fold - first for case in learning if case.fold is not None}
    return [replace(case, fold=numbers.get(case.case)) for case in cases]


def _settle_splits(cases: list[CaseFiles], layout: Preset, found: CohortFiles) -> list[CaseFiles]:
    """The cases with the splits that folds, lists, folders or names state, which are noted.

    Training alone states no split. The cases of fold 0 validate where folds alone say so, some training cases where nothing
    does, and cases outside of all folders train.
    """
    named = grouped((case.patient or case.case, split_of_name(case.case)) for case in cases)
    by_name = {owner: words[0] for owner, words in named.items() if len({*words}) == 1}
    # test_p4 beside p1; not a cohort of test_p1 and test_p2, nor P1_test and P1_retest
    if len({*by_name.values()}) < 2:
        by_name = {}
    stated = {case.case: case.split or by_name.get(case.patient or case.case) for case in cases}
    if any(case.fold is not None for case in cases) and "val" not in stated.values():
        learning = [case for case in cases if case.split != "test"]
        stated |= {case.case: "val" if case.fold == 0 else "train" for case in learning}
    if {*stated.values()} <= {None, "train"}:
        return [replace(case, split=None) for case in cases]
    placed = [replace(case, split=stated[case.case] or "train") for case in cases]
    if "val" not in stated.values():
        count = layout.arrays.held_back if layout.arrays else 0
        training = sum(case.split == "train" for case in placed)
        placed = hold_out(placed, count or round(VALIDATE * training))
    found.guessed.append("splits are those that folders, lists or names state")
    others = [case.case for case in placed if case.split != stated[case.case]]
    found.note(found.guessed, others, "cases whose split nothing states train or validate")
    return placed


def _state_assumptions(found: CohortFiles, layout: Preset) -> None:
    """Note what is assumed of the cases, whose files a manifest may state."""
    if layout.arrays is not None:
        found.guessed += layout.arrays.guessed
    paths = [path for case in found.cases for path in case.files.values()]
    if pictures := [path for path in paths if is_picture(path)]:
        found.guessed.append(
            f"{plural(len(pictures), 'picture')} without voxel size and orientation: pixels of 1 mm, rows that run to the back and columns to the left, so that mm mean pixels, and left and right are a guess"
        )
    if found.manifest is None:
        labels = Counter(chain.from_iterable(case.labels for case in found.cases))
        found.guessed += (
            f"{name} in {plural(labels[name], 'case')} is a label map, and no scan"
            for name in sorted(labels.keys() - {*LABELS})
        )


def _refuse_unequal_stacks(cases: Iterable[CaseFiles]) -> None:
    """Raise BadInput for stacks of other shapes, which are paired by index."""
    parts = dict(file_and_part(path) for case in cases for path in case.files.values())
    shapes = {stack_shape(path, part): path for path, part in parts.items() if "slice=" in part}
    if len(shapes) > 1:
        (first, one), (second, other), *_ = shapes.items()
        raise BadInput(
            f"{other}: expected the slices, height and width of {one.name}, as the two are paired by index {first}, found {second}. Save them on one grid, slice by slice."
        )


def _take_modalities(
    modalities: Sequence[str], layout: Preset, root: Path, found: CohortFiles
) -> list[CaseFiles]:
    """The cases with these modalities alone, without those that have none; a layout with gaps takes those with the most."""
    known = sorted({*chain.from_iterable(case.files for case in found.cases)})
    for wanted in modalities:
        known_name(root, "a modality of its cases", wanted, known)
    taken = [
        replace(case, files={name: case.files[name] for name in modalities if name in case.files})
        for case in found.cases
    ]
    least = max(len(case.files) for case in taken) if layout.gaps else 1
    lacking = [case.case for case in taken if len(case.files) < least]
    found.note(found.unclaimed, lacking, "cases that lack a modality which is asked for")
    return [case for case in taken if len(case.files) >= least]


def _unify_spelling(cases: list[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases with t1 for T1w or ax_t1_mprage where not all cases have it, and none has both."""
    counts = Counter(chain.from_iterable(case.files for case in cases))
    renamed = {}
    for plain, names in grouped((plain_modality(name), name) for name in sorted(counts)).items():
        in_one_case = any(len(case.files.keys() & {*names}) > 1 for case in cases)
        for name in names:
            several = plural(counts[name], "case")
            is_usual = is_known(name) and not names[1:] and counts[name] == len(cases)
            if not is_known(name if in_one_case else plain):
                found.guessed.append(
                    f"{name} in {several} is no modality that is known; to name it, rename its column in the table of voxlate manifest"
                )
            elif name != plain and not in_one_case and not is_usual:
                renamed[name] = plain
                found.guessed.append(f"{name} in {several} is {plain}")
    others = {"ct", "ct2", "t1c"} & counts.keys()
    if {"ct1", "t1", "t2", "flair"} <= counts.keys() and not others:
        renamed["ct1"] = "t1c"
        found.guessed.append("ct1 beside t1, t2 and flair is t1c, and no CT")
    named = [{renamed.get(name, name): case.files[name] for name in case.files} for case in cases]
    return [replace(case, files=dict(sorted(files.items()))) for case, files in zip(cases, named)]
