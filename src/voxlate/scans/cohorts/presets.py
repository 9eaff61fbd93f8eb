"""Layouts of public data sets: how the files of a case are named."""

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from voxlate.base.config import fill, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.options.option import read_shipped
from voxlate.scans.formats.arrays import is_part
from voxlate.scans.formats.dicom import SeriesInfo
from voxlate.scans.formats.dynamic import is_frame
from voxlate.scans.formats.io import holds_slices
from voxlate.scans.options.layout import SHIPPED, presets

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

    part: after '#' of every file, see scans/formats/arrays.py ('axes=PL,mm=0.6'). lists: split = text file with a case a
    line. heads: slices are of heads; prepare states if most are wider than deep. held_back: training items (at most a
    quarter) for validation. guessed: what is assumed; prepare states it.
    """

    part: str = ""
    lists: dict[Literal["train", "val", "test"], str] = field(default_factory=dict)
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
