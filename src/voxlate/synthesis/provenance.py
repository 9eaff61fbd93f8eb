"""The provenance of synthesised images: its schema, and the facts that scores and reports take from it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Required

from pydantic import StringConstraints
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.files import read_json
from voxlate.base.records import (
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
    StatedMessage,
    Text,
    Widening,
)
from voxlate.scans.cases.align import Align
from voxlate.scans.cases.case import MASK, Axes
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.register import RegistrationMethod
from voxlate.synthesis.calibration import Bound

Provenance = Mapping[str, Any]
Table = dict[str, Any]
# All cases of one synthesis share these entries.
SHARED_KEYS = ("model", "seed", "synth", "units", "axes", "range")
WITHOUT = "without_"  # begins the folder of images that were synthesised without their own modality
# This key of a provenance states that the case was used for the calibration.
USED_FOR_CALIBRATION = "taught_calibration"
OF_TRAINING = "The training saw this scan, or one almost like it, as of the same patient: what its image scores is not what a new patient's would."
OTHER_PATIENT = "It has the name of a training case and other voxels: it counts as another patient."


class _Input(TypedDict, total=False):
    sha256: Text
    path: Place


class _Prepared(TypedDict, total=False):
    """The keys of a case's preparation that are read, and the frame of the image."""

    spacing_mm: tuple[Positive, Positive, Positive] | None
    resample: bool
    register: RegistrationMethod | None
    align: Align | None
    on_grid_of: Name


class _Synth(TypedDict, total=False):
    samples: Several
    steps: Several
    sampler: Text
    precision: Text
    windows: Table | None


class _Units(TypedDict):
    map: Table
    low: Number
    high: Number


class StatedCalibration(TypedDict, total=False):
    """What a provenance states on a calibration."""

    sha256: Text
    patients: Required[Several]
    coverage: Required[Share]
    confidence: Required[Share]
    bound: Required[Bound]
    widened: dict[Name, Widening]
    held: dict[Name, dict[Name, Share]]
    levels: dict[
        Name,
        dict[
            Annotated[str, StringConstraints(pattern=r"^0\.\d+$", max_length=20)],
            NotNegative,
        ],
    ]


class _Keys(TypedDict, total=False):
    """The checked keys of a provenance; other keys are passed on."""

    run: Place
    runs: list[Place]
    case: Name
    inputs: dict[Name, _Input]
    prepared: _Prepared
    range: dict[Name, tuple[Number, Number]]
    cases: list[Name]
    failed: dict[Text, Text]
    warnings: list[StatedMessage]
    split: Text
    axes: Axes
    images: dict[FileName, Text]
    synth: _Synth
    seed: Count
    units: dict[Name, Text]
    network_units: dict[Name, _Units]
    network_calls: NotNegative
    seconds_per_slice: NotNegative
    device: Text
    batch: Count
    calibration: StatedCalibration
    bounds: dict[Name, dict[Name, NotNegative]]
    expected: dict[Name, dict[Name, NotNegative]]
    measured: dict[Name, list[Text]]
    bound: dict[Name, NotNegative]
    taught_calibration: bool


def state_units(
    maps: Mapping[str, IntensityMap], scales: Mapping[str, tuple[float, float]]
) -> Table:
    """The entry of provenance for each modality."""
    return {
        name: {"map": vars(maps[name]), "low": low, "high": high}
        for name, (low, high) in scales.items()
    }


def read_provenance(path: Path) -> Table:
    """The provenance.json of images; raises BadInput if its form is not that of `synth`."""
    record = Record(
        path,
        "the provenance of a synthesis",
        "Synthesise the image again, or remove this file.",
    )
    content: Table = read_json(path)
    record.check_version(content, "voxlate")
    record.fill(_Keys, content, others=None)
    pairs = [*content.get("range", {}).values()]
    pairs += [(units["low"], units["high"]) for units in content.get("network_units", {}).values()]
    record.check(all(low < high for low, high in pairs), "a range that ends before it begins")
    return content


def run_folders(provenance: Provenance) -> list[Path]:
    """Possible folders of a synthesis's run; its provenance names the folder, or a weights file in it."""
    if "run" not in provenance:
        return []
    run = Path(provenance["run"])
    return [run, run.parent]


def source_paths(provenance: Provenance) -> dict[str, Path]:
    """The source files that a provenance names, by modality, without the mask."""
    inputs = provenance.get("inputs", {})
    return {
        name: Path(scan["path"]) for name, scan in inputs.items() if name != MASK and "path" in scan
    }


def common_settings(provenance: Provenance) -> Table:
    """The settings of a synthesis without those of its case; images that are scored together must agree in them."""
    return {key: provenance.get(key) for key in SHARED_KEYS}


def difference(first: Provenance, second: Provenance) -> str:
    """The first difference between the settings of two syntheses; "" if they are equal."""
    for key in SHARED_KEYS:
        a = first.get(key)
        b = second.get(key)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
            pairs = [f"{name} {a.get(name)} and {b.get(name)}" for name in names]
            return f"{key}: {', '.join(pairs)}"
        return f"{key}: {a} and {b}"
    return ""


def folder_of(out: Path, case: str, modality: str = "") -> Path:
    """The folder of a case's image: OUT/<case>, or OUT/without_<modality>/<case> where each modality is left out in turn."""
    alone = out / f"{WITHOUT}{modality}" / case
    return alone if modality and alone.is_dir() else out / case


def provenance_of(out: Path, case: str = "", modality: str = "") -> Table:
    """The provenance of a case's synthesis, or else that of the whole folder, with absolute paths."""
    folder = folder_of(out, case, modality)
    if not (folder / "provenance.json").is_file():
        folder = out
    path = folder / "provenance.json"
    if not path.is_file():
        return {}
    stated = read_provenance(path)
    # its file states paths relative to its own folder
    inputs = {
        name: {**scan, "path": os.path.normpath(folder / scan["path"])} if "path" in scan else scan
        for name, scan in stated.get("inputs", {}).items()
    }
    run = {"run": os.path.normpath(folder / stated["run"])} if "run" in stated else {}
    return {**stated, "inputs": inputs, **run}
