"""How the files of a cohort are named: path patterns and presets for public data sets."""

import dataclasses
import os
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field

from voxlate.config import fill, settings
from voxlate.data.tags import Tags
from voxlate.errors import BadInput
from voxlate.images.series import FRAME, looks_like_dicom

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".mha", ".mhd", ".nrrd", ".png", ".tiff", ".tif")
MASKS = ("mask", "brainmask")
LABELS = ("seg", "lesion", "labels")
# '<case>/<case>_t1.nii.gz' must be tried before '<case>/<anything>.nii.gz', which also matches it.
DEFAULT_PATTERNS = ("{case}/{case}_{modality}", "{case}/{case}-{modality}", "{case}/{modality}")
MOST_FILES_OF_ONE_CASE = 16
SHOWN = 3
Key = tuple[str | None, str]  # patient and study, as a path tells them


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
class Preset:
    """The layout of a public data set."""

    title: Annotated[str, Field(description="name of the data set")]
    source: Annotated[str, Field(description="where the layout is described")]
    patterns: Annotated[list[str], Field(description="paths below the root; the first that matches wins")] = field(
        default_factory=list
    )
    files: Annotated[
        dict[str, str], Field(description="our name = path with {case}, instead of patterns, where paths share no form")
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
                    f"expected of frames.{name} a modality with #frame=N, #peak or #peak+8s, found '{value}'. Mend it."
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
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise BadInput(
            f"preset: expected one of {', '.join(presets())} or a TOML file, found '{name}'. Choose one of these."
        )
    try:
        return fill(Preset, tomllib.loads(text), f"preset {name}")
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"preset {name}: expected TOML, found something else ({error}). Mend the file.") from error


def patient_of(case: str, expression: str) -> str:
    """The patient that a case name tells by a preset's regular expression; the case itself where it tells none."""
    found = re.search(expression, case) if expression else None
    return found.group(1) if found else case


def modality_name(name: str, aliases: Mapping[str, str]) -> str:
    """A file's modality name as we write it: lower case, by the preset's aliases."""
    lower = {key.lower(): value for key, value in aliases.items()}
    return lower.get(name.lower(), name.lower())


def without_suffix(path: str) -> str:
    """A path without its image suffix ('.nii.gz' counts as one)."""
    suffix = next((one for one in SUFFIXES if path.lower().endswith(one)), "")
    return path[: len(path) - len(suffix)]


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder holds DICOM files: one says .dcm, or the first has the DICM mark."""
    files = [entry for entry in sorted(folder.iterdir()) if entry.is_file() and not entry.name.startswith(".")]
    named = any(entry.suffix.lower() in (".dcm", ".ima") for entry in files)
    return named or (bool(files) and looks_like_dicom(files[0]))


def sort_files(found: Mapping[str, Path]) -> tuple[dict[str, Path], Path | None, dict[str, Path]]:
    """Tell images, the mask and label maps from each other by their names."""
    files = {name: path for name, path in sorted(found.items()) if name not in MASKS + LABELS}
    mask = next((found[name] for name in MASKS if name in found), None)
    return files, mask, {name: found[name] for name in LABELS if name in found}


def cases_on_disk(root: Path, layout: Preset, single: bool) -> list[CaseFiles]:
    """The cases below root whose paths have the layout's form; single: root may itself be one case."""
    paths = _image_paths(root, [path_expression(one) for one in layout.skip])
    if not paths:
        kinds = ", ".join(SUFFIXES)
        raise BadInput(
            f"{root}: expected images ({kinds}) or DICOM folders, found none: an empty cohort. Check the path."
        )
    for pattern in layout.patterns:
        if cases := _matching(root, paths, pattern, layout):
            return [case for case in cases if case.files]
    if cases := _by_name(root, paths, layout):
        return [case for case in cases if case.files]
    if single and len(paths) <= MOST_FILES_OF_ONE_CASE and (cases := _matching(root, paths, "{modality}", layout)):
        return cases
    shown = ", ".join(f"'{path}'" for path in paths[:SHOWN]) + (", …" if len(paths) > SHOWN else "")
    expected = "{case}/{modality}" if single else "' or '".join([*layout.patterns, *layout.files.values()])
    raise BadInput(
        f"{root}: expected paths like '{expected}', found {len(paths)} of another form ({shown}). "
        "Pass --pattern with {patient}, {case} and {modality} where they stand in the path."
    )


def _image_paths(root: Path, skip: list[re.Pattern[str]]) -> list[str]:
    """Paths of image files and DICOM folders below root, relative, with '/'; hidden ones are left out."""
    return sorted(path for path in _walk(root) if not any(one.fullmatch(path) for one in skip))


def _walk(root: Path) -> Iterator[str]:
    for folder, names, files in os.walk(root, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = Path(folder)
        visible = [name for name in files if not name.startswith(".")]
        images = [name for name in visible if name.lower().endswith(SUFFIXES)]
        yield from ((here / name).relative_to(root).as_posix() for name in images)
        if visible and not images and here != root and is_dicom_folder(here):
            yield here.relative_to(root).as_posix()


def path_expression(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression; a name that comes twice must read the same twice."""
    out, seen = "", set()
    for part in re.split(r"(\{\w+\}|\*\*/|\*)", pattern):
        name = part[1:-1]
        if part in ("*", "**/"):
            out += "[^/]*" if part == "*" else "(?:.*/)?"
        elif part.startswith("{") and name not in ("patient", "case", "modality"):
            raise BadInput(
                f"pattern '{pattern}': expected {{patient}}, {{case}} or {{modality}}, found {part}. Use these names."
            )
        elif part.startswith("{"):
            out += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
            seen.add(name)
        else:
            out += re.escape(part)
    return re.compile(out)


def _matching(root: Path, paths: list[str], pattern: str, layout: Preset) -> list[CaseFiles]:
    expression = path_expression(pattern)
    if "modality" not in expression.groupindex:
        raise BadInput(
            f"pattern '{pattern}': expected {{modality}} in it, found none. Put it where the modality stands."
        )
    any_suffix = without_suffix(pattern) == pattern
    found: dict[Key, dict[str, Path]] = defaultdict(dict)
    for path in paths:
        match = expression.fullmatch(without_suffix(path) if any_suffix else path)
        if match is None:
            continue
        patient, case = key_of(match, root)
        modality = modality_name(match["modality"], layout.aliases)
        if modality.endswith("_std"):  # our own synth writes these beside its images
            continue
        add_file(found[patient, case], modality, root / path, case)
    return named_cases(found, layout)


def _by_name(root: Path, paths: list[str], layout: Preset) -> list[CaseFiles]:
    """The cases of a layout that says for each modality where its files are."""
    found: dict[Key, dict[str, Path]] = defaultdict(dict)
    for modality, pattern in layout.files.items():
        expression, any_suffix = path_expression(pattern), without_suffix(pattern) == pattern
        for path in paths:
            if match := expression.fullmatch(without_suffix(path) if any_suffix else path):
                key = key_of(match, root)
                add_file(found[key], modality, root / path, key[1])
    return named_cases(found, layout)


def take_frames(case: CaseFiles, frames: Mapping[str, str]) -> CaseFiles:
    """The case with frames of a moving scan, each a modality, in place of that scan; frames: see Preset."""
    files, moving = dict(case.files), set()
    for name, value in frames.items():
        source, _, frame = value.partition("#")
        if source in case.files:
            files[name] = Path(f"{case.files[source]}#{frame}")
            moving.add(source)
    return dataclasses.replace(case, files={name: files[name] for name in sorted(files) if name not in moving})


def key_of(match: re.Match[str], root: Path) -> Key:
    """The patient and study that a path tells; root's name where it tells none."""
    names = match.groupdict()
    return names.get("patient"), names.get("case") or names.get("patient") or root.resolve().name


def add_file(files: dict[str, Path], modality: str, path: Path, case: str) -> None:
    """Add one file to a case; raises BadInput where the case has that modality already."""
    if modality in files:
        raise BadInput(
            f"{path}: expected one {modality} of case {case}, found also {files[modality]}. Remove one of them."
        )
    files[modality] = path


def named_cases(found: Mapping[Key, dict[str, Path]], layout: Preset) -> list[CaseFiles]:
    """Cases from the files found for each patient and study."""
    # Studies are often called alike in every patient ('baseline'): then only patient and study together name a case.
    alike = any(count > 1 for count in Counter(case for _, case in found).values())
    cases = []
    for (patient, study), names in found.items():
        files, mask, labels = sort_files(names)
        case = f"{patient}_{study}" if alike and patient is not None else study
        patient_name = patient_of(case, layout.patient) if patient is None else patient
        cases.append(CaseFiles(case, patient_name, None, files, mask, labels))
    return cases
