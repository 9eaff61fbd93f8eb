"""The cases of a cohort: a manifest, a pattern, a preset or the default layout makes one table, and the table makes cases."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, first_of, known_name, plural
from voxlate.base.groups import grouped
from voxlate.base.option import merge
from voxlate.scans.cohorts.case_files import (
    LABELS,
    UNNAMED,
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
from voxlate.scans.cohorts.folders import (
    folders_below,
    folders_without_images,
    image_paths,
    is_synthesised,
    refuse_no_images,
)
from voxlate.scans.cohorts.manifest import (
    OWN_NAMES,
    read_manifest,
    root_and_manifest,
    rows_of,
)
from voxlate.scans.cohorts.owners import PATIENTS, state_owners
from voxlate.scans.cohorts.path_names import modality_by_name, name_cases, read_names
from voxlate.scans.cohorts.patterns import (
    fits_any,
    path_expression,
    split_folders,
    split_of_name,
    state_pairs,
    study_of,
)
from voxlate.scans.cohorts.presets import Arrays, Preset, load_preset, recognise, split_part
from voxlate.scans.cohorts.series import join_by_person, rows_by_tags
from voxlate.scans.cohorts.slice_stacks import (
    assumptions,
    hold_out,
    refuse_unequal_stacks,
    refuse_unfit,
    slices_of,
)
from voxlate.scans.cohorts.split import (
    refuse_leak,
    refuse_similar_names,
    sentences_on_shared_masks,
)
from voxlate.scans.cohorts.split_lists import lists_beside, take_lists
from voxlate.scans.formats.dicom import (
    describe_series,
    holds_image,
    is_dicom_folder,
    list_series,
)
from voxlate.scans.formats.io import (
    endings_by_name,
    holds_slices,
    is_picture,
    scan_endings,
    without_ending,
)
from voxlate.scans.formats.picture import PICTURE
from voxlate.scans.images.units import plain_modality
from voxlate.scans.layout_options import Layout

BY_NAMES = Preset(patterns=["{case}/{modality}"])  # paths are then read by their names
VALIDATE = 0.15  # of training cases, where folders state a test split and no validation
AS_PICTURES = "rows run to the back and columns to the left (axes=PL)"  # assumed for arrays of unknown orientation


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
    root, table = root_and_manifest(root, asked.manifest)
    if not root.is_dir():
        raise BadInput(
            f"{root}: expected a folder of cases, found {'a file' if root.exists() else 'nothing'}. Check the path."
        )
    exclusion = Exclusion(as_names(asked.exclude))
    found = CohortFiles()
    layout = _layout(root, asked)
    if layout.title and asked.preset is None:
        found.guessed.append(f"the layout is that of {layout.title}")
    if table is not None and asked.manifest is None and table.name not in OWN_NAMES:
        found.guessed.append(f"{table.name} is the manifest of the cohort")
    cases = _cases(root, table, layout, asked, exclusion, found)
    state_pairs(cases, found, root)
    patients = asked.patients
    if patients is None and (root / PATIENTS).is_file():
        patients = root / PATIENTS
    is_stated = patients is not None or all(case.patient for case in cases)
    if layout.arrays is None or patients is not None:
        cases = state_owners(cases, patients, found)
    if layout.arrays is None and not is_stated:
        cases = join_by_person(cases, found)
    if table is None:
        cases = _settle_splits(cases, layout, found)
    refuse_leak(cases, table or patients or root)
    # lists and names have stated the patients only now
    cases = [case for case in cases if exclusion.keep_case(case.case, case.patient)]
    found.unclaimed += exclusion.sentences(root)
    if not any(case.files for case in cases):
        raise BadInput(
            f"{table or root}: expected at least one case with an image, found none but masks and label maps: an empty cohort. Add the path of a scan."
        )
    refuse_similar_names((case.case for case in cases), "case", table or root)
    refuse_similar_names((case.patient for case in cases), "patient", patients or table or root)
    cases = sorted(cases, key=lambda case: case.case)
    found.cases = _unify_spelling([_take_frames(case, layout.frames) for case in cases], found)
    if modalities is not None:
        found.cases = _take_modalities(modalities, layout, root, found)
    _state_assumptions(found, layout, root, is_stated=table is not None)
    state_pairs(found.cases, found, root)
    return found


def _layout(root: Path, asked: Layout) -> Preset:
    """The layout that the user names, or that the folder states, or the default one."""
    if asked.preset is not None:
        layout = load_preset(asked.preset)
    else:
        layout = (asked.pattern is None and recognise(root)) or BY_NAMES
    if asked.pattern is not None:
        layout = replace(layout, patterns=[asked.pattern], files={})
    if layout.arrays is None and any(holds_slices(place) for place in layout.places):
        layout = replace(layout, arrays=Arrays(guessed=[AS_PICTURES]))
    return layout


def _cases(
    root: Path,
    table: Path | None,
    layout: Preset,
    asked: Layout,
    exclusion: Exclusion,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases by the manifest, or those on disk, with what a manifest of notes or lists beside them state."""
    if table is not None:
        bases = (table.parent, root)
        manifest = read_manifest(table, bases, found)
        kept = [
            exclusion.keep_case(name, patient)
            for name, patient in zip(manifest.names, manifest.table.get("patient", manifest.names))
        ]
        if not any(kept):
            raise BadInput(
                f"{table}: expected a case that --exclude does not name, found none. Leave some in."
            )
        manifest.table = manifest.table[kept]
        rows = rows_of(manifest, bases, asked.allow_outside, found)
        if rows:
            named = [replace(row, modality=layout.modality_of(row.modality)) for row in rows]
            return cases_of(named, exclusion, layout.patient, layout.runs, found)
    if layout.series and is_dicom_folder(root):  # root is itself one case
        root = root.resolve()
    folders = folders_below(root, found)
    cases = _cases_by_path(root, layout, folders, found, exclusion)
    if layout.arrays is not None:
        refuse_unequal_stacks(cases)
    lists = lists_beside(root, folders)
    if table is not None:
        is_split = "split" in manifest.table or "fold" in manifest.table
        return take_lists(root, [] if is_split else lists, cases, found, manifest)
    return take_lists(root, lists, _leave_out(cases, layout, found), found)


def _cases_by_path(
    root: Path,
    layout: Preset,
    folders: Sequence[tuple[Path, list[str]]],
    found: CohortFiles,
    exclusion: Exclusion,
) -> list[CaseFiles]:
    """The cases below root whose paths have the layout's form; by default root may itself be one case, or flat.

    A path belongs to the first pattern that it matches; paths that match none, and cases without a scan, are noted.
    """
    named = [ending for ending in endings_by_name() if ending in " ".join(layout.places).lower()]
    kinds = () if layout.series else (*scan_endings(), *named)
    if layout.series and is_dicom_folder(root):
        root = root.parent
    skip = [path_expression(pattern) for pattern in layout.skip]
    every = sorted(image_paths(root, folders, kinds))
    if not every and not layout.series:  # folders of scans have previews of these endings
        every = sorted(image_paths(root, folders, PICTURE.named_endings))
    images = [path for path in every if not fits_any(path, skip)]
    others = [path for path in images if (root / path).is_dir() and not holds_image(root / path)]
    synthetic = [path for path in images if is_synthesised(root, path)]
    left_out = {*others, *synthetic}
    paths = [path for path in images if path not in left_out]
    if not paths:
        refuse_no_images(root, folders, kinds)
    unmatched = list[str]()
    if layout is BY_NAMES:
        rows = _rows_by_names(root, paths, unmatched, found)
    else:
        rows = [*_rows_of(root, paths, layout, unmatched)]
    if any(row.series for row in rows) and not layout.series:
        found.guessed.append(
            "modalities of DICOM series are named by their tags (--preset FILE.toml chooses others)"
        )
    odd = {name for row in rows for name in (row.case, row.modality) if plain_name(name) != name}
    rows = [replace(row, modality=plain_name(row.modality)) for row in rows]
    cases = cases_of(rows, exclusion, layout.patient, layout.runs, found)
    if not cases:
        raise _none_fits(root, paths, layout)
    found.without_scan += [case.case for case in cases if not case.files]
    skipped = sorted({*every} - {*images})
    for where, names, what in (
        (
            found.guessed,
            sorted(odd),
            "names of cases or modalities have '_' for what not every system allows",
        ),
        (found.unclaimed, skipped, "images of names or folders that the layout skips"),
        (found.unclaimed, unmatched, "scans that no pattern claims"),
        (found.unclaimed, synthetic, "images that were synthesised"),
        (found.unclaimed, others, "DICOM objects that are no images"),
        (found.unread, found.without_scan, "cases of label maps or a mask without a scan"),
    ):
        if names:
            where.append(f"{len(names)} {what} ({quote_some(names)})")
    found.unread += folders_without_images(root, cases, folders, kinds)
    return [case for case in cases if case.files]


def _none_fits(root: Path, paths: Sequence[str], layout: Preset) -> BadInput:
    """The error of a cohort none of whose paths, or series, have the layout's form."""
    expected = "' or '".join(pattern for _, pattern in layout.forms)
    advice = "with {patient}, {case} and {modality} where they stand in the path"
    if layout.series:
        wanted = " or ".join(f"{tags} ({name})" for name, tags in layout.series.items())
        shown = describe_series(list_series(root / paths[0]))
        return BadInput(
            f"{root}: expected DICOM series with {wanted} in folders like '{expected}', found none in {len(paths)} folders; {paths[0]} has {shown}. Name the tags in a preset file of your own, or pass --pattern {advice}."
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
    series = {}
    for path in paths:
        names = read_names(path, (root / path).is_dir(), splits)
        if names.modality or not names.is_dicom:
            every.append(names)
            continue
        for row in rows_by_tags(root, path):
            place = row.path.relative_to(root).as_posix()
            series[row.path] = row.series
            ids = (*names.ids[:-1], "".join(names.ids[-1:]) + row.case) if row.case else names.ids
            every.append(replace(names, path=place, ids=ids, modality=row.modality))
    rows, below = name_cases(root, every, found)
    unmatched += below
    return [replace(row, series=series.get(row.path)) for row in rows]


def _rows_of(root: Path, paths: list[str], layout: Preset, unmatched: list[str]) -> Iterator[Row]:
    """The rows of paths that match a pattern of the layout; the other paths are added to `unmatched`.

    Every path goes to the first pattern that it matches, and to others that name further parts of that file. A DICOM
    folder's tags name modalities where the pattern does not; other files, whose names state none either, remain unnamed.
    """
    parts_of = defaultdict[str, list[tuple[str, str]]](list)  # of a place: names and parts
    expressions = {}
    for modality, pattern in layout.forms:
        place, part = split_part(pattern)
        expressions[place] = path_expression(place)
        unnamed = not modality and "modality" not in expressions[place].groupindex
        files = [root / path for path in paths]
        if unnamed and any(map(modality_by_name, files)) and not any(map(Path.is_dir, files)):
            raise BadInput(
                f"pattern '{pattern}': expected {{modality}} in it, found none. Put it where the modality stands."
            )
        if part or not parts_of[place]:
            parts_of[place].append((modality, part))
    common = layout.arrays.part if layout.arrays else ""
    splits = split_folders(paths)
    for path in paths:
        place, match = _first_match(path, expressions)
        if match is None:
            unmatched.append(path)
            continue
        scan = root / path
        patient, study, split = study_of(match, root, splits)
        stated = match.groupdict().get("modality", "")
        if not {stated, *dict(parts_of[place])} - {""}:
            tagged = [Row(None, "", UNNAMED, scan)]
            if scan.is_dir():
                tagged = rows_by_tags(root, path, layout.series)
            for row in tagged:
                yield replace(row, patient=patient, case=study, split=split)
            continue
        for modality, part in parts_of[place]:
            name = modality or layout.modality_of(stated)
            if not modality and scan.is_dir() and not is_known(name):
                is_ct = any(row.modality == "ct" for row in rows_by_tags(root, path))
                name = f"ct_{name}" if is_ct else name  # whose unit is HU
            for case, file in slices_of(scan, part, common):
                owner, own = (None, case) if case else (patient, study)
                yield Row(owner, own, name, file, split=split)


def _first_match(
    path: str, expressions: Mapping[str, re.Pattern[str]]
) -> tuple[str, re.Match[str] | None]:
    """The first place that a path matches; a place without an ending takes a scan of any format."""
    bare = without_ending(path)
    for place, expression in expressions.items():
        takes_any = without_ending(place) == place and not holds_slices(place)
        match = expression.fullmatch(bare if takes_any else path)
        if match is not None:
            return place, match
    return "", None


def _settle_splits(cases: list[CaseFiles], layout: Preset, found: CohortFiles) -> list[CaseFiles]:
    """The cases with the splits that lists, folders or names state, which are noted.

    Training alone states no split. Some training cases validate where nothing says which, and cases outside of all
    folders train.
    """
    reasons = {case.case: "folders or lists" for case in cases if case.split}
    named = grouped((case.patient or case.case, split_of_name(case.case)) for case in cases)
    by_name = {owner: words[0] for owner, words in named.items() if len({*words}) == 1}
    # test_p4 beside p1; not a cohort of test_p1 and test_p2, nor P1_test and P1_retest
    if len({*by_name.values()}) > 1:
        for number, case in enumerate(cases):
            split = case.split or by_name.get(case.patient or case.case)
            cases[number] = replace(case, split=split)
            if split:
                reasons.setdefault(case.case, "names")
    stated = {case.split for case in cases} - {None}
    if stated <= {"train"}:
        return [replace(case, split=None) for case in cases]
    placed = [replace(case, split=case.split or "train") for case in cases]
    if "val" not in stated:
        count = layout.arrays.held_back if layout.arrays else 0
        training = sum(case.split == "train" for case in placed)
        placed = hold_out(placed, count or round(VALIDATE * training))
        reasons |= {case.case: "chance" for case in placed if case.split == "val"}
    # a case outside of all folders trains
    chosen = grouped(
        ((case.split, reasons.get(case.case, "default")), case.case) for case in placed
    )
    for (split, reason), names in sorted(chosen.items(), key=str):
        found.guessed.append(
            f"{plural(len(names), 'case')} of {split} by {reason} ({quote_some(sorted(names))})"
        )
    return placed


def _state_assumptions(found: CohortFiles, layout: Preset, root: Path, is_stated: bool) -> None:
    """Note what is assumed of the cases, whose files a manifest may state; raises BadInput where slices of arrays do not fit together."""
    if layout.arrays is not None:
        refuse_unfit(found.cases, root)
        found.guessed += layout.arrays.guessed
        found.heads = layout.arrays.heads
    found.guessed += assumptions(found.cases)
    if not is_stated:
        labels = Counter(chain.from_iterable(case.labels for case in found.cases))
        found.guessed += (
            f"{name} in {plural(labels[name], 'case')} is a label map, and no scan"
            for name in sorted(labels.keys() - {*LABELS})
        )
    found.guessed += sentences_on_shared_masks(
        (case.patient, case.mask) for case in found.cases if case.mask
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


def _leave_out(cases: list[CaseFiles], layout: Preset, found: CohortFiles) -> list[CaseFiles]:
    """The cases that the layout does not leave out; the others are noted. A cohort of such cases alone stays whole."""
    kept = [case for case in cases if case.case not in layout.leave_out]
    if not kept:
        return cases
    found.unclaimed += [
        f"{case.case} ({layout.leave_out[case.case]})" for case in cases if case not in kept
    ]
    return kept


def _take_frames(case: CaseFiles, frames: Mapping[str, str]) -> CaseFiles:
    """The case with frames of a dynamic scan, each a modality, in place of that scan; frames: see Preset."""
    files = dict(case.files)
    for name, value in frames.items():
        source, _, frame = value.partition("#")
        if source in case.files:
            files[name] = Path(f"{case.files[source]}#{frame}")
            files.pop(source, None)
    return replace(case, files=files)
