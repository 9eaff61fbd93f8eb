"""Layouts of public data sets: how the files of a case are named."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from voxlate.formats.arrays import is_part
from voxlate.formats.dicom import SeriesInfo
from voxlate.formats.dynamic import is_frame
from voxlate.formats.io import holds_slices
from voxlate.options.layout import SHIPPED, presets
from voxlate.system.config import fill, settings
from voxlate.system.errors import BadInput, did_you_mean
from voxlate.system.files import safe_name

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
MASKS = ("mask", "brainmask")
LABELS = ("seg", "lesion", "labels")
Several = Annotated[
    list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]


@dataclass(frozen=True)
class CaseFiles:
    """One study of a patient: a file for each modality, a label map for each name, and a mask.

    A file may also be a DICOM folder, 'FOLDER#key' for one series of it, or either with '#peak+8s' for one frame, or
    'FILE.npy#channel=0' for a slice of an array file. patient: '' where nothing has said it yet (see patient_names.py).
    fold: in which a manifest says that the patient validates.
    """

    case: str
    patient: str
    split: str | None
    files: dict[str, Path]
    mask: Path | None = None
    labels: dict[str, Path] = field(default_factory=dict)
    fold: int | None = None

    @property
    def paths(self) -> dict[str, Path]:
        """All its files: scans and label maps by their names, and "mask"."""
        mask = {} if self.mask is None else {"mask": self.mask}
        return {**self.files, **self.labels, **mask}


@settings
class Tags:
    """What the headers of a DICOM series must hold to be a modality; what is left empty may be anything."""

    modality: Annotated[str, Field(description="Modality, in either case: MR, CT, PT")] = ""
    description: Annotated[
        str, Field(description="regular expression to find in SeriesDescription")
    ] = ""
    protocol: Annotated[str, Field(description="regular expression to find in ProtocolName")] = ""
    image_type: Annotated[
        str, Field(description=r"regular expression to find in ImageType, its values joined by '\'")
    ] = ""

    def __post_init__(self) -> None:
        if not (self.modality or self._expressions()):
            raise BadInput(
                "expected of a series at least one of modality, description, protocol, image_type, found none of them. Add one to its [series] table."
            )
        for key, expression in self._expressions().items():
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
            for key, expression in self._expressions().items()
        )

    def __str__(self) -> str:
        return " and ".join(f"{key} '{value}'" for key, value in vars(self).items() if value)

    def _expressions(self) -> dict[str, str]:
        return {key: value for key, value in vars(self).items() if value and key != "modality"}


@settings
class Arrays:
    """What array files (.npy, .npz, HDF5) do not say: their geometry, splits and patients."""

    part: Annotated[
        str,
        Field(description="after '#' of every file, see formats/arrays.py: 'axes=PL,mm=0.6'"),
    ] = ""
    lists: Annotated[
        dict[Literal["train", "val", "test"], str],
        Field(description="split = text file with a case a line"),
    ] = field(default_factory=dict)
    heads: Annotated[
        bool, Field(description="slices are of heads; prepare says if most are wider than deep")
    ] = False
    held_back: Annotated[
        int, Field(ge=0, description="training items (at most a quarter) for validation")
    ] = 0
    guessed: Annotated[
        list[str], Field(description="what is taken to be so without being known; prepare says it")
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.part and not is_part(self.part):
            raise BadInput(
                f"expected arrays.part like 'axes=PL,mm=0.6x0.6x5', found '{self.part}'. Fix it."
            )


@settings
class Preset:
    """The layout of a public data set."""

    title: Annotated[str, Field(description="name of the data set")] = ""
    source: Annotated[str, Field(description="where the layout is described")] = ""
    patterns: Annotated[
        list[str], Field(description="paths below the root; a scan goes to the first it matches")
    ] = field(default_factory=list)
    files: Annotated[
        dict[str, Several],
        Field(
            description="our name = path with {case} (or several), tried before patterns; in array files with the part meant: '{case}.npy#channel=0', '{case}.npz#array=src', 'mr.h5#slice={case}'"
        ),
    ] = field(default_factory=dict)
    aliases: Annotated[dict[str, str], Field(description="file's modality name = our name")] = (
        field(default_factory=dict)
    )
    patient: Annotated[
        str,
        Field(description="regular expression whose first group, in the case name, is the patient"),
    ] = ""
    series: Annotated[
        dict[str, Tags],
        Field(
            description="our name = the tags of its DICOM series; patterns then name the folders that hold series"
        ),
    ] = field(default_factory=dict)
    frames: Annotated[
        dict[str, str],
        Field(description="our name = a modality of several frames and one of them: 'ctp#peak+8s'"),
    ] = field(default_factory=dict)
    skip: Annotated[list[str], Field(description="path patterns to leave out (* and **)")] = field(
        default_factory=list
    )
    leave_out: Annotated[
        dict[str, str],
        Field(description="case = why it is left out unless a manifest names it; prepare says it"),
    ] = field(default_factory=dict)
    gaps: Annotated[
        bool,
        Field(
            description="cases that lack a modality which is asked for are left out, and prepare says it"
        ),
    ] = False
    arrays: Annotated[
        Arrays | None,
        Field(description="of cohorts of slices in array files, whose patients a list must say"),
    ] = None

    @property
    def forms(self) -> list[tuple[str, str]]:
        """All patterns in the order in which they are tried: with our name of the file, or "" for {modality} in it."""
        named = [(name, pattern) for name, patterns in self.files.items() for pattern in patterns]
        return [*named, *(("", pattern) for pattern in self.patterns)]

    def __post_init__(self) -> None:
        if not (self.patterns or self.files):
            raise BadInput(
                "expected patterns, or files, to find the cases by, found neither. Add one to the preset."
            )
        for name, value in self.frames.items():
            if not is_frame(value.partition("#")[2]):
                raise BadInput(
                    f"expected of frames.{name} a modality with #frame=N, #peak or #peak+8s, found '{value}'. Fix it."
                )
        for name, pattern in self.forms:
            _, part = place_and_part(pattern)
            if name and part and not is_part(part.replace("slice={case}", "slice=0")):
                raise BadInput(
                    f"expected of files.{name} after '#' channel=0, array=NAME or slice={{case}}, found '{part}'. Fix it."
                )


def load_preset(name: str | Path) -> Preset:
    """A preset of the package by its name, or one of the user's by its path (a TOML file).

    base = "NAME" in it begins from one of the package, whose keys it changes.
    """
    try:
        values = _tables(name)
        base = values.pop("base", None)
        if base is not None:
            if base not in presets():
                raise BadInput(
                    f"preset {name}: expected a base of {', '.join(presets())}, found '{base}'. Fix it."
                )
            values = _over(_tables(base), values)
        return fill(
            Preset, values, f"preset {name}", "Change it in that file (see docs/guides/dicom.md)."
        )
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(
            f"preset {name}: expected TOML, found something else ({error}). Fix the file."
        ) from error


def _tables(name: str | Path) -> dict[str, Any]:
    path = SHIPPED / f"{name}.toml" if name in presets() else Path(name)
    if not path.is_file():
        hint = did_you_mean(str(name), presets()) or "Choose one of these."
        raise BadInput(
            f"preset: expected one of {', '.join(presets())} or a TOML file, found '{name}'. {hint}"
        )
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables with the keys of others in place of their own."""
    tables = {
        key
        for key, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(key), dict)
    }
    return {**below, **above, **{key: _over(below[key], above[key]) for key in tables}}


def patient_of(case: str, expression: str) -> str:
    """The patient in a case name by a preset's regular expression; '' where it does not match."""
    found = re.search(expression, case) if expression else None
    return found.group(1) if found else ""


def modality_name(name: str, aliases: Mapping[str, str]) -> str:
    """A file's modality name in lower case, or the preset's alias of it."""
    lower = {key.lower(): value for key, value in aliases.items()}
    return lower.get(name.lower(), name.lower())


def place_and_part(pattern: str) -> tuple[str, str]:
    """A pattern's path, and what stands after '#' where that is an array file's; '' for any other."""
    place, mark, part = pattern.rpartition("#")
    return (place, part) if mark and holds_slices(place) else (pattern, "")


def case_of(case: str, patient: str, split: str | None, found: Mapping[str, Path]) -> CaseFiles:
    """A case from all its files: images, the mask and label maps go by their names."""
    for name in (case, *found):
        safe_name(name, f"case {case}")
    files = {name: path for name, path in sorted(found.items()) if name not in MASKS + LABELS}
    mask = next((found[name] for name in MASKS if name in found), None)
    return CaseFiles(
        case,
        patient,
        split,
        files,
        mask,
        {name: found[name] for name in LABELS if name in found},
    )
