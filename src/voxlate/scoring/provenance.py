"""The provenance that `synth` writes, as scores and reports read it."""

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Required

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from voxlate.config import fill
from voxlate.data.align import Align, Mask, Registered
from voxlate.data.case import MASK
from voxlate.data.layout import Axes
from voxlate.diffusion.windows import Windows
from voxlate.files import read_json
from voxlate.images.register import RegistrationMethod
from voxlate.recipe.renamed import with_new_names
from voxlate.records import (
    Count,
    FileName,
    Name,
    NotNegative,
    Number,
    Place,
    Positive,
    Record,
    Several,
    Share,
    ShortDigest,
    Split,
    Text,
)

# entries that all cases of one synthesis share
WAY = ("model", "seed", "synth", "units", "axes", "range")
# key of a provenance: the case is one that the calibration was learned from
TAUGHT = "taught_calibration"


class _Input(TypedDict, total=False):
    sha256: Text
    path: Place


class _Prepared(TypedDict, total=False):
    """How a case was prepared: the keys of a Preparation, and in whose frame the image lies."""

    spacing_mm: tuple[Positive, Positive, Positive] | None
    matrix: tuple[Several, Several] | None
    resample: bool
    register: RegistrationMethod | None
    fixed: Name | None
    align: Align | None
    mask: Mask
    mask_from: Name | None
    on_grid_of: Name
    grid_of: Text
    registered: dict[Name, Registered]


class _Synth(TypedDict, total=False):
    samples: Several
    steps: Several
    sampler: Text
    precision: Text | None  # of version 0.6.0, which states none: that of the training
    windows: dict[str, Any] | None


class _Units(TypedDict):
    map: dict[str, Any]
    low: Number
    high: Number


class _Calibration(TypedDict, total=False):
    sha256: Text
    patients: Several
    coverage: Required[Share]
    confidence: Share
    bound: Literal["none", "normal", "any"]
    way: dict[Name, Text]
    levels: dict[
        Name,
        dict[
            Annotated[str, StringConstraints(pattern=r"^0\.\d+$", max_length=20)],
            NotNegative,
        ],
    ]


class _Stated(TypedDict, total=False):
    """What is read of a provenance; the rest is passed on."""

    run: Place
    runs: list[Place]
    case: Name
    inputs: dict[Name, _Input]
    prepared: _Prepared
    range: dict[Name, tuple[Number, Number]]
    cases: list[Name]
    failed: dict[Text, Text]
    warnings: list[Text]
    split: Text
    axes: Axes
    images: dict[FileName, Text]
    made_without: dict[Name, dict[str, Any]]
    synth: _Synth
    seed: Count
    units: dict[Name, Text]
    network_units: dict[Name, _Units]
    network_calls: NotNegative
    seconds_per_slice: NotNegative
    device: Text
    calibration: _Calibration
    bounds: dict[Name, dict[Name, NotNegative]]
    bound: dict[Name, NotNegative]
    taught_calibration: bool


class _Data(TypedDict, total=False):
    cohort: Text
    start: Text | None
    splits: dict[Split, list[Name]]
    fold: Annotated[int, Field(ge=0, le=4)]


class ShownTraining(TypedDict, total=False):
    """What is read of a stage's training before it checks itself."""

    more: list[Several] | None


class ShownStage(TypedDict, total=False):
    name: Text
    train: ShownTraining


class _Recipe(TypedDict, total=False):
    train: ShownTraining
    stages: list[ShownStage]


class _Continued(TypedDict):
    asked: Text
    from_step: Count
    steps: Several
    voxlate: Text
    torch: Text


class _Trained(TypedDict, total=False):
    """What is read of a run's provenance, or of an image's; the recipe checks itself further."""

    data: _Data
    recipe: _Recipe
    prepared: Any  # of a run a place, of an image a table
    inherited_voxels: list[ShortDigest]
    continuations: list[_Continued]
    paced: dict[Name, dict[Text, Number]]


def read_provenance(path: Path) -> dict[str, Any]:
    """What a provenance.json says of images; raises BadInput where it says that in another form than `synth`."""
    record = Record(path, "the provenance of a synthesis", "Make the image again, or remove this file.")
    found = read_json(path)
    record.check(isinstance(found, dict), "no table")
    _check_stated(record, found)
    stated: dict[str, Any] = found
    return stated


def _check_stated(record: Record, found: Mapping[str, Any]) -> None:
    record.fill(_Stated, found, known=False)
    pairs = [*found.get("range", {}).values()]
    pairs += [(one["low"], one["high"]) for one in found.get("network_units", {}).values()]
    record.check(all(low < high for low, high in pairs), "a range that ends before it begins")
    for own in found.get("made_without", {}).values():
        record.fill(_Stated, own, known=False)


def read_run(path: Path) -> dict[str, Any]:
    """What the provenance.json of a run says; raises BadInput where it says that in another form than `train`."""
    advice = "Restore the file: without it nobody knows which cases were trained on."
    record = Record(path, "the provenance of a training", advice)
    found = read_json(path)
    record.check(isinstance(found, dict), "no table")
    record.fill(_Trained, found, known=False)
    stated: dict[str, Any] = found
    place = stated.get("prepared", "-")
    sound = isinstance(place, dict) or (isinstance(place, str) and 0 < len(place) < 4000 and "\0" not in place)
    record.check(sound, f"a prepared cohort in {place!r:.80}")
    return {**stated, "recipe": with_new_names(stated["recipe"])} if "recipe" in stated else stated


def run_folders(provenance: Mapping[str, Any]) -> list[Path]:
    """Folders where the run of a synthesis may be: its provenance names the folder, or a weights file in it."""
    return [Path(provenance["run"]), Path(provenance["run"]).parent] if "run" in provenance else []


def recorded_splits(folders: Iterable[Path]) -> dict[str, list[str]]:
    """The cases of each split in the training of the first of these folders that is a run; {} where none is."""
    return _recorded(folders).get("splits", {})


def is_fold(folders: Iterable[Path]) -> bool:
    """Whether the first of these folders that is a run was trained in a fold: its cohort then has other splits."""
    return "fold" in _recorded(folders)


def _recorded(folders: Iterable[Path]) -> _Data:
    for folder in folders:
        if (path := folder / "provenance.json").is_file():
            data: _Data = read_run(path).get("data", {})
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
    # slices run to Superior in every layout of a network's, as here
    parts = windows.slices(depth)
    return sorted({border for part in parts for border in (part.start, part.stop)} - {0, depth})


def way_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """How an image was made, whatever its case: equal for all images that scores may be taken of together."""
    return {key: provenance.get(key) for key in WAY}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first thing in which two ways differ, in words; "" where they are the same."""
    for key in WAY:
        first = one.get(key)
        second = other.get(key)
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
            found = read_provenance(path)
            return _with_paths({**found, **found.get("made_without", {}).get(modality, {})}, path.parent)
    return {}


def _with_paths(stated: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Provenance states paths as seen from its own folder."""
    inputs = {
        name: {**one, "path": os.path.normpath(folder / one["path"])} if "path" in one else one
        for name, one in stated.get("inputs", {}).items()
    }
    run = {"run": os.path.normpath(folder / stated["run"])} if "run" in stated else {}
    return {**stated, "inputs": inputs, **run}
