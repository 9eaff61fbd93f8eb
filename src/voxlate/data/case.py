"""The prepared case: a patient's scans on one grid with mask and statistics, in memory for synthesis or on disk."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from voxlate.config import adapter
from voxlate.data.align import CommonGrid, Preparation, Registered, find_common_grid
from voxlate.errors import BadInput
from voxlate.files import whole_file
from voxlate.images.grid import Grid, canonical, same_grid
from voxlate.images.mask import bounding_box, brain, foreground, user_mask
from voxlate.images.misalignment import Misalignment
from voxlate.images.register import Transform
from voxlate.images.statistics import Statistics, intensity_statistics
from voxlate.images.tiling import Size, Triple, resize_slices, zoomed
from voxlate.images.volume import Volume

MASK = "mask"
LABEL = "label."  # before a label map's name among the arrays of a case
MOST_MODALITIES = 64  # the mask has a bit for each
FOUND = ("brain of ", "foreground of ")  # how the source of a mask that is no file begins
OPEN_FILES = 256  # mapped at a time in each process


class Sliceable(Protocol):
    """[D, H, W] that may be on disk: array[z, y, x] reads that part only."""

    def __getitem__(self, place: Any, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Origin:
    """The grid that a modality had in its file, and the file's name; note, guesses: as those of Volume."""

    file: str
    shape: Triple
    affine: list[list[float]]
    note: str = ""
    guesses: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        return Grid(self.shape, np.array(self.affine))


@dataclass(frozen=True)
class CaseHeader:
    """What can be known of a prepared case without reading its voxels.

    affine: 4x4, (x, y, z) voxel to RAS mm; units: of the modalities, in the order of the mask's bits; mask_area:
    voxels of the mask in each slice; mask_box: first and last + 1 along D, H, W; inputs: digest of the input files and
    the preparation; misaligned: how far scans lie from the fixed one, where that was estimated; voxels: digest of each
    array (modality, mask, label map) by its name; checksum: of the header; inputs and these two empty in memory.
    """

    case: str
    patient: str
    shape: Triple
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
    inputs: str = ""
    voxels: dict[str, str] = field(default_factory=dict)
    registered: dict[str, Registered] = field(default_factory=dict)
    misaligned: dict[str, Misalignment] = field(default_factory=dict)
    checksum: str = ""

    @property
    def present(self) -> list[str]:
        return list(self.units)

    @property
    def shown(self) -> list[str]:
        """The modalities that show something: a blank scan counts as missing."""
        return [name for name in self.units if name not in self.statistics or not self.statistics[name].blank]

    @property
    def has_mask_file(self) -> bool:
        return bool(self.mask_from) and not self.mask_from.startswith(FOUND)


@dataclass(frozen=True)
class PreparedCase:
    """One patient's scans on one grid, in one orientation, with mask, label maps and statistics.

    arrays: each modality, each label map by LABEL + name, and MASK, whose bit k is set where the modality k of the
    header shows something (all bits, where the mask is a file's or a brain); no MASK where none was needed. transforms:
    of the scans that were registered, not kept on disk here. axes: the directions in which D, H, W grow, not canonical
    where the case was laid out otherwise (see data.layout).
    """

    header: CaseHeader
    arrays: Mapping[str, Sliceable]
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    axes: str = "SAR"

    def volume(self, modality: str) -> Volume:
        """A whole volume in physical units, float32 [1, D, H, W]."""
        header = self.header
        if modality not in header.units:
            known = ", ".join(header.present)
            raise BadInput(f"case {header.case}: expected the modality {modality}, found {known}. Name one of these.")
        data = self.arrays[modality][:].astype(np.float32)[None]
        return Volume(data, np.array(header.affine), header.units[modality], modality, header.origins[modality].file)

    def mask(self, modalities: Iterable[str] | None = None) -> np.ndarray:
        """Where the body or brain is, as far as these modalities show it (None: all of them); bool [D, H, W]."""
        return self.inside(self.arrays[MASK][:], modalities)

    def inside(self, bits: np.ndarray, modalities: Iterable[str] | None = None) -> np.ndarray:
        """Which voxels of (a part of) the mask are set for some of these modalities."""
        chosen = self.header.present if modalities is None else modalities
        wanted = sum(1 << k for k, name in enumerate(self.header.present) if name in chosen)
        return bits & bits.dtype.type(wanted) != 0


def prepare_case(
    case: str,
    scans: Mapping[str, Volume],
    preparation: Preparation,
    *,
    mask: Volume | None = None,
    labels: Mapping[str, Volume] | None = None,
    masked: bool = True,
) -> PreparedCase:
    """Resample a patient's scans to one grid, in canonical orientation, and find its mask and statistics.

    scans, mask, labels: as read; a mask given by the user wins. masked: whether a mask is needed.
    Raises BadInput where scans do not fit together, and where no brain is found or a head is cut off.
    """
    if len(scans) > MOST_MODALITIES:
        raise BadInput(
            f"case {case}: expected at most {MOST_MODALITIES} modalities, found {len(scans)}. Name those to prepare "
            "(--modality), or split the case."
        )
    labels = labels or {}
    origins = {
        name: Origin(Path(scan.origin).name, scan.grid.shape, scan.affine.tolist(), scan.note, scan.guesses)
        for name, scan in scans.items()
    }
    in_ras = {name: canonical(scan) for name, scan in scans.items()}
    common = find_common_grid(case, in_ras, preparation)
    by_brain = masked and mask is None and preparation.mask == "brain"
    if by_brain:
        scan = _brain_scan(case, in_ras, preparation)
        if not same_grid(scan.grid, common.grid):
            brain(scan)  # refuses a head that is cut off, before air is put around it
    volumes = {name: common.aligned(name, in_ras.pop(name)) for name in scans}
    by_outline = masked and mask is None and not by_brain
    outlines = {name: foreground(volume) for name, volume in volumes.items()}
    bits = None
    if by_outline:
        bits = _join_bits([outlines[name] for name in volumes])
    elif by_brain:
        bits = _all_bits(brain(_brain_scan(case, volumes, preparation)), len(volumes))
    elif masked and mask is not None:
        bits = _all_bits(user_mask(common.aligned_labels(canonical(mask))), len(volumes))
    if bits is not None and common.transforms:
        bits[~common.scanned()] = 0  # beyond, a registered scan is no more than its fill
    arrays, statistics = _stored_and_measured(volumes, outlines)
    header = CaseHeader(
        case=case,
        patient=case,
        shape=common.grid.shape,
        spacing_mm=common.grid.spacing_mm,
        affine=common.grid.affine.tolist(),
        units={name: volume.unit for name, volume in volumes.items()},
        origins=origins,
        labels=list(labels),
        statistics=statistics,
        mask_from=_mask_source(list(volumes), mask, common, preparation) if masked else "",
        **_mask_entries(bits, common.grid),
        registered=common.registered,
    )
    label_arrays = {
        LABEL + name: compact(common.aligned_labels(canonical(one)).data[0]) for name, one in labels.items()
    }
    return PreparedCase(header, {**arrays, **({} if bits is None else {MASK: bits}), **label_arrays}, common.transforms)


def resize_case(case: PreparedCase, size: Size, slices: tuple[int, int]) -> PreparedCase:
    """A case in memory with its slices (first, last + 1) resized to `size`, and the statistics of these."""
    first, last = slices
    volumes = resize_slices({name: case.volume(name) for name in case.header.present}, size, first, last)
    outlines = {name: foreground(volume) for name, volume in volumes.items()}
    arrays, statistics = _stored_and_measured(volumes, outlines)
    grid = next(iter(volumes.values())).grid
    bits = None
    if MASK in case.arrays:
        planes = [
            zoomed(case.mask([name])[first:last].astype(np.float32), size) > 0.5 for name in case.header.present
        ]  # cubic splines overshoot and undershoot
        bits = arrays[MASK] = _join_bits(planes)
    header = dataclasses.replace(
        case.header,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        affine=grid.affine.tolist(),
        statistics=statistics,
        **_mask_entries(bits, grid),
    )
    return PreparedCase(header, arrays, axes=case.axes)


def _stored_and_measured(
    volumes: Mapping[str, Volume], outlines: Mapping[str, np.ndarray]
) -> tuple[dict[str, Sliceable], dict[str, Statistics]]:
    """The voxels as they are stored, and their statistics inside each scan's own foreground.

    Its own, because synthesis has no target and, as a rule, no mask file.
    """
    values = {name: compact(volume.data[0]) for name, volume in volumes.items()}
    return dict(values), {name: intensity_statistics(values[name], outlines[name]) for name in values}


def _brain_scan(case: str, scans: Mapping[str, Volume], preparation: Preparation) -> Volume:
    name = preparation.mask_from
    if name is None or name not in scans:
        raise BadInput(
            f"case {case}: expected {name}, in which the brain is found, found {', '.join(scans)}. "
            "Name another scan by --mask-from, or give this case a mask file."
        )
    return scans[name]


def _mask_source(names: list[str], mask: Volume | None, common: CommonGrid, preparation: Preparation) -> str:
    """A sentence on where the mask comes from."""
    brain_of, foreground_of = FOUND
    found = f"{brain_of}{preparation.mask_from}" if preparation.mask == "brain" else foreground_of + ", ".join(names)
    source = Path(mask.origin).name if mask is not None else found
    return f"{source}, where all were scanned" if common.transforms else source


def _join_bits(planes: list[np.ndarray]) -> np.ndarray:
    """Bit k is set where the k-th of some masks is."""
    bits = np.zeros(planes[0].shape, np.min_scalar_type((1 << len(planes)) - 1))
    for k, plane in enumerate(planes):
        bits[plane] |= bits.dtype.type(1 << k)
    return bits


def _all_bits(inside: np.ndarray, modalities: int) -> np.ndarray:
    every = (1 << modalities) - 1
    return inside.astype(np.min_scalar_type(every)) * np.min_scalar_type(every).type(every)


def _mask_entries(bits: np.ndarray | None, grid: Grid) -> dict[str, Any]:
    """The header's entries on a mask; without one all is inside."""
    inside = np.ones(grid.shape, bool) if bits is None else bits != 0
    return {
        "mask_area": [int(area) for area in inside.sum(axis=(1, 2))],
        "mask_box": bounding_box(inside),
        "mask_ml": float(inside.sum() * np.prod(grid.spacing_mm) / 1000),
    }


def compact(values: np.ndarray) -> np.ndarray:
    """The same numbers as int16 where every one of them is one, else as float32."""
    limits = np.iinfo(np.int16)
    if values.min() < limits.min or values.max() > limits.max:
        return values.astype(np.float32)
    whole = values.astype(np.int16)
    return whole if np.array_equal(whole, values) else values.astype(np.float32)


def write_case(path: Path, case: PreparedCase) -> None:
    """Write a case uncompressed, so that readers map it and copy only the slices they want."""
    whole = {name: np.ascontiguousarray(values[:]) for name, values in case.arrays.items()}
    for name, values in whole.items():
        if not np.isfinite(values).all():
            raise BadInput(f"{path}: expected finite voxels, found others in {name} after resampling. Check the scan.")
    header = dataclasses.replace(case.header, voxels={name: digest(values) for name, values in whole.items()})
    header = dataclasses.replace(header, checksum=_header_digest(asdict(header)))
    with whole_file(path) as temporary:
        save_file(whole, temporary, metadata={"voxlate": json.dumps(asdict(header), allow_nan=False)})


def _header_digest(plain: dict[str, Any]) -> str:
    """Of a header as it is written, without its checksum; later versions may have more keys."""
    return hashlib.sha256(json.dumps({**plain, "checksum": ""}, sort_keys=True).encode()).hexdigest()


def digest(values: np.ndarray) -> str:
    """SHA-256 of an array as a case file holds it."""
    return hashlib.sha256(repr((values.shape, values.dtype.str)).encode() + values.tobytes()).hexdigest()


def open_case(path: Path) -> PreparedCase:
    """A case on disk; each process opens its file once, unless the file changes."""
    header, changed = read_header(path), path.stat().st_mtime_ns
    _check_arrays(path, changed)
    return PreparedCase(header, _mapped(path, changed))


def read_header(path: Path) -> CaseHeader:
    """The header of a case file; each process reads it once, unless the file changes."""
    try:
        return _read_header(path, path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: expected a prepared case, found none. Prepare the cohort again.") from error


@functools.cache
def _check_arrays(path: Path, mtime_ns: int) -> None:
    """Compare all arrays with their digests, once in each process; raises BadInput where one differs."""
    digests = _read_header(path, mtime_ns).voxels
    with safe_open(path, framework="numpy") as file:
        names = set(file.keys())
        for name in sorted(names | set(digests)):
            if name not in names or digest(file.get_tensor(name)) != digests.get(name):
                raise BadInput(
                    f"{path}: expected the voxels that prepare wrote, found others ('{name}' has another checksum). "
                    "Remove the file and prepare again."
                )


@functools.lru_cache(maxsize=OPEN_FILES)
def _mapped(path: Path, mtime_ns: int) -> dict[str, Sliceable]:
    """The arrays of a file; the time stamp as an argument makes a newly prepared file a new entry of the cache."""
    file = safe_open(path, framework="numpy")
    return {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping


@functools.lru_cache(maxsize=4096)
def _read_header(path: Path, mtime_ns: int) -> CaseHeader:
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("voxlate", "")
        header = adapter(CaseHeader).validate_json(text)
        if header.checksum != _header_digest(json.loads(text)):
            raise SafetensorError("the header's checksum differs")
        return header
    except (SafetensorError, ValidationError) as error:
        raise BadInput(
            f"{path}: expected a prepared case, found a damaged file. Remove it and prepare again."
        ) from error
