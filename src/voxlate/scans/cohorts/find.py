"""The cases of a cohort, found by the default layout, a pattern, a preset for a public data set, or a manifest."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, first_of, known_name, plural
from voxlate.base.files import MAPS, SYNTHETIC
from voxlate.base.groups import grouped
from voxlate.base.option import merge
from voxlate.scans.cohorts.case_files import (
    LABELS,
    UNNAMED,
    CaseFiles,
    CohortFiles,
    cases_of,
    is_known,
    plain_name,
)
from voxlate.scans.cohorts.manifest import check_stated, read_manifest, root_and_manifest
from voxlate.scans.cohorts.path_roles import modality_by_name, rows_by_roles
from voxlate.scans.cohorts.patient_names import find_owners
from voxlate.scans.cohorts.patterns import (
    fits_any,
    path_expression,
    split_folders,
    split_of_name,
    study_of,
)
from voxlate.scans.cohorts.presets import (
    NOTES,
    Arrays,
    Preset,
    load_preset,
    recognise,
    split_part,
)
from voxlate.scans.cohorts.rows import Exclusion, Row, as_names, quote_some
from voxlate.scans.cohorts.series import cases_by_series, join_by_person, rows_by_tags
from voxlate.scans.cohorts.slice_lists import (
    arrange,
    assumptions,
    hold_out,
    refuse_unfit,
    slices_of,
    take_patients,
)
from voxlate.scans.cohorts.split import (
    refuse_leak,
    refuse_similar_names,
    sentences_on_shared_masks,
)
from voxlate.scans.formats.dicom import holds_image, is_dicom_folder
from voxlate.scans.formats.io import (
    endings_by_name,
    holds_slices,
    is_picture,
    is_synthetic,
    scan_endings,
    without_ending,
)
from voxlate.scans.formats.picture import PICTURE
from voxlate.scans.images.units import plain_modality
from voxlate.scans.layout_options import Layout

BY_NAMES = Preset(patterns=["{case}/{modality}"])  # paths are then read by their names
VALIDATE = 0.15  # of training cases, where folders state a test split and no validation
AS_PICTURES = "rows run to the back and columns to the left (axes=PL)"  # assumed for arrays of unknown orientation
Folders = list[tuple[Path, list[str]]]  # each with the names of its files


def find_cohort(
    root: Path | str,
    options: Layout | None = None,
    modalities: Sequence[str] | None = None,
    **changes: Any,
) -> CohortFiles:
    """The cases below a folder, sorted by name, and sentences on what was left out.

    changes: fields of the options. pattern: a path below root with {patient}, {case}, {modality}, {split}, * and **; without a file suffix it takes any that
    can be read, DICOM folders too. Without any option: public data sets, BIDS and nnU-Net by what marks them, else by
    names (see path_roles.py): <root>/<case>/<modality>.<suffix> or <root>/<case>_<modality>.<suffix>, below folders of
    sites and splits, with folders of studies or modalities; or,
    where root is itself one case, <root>/<modality>.<suffix>. A manifest (see manifest.py) is taken from
    root/cases.csv or root/cohort.csv when none is named; allow_outside: its paths may lead out of its folder and root.
    With a preset that has [series] tables, patterns are those of the folders with DICOM files, and their series are
    chosen by tags; [frames] makes modalities of frames of a dynamic scan; with [arrays] files hold slices.
    patients: a text file with the patient of each case (see slice_lists.py; for [arrays] by default
    root/patients.txt), or "each", by which every case is a patient of its own. By default paths and manifests state the
    patients, and where they do not, the names of the cases (see patient_names.py).
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
    cohort_files = CohortFiles()
    layout = _layout(root, asked.pattern, asked.preset)
    if layout.title and asked.preset is None:
        cohort_files.guessed.append(f"the layout is that of {layout.title}")
    on_disk = partial(_on_disk, root, layout, asked.patients, cohort_files, exclusion)
    if table is None:
        cases = _leave_out(on_disk(), layout, cohort_files)
    else:
        cases = read_manifest(
            table, root, layout, on_disk, exclusion, cohort_files, asked.allow_outside
        )
    cases = _take_owners(cases, asked.patients, table, layout, cohort_files)
    if table is None and not (layout.arrays and layout.arrays.lists):
        cases = _settle_splits(cases, cohort_files)
    refuse_leak(cases, table or asked.patients or root)
    # lists and names have stated the patients only now
    cases = [case for case in cases if exclusion.keep_case(case.case, case.patient)]
    exclusion.refuse_unused(root)
    cohort_files.unclaimed += exclusion.sentences()
    if not cases:
        raise BadInput(
            f"{root}: expected at least one case with an image, found none: an empty cohort. Check the path."
        )
    refuse_similar_names((case.case for case in cases), "case", table or root)
    owners = (case.patient for case in cases)
    refuse_similar_names(owners, "patient", asked.patients or table or root)
    cases = sorted(cases, key=lambda case: case.case)
    cohort_files.cases = _unify_spelling(
        [_take_frames(case, layout.frames) for case in cases], cohort_files
    )
    if modalities is not None:
        cohort_files.cases = _take_modalities(modalities, layout, root, cohort_files)
    _state_assumptions(cohort_files, layout, root, is_stated=table is not None)
    return cohort_files


def _take_owners(
    cases: list[CaseFiles],
    patients: Path | str | None,
    table: Path | None,
    layout: Preset,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases with their patients, by a list or by their names; those of a manifest are checked."""
    if patients is not None:
        cases = take_patients(cases, patients)
    elif layout.arrays is None:
        are_stated = table is not None and all(case.patient for case in cases)
        cases = find_owners(cases, found)
        if not are_stated:
            cases = join_by_person(cases, found)
    if table is not None:
        check_stated(cases, table)
    return cases


def _settle_splits(cases: list[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases with the splits that their folders or names state, which are noted.

    Folders of training alone state no split. Some training cases validate where no folder says which, and cases
    outside of all folders train.
    """
    reasons = {case.case: "folders" for case in cases if case.split}
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
    if stated == {"train", "test"}:
        placed = hold_out(placed, round(VALIDATE * sum(case.split == "train" for case in placed)))
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


def _layout(root: Path, pattern: str | None, preset: str | Path | None) -> Preset:
    """The layout that the user names, or that the folder states, or the default one."""
    if preset is not None:
        layout = load_preset(preset)
    else:
        layout = (pattern is None and recognise(root)) or BY_NAMES
    if pattern is not None:
        layout = replace(layout, patterns=[pattern], files={})
    if layout.arrays is None and any(holds_slices(place) for place in layout.places):
        layout = replace(layout, arrays=Arrays(guessed=[AS_PICTURES]))
    return layout


def _on_disk(
    root: Path,
    layout: Preset,
    patients: Path | str | None,
    found: CohortFiles,
    exclusion: Exclusion,
) -> list[CaseFiles]:
    """The cases of the layout below root; other files, and files that cannot be read, are noted in `found`."""
    folders = _folders(root, found)
    if layout.series:
        holding_files = [folder for folder, files in folders if files]
        return cases_by_series(root, layout, holding_files, exclusion)
    cases = _cases_by_path(root, layout, folders, found, exclusion)
    if layout.arrays is None:
        return cases
    return arrange(cases, layout.arrays, root, patients, found)


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


def _cases_by_path(
    root: Path, layout: Preset, folders: Folders, found: CohortFiles, exclusion: Exclusion
) -> list[CaseFiles]:
    """The cases below root whose paths have the layout's form; by default root may itself be one case, or flat.

    A path belongs to the first pattern that it matches; paths that match none, and cases without a scan, are noted.
    """
    named = [ending for ending in endings_by_name() if ending in " ".join(layout.places).lower()]
    kinds = (*scan_endings(), *named)
    skip = [path_expression(pattern) for pattern in layout.skip]
    every = sorted(_image_paths(root, folders, kinds))
    if not every:  # folders of scans have previews of these endings
        every = sorted(_image_paths(root, folders, PICTURE.named_endings))
    images = [path for path in every if not fits_any(path, skip)]
    others = [path for path in images if (root / path).is_dir() and not holds_image(root / path)]
    synthetic = [path for path in images if _is_synthesised(root, path)]
    left_out = {*others, *synthetic}
    paths = [path for path in images if path not in left_out]
    if not paths:
        raise _no_images(root, folders, kinds)
    unmatched = list[str]()
    tagged = partial(rows_by_tags, root)
    if layout is BY_NAMES:
        # pictures whose names are those of no modality
        pictures = [
            path
            for path in paths
            if is_picture(Path(path)) and not is_known(without_ending(Path(path).name))
        ]
        if any(not is_picture(Path(path)) for path in paths):
            _note(found.unclaimed, pictures, "pictures beside scans")
            paths = sorted({*paths} - {*pictures})
        rows, unmatched = rows_by_roles(root, paths, found, tagged)
    else:
        rows = [*_rows_of(root, paths, layout, unmatched, tagged)]
    if any(row.series for row in rows):
        found.guessed.append(
            "modalities of DICOM series are named by their tags (--preset FILE.toml chooses others)"
        )
    odd = {name for row in rows for name in (row.case, row.modality) if plain_name(name) != name}
    rows = [replace(row, modality=plain_name(row.modality)) for row in rows]
    cases = cases_of(rows, exclusion, layout.patient)
    if not cases:
        expected = "' or '".join(pattern for _, pattern in layout.forms)
        raise BadInput(
            f"{root}: expected paths like '{expected}', found {len(paths)} of another form ({quote_some(paths)}). Pass --pattern with {{patient}}, {{case}} and {{modality}} where they stand in the path."
        )
    _note(
        found.guessed,
        sorted(odd),
        "names of cases or modalities have '_' for what not every system allows",
    )
    found.without_scan += [case.case for case in cases if not case.files]
    skipped = {*every} - {*images}
    _note(found.unclaimed, sorted(skipped), "images of names or folders that the layout skips")
    _note(found.unclaimed, unmatched, "scans that no pattern claims")
    _note(found.unclaimed, synthetic, "images that were synthesised")
    _note(found.unclaimed, others, "DICOM objects that are no images")
    _note(found.unread, found.without_scan, "cases of label maps or a mask without a scan")
    found.unread += _folders_without_images(root, cases, folders, kinds)
    return [case for case in cases if case.files]


def _note(where: list[str], names: Sequence[str], what: str) -> None:
    if names:
        where.append(f"{len(names)} {what} ({quote_some(names)})")


def _no_images(root: Path, folders: Folders, kinds: Sequence[str]) -> BadInput:
    endings = {Path(name).suffix.lower() for _, names in folders for name in names}
    named = ", ".join(sorted(endings & {*endings_by_name()}))
    found = f"only {named}, which are read where a pattern names them" if named else "none"
    advice = "Name their layout by --preset or --pattern." if named else "Check the path."
    if is_dicom_folder(root):
        advice = "Put the DICOM files of each patient into a folder of their own."
    return BadInput(
        f"{root}: expected images ({', '.join(kinds)}) or DICOM folders, found {found}: an empty cohort. {advice}"
    )


def _folders_without_images(
    root: Path, cases: list[CaseFiles], folders: Folders, kinds: tuple[str, ...]
) -> list[str]:
    """Sentences on folders beside those of cases that hold files but no image of a known format."""
    paths = [*chain.from_iterable(case.paths.values() for case in cases)]
    levels = {path.parent.parent for path in paths if path.parent != root}
    with_cases = set(chain.from_iterable(path.parents for path in paths))
    sentences = []
    for folder, files in folders:
        data = sorted(name for name in files if not name.lower().endswith(NOTES))
        has_images = any(name.lower().endswith(kinds) for name in data)
        if data and not has_images and folder.parent in levels and folder not in with_cases:
            sentences.append(
                f"{folder.relative_to(root)}: no image of a kind that is read ({quote_some(data)})"
            )
    return sentences


def _folders(root: Path, found: CohortFiles) -> Folders:
    """All folders from root down with the names of their files; hidden ones are left out.

    A folder is read once, under its own name where that is below root: links are followed last.
    """

    def note(error: OSError) -> None:
        """State a folder that may not be read."""
        found.unread.append(
            f"{error.filename}: expected a folder that may be read, found '{error.strerror}'"
        )

    visited = set()
    folders = Folders()
    twice = []
    starts = [root]
    for start in starts:  # grows by the links that are found
        for place, names, files in os.walk(start, onerror=note):
            folder, real = Path(place), Path(place).resolve()
            if real in visited:
                names.clear()
                if not folder.parent.resolve().is_relative_to(real):  # no link to a parent
                    twice.append(folder.relative_to(root).as_posix())
                continue
            visited.add(real)
            visible = sorted(name for name in names if not name.startswith("."))
            links = [name for name in visible if (folder / name).is_symlink()]
            names[:] = [name for name in visible if name not in links]
            starts += [folder / name for name in links]
            folders.append((folder, [name for name in files if not name.startswith(".")]))
            found.unread += filter(None, map(_broken_link, (folder / name for name in files)))
    if twice:
        found.unclaimed.append(
            f"{plural(len(twice), 'link')} to folders that are read under other names ({quote_some(twice)})"
        )
    return folders


def _broken_link(path: Path) -> str:
    """A sentence on a link that leads nowhere, else ""; links to scans are refused when the scans are read."""
    name = path.name.lower()
    is_read = name.startswith(".") or name.endswith((*scan_endings(), *NOTES))
    if is_read or not path.is_symlink() or path.exists():
        return ""
    return f"{path}: expected a folder or file, found a link that leads nowhere"


def _image_paths(root: Path, folders: Folders, kinds: tuple[str, ...]) -> Iterator[str]:
    """Paths of image files and DICOM folders below root, relative, with '/'."""
    for folder, files in folders:
        place = folder.relative_to(root)
        images = [name for name in files if name.lower().endswith(kinds)]
        yield from ((place / name).as_posix() for name in images)
        if files and not images and folder != root and is_dicom_folder(folder):
            yield place.as_posix()


def _rows_of(
    root: Path,
    paths: list[str],
    layout: Preset,
    unmatched: list[str],
    tagged: Callable[[str], list[Row]],
) -> Iterator[Row]:
    """The rows of paths that match a pattern of the layout; the other paths are added to `unmatched`.

    Every path goes to the first pattern that it matches, and to others that name further parts of that file.
    tagged: the rows of a DICOM folder, which also names modalities where the pattern does not; other files, whose
    names state none either, remain unnamed.
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
            for row in tagged(path) if scan.is_dir() else [Row(None, "", UNNAMED, scan)]:
                yield replace(row, patient=patient, case=study, split=split)
            continue
        for modality, part in parts_of[place]:
            name = modality or layout.modality_of(stated)
            if not modality and scan.is_dir() and not is_known(name):
                is_ct = any(row.modality == "ct" for row in tagged(path))
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


def _is_synthesised(root: Path, path: str) -> bool:
    """Whether voxlate wrote an image: its prefix, or a map's ending and its header or a provenance above it, say so.

    Others call their scans t1_std, too.
    """
    stem = without_ending(Path(path).name)
    beside = (root / folder / "provenance.json" for folder in Path(path).parents)
    return stem.startswith(SYNTHETIC) or (
        stem.endswith(MAPS) and (is_synthetic(root / path) or any(map(Path.is_file, beside)))
    )
