"""Layouts of public data sets: how the files of a case are named; and the layout that a cohort's own names state."""

import os
import re
from collections.abc import Mapping
from dataclasses import field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from voxlate.base.config import fill, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.base.option import read_shipped
from voxlate.scans.formats.array_files import is_part
from voxlate.scans.formats.dicom import SeriesInfo
from voxlate.scans.formats.dynamic import is_frame
from voxlate.scans.formats.io import holds_slices, read_volume, without_ending
from voxlate.scans.images.units import plain_modality
from voxlate.scans.layout_options import SHIPPED, presets

MOST_NAMES = 2000  # paths that are compared with those of public data sets
MOST_LABELS = 256  # values in a label map; an image has more, or fractions, or values below zero
CT_REACHES_HU = -200  # what a CT reaches
NOTES = (
    ".txt",
    ".md",
    ".rst",
    ".csv",
    ".tsv",
    ".json",
    ".pdf",
    ".xml",
    ".html",
    ".log",
    ".yaml",
    ".yml",
    ".toml",
)
# Folders of data sets with numbered channels: inputs, and beside them targets by their roles ("": by their values).
FAMILY: dict[str, dict[str, str]] = {
    "imagesTr": {"labelsTr": "", "targetsTr": "target"},
    "INPUT_IMAGES": {"TARGET_IMAGES": "target", "MASKS": "mask", "LABELS": "seg"},
}
OneOrSeveral = Annotated[
    list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


@settings
class Tags:
    """What the headers of a DICOM series must hold to be a modality; an empty key allows any value.

    modality: Modality, in either case (MR, CT, PT). description, protocol, image_type: regular expressions to find in
    SeriesDescription, in ProtocolName, and in ImageType, whose values a backslash joins.
    """

    modality: str = ""
    description: str = ""
    protocol: str = ""
    image_type: str = ""

    def __post_init__(self) -> None:
        if not any(vars(self).values()):
            raise BadInput(
                "expected of a series at least one of modality, description, protocol, image_type, found none of them. Add one to its [series] table."
            )
        for key, expression in self._expressions.items():
            try:
                re.compile(expression)
            except re.error as error:
                raise BadInput(
                    f"expected of a series' {key} a regular expression, found '{expression}' ({error}). Fix it; in TOML, single quotes leave backslashes alone."
                ) from error

    def fits(self, series: SeriesInfo) -> bool:
        """Whether a series has all these tags."""
        if self.modality and self.modality.upper() != series.modality.upper():
            return False
        return all(
            re.search(expression, getattr(series, key))
            for key, expression in self._expressions.items()
        )

    def __str__(self) -> str:
        return " and ".join(f"{key} '{value}'" for key, value in vars(self).items() if value)

    @property
    def _expressions(self) -> dict[str, str]:
        return {key: value for key, value in vars(self).items() if key != "modality"}


@settings
class Arrays:
    """What array files (.npy, .npz, HDF5) do not state: their geometry, splits and patients.

    part: after '#' of every file, see scans/formats/array_files.py ('axes=PL,mm=0.6'). heads: slices are of heads; prepare
    states if most are wider than deep. held_back: training items (at most a quarter) for validation. guessed: what is
    assumed; prepare states it.
    """

    part: str = ""
    heads: bool = False
    held_back: Annotated[int, setting("training items for validation", ge=0)] = 0
    guessed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.part and not is_part(self.part):
            raise BadInput(
                f"expected arrays.part like 'axes=PL,mm=0.6x0.6x5', found '{self.part}'. Fix it."
            )


@settings
class Preset:
    """The layout of a public data set.

    title, source: name of the data set, and where the layout is described.
    patterns: paths below the root; a scan goes to the first that it matches.
    files: our name = path with {case} (or several), tried before patterns; in array files with the part meant:
    '{case}.npy#channel=0', '{case}.npz#array=src', 'mr.h5#slice={case}'.
    aliases: the file's modality name = our name.
    patient: regular expression whose first group, in the case name, is the patient.
    series: our name = the tags of its DICOM series; patterns then name the folders that hold series.
    frames: our name = a modality of several frames and one of them: 'ctp#peak+8s'.
    skip: path patterns to leave out (* and **).
    leave_out: case = why it is left out unless a manifest names it; prepare states it.
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
    patient: str = ""
    series: dict[str, Tags] = field(default_factory=dict)
    frames: dict[str, str] = field(default_factory=dict)
    skip: list[str] = field(default_factory=list)
    leave_out: dict[str, str] = field(default_factory=dict)
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

    def __post_init__(self) -> None:
        if not self.forms:
            raise BadInput(
                "expected patterns, or files, to find the cases by, found neither. Add one to the preset."
            )
        for name, value in self.frames.items():
            if not is_frame(value.partition("#")[2]):
                raise BadInput(
                    f"expected of frames.{name} a modality with #frame=N, #peak or #peak+8s, found '{value}'. Fix it."
                )
        for name, pattern in self.forms:
            _, part = split_part(pattern)
            if name and part and not is_part(part.replace("slice={case}", "slice=0")):
                raise BadInput(
                    f"expected of files.{name} after '#' channel=0, array=NAME or slice={{case}}, found '{part}'. Fix it."
                )


def load_preset(name: str | Path) -> Preset:
    """A preset of the package by its name, or one of the user's by its path (a TOML file).

    base = "NAME" in it takes the keys of one of the package, which it changes.
    """
    values = read_shipped(SHIPPED, name, "preset")
    base = values.pop("base", None)
    if base is not None:
        if base not in presets():
            raise BadInput(
                f"preset {name}: expected a base of {', '.join(presets())}, found '{base}'. Fix it."
            )
        values = _merge(read_shipped(SHIPPED, base, "preset"), values)
    return fill(
        Preset, values, f"preset {name}", "Change it in that file (see docs/guides/dicom.md)."
    )


def _merge(below: Any, above: Any) -> Any:
    """Tables with the keys of others in place of their own."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: _merge(below.get(key), value) for key, value in above.items()}


def split_part(pattern: str) -> tuple[str, str]:
    """A pattern's path, and what stands after '#' where that is an array file's; '' for any other."""
    place, mark, part = pattern.rpartition("#")
    return (place, part) if mark and holds_slices(place) else (pattern, "")


def recognise(root: Path) -> Preset | None:
    """The layout that a folder's own files state: that of a public data set, BIDS, or nnU-Net's."""
    if (root / "dataset_description.json").is_file():
        return load_preset("bids")
    walk = ((place, name) for place, _, names in os.walk(root) for name in sorted(names))
    paths = [
        (Path(place) / name).relative_to(root).as_posix()
        for place, name in islice(walk, MOST_NAMES)
    ]
    for name in presets():
        preset = load_preset(name)
        if preset.known_by and any(re.search(preset.known_by, path) for path in paths):
            return preset
    for inputs, targets in FAMILY.items():
        data_sets = [path.parent for path in (*root.glob(inputs), *root.glob(f"*/{inputs}"))]
        if len(data_sets) == 1:
            return _numbered(data_sets[0], inputs, targets)
    return None


def _numbered(root: Path, inputs: str, targets: Mapping[str, str]) -> Preset:
    """The layout of nnU-Net and nnsyn: imagesTr/CASE_0000.nii.gz, its channels named by dataset.json, labelsTr/CASE.nii.gz.

    In those of the Medical Segmentation Decathlon and MONAI, imagesTr/CASE.nii.gz holds all channels.
    """
    file = root / "dataset.json"
    stated = read_json(file) if file.is_file() else None
    channels = None
    if isinstance(stated, dict):
        channels = stated.get("channel_names") or stated.get("modality")
    stems = [without_ending(file.name) for file in sorted(root.glob(f"{inputs}/*"))]
    marked = [re.fullmatch(r"(.+)_(\d{4})", stem) for stem in stems]
    numbers = sorted({match[2] for match in marked if match})
    cases = {match[1] for match in marked if match}
    # p_0001 and p_0002 are cases; of channels, every case has the same
    is_numbered = (
        all(marked)
        and len(cases) * len(numbers) == len(stems)
        and ("0000" in numbers or len(cases) > 1)
    )
    title = "nnU-Net" if inputs == "imagesTr" else "nnsyn"
    default = "source" if inputs != "imagesTr" or (root / "targetsTr").is_dir() else "image"
    if not isinstance(channels, dict) or not channels:
        kind = "ct" if _kind_of(root, inputs) == "ct" else default
        channels = (
            {number: number for number in numbers}
            if is_numbered and len(numbers) > 1
            else {(numbers[0] if is_numbered else "0"): kind}
        )
        title += f", whose channels nothing names ({', '.join(channels.values())})"
    folder = f"**/{inputs.replace('Tr', '{split}')}"
    files, frames = {}, {}
    for number, channel in channels.items():
        name = plain_modality(re.sub(r"[^\w-]+", "_", f"{channel}").strip("_").lower())
        mark = f"_{int(number):04d}" if is_numbered else ""
        if not is_numbered and len(channels) > 1:
            frames[name] = f"channels#frame={int(number) + 1}"
            name = "channels"
        files[name] = [f"{folder}/{{case}}{mark}"]
    for place, role in targets.items():
        if not (root / place).is_dir():
            continue
        kind = role or _kind_of(root, place)
        beside = f"**/{place.replace('Tr', '{split}')}"
        marks = [f"_{number}" for number in numbers if is_numbered]
        files["target" if kind in files else kind] = [
            f"{beside}/{{case}}{mark}" for mark in (*marks, "")
        ]
    return Preset(title=title, files=files, frames=frames)


def _kind_of(root: Path, folder: str) -> str:
    """What the files of a folder are by the values of one: 'ct', 'seg', or 'target', an image to synthesise."""
    first = next(iter(sorted(root.glob(f"{folder}/*.*"))), None)
    try:
        values = read_volume(first).data if first else None
    except BadInput:  # which prepare reports
        values = None
    if values is None:
        return "seg"
    least = values.min()
    if least < CT_REACHES_HU:
        return "ct"
    whole = least >= 0 and values.max() < MOST_LABELS and (values == values.round()).all()
    return "seg" if whole else "target"
