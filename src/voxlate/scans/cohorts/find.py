"""The cases of a cohort: a manifest, a pattern, a preset or the default layout makes rows of its files, and the rows make cases."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, first_of, known_name, plural
from voxlate.base.files import MAPS, SYNTHETIC
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
    plain_name,
    quote_some,
)
from voxlate.scans.cohorts.manifest import (
    OWN_NAMES,
    Table,
    read_manifest,
    root_and_manifest,
    rows_of,
)
from voxlate.scans.cohorts.owners import join_by_person, person_in, state_owners
from voxlate.scans.cohorts.path_names import (
    Names,
    name_cases,
    read_names,
    split_folders,
    split_of_name,
)
from voxlate.scans.cohorts.presets import (
    NOTES,
    Arrays,
    Preset,
    load_preset,
    path_expression,
    recognise,
    rows_by_patterns,
    rows_by_tags,
)
from voxlate.scans.cohorts.split import (
    hold_out,
    refuse_leak,
    refuse_similar_names,
    sentences_on_shared_masks,
)
from voxlate.scans.cohorts.split_lists import PATIENTS, take_lists
from voxlate.scans.formats.array_files import stack_shape
from voxlate.scans.formats.dicom import (
    describe_series,
    entries_in,
    folder_and_key,
    holds_image,
    images_of,
    is_dicom_folder,
    list_series,
)
from voxlate.scans.formats.io import (
    endings_by_name,
    file_and_part,
    holds_slices,
    is_picture,
    is_synthetic,
    location_of,
    scan_endings,
    without_ending,
)
from voxlate.scans.formats.picture import PICTURE
from voxlate.scans.images.units import plain_modality
from voxlate.scans.layout_options import Layout

Folders = Sequence[tuple[Path, list[str]]]  # each with the names of its files
BY_NAMES = Preset(patterns=["{case}/{modality}"])  # paths are then read by their names
VALIDATE = 0.15  # of training cases, where folders state a test split and no validation
AS_PICTURES = "rows run to the back and columns to the left (axes=PL)"  # assumed for arrays of unknown orientation
SYNTHESISED = "SYNTHETIC "  # with which the descriptions of exported DICOM series begin
# Beside scans: files that may be lists, or that say something of the scans.
LISTS = (*NOTES, ".xlsx", ".pkl", ".npz.txt")
FOLD_FOLDER = re.compile(r"(?<=/)folds?[-_ ]?([0-4])(?=/)", re.IGNORECASE)


def find_cohort(
    root: Path | str,
    options: Layout | None = None,
    modalities: Sequence[str] | None = None,
    **changes: Any,
) -> CohortFiles:
    """The cases below a folder, sorted by name, and sentences on what was left out.

    changes: fields of the options. pattern: a path below root with {patient}, {case}, {modality}, {split}, {slice}, {time},
    * and **; without a file suffix it takes any that can be read, DICOM folders too. Without any option: public data sets,
    BIDS, nnU-Net and nnsyn by what marks them, else by names (see path_names.py): <root>/<case>/<modality>.<suffix> or
    <root>/<case>_<modality>.<suffix>, below folders of sites and splits, with folders of studies or modalities; or, where
    root is itself one case, <root>/<modality>.<suffix>. A manifest (see manifest.py) is taken from root/cases.csv or
    root/cohort.csv when none is named; allow_outside: its paths may lead out of its folder and root. Lists beside the scans
    state splits (see split_lists.py).
    With a preset that has [series] tables, patterns are those of the folders with DICOM files, and their series are
    chosen by tags; [frames] makes modalities of frames of a dynamic scan; with [arrays] files hold slices.
    patients: see owners.take_patients (default: root/patients.txt). Where nothing states the patient of a case and its name
    leaves it open, the patient is '' (see owners.require_patients).
    modalities: only these are kept; cases without any are left out, and of some public data sets those that lack one.
    exclude: cases or patients that are left out. root may also be a manifest, whose folder is then the root.
    Raises BadInput for an empty cohort, a pattern that matches nothing, two files of one name.
    """
    asked = merge(Layout, options, changes)
    root, place = root_and_manifest(root, asked.manifest)
    if not root.is_dir():
        raise BadInput(
            f"{root}: expected a folder of cases, found {'a file' if root.exists() else 'nothing'}. Check the path."
        )
    exclusion = Exclusion(as_names(asked.exclude))
    found = CohortFiles()
    layout = None if asked.preset is None else load_preset(asked.preset)
    table = None
    rows = []
    if place is not None:
        bases = (place.parent, root)
        table = read_manifest(place, bases, found)
        if asked.manifest is None and place.name not in OWN_NAMES:
            found.guessed.append(f"{place.name} is the manifest of the cohort")
        table.cells = table.cells[[exclusion.keep_case(*row) for row in table.owners]]
        if table.cells.empty:
            raise BadInput(
                f"{place}: expected a case that --exclude does not name, found none. Leave some in."
            )
        rows = rows_of(table, bases, asked.allow_outside, found)
    if rows:
        layout = layout or BY_NAMES
        rows = [replace(row, modality=layout.modality_of(row.modality)) for row in rows]
        rows = _with_folder_splits(rows, root, found)
        cases = cases_of(rows, exclusion, layout.runs, found)
    else:
        layout, cases = _cases_below(root, layout, asked.pattern, table, exclusion, found)
    if table is None or "split" not in table.cells:
        cases = _settle_folds(cases)
    state_pairs(cases, found, root)
    patients = asked.patients
    if patients is None and (root / PATIENTS).is_file():
        patients = root / PATIENTS
    is_stated = patients is not None or all(case.patient for case in cases)
    if layout.arrays is None or patients is not None:
        cases = state_owners(cases, patients, found)
    if layout.arrays is None and not is_stated:
        cases = join_by_person(cases, found)
    if table is None or "split" not in table.cells:
        cases = _settle_splits(cases, layout, found)
    refuse_leak(cases, place or patients or root)
    # lists and names have stated the patients only now
    cases = [case for case in cases if exclusion.keep_case(case.case, case.patient)]
    exclusion.check(root)
    found.note(found.unclaimed, exclusion.left_out, "cases that --exclude names")
    if not any(case.files for case in cases):
        raise BadInput(
            f"{place or root}: expected at least one case with an image, found none but masks and label maps: an empty cohort. Add the path of a scan."
        )
    refuse_similar_names((case.case for case in cases), "case", place or root)
    refuse_similar_names((case.patient for case in cases), "patient", patients or place or root)
    cases = sorted(cases, key=lambda case: case.case)
    found.cases = _unify_spelling([_take_frames(case, layout.frames) for case in cases], found)
    if modalities is not None:
        found.cases = _take_modalities(modalities, layout, root, found)
    _state_assumptions(found, layout, is_stated=table is not None)
    state_pairs(found.cases, found, root)
    return found


def _cases_below(
    root: Path,
    layout: Preset | None,
    pattern: str | None,
    table: Table | None,
    exclusion: Exclusion,
    found: CohortFiles,
) -> tuple[Preset, list[CaseFiles]]:
    """The layout of a folder, and the cases on disk with what a manifest of notes, or lists beside them, state.

    A path belongs to the first pattern that it matches; paths that match none, and cases without a scan, are noted.
    """
    is_case = layout is not None and layout.series and is_dicom_folder(root)
    base = root
    if is_case:  # root is itself one case
        root = root.resolve()
        base = root.parent
    folders = folders_below(root, found)
    every = [(folder / name).relative_to(base).as_posix() for folder, of in folders for name in of]
    recognised = recognise(root, every) if layout is None and pattern is None else None
    if recognised is not None:
        found.guessed.append(f"the layout is that of {recognised.title}")
    layout = layout or recognised or BY_NAMES
    if pattern is not None:
        layout = replace(layout, patterns=[pattern], files={})
    if layout.arrays is None and any(map(holds_slices, layout.places)):
        layout = replace(layout, arrays=Arrays(guessed=[AS_PICTURES]))
    images = _images_below(base, folders, layout, found)
    unmatched = list[str]()
    if layout is BY_NAMES:
        rows = _rows_by_names(root, images, unmatched, found)
    else:
        rows = [*rows_by_patterns(base, images, layout, unmatched)]
    if any(row.series for row in rows) and not layout.series:
        found.guessed.append(
            "modalities of DICOM series are named by their tags (--preset FILE.toml chooses others)"
        )
    odd = {name for row in rows for name in (row.case, row.modality) if plain_name(name) != name}
    rows = [replace(row, modality=plain_name(row.modality)) for row in rows]
    cases = cases_of(_with_folds(rows), exclusion, layout.runs, found)
    if not cases:
        raise _none_fits(base, images, layout)
    found.without_scan += [case.case for case in cases if not case.files]
    what = "names of cases or modalities have '_' for what not every system allows"
    found.note(found.guessed, odd, what)
    found.note(found.unclaimed, unmatched, "scans that no pattern claims")
    what = "cases of label maps or a mask without a scan"
    found.note(found.unread, found.without_scan, what)
    found.unread += _folders_without_images(base, cases, folders)
    cases = [case for case in cases if case.files]
    if layout.arrays is not None:
        _refuse_unequal_stacks(cases)
    lists = (
        []
        if table is not None and {"split", "fold"} & {*table.cells}
        else _lists(root, folders, layout)
    )
    return layout, take_lists(root, lists, cases, found, table)


def folders_below(root: Path, found: CohortFiles) -> Folders:
    """All folders from root down with the names of their files; hidden ones are left out.

    A folder is read once, under its own name where that is below root: links are followed last.
    """
    visited = set()
    folders = list[tuple[Path, list[str]]]()
    closed = list[OSError]()
    starts = [root]
    for start in starts:  # grows by the links that are found
        for place, names, files in os.walk(start, onerror=closed.append):
            folder, real = Path(place), Path(place).resolve()
            if real in visited:
                names.clear()
                continue
            visited.add(real)
            visible = sorted(name for name in names if not name.startswith("."))
            links = [name for name in visible if (folder / name).is_symlink()]
            names[:] = [name for name in visible if name not in links]
            starts += [folder / name for name in links]
            folders.append((folder, sorted(name for name in files if not name.startswith("."))))
    found.unread += [
        f"{error.filename}: expected a folder that may be read, found '{error.strerror}'"
        for error in closed
    ]
    found.unread += [
        f"{folder / name}: expected a folder or file, found a link that leads nowhere"
        for folder, files in folders
        for name in files
        if not name.lower().endswith((*scan_endings(), *NOTES)) and not (folder / name).exists()
    ]
    return folders


def _images_below(base: Path, folders: Folders, layout: Preset, found: CohortFiles) -> list[str]:
    """The paths of scans and DICOM folders that a layout may claim, relative to base, with '/'; others are noted.

    Raises BadInput where there are none.
    """
    named = [ending for ending in endings_by_name() if ending in " ".join(layout.places).lower()]
    kinds = () if layout.series else (*scan_endings(), *named)
    every = _paths_of(base, folders, kinds)
    if not every and not layout.series:  # folders of scans have previews of these endings
        every = _paths_of(base, folders, PICTURE.named_endings)
    is_skipped = _skipped_by(layout)
    kept = list[str]()
    skipped = list[str]()
    synthetic = list[str]()
    no_images = list[str]()
    for path in every:
        if is_skipped(path):
            skipped.append(path)
        elif _is_synthesised(base / path):
            synthetic.append(path)
        elif (base / path).is_dir() and not holds_image(base / path):
            no_images.append(path)
        else:
            kept.append(path)
    found.note(found.unclaimed, skipped, "images of names or folders that the layout skips")
    found.note(found.unclaimed, synthetic, "images that were synthesised")
    found.note(found.unclaimed, no_images, "DICOM objects that are no images")
    if not kept:
        there = {Path(name).suffix.lower() for _, names in folders for name in names}
        named = sorted(there & {*endings_by_name()})
        what = (
            f"only {', '.join(named)}, which are read where a pattern names them"
            if named
            else "none"
        )
        raise BadInput(
            f"{base}: expected images ({', '.join(kinds)}) or DICOM folders, found {what}: an empty cohort. Check the path, or name the layout by --preset or --pattern."
        )
    return kept


def _paths_of(base: Path, folders: Folders, kinds: tuple[str, ...]) -> list[str]:
    """Paths of files with these endings, and of DICOM folders without such files."""
    paths = list[str]()
    for folder, files in folders:
        place = folder.relative_to(base)
        images = [(place / name).as_posix() for name in files if name.lower().endswith(kinds)]
        is_series = files and not images and is_dicom_folder(folder)
        paths += [place.as_posix()] if is_series else images
    return sorted(paths)


def _is_synthesised(path: Path) -> bool:
    """Whether voxlate wrote an image: its prefix, or a map's ending and its header, say so. Others call their scans t1_std, too."""
    stem = without_ending(path.name)
    return stem.startswith(SYNTHETIC) or (stem.endswith(MAPS) and is_synthetic(path))


def refuse_synthetic(cases: Iterable[CaseFiles], names: Collection[str] | None = None) -> None:
    """Raise BadInput where a scan of a cohort is an image that voxlate synthesised; names: of scans, by default all."""
    for case in cases:
        for name, path in case.files.items():
            if (names is None or name in names) and _states_synthesis(path):
                raise BadInput(
                    f"{path}: expected a scan of the patient, found an image that voxlate synthesised, which is no truth and no source to learn from. Take the scan, or leave the case out (--exclude)."
                )


def _states_synthesis(path: Path) -> bool:
    """Whether the file, or the description of a DICOM series, says so."""
    place, key = folder_and_key(path)
    if place.is_dir():
        with suppress(BadInput, IndexError):  # which reading the scan says
            first = images_of(path if key else entries_in(place)[0])[0]
            return first.text("SeriesDescription").startswith(SYNTHESISED)
        return False
    return is_synthetic(path)


def _folders_without_images(root: Path, cases: Sequence[CaseFiles], folders: Folders) -> list[str]:
    """Sentences on folders beside those of cases that hold files but no image of a known format."""
    paths = [path for case in cases for path in case.paths.values()]
    levels = {path.parent.parent for path in paths if path.parent != root}
    with_cases = {folder for path in paths for folder in path.parents}
    sentences = []
    for folder, files in folders:
        data = [name for name in files if not name.lower().endswith((*NOTES, *scan_endings()))]
        if data == files != [] and folder.parent in levels and folder not in with_cases:
            sentences.append(
                f"{folder.relative_to(root)}: no image of a kind that is read ({quote_some(data)})"
            )
    return sentences


def _skipped_by(layout: Preset) -> Callable[[str], bool]:
    """Whether a path below the root is one that a layout leaves out."""
    expressions = [path_expression(pattern) for pattern in layout.skip]

    def is_skipped(path: str) -> bool:
        return any(expression.fullmatch(path) for expression in expressions)

    return is_skipped


def _lists(root: Path, folders: Folders, layout: Preset) -> list[Path]:
    """The files below root that may be lists; and lists of splits in the folder above it, as the authors of paper 000 have them.

    Files that the layout leaves out are none.
    """
    is_skipped = _skipped_by(layout)
    beside = [
        folder / name
        for folder, names in folders
        for name in names
        if name.lower().endswith(LISTS) and not name.lower().endswith(scan_endings())
    ]
    beside = [path for path in beside if not is_skipped(path.relative_to(root).as_posix())]
    above = [root.resolve().parent / f"{split}_list.txt" for split in ("train", "val", "test")]
    return beside + [path for path in above if path.is_file() and not (root / path.name).is_file()]


def _with_folds(rows: Sequence[Row]) -> list[Row]:
    """The rows with the folds of folders called fold0 to fold4, where there is more than one."""
    folds = [FOLD_FOLDER.findall(row.path.as_posix()) for row in rows]
    if len({*map(tuple, folds)} - {()}) < 2:
        return [*rows]
    return [
        replace(row, fold=int(stated[-1]) if stated else None) for row, stated in zip(rows, folds)
    ]


def _none_fits(root: Path, paths: Sequence[str], layout: Preset) -> BadInput:
    """The error of a cohort none of whose paths, or series, have the layout's form."""
    expected = "' or '".join(pattern for _, pattern in layout.forms)
    advice = "with {patient}, {case} and {modality} where they stand in the path"
    if layout.series:
        shown = describe_series(list_series(root / paths[0]))
        return BadInput(
            f"{root}: expected DICOM series with the tags of {' or '.join(layout.series)} in folders like '{expected}', found none in {len(paths)} folders; {paths[0]} has {shown}. Name the tags in a preset file of your own, or pass --pattern {advice}."
        )
    return BadInput(
        f"{root}: expected paths like '{expected}', found {len(paths)} of another form ({quote_some(paths)}). Pass --pattern {advice}."
    )


def _rows_by_names(
    root: Path, paths: Sequence[str], unmatched: list[str], found: CohortFiles
) -> list[Row]:
    """The rows of the default layout; other paths are added to `unmatched`, and pictures beside scans noted."""
    # pictures whose names are those of no modality
    pictures = [
        path
        for path in paths
        if is_picture(Path(path)) and not is_known(without_ending(Path(path).name))
    ]
    if pictures and any(not is_picture(Path(path)) for path in paths):
        found.unclaimed.append(f"{len(pictures)} pictures beside scans ({quote_some(pictures)})")
        paths = sorted({*paths} - {*pictures})
    splits = split_folders(paths)
    every = []
    series = dict[str, Row]()
    for path in paths:
        names = read_names(path, (root / path).is_dir(), splits)
        if path == ".":  # root itself holds DICOM files
            names = replace(names, ids=(root.resolve().name,), modality="")
        if names.modality or not names.is_dicom:
            every.append(names)
            continue
        for row in rows_by_tags(root, path):
            series[f"{row.path}"] = row
            every.append(replace(names, path=f"{row.path}", modality=row.modality))
    rows, below = name_cases(root, _by_persons(root, every, series), found)
    unmatched += below
    tagged = {root / path: row for path, row in series.items()}  # as name_cases places them
    return [
        replace(row, path=tagged[row.path].path, series=tagged[row.path].series)
        if row.path in tagged
        else row
        for row in rows
    ]


def _by_persons(root: Path, every: Sequence[Names], series: Mapping[str, Row]) -> list[Names]:
    """The names, those of DICOM series as far down as the folder of a person by their tags, or of a study where a person has several.

    Where several persons or studies share that folder, its name gets a number.
    """
    marks = dict[str, Any]()
    for names in every:
        if person := person_in(Path(names.path)) if names.path in series else None:
            marks[names.path] = person, ""
    for of_person in grouped((marks.get(names.path), names) for names in every).values():
        if len({names.modality for names in of_person}) < len(of_person):
            for names in of_person:
                info = series[names.path].series if names.path in marks else None
                marks |= {names.path: (*marks[names.path][:1], info.study)} if info else {}
    groups = grouped((marks[names.path], names) for names in every if names.path in marks)
    folders = {
        mark: posixpath.commonpath(["/".join(names.ids) for names in group])
        for mark, group in groups.items()
        if len({names.modality for names in group}) == len(group)
    }
    placed = dict[str, Names]()
    for mark, folder in folders.items():
        *above, name = (folder or root.resolve().name).split("/")
        same = [other for other in folders if folders[other] == folder]
        if len(same) > 1:
            name = f"{name}_{same.index(mark) + 1}"
        placed |= {names.path: replace(names, ids=(*above, name)) for names in groups[mark]}
    return [placed.get(names.path, names) for names in every]


def _settle_folds(cases: list[CaseFiles]) -> list[CaseFiles]:
    """The cases, of which those of fold 0 validate where folds alone say so; folds of some cases alone are none."""
    learning = [case for case in cases if case.split != "test"]
    if any(case.fold is None for case in learning):
        return [replace(case, fold=None) for case in cases]
    if any(case.split == "val" for case in cases):
        return cases
    return [
        case if case.split == "test" else replace(case, split="train" if case.fold else "val")
        for case in cases
    ]


def _with_folder_splits(rows: list[Row], root: Path, found: CohortFiles) -> list[Row]:
    """The rows of a manifest with the splits of their folders where it states none; where it states another, that counts, and is noted.

    A case whose files lie in folders of several splits has none of these.
    """
    places = [Path(os.path.relpath(location_of(row.path), root)).as_posix() for row in rows]
    folders = split_folders(places)
    splits = dict[str, set[str | None]]()
    for row, place in zip(rows, places):
        splits.setdefault(row.case, set()).add(read_names(place, splits=folders).split)
    of_folders = {case: stated.pop() for case, stated in splits.items() if len(stated) == 1}
    placed = [replace(row, split=row.split or of_folders.get(row.case)) for row in rows]
    other = {row.case for row in placed if of_folders.get(row.case) not in (None, row.split)}
    found.note(
        found.guessed,
        other,
        "cases have another split in the manifest than in their folders; the manifest counts",
    )
    return placed


def _settle_splits(cases: list[CaseFiles], layout: Preset, found: CohortFiles) -> list[CaseFiles]:
    """The cases with the splits that lists, folders or names state, which are noted.

    Training alone states no split. Some training cases validate where nothing says which, and cases outside of all
    folders train.
    """
    named = grouped((case.patient or case.case, split_of_name(case.case)) for case in cases)
    by_name = {owner: words[0] for owner, words in named.items() if len({*words}) == 1}
    # test_p4 beside p1; not a cohort of test_p1 and test_p2, nor P1_test and P1_retest
    if len({*by_name.values()}) < 2:
        by_name = {}
    placed = [
        replace(case, split=case.split or by_name.get(case.patient or case.case)) for case in cases
    ]
    stated = {case.split for case in placed} - {None}
    if stated <= {"train"}:
        return [replace(case, split=None) for case in cases]
    reasons = {case.case: "folders or lists" if case.split else "names" for case in cases}
    reasons |= {case.case: "default" for case in placed if case.split is None}
    placed = [replace(case, split=case.split or "train") for case in placed]
    if "val" not in stated:
        count = layout.arrays.held_back if layout.arrays else 0
        training = sum(case.split == "train" for case in placed)
        placed = hold_out(placed, count or round(VALIDATE * training))
        reasons |= {case.case: "chance" for case in placed if case.split == "val"}
    chosen = grouped(((case.split, reasons[case.case]), case.case) for case in placed)
    for (split, reason), names in sorted(chosen.items()):
        found.guessed.append(
            f"{plural(len(names), 'case')} of {split} by {reason} ({quote_some(sorted(names))})"
        )
    return placed


def _state_assumptions(found: CohortFiles, layout: Preset, is_stated: bool) -> None:
    """Note what is assumed of the cases, whose files a manifest may state."""
    if layout.arrays is not None:
        found.guessed += layout.arrays.guessed
        found.heads = layout.arrays.heads
    parts = [file_and_part(path) for case in found.cases for path in case.files.values()]
    if any(holds_slices(path) and ",mm=" not in f",{part}" for path, part in parts):
        found.guessed.append(
            "spacing is 1 mm: nothing states it (a preset of your own may: a base, and [arrays] part = 'mm=0.6x0.6x5')"
        )
    if pictures := sum(any(map(is_picture, case.files.values())) for case in found.cases):
        found.guessed.append(
            f"{plural(pictures, 'case')} {'has' if pictures == 1 else 'have'} pictures, which state neither voxel size nor orientation: pixels of 1 mm, rows that run to the back and columns to the left are assumed, so that mm mean pixels, and left and right are a guess"
        )
    if not is_stated:
        labels = Counter(chain.from_iterable(case.labels for case in found.cases))
        found.guessed += (
            f"{name} in {plural(labels[name], 'case')} is a label map, and no scan"
            for name in sorted(labels.keys() - {*LABELS})
        )
    found.guessed += sentences_on_shared_masks(
        (case.patient, case.mask) for case in found.cases if case.mask
    )


def _refuse_unequal_stacks(cases: Iterable[CaseFiles]) -> None:
    """Raise BadInput for stacks of other shapes, which are paired by index."""
    parts = (file_and_part(path) for case in cases for path in case.files.values())
    stacks = {path: part for path, part in parts if "slice=" in part}
    shapes = {stack_shape(path, part): path for path, part in stacks.items()}
    if len(shapes) > 1:
        (first, one), (second, other), *_ = shapes.items()
        raise BadInput(
            f"{other}: expected the slices, height and width of {one.name}, as the two are paired by index ({'×'.join(map(str, first))}), found {'×'.join(map(str, second))}. Save them on one grid, slice by slice."
        )


def _take_modalities(
    modalities: Sequence[str], layout: Preset, root: Path, found: CohortFiles
) -> list[CaseFiles]:
    """The cases with these modalities alone, without those that have none; a layout with gaps asks for all, if some cases have all."""
    cases = found.cases
    known = sorted(set(chain.from_iterable(case.files for case in cases)))
    for wanted in modalities:
        known_name(root, "a modality of its cases", wanted, known)
    absent = {case.case: [name for name in modalities if name not in case.files] for case in cases}
    most = len({*modalities}) - 1
    if layout.gaps and not all(absent.values()):
        most = 0
    lacking = [
        f"{case} has no {' and no '.join(names)}"
        for case, names in absent.items()
        if len(names) > most
    ]
    if lacking:
        found.unclaimed.append(
            f"{len(lacking)} of {len(cases)} cases that lack a modality which is asked for ({first_of(lacking, 3)})"
        )
    return [
        replace(case, files={name: case.files[name] for name in modalities if name in case.files})
        for case in cases
        if len(absent[case.case]) <= most
    ]


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
    return [
        replace(
            case,
            files=dict(sorted((renamed.get(name, name), case.files[name]) for name in case.files)),
        )
        for case in cases
    ]


def _take_frames(case: CaseFiles, frames: Mapping[str, str]) -> CaseFiles:
    """The case with frames of a dynamic scan, each a modality, in place of that scan; frames: see Preset."""
    files = dict(case.files)
    for name, value in frames.items():
        source, _, frame = value.partition("#")
        if source in case.files:
            files[name] = Path(f"{case.files[source]}#{frame}")
            files.pop(source, None)
    return replace(case, files=files)


def state_pairs(cases: Sequence[CaseFiles], found: CohortFiles, root: Path) -> None:
    """State in `found.unpaired` that each modality is in cases of its own, where the cohort has several."""
    found.unpaired = ""
    scans = grouped(
        (name, os.path.relpath(path, root).replace(os.sep, "/"))
        for case in cases
        for name, path in case.files.items()
    )
    is_repeated = any(len(paths) > 1 for paths in scans.values())
    if len(scans) < 2 or not is_repeated or any(len(case.files) > 1 for case in cases):
        return
    shown = ", ".join(f"{name} in {paths[0]}" for name, paths in scans.items())
    pattern = joining_pattern([*scans.values()])
    advice = (
        f"Pass --pattern '{pattern}'"
        if pattern
        else "Pass --pattern with {case} where the names of a pair are equal"
    )
    found.unpaired = f"Expected cases with two modalities, found each modality in cases of its own ({shown}). {advice}, or give the scans of a pair one case in the table of voxlate manifest."


def joining_pattern(paths: Sequence[Sequence[str]]) -> str:
    """A pattern under which scans of several modalities have the same cases: their folders differ, their last numbers agree; "" for none.

    paths: of each modality.
    """
    parts = [[*without_ending(of_modality[0]).split("/")] for of_modality in paths]
    if len({*map(len, parts)}) > 1:
        return ""
    levels = []
    for names in zip(*(one[:-1] for one in parts)):
        differs = "*" if "{modality}" in levels else "{modality}"
        levels.append(names[0] if len({*names}) == 1 else differs)
    befores = [re.split(r"\d+\D*$", one[-1])[0] for one in parts]
    afters = {re.split(r"\d+", one[-1])[-1] for one in parts}
    before = befores[0] if len({*befores}) == 1 else f"*{befores[0][-1:]}"
    after = afters.pop() if len(afters) == 1 else "*"
    pattern = "/".join([*levels, f"{before}{{case}}{after}"])
    if "{modality}" not in levels:
        return ""
    expression = path_expression(pattern)
    cases = []
    for of_modality in paths:
        matches = [expression.fullmatch(without_ending(path)) for path in of_modality]
        cases.append({match["case"] for match in matches if match})
    return pattern if set.intersection(*cases) else ""
