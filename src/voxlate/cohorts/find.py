"""The cases of a cohort, found by the default layout, a pattern, a preset for a public data set, or a manifest."""

import dataclasses
import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxlate.cohorts.choice import Choice, as_names, several
from voxlate.cohorts.leakage import refuse_similar_names, shared_masks
from voxlate.cohorts.manifest import read_manifest, root_and_manifest
from voxlate.cohorts.paths import (
    Folders,
    Key,
    key_of,
    named_cases,
    path_expression,
    some_of,
    with_runs,
)
from voxlate.cohorts.patient_names import by_names
from voxlate.cohorts.presets import (
    NOTES,
    Arrays,
    CaseFiles,
    Preset,
    load_preset,
    modality_name,
    place_and_part,
    presets,
)
from voxlate.cohorts.recognise import flat_pattern, recognised, states_study
from voxlate.cohorts.series import cases_by_series
from voxlate.cohorts.slice_lists import (
    arranged,
    refuse_unfit,
    slices_of,
    unstated_spacing,
    with_patients,
)
from voxlate.formats.dicom import is_dicom_folder
from voxlate.formats.io import (
    holds_slices,
    is_synthetic,
    named_endings,
    scan_endings,
    without_ending,
)
from voxlate.system.errors import BadInput, did_you_mean, first_of, plural
from voxlate.system.files import HIGH, LOW, STD, SYNTHETIC, UNCALIBRATED, UNFAMILIAR

__all__ = [
    "CaseFiles",
    "CohortFiles",
    "Preset",
    "find_cohort",
    "load_preset",
    "presets",
    "root_and_manifest",
]

# '<case>/<case>_t1.nii.gz' must be tried before '<case>/<anything>.nii.gz', which also matches it.
DEFAULT_PATTERNS = ("{case}/{case}_{modality}", "{case}/{case}-{modality}", "{case}/{modality}")
AS_PICTURES = "rows run to the back and columns to the left (axes=PL)"  # assumed for arrays of unknown orientation


@dataclass
class CohortFiles:
    """The cases of a cohort, with sentences on files that belong to no case, cannot be read, or needed a guess.

    without_scan: names of cases with label maps or a mask, and no scan.
    """

    cases: list[CaseFiles] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    without_scan: list[str] = field(default_factory=list)
    heads: bool = False  # whether slices are of heads, whose proportions show a wrong orientation


def find_cohort(
    root: Path | str,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    modalities: Sequence[str] | None = None,
    allow_outside: bool = False,
    patients: Path | str | None = None,
    prefer: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    exclude_file: Sequence[str] | str | None = None,
) -> CohortFiles:
    """The cases below a folder, sorted by name, and sentences on what was left out.

    pattern: a path below root with {patient}, {case}, {modality}, * and **; without a file suffix it takes any that
    can be read, DICOM folders too. Without any option: BIDS, nnU-Net, trainA/trainB and folders called as modalities by what marks them, else
    <root>/<case>/<modality>.<suffix> (the file name may begin with the case), <root>/<case>_<modality>.<suffix>, or,
    where root is itself one case, <root>/<modality>.<suffix>. A manifest (see manifest.py) is taken from
    root/cases.csv or root/cohort.csv when none is named; allow_outside: its paths may lead out of its folder and root.
    With a preset that has [series] tables, patterns are those of the folders with DICOM files, and their series are
    chosen by tags; [frames] makes modalities of frames of a dynamic scan; with [arrays] files hold slices.
    patients: a text file with the patient of each case (see slice_lists.py; for [arrays] by default
    root/patients.txt), or "each", by which every case is a patient of its own. By default paths and manifests say the
    patients, and where they do not, the names of the cases (see patient_names.py).
    modalities: every case must have these; only they are kept.
    prefer, exclude, exclude_file: see choice.py. root may also be a manifest, whose folder is then the root.
    Raises BadInput for an empty cohort, a pattern that matches nothing, two files of one name.
    """
    root, table = root_and_manifest(root, manifest)
    choice = Choice(as_names(prefer), as_names(exclude), as_names(exclude_file))
    if not root.is_dir():
        raise BadInput(
            f"{root}: expected a folder of cases, found {'a file' if root.exists() else 'nothing'}. Check the path."
        )
    found = CohortFiles()
    layout = _layout(root, pattern, preset)
    owned = functools.partial(_owned, layout=layout, patients=patients, found=found)
    if table is None:
        cases = _on_disk(root, layout, patients, found, choice)
        cases = owned(_without_left_out(cases, layout, found))
    else:
        on_disk = functools.partial(_on_disk, root, layout, patients, found, choice)
        cases, others = read_manifest(table, root, layout, on_disk, owned, allow_outside, choice)
        found.unclaimed += others
    cases = [
        case for case in cases if choice.has_case(case.case, case.patient)
    ]  # lists and names tell patients only now
    choice.refuse_unused(root)
    found.unclaimed += choice.sentences()
    if not cases:
        raise BadInput(
            f"{root}: expected at least one case with an image, found none: an empty cohort. Check the path."
        )
    refuse_similar_names((case.case for case in cases), "case", table or root)
    refuse_similar_names((case.patient for case in cases), "patient", patients or table or root)
    cases = sorted(
        (_take_frames(case, layout.frames) for case in cases), key=lambda case: case.case
    )
    cases = _with_one_spelling(cases, found)
    if modalities is not None:
        cases = _with_modalities(cases, modalities, layout.gaps, root, found)
    if layout.arrays is not None:
        refuse_unfit(cases, root)
        found.guessed += layout.arrays.guessed
        found.heads = layout.arrays.heads
    found.guessed += unstated_spacing(cases)
    found.guessed += shared_masks(
        (case.patient, case.mask) for case in cases if case.mask is not None
    )
    found.cases = cases
    return found


def _layout(root: Path, pattern: str | None, preset: str | Path | None) -> Preset:
    """The layout that the user names, or that the folder states, or the default one."""
    layout = None if preset is None else load_preset(preset)
    if pattern is None and preset is None:
        layout = recognised(root)
    layout = layout or Preset(title="", source="", patterns=list(DEFAULT_PATTERNS))
    if pattern is not None:
        layout = dataclasses.replace(layout, patterns=[pattern], files={})
    if layout.arrays is None and any(
        holds_slices(place_and_part(pattern)[0]) for _, pattern in layout.forms
    ):
        layout = dataclasses.replace(layout, arrays=Arrays(guessed=[AS_PICTURES]))
    return layout


def _on_disk(
    root: Path,
    layout: Preset,
    patients: Path | str | None,
    found: CohortFiles,
    choice: Choice,
) -> list[CaseFiles]:
    """The cases of the layout below root; other files, and files that cannot be read, are noted in `found`."""
    folders = _folders(root, found)
    if layout.series:
        return cases_by_series(root, layout, folders, choice)
    cases = cases_by_path(root, layout, folders, found, choice)
    if layout.arrays is None:
        return cases
    cases, others, said = arranged(cases, layout.arrays, root, patients)
    found.unclaimed += others
    found.guessed += said
    return cases


def _owned(
    cases: list[CaseFiles], layout: Preset, patients: Path | str | None, found: CohortFiles
) -> list[CaseFiles]:
    """The cases with their patients; those of arrays may stay without one (see slice_lists.known_patients)."""
    if patients is not None:
        return with_patients(cases, patients)
    if layout.arrays is not None:
        return cases
    cases, said = by_names(cases)
    found.guessed += said
    return cases


def _with_modalities(
    cases: list[CaseFiles],
    modalities: Sequence[str],
    gaps: bool,
    root: Path,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases with these modalities alone; gaps: those that lack one are noted and left out, if some have all."""
    lacking = {case.case: [name for name in modalities if name not in case.files] for case in cases}
    others = [f"{case} has no {' and no '.join(names)}" for case, names in lacking.items() if names]
    if gaps and 0 < len(others) < len(cases):
        lack = f"{len(others)} of {len(cases)} cases that lack a modality which is asked for"
        found.unclaimed.append(f"{lack} ({first_of(others, 3)})")
        cases = [one for one in cases if not lacking[one.case]]
    known = {name for one in cases for name in one.files}
    for wanted in modalities:
        without = [one for one in cases if wanted not in one.files]
        if len(without) == len(cases):
            hint = did_you_mean(wanted, known) or "Name one of these."
            raise BadInput(
                f"{root}: expected cases with the modality {wanted}, found none, only {', '.join(sorted(known))}. {hint}"
            )
        if without:
            raise BadInput(
                f"case {without[0].case}: expected the modality {wanted}, found {', '.join(without[0].files)} ({len(without)} of {len(cases)} cases lack it). Add the file, leave the case out (--exclude {without[0].case}), or do not name this modality."
            )
    return [
        dataclasses.replace(one, files={name: one.files[name] for name in modalities})
        for one in cases
    ]


def _with_one_spelling(cases: list[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases with t1 for T1w where some have the one and some the other, and none has both."""
    aliases = load_preset("bids").aliases
    present = {name for case in cases for name in case.files}
    both = {name for case in cases for name in case.files if aliases.get(name) in case.files}
    renamed = {name: aliases[name] for name in sorted(present & aliases.keys() - both)}
    renamed = {name: plain for name, plain in renamed.items() if plain in present}
    for name, plain in renamed.items():
        count = sum(name in case.files for case in cases)
        found.guessed.append(f"{name} in {plural(count, 'case')} is {plain}, as others call it")
    spelt = list[CaseFiles]()
    for case in cases:
        files = {renamed.get(name, name): path for name, path in case.files.items()}
        spelt.append(dataclasses.replace(case, files=dict(sorted(files.items()))))
    return spelt


def _without_left_out(
    cases: list[CaseFiles],
    layout: Preset,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases that the layout does not leave out; the others are noted. A cohort of such cases alone stays whole."""
    kept = [case for case in cases if case.case not in layout.leave_out]
    if not kept:
        return cases
    for case in cases:
        if case.case in layout.leave_out:
            found.unclaimed.append(f"{case.case} ({layout.leave_out[case.case]})")
    return kept


def _take_frames(case: CaseFiles, frames: Mapping[str, str]) -> CaseFiles:
    """The case with frames of a dynamic scan, each a modality, in place of that scan; frames: see Preset."""
    files = dict(case.files)
    dynamic = set()
    for name, value in frames.items():
        source, _, frame = value.partition("#")
        if source in case.files:
            files[name] = Path(f"{case.files[source]}#{frame}")
            dynamic.add(source)
    kept = {name: files[name] for name in sorted(files) if name not in dynamic}
    return dataclasses.replace(case, files=kept)


def cases_by_path(
    root: Path,
    layout: Preset,
    folders: Folders,
    found: CohortFiles,
    choice: Choice,
) -> list[CaseFiles]:
    """The cases below root whose paths have the layout's form; by default root may itself be one case, or flat.

    A path belongs to the first pattern that it matches; paths that match none, and cases without a scan, are noted.
    """
    single = layout.patterns == list(DEFAULT_PATTERNS)
    skip = [path_expression(pattern) for pattern in layout.skip]
    places = [place_and_part(pattern)[0].lower() for _, pattern in layout.forms]
    named = [
        ending for ending in named_endings() if any(place.endswith(ending) for place in places)
    ]
    kinds = (*scan_endings(), *named)
    synthetic = list[str]()
    paths = list[str]()
    for path in sorted(_image_paths(root, folders, kinds)):
        if any(expression.fullmatch(path) for expression in skip):
            continue
        if Path(path).name.startswith(SYNTHETIC):
            synthetic.append(path)
        elif choice.has_file(path):
            paths.append(path)
    if not paths:
        arrays = any(holds_slices(name) for _, names in folders for name in names)
        advice = "Check the path."
        if arrays:
            advice = "Name the layout of such arrays by --preset or --pattern."
        raise BadInput(
            f"{root}: expected images ({', '.join(kinds)}) or DICOM folders, found none: an empty cohort. {advice}"
        )
    cases, unmatched = _matching(root, paths, layout, choice)
    modalities = [name for case in cases for name in case.files]
    if single and modalities and all(map(states_study, modalities)):
        studies = ["{patient}/{case}_{modality}", "{patient}/{case}-{modality}"]
        cases, unmatched = _matching(
            root, paths, dataclasses.replace(layout, patterns=studies), choice
        )
        found.guessed.append(f"{paths[0]} is a study of a patient (--pattern '{studies[0]}')")
    if not cases and single and all("/" not in path for path in paths):
        flat = dataclasses.replace(layout, patterns=[flat_pattern(root, paths)])
        cases, unmatched = _matching(root, paths, flat, choice)
    if not cases:
        expected = "' or '".join(pattern for _, pattern in layout.forms)
        if single:
            expected = "{case}/{modality}"
        raise BadInput(
            f"{root}: expected paths like '{expected}', found {len(paths)} of another form ({some_of(paths)}). Pass --pattern with {{patient}}, {{case}} and {{modality}} where they stand in the path."
        )
    found.without_scan += [case.case for case in cases if not case.files]
    for names, what in (
        (unmatched, "scans that no pattern claims"),
        (synthetic, "images that were synthesised"),
        (found.without_scan, "cases of label maps or a mask without a scan"),
    ):
        if names:
            found.unclaimed.append(f"{len(names)} {what} ({some_of(names)})")
    found.unclaimed += _without_images(root, cases, folders, kinds)
    return [case for case in cases if case.files]


def _without_images(
    root: Path,
    cases: list[CaseFiles],
    folders: Folders,
    kinds: tuple[str, ...],
) -> list[str]:
    """Sentences on folders beside those of cases that hold files but no image of a known format."""
    of_cases = [path for case in cases for path in case.paths.values()]
    levels = {path.parent.parent for path in of_cases if path.parent != root}
    with_cases = {ancestor for path in of_cases for ancestor in path.parents}
    sentences = []
    for folder, files in folders:
        data = sorted(name for name in files if not name.lower().endswith(NOTES))
        images = any(name.lower().endswith(kinds) for name in data)
        if data and not images and folder.parent in levels and folder not in with_cases:
            sentences.append(
                f"{folder.relative_to(root)}: no image of a kind that is read ({some_of(data)})"
            )
    return sentences


def _folders(root: Path, found: CohortFiles) -> Folders:
    """All folders from root down with the names of their files; hidden ones are left out.

    A folder is read once, under its own name where that is below root: links are followed last.
    """

    def note(error: OSError) -> None:
        found.unread.append(
            f"{error.filename}: expected a folder that may be read, found '{error.strerror}'"
        )

    visited = set[Path]()
    folders = list[tuple[Path, list[str]]]()
    twice = list[str]()
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
            names[:] = [name for name in visible if not (folder / name).is_symlink()]
            starts += [folder / name for name in visible if (folder / name).is_symlink()]
            folders.append((folder, [name for name in files if not name.startswith(".")]))
    if twice:
        found.unclaimed.append(
            f"{plural(len(twice), 'link')} to folders that are read under other names ({some_of(twice)})"
        )
    found.unread += _broken_links(folders)
    return folders


def _broken_links(folders: Folders) -> list[str]:
    """Sentences on links that lead nowhere; those to scans are refused when the scans are read."""
    known = (*scan_endings(), *NOTES)
    paths = [folder / name for folder, names in folders for name in names]
    return [
        f"{path}: expected a folder or file, found a link that leads nowhere"
        for path in paths
        if not path.name.lower().endswith(known) and path.is_symlink() and not path.exists()
    ]


def _image_paths(root: Path, folders: Folders, kinds: tuple[str, ...]) -> Iterator[str]:
    """Paths of image files and DICOM folders below root, relative, with '/'."""
    for folder, files in folders:
        images = [name for name in files if name.lower().endswith(kinds)]
        yield from ((folder / name).relative_to(root).as_posix() for name in images)
        if files and not images and folder != root and is_dicom_folder(folder):
            yield folder.relative_to(root).as_posix()


def _matching(
    root: Path,
    paths: list[str],
    layout: Preset,
    choice: Choice,
) -> tuple[list[CaseFiles], list[str]]:
    """The cases whose paths match the layout's patterns, and the paths that match none.

    Every path goes to the first pattern that it matches, and to others that name further parts of that file.
    """
    expressions = dict[str, tuple[re.Pattern[str], bool, list[tuple[str, str]]]]()
    for modality, pattern in layout.forms:
        place, part = place_and_part(pattern)
        expression = path_expression(place)
        any_suffix = without_ending(place) == place
        if not modality and "modality" not in expression.groupindex:
            raise BadInput(
                f"pattern '{pattern}': expected {{modality}} in it, found none. Put it where the modality stands."
            )
        known = expressions.setdefault(
            place, (expression, any_suffix and not holds_slices(place), [])
        )
        if part or not known[2]:
            known[2].append((modality, part))
    common = layout.arrays.part if layout.arrays else ""
    found: dict[Key, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    unmatched = []
    for path in paths:
        for expression, any_suffix, claims in expressions.values():
            match = expression.fullmatch(without_ending(path) if any_suffix else path)
            if match is not None:
                for modality, part in claims:
                    name = modality or modality_name(match["modality"], layout.aliases)
                    if _is_map(name, root / path):
                        continue
                    for case, file in slices_of(root / path, part, common):
                        key = (None, case) if case else key_of(match, root)
                        found[key][name].append(file)
                break
        else:
            unmatched.append(path)
    files = dict[Key, dict[str, list[tuple[Path, str]]]]()
    for key, of_case in found.items():
        files[key] = {
            name: [(path, "") for path in candidates] for name, candidates in of_case.items()
        }
    return named_cases(with_runs(files, choice), layout, choice, several), unmatched


def _is_map(name: str, path: Path) -> bool:
    """Whether `voxlate synth` wrote a file beside its images; a scan may be called ct_low."""
    if name.endswith((LOW, HIGH)):
        return is_synthetic(path)
    return name.endswith((STD, UNCALIBRATED, UNFAMILIAR))
