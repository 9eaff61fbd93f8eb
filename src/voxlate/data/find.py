"""Finds the cases of a cohort: by the default layout, a pattern, a preset for a public data set, or a manifest."""

import dataclasses
import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxlate.data.choice import Choice, several
from voxlate.data.leakage import refuse_similar_names, shared_masks
from voxlate.data.manifest import read_manifest, root_and_manifest
from voxlate.data.paths import Folders, Key, key_of, named_cases, path_expression, some_of, with_runs
from voxlate.data.presets import (
    LABELS,
    MASKS,
    NOTES,
    Arrays,
    CaseFiles,
    Preset,
    load_preset,
    modality_name,
    place_and_part,
    presets,
)
from voxlate.data.series import cases_by_series
from voxlate.data.slice_lists import arranged, refuse_unfit, slices_of, unstated_spacing, with_patients
from voxlate.errors import BadInput, did_you_mean, first_of
from voxlate.files import HIGH, LOW, STD, SYNTHETIC, UNCALIBRATED, UNFAMILIAR, read_json
from voxlate.images.formats.dicom import is_dicom_folder
from voxlate.images.formats.nifti import is_synthetic
from voxlate.images.io import holds_slices, named_endings, scan_endings, without_ending
from voxlate.images.units import UNITS

__all__ = ["CaseFiles", "CohortFiles", "Preset", "find_cohort", "load_preset", "presets", "root_and_manifest"]

# '<case>/<case>_t1.nii.gz' must be tried before '<case>/<anything>.nii.gz', which also matches it.
DEFAULT_PATTERNS = ("{case}/{case}_{modality}", "{case}/{case}-{modality}", "{case}/{modality}")
KNOWN = ("t1w", "t2w", "pdw", "t1gd", "dwi", "adc", "mri", "cbct", "ctp", "qsm", "phase", "mag", "fa", "md", "dsa")
AS_PICTURES = "rows run to the back and columns to the left (axes=PL)"  # of arrays, where nobody says how they lie


@dataclass
class CohortFiles:
    """The cases of a cohort, what lies with them and belongs to none, what could not be read, and what was guessed.

    bare: names of cases with label maps or a mask, and no scan.
    """

    cases: list[CaseFiles] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    heads: bool = False  # whether slices are of heads, by which a wrong orientation shows


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
    can be read, DICOM folders too. Without any option: BIDS, nnU-Net and trainA/trainB folders by what marks them, else
    <root>/<case>/<modality>.<suffix> (the file name may begin with the case), <root>/<case>_<modality>.<suffix>, or,
    where root is itself one case, <root>/<modality>.<suffix>. A manifest (see manifest.py) is taken from
    root/cases.csv or root/cohort.csv when none is named; allow_outside: its paths may lead out of its folder and root.
    With a preset that has [series] tables, patterns are those of the folders with DICOM files, and their series are
    chosen by tags; [frames] makes modalities of frames of a dynamic scan; with [arrays] files hold slices.
    patients: a text file that says whose the cases are (see lists.py; with [arrays] by default root/patients.txt).
    modalities: every case must have these; only they are kept.
    prefer, exclude, exclude_file: see choice.py. root may also be a manifest, whose folder is then the root.
    Raises BadInput for an empty cohort, a pattern that matches nothing, two files of one name.
    """
    root, table = root_and_manifest(root, manifest)
    choice = Choice(_several(prefer), _several(exclude), _several(exclude_file))
    if not root.is_dir():
        raise BadInput(
            f"{root}: expected a folder of cases, found {'a file' if root.exists() else 'nothing'}. Check the path."
        )
    found = CohortFiles()
    layout = _layout(root, pattern, preset)
    whose = Path(patients) if patients is not None else None
    if table is None:
        cases = _without_left_out(_on_disk(root, layout, whose, found, choice), layout, found)
    else:
        on_disk = functools.partial(_on_disk, root, layout, whose, found, choice)
        cases, others = read_manifest(table, root, layout, on_disk, allow_outside, choice)
        found.unclaimed += others
    choice.refuse_unused(root)
    cases = [case for case in cases if choice.has_case(case.case, case.patient)]  # a list may have said whose they are
    found.unclaimed += choice.sentences()
    if not cases:
        raise BadInput(
            f"{root}: expected at least one case with an image, found none: an empty cohort. Check the path."
        )
    refuse_similar_names((case.case for case in cases), "case", table or root)
    refuse_similar_names((case.patient for case in cases), "patient", patients or table or root)
    cases = sorted((_take_frames(case, layout.frames) for case in cases), key=lambda one: one.case)
    if modalities is not None:
        cases = _with_modalities(cases, modalities, layout.gaps, root, found)
    if layout.arrays is not None:
        refuse_unfit(cases, root)
        found.guessed += layout.arrays.guessed
        found.heads = layout.arrays.heads
    found.guessed += unstated_spacing(cases)
    found.guessed += shared_masks((case.patient, case.mask) for case in cases if case.mask is not None)
    found.cases = cases
    return found


def _several(names: Sequence[str] | str | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _layout(root: Path, pattern: str | None, preset: str | Path | None) -> Preset:
    """The layout that is asked for, or that the folder states, or the default one."""
    layout = None if preset is None else load_preset(preset)
    if pattern is None and preset is None:
        layout = recognised(root)
    layout = layout or Preset(title="", source="", patterns=list(DEFAULT_PATTERNS))
    if pattern is not None:
        layout = dataclasses.replace(layout, patterns=[pattern], files={})
    if layout.arrays is None and any(holds_slices(place_and_part(one)[0]) for _, one in layout.forms):
        layout = dataclasses.replace(layout, arrays=Arrays(guessed=[AS_PICTURES]))
    return layout


def _on_disk(
    root: Path,
    layout: Preset,
    patients: Path | None,
    found: CohortFiles,
    choice: Choice,
) -> list[CaseFiles]:
    """The cases that the layout finds below root; what else is found, and what cannot be read, goes into `found`."""
    folders = _folders(root, found.unread)
    if layout.series:
        return cases_by_series(root, layout, folders, choice)
    cases = cases_by_path(root, layout, folders, found, choice)
    if layout.arrays is None:
        return cases if patients is None else with_patients(cases, patients)
    named = bool(layout.patient) or any("{patient}" in one for _, one in layout.forms)
    cases, others = arranged(cases, layout.arrays, root, patients, named)
    found.unclaimed += others
    return cases


def recognised(root: Path) -> Preset | None:
    """The layout that a folder's own files state: BIDS, nnU-Net, or CycleGAN's trainA and trainB."""
    if (root / "dataset_description.json").is_file():
        return load_preset("bids")
    if (root / "dataset.json").is_file() and any(root.glob("images*")):
        return _nnunet(root)
    if (root / "trainA").is_dir() and (root / "trainB").is_dir():
        files = {name.lower(): [f"{part}{name}/{{case}}" for part in ("train", "val", "test")] for name in "AB"}
        return Preset(
            title="trainA and trainB",
            source="https://github.com/junyanz/CycleGAN",
            files=files,
        )
    return None


def _nnunet(root: Path) -> Preset:
    """nnU-Net's raw data sets: imagesTr/CASE_0000.nii.gz, its channels named by dataset.json, labelsTr/CASE.nii.gz."""
    stated = read_json(root / "dataset.json")
    channels = stated.get("channel_names") or stated.get("modality") if isinstance(stated, dict) else None
    if not isinstance(channels, dict) or not channels:
        raise BadInput(
            f"{root}/dataset.json: expected channel_names, as nnU-Net writes them, found none. Add them, or pass --pattern 'imagesTr/{{case}}_{{modality}}'."
        )
    aliases = load_preset("bids").aliases
    images = dict[str, list[str]]()
    for number, channel in channels.items():
        name = modality_name(re.sub(r"[^\w-]+", "_", str(channel)).strip("_"), aliases)
        images[name] = [f"imagesTr/{{case}}_{int(number):04d}", f"imagesTs/{{case}}_{int(number):04d}"]
    labels = ["labelsTr/{case}", "labelsTs/{case}"]
    return Preset(
        title="nnU-Net",
        source="https://github.com/MIC-DKFZ/nnUNet",
        files={**images, "seg": labels},
    )


def _with_modalities(
    cases: list[CaseFiles],
    modalities: Sequence[str],
    gaps: bool,
    root: Path,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases with these modalities alone; gaps: those that lack one are noted and left out, if some have all."""
    lacking = {one.case: [name for name in modalities if name not in one.files] for one in cases}
    others = [f"{case} has no {' and no '.join(names)}" for case, names in lacking.items() if names]
    if gaps and 0 < len(others) < len(cases):
        lack = f"{len(others)} of {len(cases)} cases that lack a modality which is asked for"
        found.unclaimed.append(f"{lack} ({first_of(others, 3)})")
        cases = [one for one in cases if not lacking[one.case]]
    for wanted in modalities:
        without = [one for one in cases if wanted not in one.files]
        if len(without) == len(cases):
            known = ", ".join(sorted({name for one in cases for name in one.files}))
            hint = did_you_mean(wanted, {name for one in cases for name in one.files}) or "Name one of these."
            raise BadInput(f"{root}: expected cases with the modality {wanted}, found none, only {known}. {hint}")
        if without:
            raise BadInput(
                f"case {without[0].case}: expected the modality {wanted}, found {', '.join(without[0].files)} ({len(without)} of {len(cases)} cases lack it). Add the file, leave the case out by a manifest, or do not name this modality."
            )
    return [dataclasses.replace(one, files={name: one.files[name] for name in modalities}) for one in cases]


def _without_left_out(
    cases: list[CaseFiles],
    layout: Preset,
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases but for those that the layout leaves out, which are noted; a cohort of these alone stays whole."""
    kept = [case for case in cases if case.case not in layout.leave_out]
    if not kept:
        return cases
    found.unclaimed += [
        f"{case.case} ({layout.leave_out[case.case]})" for case in cases if case.case in layout.leave_out
    ]
    return kept


def _take_frames(case: CaseFiles, frames: Mapping[str, str]) -> CaseFiles:
    """The case with frames of a dynamic scan, each a modality, in place of that scan; frames: see Preset."""
    files, dynamic = dict(case.files), set()
    for name, value in frames.items():
        source, _, frame = value.partition("#")
        if source in case.files:
            files[name] = Path(f"{case.files[source]}#{frame}")
            dynamic.add(source)
    return dataclasses.replace(case, files={name: files[name] for name in sorted(files) if name not in dynamic})


def cases_by_path(
    root: Path,
    layout: Preset,
    folders: Folders,
    found: CohortFiles,
    choice: Choice,
) -> list[CaseFiles]:
    """The cases below root whose paths have the layout's form; by default root may itself be one case, or flat.

    A path belongs to the first pattern that it matches; what no pattern claims, and cases without a scan, are noted.
    """
    single = layout.patterns == list(DEFAULT_PATTERNS)
    skip = [path_expression(pattern) for pattern in layout.skip]
    places = [place_and_part(pattern)[0].lower() for _, pattern in layout.forms]
    kinds = (
        *scan_endings(),
        *(ending for ending in named_endings() if any(place.endswith(ending) for place in places)),
    )
    paths = sorted(
        path
        for path in _image_paths(root, folders, kinds)
        if not any(expression.fullmatch(path) for expression in skip)
    )
    made = [path for path in paths if Path(path).name.startswith(SYNTHETIC)]
    paths = [path for path in paths if not Path(path).name.startswith(SYNTHETIC) and choice.has_file(path)]
    if not paths:
        arrays = any(holds_slices(name) for _, names in folders for name in names)
        advice = "Check the path."
        if arrays:
            advice = "Name the layout of such arrays by --preset or --pattern."
        raise BadInput(
            f"{root}: expected images ({', '.join(kinds)}) or DICOM folders, found none: an empty cohort. {advice}"
        )
    cases, strange = _matching(root, paths, layout, choice)
    if not cases and single and all("/" not in path for path in paths):
        cases, strange = _matching(
            root,
            paths,
            dataclasses.replace(layout, patterns=[_flat(root, paths)]),
            choice,
        )
    if not cases:
        expected = "' or '".join(pattern for _, pattern in layout.forms)
        if single:
            expected = "{case}/{modality}"
        raise BadInput(
            f"{root}: expected paths like '{expected}', found {len(paths)} of another form ({some_of(paths)}). Pass --pattern with {{patient}}, {{case}} and {{modality}} where they stand in the path."
        )
    found.bare += [case.case for case in cases if not case.files]
    for some, what in (
        (strange, "scans that no pattern claims"),
        (made, "images that were synthesised"),
        (found.bare, "cases of label maps or a mask without a scan"),
    ):
        found.unclaimed += [f"{len(some)} {what} ({some_of(some)})"] if some else []
    found.unclaimed += _without_images(root, cases, folders, kinds)
    return [case for case in cases if case.files]


def _flat(root: Path, paths: list[str]) -> str:
    """The pattern of scans that lie side by side: of one case, whose names are modalities, or of many."""
    stems = [without_ending(path) for path in paths]
    if all(_is_known(stem) for stem in stems):
        return "{modality}"
    for mark in "_-":
        parts = [stem.rpartition(mark) for stem in stems]
        if all(case and _is_known(name) for case, _, name in parts):
            return f"{{case}}{mark}{{modality}}"
    if any((root / path).is_dir() for path in paths):
        raise BadInput(
            f"{root}: expected a folder for each case with a folder for each series, found DICOM files right in {some_of(paths)}. Pass --preset FILE.toml, whose tables [series.t1], … choose series by their tags (docs/dicom.md; voxlate info FOLDER lists them), or put each series into a folder named as its modality."
        )
    raise BadInput(
        f"{root}: expected a folder for each case, or names that end with a modality, found {len(paths)} scans of another form ({some_of(paths)}). Pass --pattern '{{case}}_{{modality}}' for many cases in one folder, or '{{modality}}' where they are one patient's."
    )


def _is_known(name: str) -> bool:
    """Whether a name is one of a modality, a mask or a label map that we know, or begins with one ('cta2')."""
    lower = name.lower()
    return lower in (*UNITS, *MASKS, *LABELS, *KNOWN) or re.split("[^a-z]", lower)[0] in UNITS


def _without_images(
    root: Path,
    cases: list[CaseFiles],
    folders: Folders,
    kinds: tuple[str, ...],
) -> list[str]:
    """Sentences on folders that lie where cases do and hold files, none of which is an image that is read."""
    of_cases = [path for case in cases for path in case.paths.values()]
    levels = {path.parent.parent for path in of_cases if path.parent != root}
    held = {ancestor for path in of_cases for ancestor in path.parents}
    found = []
    for folder, files in folders:
        data = sorted(name for name in files if not name.lower().endswith(NOTES))
        images = any(name.lower().endswith(kinds) for name in data)
        if data and not images and folder.parent in levels and folder not in held:
            found.append(f"{folder.relative_to(root)}: no image of a kind that is read ({some_of(data)})")
    return found


def _folders(root: Path, unread: list[str]) -> Folders:
    """All folders from root down with the names of their files, each visited once; hidden ones are left out."""

    def note(error: OSError) -> None:
        unread.append(f"{error.filename}: expected a folder that may be read, found '{error.strerror}'")

    visited = set[Path]()
    found = list[tuple[Path, list[str]]]()
    known = (*scan_endings(), *NOTES)
    for folder, names, files in os.walk(root, followlinks=True, onerror=note):
        real = Path(folder).resolve()
        if real in visited:  # links to a parent would go round without end
            names.clear()
            continue
        visited.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        shown = [name for name in files if not name.startswith(".")]
        found.append((Path(folder), shown))
        lost = [Path(folder) / name for name in shown if not name.lower().endswith(known)]
        lost = [one for one in lost if one.is_symlink() and not one.exists()]  # scans are refused when they are read
        unread += [f"{one}: expected a folder or file, found a link that leads nowhere" for one in lost]
    return found


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
        known = expressions.setdefault(place, (expression, any_suffix and not holds_slices(place), []))
        if part or not known[2]:
            known[2].append((modality, part))
    common = layout.arrays.part if layout.arrays else ""
    found: dict[Key, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    strange = []
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
            strange.append(path)
    files = {key: {name: [(file, "") for file in some] for name, some in one.items()} for key, one in found.items()}
    return named_cases(with_runs(files, choice), layout, choice, several), strange


def _is_map(name: str, path: Path) -> bool:
    """Whether our own synth wrote a file next to its images; a scan may be called ct_low."""
    return name.endswith((STD, UNCALIBRATED, UNFAMILIAR)) or (name.endswith((LOW, HIGH)) and is_synthetic(path))
