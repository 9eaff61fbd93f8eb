"""The provenance that `synth` writes, as scores and reports read it."""

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, StringConstraints, ValidationError
from typing_extensions import TypedDict

from voxlate.config import adapter, fill
from voxlate.data.case import MASK
from voxlate.data.layout import Axes
from voxlate.diffusion.windows import Windows
from voxlate.errors import BadInput
from voxlate.files import read_json

WAY = ("model", "seed", "synth", "units", "axes", "range")  # entries that all cases of one synthesis share
TAUGHT = "taught_calibration"  # key of a provenance: the case is one that the calibration was learned from
FileName = Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]*$")]  # no way out of its folder


class _Stated(TypedDict, total=False):
    """What is read of a provenance; the rest is passed on."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore

    run: str
    case: str
    inputs: dict[str, dict[str, str]]
    prepared: dict[str, Any]
    range: dict[str, tuple[float, float]]
    cases: list[str]
    failed: dict[str, str]
    warnings: list[str]
    split: str
    axes: Axes
    images: dict[FileName, str]
    made_without: dict[str, dict[str, Any]]
    synth: dict[str, Any]


class _Splits(TypedDict, total=False):
    splits: dict[str, list[str]]
    fold: int


class _Trained(TypedDict, total=False):
    """What is read of a run's provenance, or of an image's."""

    data: _Splits


STATED, TRAINED = adapter(_Stated), adapter(_Trained)


def run_folders(provenance: Mapping[str, Any]) -> list[Path]:
    """Folders where the run of a synthesis may be: its provenance names the folder, or a weights file in it."""
    return [Path(provenance["run"]), Path(provenance["run"]).parent] if "run" in provenance else []


def recorded_splits(folders: Iterable[Path]) -> dict[str, list[str]]:
    """The cases of each split in the training of the first of these folders that is a run; {} where none is."""
    return _recorded(folders).get("splits", {})


def is_fold(folders: Iterable[Path]) -> bool:
    """Whether the first of these folders that is a run was trained in a fold: its cohort then has other splits."""
    return "fold" in _recorded(folders)


def _recorded(folders: Iterable[Path]) -> _Splits:
    for folder in folders:
        if (path := folder / "provenance.json").is_file():
            try:
                data = TRAINED.validate_python(read_json(path)).get("data", {})
            except ValidationError as error:
                raise BadInput(
                    f"{path}: expected provenance as train writes it, found others ({error.errors()[0]['loc']}). "
                    "Restore the file: without it nobody knows which cases were trained on."
                ) from error
            if data.get("splits"):
                return data
    return {}


def trained_on(images: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The cases that the models of their images learned from, by name: as each image's provenance says, or its run's.

    images: the case and the provenance of each.
    """
    splits_of = functools.cache(recorded_splits)

    def learned(case: str, made: Mapping[str, Any]) -> bool:
        if made.get("split"):
            return bool(made["split"] == "train")
        return made.get("case", case) in splits_of(tuple(run_folders(made))).get("train", ())

    return list(dict.fromkeys(case for case, made in images if learned(case, made)))


def stated_inputs(provenance: Mapping[str, Any]) -> dict[str, Path]:
    """The source files that a provenance names, by modality; a mask is none."""
    inputs = provenance.get("inputs", {})
    return {name: Path(one["path"]) for name, one in inputs.items() if name != MASK and "path" in one}


def window_borders(provenance: Mapping[str, Any], depth: int) -> list[int]:
    """Slices of an image [D = depth], canonical, at which a window that it was denoised in begins or ends.

    Empty where it was denoised whole, or prepared on a grid other than that of its scan, whose slices are then others.
    """
    stated = provenance.get("synth", {}).get("windows")
    prepared = provenance.get("prepared", {})
    moved = any(prepared.get(key) for key in ("spacing_mm", "register", "align"))
    moved |= bool(prepared.get("resample")) and len(stated_inputs(provenance)) > 1
    if not stated or moved:
        return []
    windows = fill(Windows, stated, "provenance.json: synth.windows")
    parts = windows.slices(depth)  # slices run to Superior in every layout of a network's, as here
    return sorted({border for part in parts for border in (part.start, part.stop)} - {0, depth})


def way_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """How an image was made, whatever its case: equal for all images that scores may be taken of together."""
    return {key: provenance.get(key) for key in WAY}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first thing in which two ways differ, in words; "" where they are the same."""
    for key in WAY:
        first, second = one.get(key), other.get(key)
        if first == second:
            continue
        if isinstance(first, dict) and isinstance(second, dict):
            names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
            return f"{key}: " + ", ".join(f"{name} {first.get(name)} and {second.get(name)}" for name in names)
        return f"{key}: {first} and {second}"
    return ""


def provenance_of(out: Path, case: str = "", modality: str = "") -> dict[str, Any]:
    """The provenance of a case's synthesis, or else that of the whole folder; its paths are made whole.

    modality: of this image, where a case's images were each made in a way of its own (`made_without`).
    """
    for path in (out / case / "provenance.json", out / "provenance.json"):
        if path.is_file():
            try:
                found = STATED.validate_python(read_json(path))
                found = STATED.validate_python({**found, **found.get("made_without", {}).get(modality, {})})
            except ValidationError as error:
                raise BadInput(
                    f"{path}: expected provenance as synth writes it, found others ({error.errors()[0]['loc']}). Make "
                    "the image again, or remove this file."
                ) from error
            return _with_paths(found, path.parent)
    return {}


def _with_paths(stated: _Stated, folder: Path) -> dict[str, Any]:
    """Provenance states paths as seen from its own folder."""
    inputs = {
        name: {**one, "path": os.path.normpath(folder / one["path"])} if "path" in one else one
        for name, one in stated.get("inputs", {}).items()
    }
    run = {"run": os.path.normpath(folder / stated["run"])} if "run" in stated else {}
    return {**stated, "inputs": inputs, **run}
