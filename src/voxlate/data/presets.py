"""Layouts of public data sets: how the files of a case are named."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field

from voxlate.config import fill, settings
from voxlate.errors import BadInput
from voxlate.files import safe_name
from voxlate.images.dicom import SeriesInfo
from voxlate.images.frames import FRAME

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".mha", ".mhd", ".nrrd", ".png", ".tiff", ".tif")
MASKS = ("mask", "brainmask")
LABELS = ("seg", "lesion", "labels")


@dataclass(frozen=True)
class CaseFiles:
    """One study of a patient: a file for each modality, a label map for each name, and a mask.

    A file may also be a DICOM folder, 'FOLDER#key' for one series of it, or either with '#peak+8s' for one frame.
    """

    case: str
    patient: str
    split: str | None
    files: dict[str, Path]
    mask: Path | None = None
    labels: dict[str, Path] = field(default_factory=dict)


@settings
class Tags:
    """What the headers of a DICOM series must hold to be a modality; what is left empty may be anything."""

    modality: Annotated[str, Field(description="Modality, in either case: MR, CT, PT")] = ""
    description: Annotated[str, Field(description="regular expression to find in SeriesDescription")] = ""
    protocol: Annotated[str, Field(description="regular expression to find in ProtocolName")] = ""
    image_type: Annotated[
        str, Field(description=r"regular expression to find in ImageType, its values joined by '\'")
    ] = ""

    def __post_init__(self) -> None:
        if not (self.modality or self._expressions()):
            raise BadInput(
                "expected of a series at least one of modality, description, protocol, image_type, found none of them. "
                "Add one to its [series] table."
            )
        for key, expression in self._expressions().items():
            try:
                re.compile(expression)
            except re.error as error:
                raise BadInput(
                    f"expected of a series' {key} a regular expression, found '{expression}' ({error}). Fix it; in "
                    "TOML, single quotes leave backslashes alone."
                ) from error

    def fits(self, series: SeriesInfo) -> bool:
        """Whether a series has all these tags."""
        if self.modality and self.modality.upper() != series.modality.upper():
            return False
        return all(re.search(expression, getattr(series, key)) for key, expression in self._expressions().items())

    def __str__(self) -> str:
        wanted = {"modality": self.modality, **self._expressions()}
        return " and ".join(f"{key} '{value}'" for key, value in wanted.items() if value)

    def _expressions(self) -> dict[str, str]:
        expressions = {"description": self.description, "protocol": self.protocol, "image_type": self.image_type}
        return {key: value for key, value in expressions.items() if value}


@settings
class Preset:
    """The layout of a public data set."""

    title: Annotated[str, Field(description="name of the data set")]
    source: Annotated[str, Field(description="where the layout is described")]
    patterns: Annotated[list[str], Field(description="paths below the root; a scan goes to the first it matches")] = (
        field(default_factory=list)
    )
    files: Annotated[
        dict[str, str | list[str]],
        Field(description="our name = path with {case} (or several), tried before patterns"),
    ] = field(default_factory=dict)
    aliases: Annotated[dict[str, str], Field(description="file's modality name = our name")] = field(
        default_factory=dict
    )
    patient: Annotated[
        str, Field(description="regular expression whose first group, in the case name, is the patient")
    ] = ""
    series: Annotated[
        dict[str, Tags],
        Field(description="our name = the tags of its DICOM series; patterns then name the folders that hold series"),
    ] = field(default_factory=dict)
    frames: Annotated[
        dict[str, str], Field(description="our name = a modality of several frames and one of them: 'ctp#peak+8s'")
    ] = field(default_factory=dict)
    skip: Annotated[list[str], Field(description="path patterns to leave out (* and **)")] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (self.patterns or self.files):
            raise BadInput("expected patterns, or files, to find the cases by, found neither. Add one to the preset.")
        for name, value in self.frames.items():
            if not FRAME.fullmatch(value.partition("#")[2]):
                raise BadInput(
                    f"expected of frames.{name} a modality with #frame=N, #peak or #peak+8s, found '{value}'. Fix it."
                )


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("voxlate").joinpath("presets")
    return sorted(one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml"))


def load_preset(name: str | Path) -> Preset:
    """A preset of the package by its name, or one of the user's by its path (a TOML file)."""
    if name in presets():
        text = resources.files("voxlate").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"preset {name}: expected a TOML text, found something else. Fix the file.") from error
    else:
        raise BadInput(
            f"preset: expected one of {', '.join(presets())} or a TOML file, found '{name}'. Choose one of these."
        )
    try:
        return fill(Preset, tomllib.loads(text), f"preset {name}")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"preset {name}: expected TOML, found something else ({error}). Fix the file.") from error


def patient_of(case: str, expression: str) -> str:
    """The patient in a case name by a preset's regular expression; the case itself where it does not match."""
    found = re.search(expression, case) if expression else None
    return found.group(1) if found else case


def modality_name(name: str, aliases: Mapping[str, str]) -> str:
    """A file's modality name in lower case, or the preset's alias of it."""
    lower = {key.lower(): value for key, value in aliases.items()}
    return lower.get(name.lower(), name.lower())


def without_suffix(path: str) -> str:
    """A path without its image suffix ('.nii.gz' counts as one)."""
    suffix = next((one for one in SUFFIXES if path.lower().endswith(one)), "")
    return path[: len(path) - len(suffix)]


def add_file(files: dict[str, Path], modality: str, path: Path, case: str) -> None:
    """Add one file to a case; raises BadInput where the case has that modality already."""
    if modality in files:
        raise BadInput(
            f"{path}: expected one {modality} of case {case}, found also {files[modality]}. Remove one of them."
        )
    files[modality] = path


def case_of(case: str, patient: str, split: str | None, found: Mapping[str, Path]) -> CaseFiles:
    """A case from all its files: images, the mask and label maps go by their names."""
    for name in (case, *found):
        safe_name(name, f"case {case}")
    files = {name: path for name, path in sorted(found.items()) if name not in MASKS + LABELS}
    mask = next((found[name] for name in MASKS if name in found), None)
    return CaseFiles(case, patient, split, files, mask, {name: found[name] for name in LABELS if name in found})
