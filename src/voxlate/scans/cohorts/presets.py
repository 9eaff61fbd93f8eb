"""Layouts of cohorts: path patterns and tags of DICOM series, those of public data sets, and the rows that they make of paths."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from voxlate.base.config import fill, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.base.option import read_shipped
from voxlate.scans.cohorts.case_files import UNNAMED, Row, is_known, kind_by_values
from voxlate.scans.cohorts.path_names import (
    SPLIT_WORD,
    modality_by_name,
    split_folders,
    split_named,
    split_of_path,
)
from voxlate.scans.formats.array_files import images_in, stack_shape
from voxlate.scans.formats.dicom import SeriesInfo, list_series
from voxlate.scans.formats.dicom_file import kind_of
from voxlate.scans.formats.dynamic import is_frame
from voxlate.scans.formats.io import holds_slices, without_ending
from voxlate.scans.images.units import plain_modality
from voxlate.scans.layout_options import SHIPPED, check_pattern, presets

# Contrasts of MR by the words of a description; the first that fits counts.
MR = {
    "flair": "flair|dark.?fluid",
    "adc": r"\badc|apparent",
    "dwi": r"\bdwi|diff|trace",
    "swi": r"\bswi|suscept",
    "tof": r"\btof|angio|\bmra\b",
    "t1c": r"t1.*(?:\+c|\bc\+|\bce\b|gd|gad|post|\bkm\b|contrast)|(?:post|gd|contrast).*(?:t1|mprage|bravo)",
    "t1": r"t1|mp.?rage|spgr|bravo|tfl",
    "t2": "t2",
    "pd": r"\bpd|proton",
}
AS_PICTURES = "rows run to the back and columns to the left (axes=PL)"  # assumed for arrays of unknown orientation
UNSTATED_AXIS = (".npy", ".npz")  # whose volumes have slices along any axis
LEAST_SIDE = 5  # of a volume; an array with a shorter side may be a picture of several channels
MOST_NAMES = 2000  # paths that are compared with those of public data sets
WILDCARDS = {"*": "[^/]*", "**/": "(?:.*/)?"}
STACKED = "slice={case}"  # of array files in which each slice is a case
# Folders of data sets with numbered channels: inputs, and beside them targets by their roles.
FAMILY: dict[str, dict[str, str]] = {
    "imagesTr": {"labelsTr": "seg", "targetsTr": "target"},
    "INPUT_IMAGES": {"TARGET_IMAGES": "target", "MASKS": "mask", "LABELS": "seg"},
}
ANY = re.compile("")
OneOrSeveral = Annotated[
    list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


@settings
class Tags:
    """What the headers of a DICOM series must hold to be a modality; an empty key allows any value.

    modality: Modality, in either case (MR, CT, PT). description, protocol, image_type: regular expressions to find in
    SeriesDescription, in ProtocolName, and in ImageType, whose values a backslash joins (in TOML, single quotes leave
    backslashes alone).
    """

    modality: str = ""
    description: re.Pattern[str] = ANY
    protocol: re.Pattern[str] = ANY
    image_type: re.Pattern[str] = ANY

    def fits(self, series: SeriesInfo) -> bool:
        """Whether a series has all these tags."""
        is_modality = self.modality.upper() in ("", series.modality.upper())
        keys = ("description", "protocol", "image_type")
        return is_modality and all(getattr(self, key).search(getattr(series, key)) for key in keys)


@settings
class Arrays:
    """What array files (.npy, .npz, HDF5) do not state: their geometry, splits and patients.

    part: after '#' of every file, see scans/formats/array_files.py ('axes=PL,mm=0.6'). anonymous: names of files state no
    patient, so that a list must. held_back: training
    items (at most a quarter) for validation. guessed: what is assumed; prepare states it.
    """

    part: str = ""
    anonymous: bool = True
    held_back: Annotated[int, setting("training items for validation", ge=0)] = 0
    guessed: list[str] = field(default_factory=list)


@settings
class Preset:
    """The layout of a public data set.

    title, source: name of the data set, and where the layout is described.
    patterns: paths below the root; a scan goes to the first that it matches.
    files: our name = path with {case} (or several), tried before patterns; of array files and dynamic scans
    with the part meant: '{case}.npy#channel=0', '{case}.npz#array=src', 'mr.h5#slice={case}', '{case}_ctp#peak+8s'.
    aliases: the file's modality name = our name.
    series: our name = the tags of its DICOM series; patterns then name the folders that hold series.
    skip: path patterns to leave out (* and **).
    known_by: regular expression that a path of the data set contains; its layout then needs no option.
    runs: "first": of several files of a modality in a case the first by name counts, and prepare states it.
    gaps: cases that lack a modality which is asked for are left out, and prepare states it.
    arrays: of cohorts of slices in array files, whose patients a list must state.
    """

    title: str = ""
    source: str = ""
    patterns: list[str] = field(default_factory=list)
    files: dict[str, OneOrSeveral] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    series: dict[str, Tags] = field(default_factory=dict)
    skip: list[str] = field(default_factory=list)
    known_by: str = ""
    runs: Literal["", "first"] = ""
    gaps: bool = False
    arrays: Arrays | None = None

    def modality_of(self, name: str) -> str:
        """A file's modality name in lower case, or the alias of it."""
        lower = {key.lower(): value for key, value in self.aliases.items()}
        return lower.get(name.lower(), name.lower())

    @property
    def forms(self) -> list[tuple[str, str]]:
        """All patterns in the order in which they are tried: with our name of the file, or "" for {modality} in it."""
        named = (*self.files.items(), ("", self.patterns))
        return [(name, pattern) for name, patterns in named for pattern in patterns]

    @property
    def places(self) -> list[str]:
        """The paths of all patterns."""
        return [split_part(pattern)[0] for _, pattern in self.forms]


def load_preset(name: str | Path) -> Preset:
    """A preset of the package by its name, or one of the user's by its path (a TOML file).

    base = "NAME" in it takes the keys of one of the package, which it changes, and those of its tables.
    """
    values = read_shipped(SHIPPED, name, "preset")
    if base := values.pop("base", None):
        below = read_shipped(SHIPPED, base, f"the base of preset {name}")
        tables = {key for key in values if isinstance(values[key], dict) and key in below}
        values = below | values | {key: below[key] | values[key] for key in tables}
    return fill(
        Preset, values, f"preset {name}", "Change it in that file (see docs/guides/dicom.md)."
    )


def split_part(pattern: str) -> tuple[str, str]:
    """A pattern's path, and the part of an array file or the frame that it names after '#'; '' for any other."""
    place, mark, part = pattern.rpartition("#")
    return (place, part) if mark and (holds_slices(place) or is_frame(part)) else (pattern, "")


def recognise(root: Path, paths: Sequence[str]) -> Preset | None:
    """The layout that a folder's own files state: that of a public data set, BIDS, or nnU-Net's; paths: of its files."""
    if (root / "dataset_description.json").is_file():
        return load_preset("bids")
    for preset in map(load_preset, presets()):
        if preset.known_by and any(re.search(preset.known_by, path) for path in paths[:MOST_NAMES]):
            return preset
    for inputs, targets in FAMILY.items():
        folders = [*root.glob(inputs), *root.glob(f"*/{inputs}")]
        if len(folders) > 1:
            raise BadInput(
                f"{root}: expected one data set, found {len(folders)} folders {inputs}. Name the folder of one; or pass --pattern '**/{{case}}_{{modality}}' if no case of one is called as one of another."
            )
        if folders:
            return _numbered(folders[0].parent, inputs, targets)
    return None


def _numbered(root: Path, inputs: str, targets: Mapping[str, str]) -> Preset:
    """The layout of nnU-Net and nnsyn: imagesTr/CASE_0000.nii.gz, its channels named by dataset.json, labelsTr/CASE.nii.gz.

    In those of the Medical Segmentation Decathlon and MONAI, imagesTr/CASE.nii.gz holds all channels.
    """
    file = root / "dataset.json"
    stated = read_json(file) if file.is_file() else None
    named = stated if isinstance(stated, dict) else {}
    channels = named.get("channel_names") or named.get("modality")
    scans = sorted(root.glob(f"{inputs}/*"))
    marked = [re.fullmatch(r"(.+)_(\d{4})", without_ending(scan.name)) for scan in scans]
    numbers = sorted({match[2] for match in marked if match})
    cases = {match[1] for match in marked if match}
    # p_0001 and p_0002 are cases; of channels, every case has the same
    if "0000" not in numbers or len(cases) * len(numbers) < len(scans):
        numbers = []
    title = "nnU-Net" if inputs == "imagesTr" else "nnsyn"
    if not isinstance(channels, dict) or not channels:
        channels = {number: number for number in numbers}
        if len(numbers) < 2:
            is_source = inputs != "imagesTr" or (root / "targetsTr").is_dir()
            is_ct = kind_by_values(scans[0]) == "ct"
            channels = {"0": "ct" if is_ct else "source" if is_source else "image"}
        title += f", whose channels nothing names ({', '.join(channels.values())})"
    place = f"**/{inputs.replace('Tr', '{split}')}/{{case}}"
    files = {}
    for number, channel in channels.items():
        name = plain_modality(re.sub(r"[^\w-]+", "_", f"{channel}").strip("_").lower())
        part = f"#frame={int(number) + 1}" if len(channels) > 1 else ""
        files[name] = [f"{place}_{int(number):04d}" if numbers else f"{place}{part}"]
    for folder, role in targets.items():
        if (root / folder).is_dir():
            beside = f"**/{folder.replace('Tr', '{split}')}/{{case}}"
            files[role] = [f"{beside}_{number}" for number in numbers] + [beside]
    return Preset(title=title, files=files)


@cache
def path_expression(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression; a name that comes twice must read the same twice, a modality in any case.

    A modality that is followed at once by the case ends before its first digit ('ct10').
    """
    check_pattern(pattern)
    out = ""
    for part in re.split(r"(\{\w+\}|\*\*/|\*)", pattern):
        name = part[1:-1]
        if not part.startswith("{"):
            out += WILDCARDS.get(part) or re.escape(part)
        elif f"(?P<{name}>" in out:
            out += f"(?i:(?P={name}))" if name == "modality" else f"(?P={name})"
        elif name == "case" and out.endswith("(?P<modality>[^/]+)"):
            out = out.removesuffix("[^/]+)") + r"[^/]*?[^/\d])(?P<case>\d[^/]*)"
        else:
            out += SPLIT_WORD if name == "split" else f"(?P<{name}>[^/]+)"
    return re.compile(out)


def arrays_of(files: Sequence[Path]) -> Arrays | None:
    """What is assumed of the array files among some files, which state no geometry; None where there are none.

    Slices follow each other along the last axis where the first volume is as high as wide along the others, else the first.
    """
    arrays = [file for file in files if holds_slices(file)]
    if not arrays:
        return None
    guessed = [AS_PICTURES]
    part = ""
    if all(file.suffix.lower() in UNSTATED_AXIS for file in arrays):
        shapes = [shape for shape in images_in(arrays[0]).values() if len(shape) == 3]
        if shapes and min(shapes[0]) >= LEAST_SIDE:
            rows, columns, slices = shapes[0]
            axis = 2 if rows == columns != slices else 0
            part = f"slices={axis}"
            guessed.append(
                f"slices of arrays such as {'×'.join(map(str, shapes[0]))} follow each other along their {'last' if axis else 'first'} axis (a pattern that ends with #slices={2 - axis} states the other)"
            )
    return Arrays(part=part, anonymous=False, guessed=guessed)


def is_skipped(path: str, layout: Preset) -> bool:
    """Whether a path below the root is one that a layout leaves out."""
    return any(path_expression(pattern).fullmatch(path) for pattern in layout.skip)


def rows_by_patterns(
    root: Path, paths: Sequence[str], layout: Preset
) -> tuple[list[Row], list[str]]:
    """The rows of paths that match a pattern of the layout, and the other paths.

    Every path goes to the first pattern that it matches, and to others that name further parts of that file. A DICOM
    folder's tags name modalities where the pattern does not; other files, whose names state none either, remain unnamed.
    """
    files = [root / path for path in paths]
    are_named = any(map(modality_by_name, files)) and not any(map(Path.is_dir, files))
    forms = [(modality, *split_part(pattern)) for modality, pattern in layout.forms]
    for modality, place, _ in forms:
        if are_named and not modality and "modality" not in path_expression(place).groupindex:
            raise BadInput(
                f"pattern '{place}': expected {{modality}} in it, found none. Put it where the modality stands."
            )
    splits = split_folders(paths)
    rows = []
    unmatched = []
    for path, scan in zip(paths, files):
        matches = ((place, _match(place, path)) for _, place, _ in forms)
        place, match = next((pair for pair in matches if pair[1]), ("", None))
        if match is None:
            unmatched.append(path)
            continue
        first, *further = [(name, part) for name, own, part in forms if own == place]
        meant = [first, *((name, part) for name, part in further if part)]
        patient, case, split = _study_of(match, root, splits)
        stated = layout.modality_of(match.groupdict().get("modality", ""))
        needs_tags = scan.is_dir() and not (first[0] or is_known(stated))
        tagged = rows_by_tags(root, path, layout.series) if needs_tags else []
        if not (stated or first[0]):
            unnamed = [] if scan.is_dir() else [Row(None, "", UNNAMED, scan)]
            for row in tagged or unnamed:
                rows.append(replace(row, patient=patient, case=case, split=split))
            continue
        if any(row.modality == "ct" for row in tagged):
            stated = f"ct_{stated}"  # whose unit is HU
        for modality, part in meant:
            for number, file in slices_of(scan, part, layout.arrays):
                owner = None if number else patient
                rows.append(Row(owner, number or case, modality or stated, file, split))
    return rows, unmatched


def _match(place: str, path: str) -> re.Match[str] | None:
    """The match of a path with a pattern, which takes a scan of any format where it names no ending."""
    takes_any = without_ending(place) == place and not holds_slices(place)
    return path_expression(place).fullmatch(without_ending(path) if takes_any else path)


def _study_of(
    match: re.Match[str], root: Path, splits: Mapping[str, tuple[str, str]]
) -> tuple[str | None, str, str | None]:
    """The patient (None: not stated), the study and the split (None) in a path.

    The study is root's name where the path states none; the split is that of a folder of another role, if need be;
    splits: see split_folders.
    """
    names = match.groupdict(default="")
    of_others = {
        folder: split
        for folder, split in splits.items()
        if folder.split("/")[-1] not in names.values()
    }
    split = split_named(names.get("split", "")) or split_of_path(match.string, of_others)
    patient = names.get("patient")
    study = names.get("case") or patient or root.resolve().name
    return patient, study, split


def with_part(path: str, arrays: Arrays | None) -> str:
    """The path of an array file, or of a part of one, with what is assumed of all and the part does not state; any other path as it is."""
    place, part = split_part(path)
    if not holds_slices(place):
        return path
    settings = dict[str, str]()
    for stated in f"{part},{arrays.part if arrays else ''}".split(","):
        settings.setdefault(stated.partition("=")[0], stated)
    text = ",".join(filter(None, settings.values()))
    return f"{place}#{text}" if text else place


def slices_of(file: Path, part: str, arrays: Arrays | None) -> Iterator[tuple[str, Path]]:
    """The paths of the slices that a pattern's part ('channel=0', 'slice={case}') names in a file, and their cases.

    The case is "" where the file's name states it; arrays: settings of all files, which the part may override.
    """
    path = with_part(f"{file}#{part}" if part else f"{file}", arrays)
    if STACKED not in path:
        yield "", Path(path)
        return
    count = stack_shape(file, split_part(path.replace(STACKED, "slice=0"))[1])[0]
    width = max(4, len(str(count - 1)))
    for k in range(count):
        yield f"slice{k:0{width}d}", Path(path.replace(STACKED, f"slice={k}"))


def rows_by_tags(root: Path, path: str, tables: Mapping[str, Tags] | None = None) -> list[Row]:
    """The rows of the series in a DICOM folder, whose modalities their tags state; localisers are none.

    tables: the tags of each modality, where a preset states them; series that fit none are left out.
    """
    rows = []
    for series in list_series(root / path):
        names = [modality_of(series)]
        if tables:
            names = [name.lower() for name, tags in tables.items() if tags.fits(series)]
        elif kind_of(series.image_type, f"{series.description} {series.protocol}") == "localiser":
            names = []
        rows += [Row(None, "", name, series.path, series=series) for name in names]
    return rows


def modality_of(series: SeriesInfo) -> str:
    """The modality that the tags of a series state; mr of an MR series whose description names no contrast."""
    if series.modality != "MR":
        return {"PT": "pet"}.get(series.modality, series.modality.lower() or "mr")
    text = f"{series.description} {series.protocol}"
    return next((name for name, words in MR.items() if re.search(words, text, re.I)), "mr")
