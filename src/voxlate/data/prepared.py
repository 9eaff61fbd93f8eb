"""The prepared cohort on disk: one mapped safetensors file a case, and cohort.json that tells what there is."""

import functools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from voxlate.data.manifest import refuse_leak
from voxlate.data.scale import Statistics, typical_scale
from voxlate.errors import BadInput
from voxlate.files import read_json, whole_file, write_json
from voxlate.images.intensity import Intensity, Scale
from voxlate.images.register import Similarity
from voxlate.images.volume import Volume

FORMAT = "voxlate prepared cohort"
VERSION = 1
MASK = "mask"
TRANSFORMS = "transforms"
LABEL = "label."  # before a label map's name among the tensors of a case
SPLITS = ("train", "val", "test")
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Origin:
    """The grid that a modality had in its file, and the file's name; note: which frame of several it is."""

    file: str
    shape: Shape
    affine: list[list[float]]
    note: str = ""


@dataclass(frozen=True)
class Registered:
    """How a scan was brought onto another: what was asked for, what was kept, and how alike the two were.

    kept: the last step that made them more alike, "none" where no step did; transform: its ITK file in the folder.
    """

    to: str
    asked: str
    kept: str
    before: Similarity
    after: Similarity
    transform: str


@dataclass(frozen=True)
class CaseHeader:
    """All that is known of a prepared case without reading a voxel.

    affine: 4x4, (x, y, z) voxel to RAS mm; mask_area: voxels of the mask in each slice; mask_box: first and last + 1
    along D, H, W; inputs: digest of the input files and settings; voxels: digest of each modality's voxels.
    """

    case: str
    patient: str
    shape: Shape
    spacing_mm: tuple[float, float, float]
    affine: list[list[float]]
    units: dict[str, str]
    origins: dict[str, Origin]
    labels: list[str]
    statistics: dict[str, Statistics]
    mask_from: str
    mask_area: list[int]
    mask_box: list[tuple[int, int]]
    mask_ml: float
    inputs: str
    voxels: dict[str, str]
    registered: dict[str, Registered] = field(default_factory=dict)

    @property
    def present(self) -> list[str]:
        return list(self.units)


@dataclass(frozen=True)
class Entry:
    """One line of cohort.json's list of cases."""

    case: str
    patient: str
    split: str
    present: list[str]
    labels: list[str]
    shape: Shape
    spacing_mm: tuple[float, float, float]
    mask_ml: float
    registered: dict[str, Registered] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort: its cases with their splits, the modalities and units, the fingerprint, what was done."""

    folder: Path
    cases: tuple[Entry, ...]
    modalities: tuple[str, ...]
    units: dict[str, str]
    fingerprint: dict[str, Any]
    warnings: tuple[str, ...]
    made: dict[str, Any]

    @property
    def splits(self) -> dict[str, list[str]]:
        """The names of the cases in each split."""
        return {name: [one.case for one in self.cases if one.split == name] for name in SPLITS}

    def path(self, case: str) -> Path:
        return case_path(self.folder, case)

    def header(self, case: str) -> CaseHeader:
        return read_header(self.path(case))

    def volume(self, case: str, modality: str) -> Volume:
        """A whole volume in physical units, float32 [1, D, H, W]."""
        header = self.header(case)
        if modality not in header.units:
            known = ", ".join(header.present)
            raise BadInput(f"case {case}: expected the modality {modality}, found {known}. Name one of these.")
        data = _read(self.path(case), modality).astype(np.float32)[None]
        return Volume(data, np.array(header.affine), header.units[modality], modality, header.origins[modality].file)

    def mask(self, case: str) -> np.ndarray:
        """The body or brain mask of a case, bool [D, H, W]."""
        return _read(self.path(case), MASK).astype(bool)

    def label(self, case: str, name: str) -> np.ndarray:
        """A label map of a case, [D, H, W]."""
        return _read(self.path(case), LABEL + name)

    def target_scale(self, spec: Intensity, modality: str) -> Scale:
        """The typical scale of a modality over the training cases (see scale.typical_scale)."""
        training = [one.case for one in self.cases if one.split == "train" and modality in one.present]
        if not training:
            raise BadInput(f"{self.folder}: expected a training case with {modality}, found none. Prepare one.")
        return typical_scale(spec, [self.header(case).statistics[modality] for case in training])


def open_cohort(path: Path | str) -> Cohort:
    """Open a folder that `prepare` made; raises BadInput where it is none, is damaged or leaks a patient."""
    folder = Path(path)
    if not (folder / "cohort.json").is_file():
        raise BadInput(f"{folder}: expected a prepared cohort, found no cohort.json in it. Run voxlate prepare first.")
    value = read_json(folder / "cohort.json")
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != VERSION:
        raise BadInput(
            f"{folder}/cohort.json: expected a {FORMAT}, version {VERSION}, found another. Prepare it again."
        )
    try:
        plain = {key: item for key, item in value.items() if key not in ("format", "version")}
        cohort = TypeAdapter(Cohort).validate_python({"folder": folder, **plain})
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BadInput(
            f"{folder}/cohort.json: expected a whole record, found a damaged '{place}'. Prepare it again."
        ) from error
    refuse_leak(((one.patient, one.split) for one in cohort.cases), folder)
    return cohort


def write_cohort(cohort: Cohort) -> None:
    """Write cohort.json: the last act of prepare, so that a folder without it is known to be unfinished."""
    value = {key: item for key, item in asdict(cohort).items() if key != "folder"}
    write_json(cohort.folder / "cohort.json", {"format": FORMAT, "version": VERSION, **value})


def case_path(folder: Path, case: str) -> Path:
    return folder / "cases" / f"{case}.safetensors"


def transform_name(case: str, modality: str, kind: str) -> str:
    """Where a transform lies below the prepared folder; dense fields are no text."""
    return f"{TRANSFORMS}/{case}/{modality}{'.h5' if kind == 'ants' else '.tfm'}"


def write_case(path: Path, tensors: dict[str, np.ndarray], header: CaseHeader) -> None:
    """Write a case uncompressed, so that readers map it and copy only the slices they want."""
    whole = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    with whole_file(path) as temporary:
        save_file(whole, temporary, metadata={"voxlate": json.dumps(asdict(header), allow_nan=False)})


def read_header(path: Path) -> CaseHeader:
    """The header of a case file, read once a process while the file stays the same."""
    try:
        return _read_header(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: expected a prepared case, found none. Prepare the cohort again.") from error


@functools.lru_cache(maxsize=4096)
def _read_header(path: Path, mtime_ns: int) -> CaseHeader:
    try:
        with safe_open(path, framework="numpy") as file:
            return TypeAdapter(CaseHeader).validate_json((file.metadata() or {}).get("voxlate", ""))
    except (SafetensorError, ValidationError) as error:
        raise BadInput(
            f"{path}: expected a prepared case, found a damaged file. Remove it and prepare again."
        ) from error


def _read(path: Path, name: str) -> np.ndarray:
    with safe_open(path, framework="numpy") as file:
        if name not in file.keys():  # noqa: SIM118 - safe_open is no mapping
            raise BadInput(f"{path}: expected '{name}' in it, found {', '.join(file.keys())}. Name one of these.")
        values: np.ndarray = file.get_tensor(name)
        return values


def compact(values: np.ndarray) -> np.ndarray:
    """The same numbers as int16 where every one of them is one, else as float32."""
    limits = np.iinfo(np.int16)
    if values.min() < limits.min or values.max() > limits.max:
        return values.astype(np.float32)
    whole = values.astype(np.int16)
    return whole if np.array_equal(whole, values) else values.astype(np.float32)
