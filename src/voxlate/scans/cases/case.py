"""The prepared case: a patient's scans on one grid with mask and statistics, in memory for synthesis or on disk.

Its slices may be laid out for a network: canonical ones grow to Superior, rows to Anterior, columns to Right ("SAR"). A
network that was trained on slices of another orientation reads the same voxels permuted and flipped, never interpolated.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from pydantic import Field

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message
from voxlate.base.records import (
    Count,
    Digest,
    Length,
    Name,
    NotNegative,
    Number,
    Positive,
    Record,
    Several,
    Text,
    checksum,
    write_tensors,
)
from voxlate.scans.cases.align import Preparation, find_common_grid
from voxlate.scans.formats.format import KeptByFile
from voxlate.scans.formats.nifti import smallest_type
from voxlate.scans.images.grid import Grid, Volume, canonical, same_grid
from voxlate.scans.images.intensity import Statistics, intensity_statistics
from voxlate.scans.images.mask import box_around, brain, foreground
from voxlate.scans.images.misalignment import (
    NOTHING_IN_COMMON,
    TOO_COARSE,
    Misalignment,
    is_resolved,
    median_displacement,
)
from voxlate.scans.images.register import Registered, Transform
from voxlate.scans.images.tiling import Size, resize_slices, zoom
from voxlate.scans.images.units import MAY_BE_ZERO, SHOW_ANATOMY, TISSUE_MAPS

Sides = tuple[Length, Length, Length]
Row = Annotated[list[Number], Field(min_length=4, max_length=4)]
Affine = Annotated[list[Row], Field(min_length=4, max_length=4)]
Unit = Annotated[Text, Field(max_length=100)]

BRAIN_OF = "brain of "  # how the source of a mask begins that is no file
FOREGROUND_OF = "foreground of "
MASK = "mask"
PROTONS = "pd_map"  # the tissue-parameter map that shows the outline of the body
LABEL = "label."  # before a label map's name among the arrays of a case
LEAST_MM, MOST_MM = 3.0, 10_000.0  # along the longest side of a scan; pictures have pixels of 1 mm
DIGITS = 16  # of a digest that identifies a scan
OPEN_FILES = 256  # mapped at a time in each process: each holds a descriptor, of which many systems give 1,024
DTYPES = {
    "F32": "f4",
    "F16": "f2",
    "I16": "i2",
    "BOOL": "?",
    "U8": "u1",
    "U16": "u2",
    "U32": "u4",
    "U64": "u8",
}


Role = Literal["source", "target"]  # of a modality


# What a recipe states of modalities that are computed from tissue-parameter maps, and the object that computes them:
# classes of a higher wing (anatomy/drawn.py), which it provides.
ContrastSettings = Any
Contrasts = Any
Axes = Literal["SAR", "SAL", "SPR", "SPL", "SRA", "SRP", "SLA", "SLP"]
CANONICAL: Axes = "SAR"


@dataclass(frozen=True)
class Origin:
    """The grid that a modality had in its file, and the file's name; note, guesses, codes, body_part: as those of Volume."""

    file: Text
    shape: Sides
    affine: Affine
    note: Text = ""
    guesses: tuple[Message, ...] = ()
    codes: tuple[Count, Count] = (1, 1)
    body_part: Text = ""

    @classmethod
    def of(cls, scan: Volume) -> "Origin":
        """The origin of a scan as it was read."""
        file, affine = Path(scan.origin).name, scan.affine.tolist()
        known = (scan.note, scan.guesses, scan.codes, scan.body_part)
        return cls(file, scan.grid.shape, affine, *known)

    @property
    def grid(self) -> Grid:
        """The grid of the file."""
        return Grid(self.shape, np.array(self.affine), self.codes)


@dataclass(frozen=True)
class CaseHeader:
    """Everything but the voxels of a prepared case.

    affine: 4x4, (x, y, z) voxel to RAS mm; units: of the modalities, in the order of the mask's bits; mask_area:
    voxels of the mask in each slice; mask_box: first and last + 1 along D, H, W; inputs: digest of the input files and
    the preparation; misaligned: the distance of scans from the fixed one, where it was estimated; voxels: digest of
    each array (modality, mask, label map) by its name; numbers, pictures: the fingerprint of
    each scan, and the numbers of the mask, as checks measured them; checksum: of the header; inputs,
    voxels and checksum are empty in memory.
    """

    case: Name
    patient: Name
    shape: Sides
    spacing_mm: tuple[Positive, Positive, Positive]
    affine: Affine
    units: dict[Name, Unit]
    origins: dict[Name, Origin]
    labels: list[Name]
    statistics: dict[Name, Statistics]
    mask_from: Text
    mask_area: list[Count]
    mask_box: Annotated[list[tuple[Count, Several]], Field(min_length=3, max_length=3)]
    mask_ml: NotNegative
    inputs: Text = ""
    voxels: dict[Name, Digest] = field(default_factory=dict)
    numbers: dict[Name, dict[Name, Number]] = field(default_factory=dict)
    pictures: dict[Name, Text] = field(default_factory=dict)
    registered: dict[Name, Registered] = field(default_factory=dict)
    misaligned: dict[Name, Misalignment] = field(default_factory=dict)
    checksum: Text = ""

    @property
    def grid(self) -> Grid:
        """The grid of the case."""
        return Grid(self.shape, np.array(self.affine))

    @property
    def visible(self) -> list[str]:
        """The modalities that show something: a blank scan counts as missing, a map of zeros of, say, flow does not."""
        return [
            name
            for name in self.units
            if name in MAY_BE_ZERO or name not in self.statistics or not self.statistics[name].blank
        ]

    @property
    def has_mask_file(self) -> bool:
        """Whether the mask comes from a file, not from a brain or foreground that was found in the scans."""
        return bool(self.mask_from) and not self.mask_from.startswith((BRAIN_OF, FOREGROUND_OF))


@dataclass(frozen=True)
class PreparedCase:
    """One patient's scans on one grid, in one orientation, with mask, label maps and statistics.

    arrays: each modality, each label map by LABEL + name, and MASK, whose bit k is set where the modality k of the
    header shows something (all bits, where the mask comes from a file or a brain); no MASK where none was needed. The
    arrays of a case on disk are mapped, so that a part of one can be read alone. transforms: of the scans that were
    registered, in memory only. axes: the directions in which D, H, W grow; other layouts are those of lay_out.
    contrasts: of a phantom's tissue-parameter maps, the modalities that are computed when they are read; the header
    lists them last, and they share the mask of the proton density. outlines: foregrounds of scans, where they are known.
    """

    header: CaseHeader
    arrays: Mapping[str, np.ndarray]
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    axes: str = "SAR"
    contrasts: Contrasts | None = None
    outlines: Mapping[str, np.ndarray] = field(default_factory=dict)

    def outline(self, modality: str) -> np.ndarray:
        """The foreground of a scan, bool [D, H, W]."""
        known = self.outlines.get(modality)
        return foreground(self.volume(modality)) if known is None else known

    def volume(self, modality: str) -> Volume:
        """A whole volume in physical units, float32 [1, D, H, W]."""
        header = self.header
        if self.contrasts is not None and modality in self.contrasts.names:
            data = self.contrasts.whole(self, modality)[None]
        else:
            stored = self.arrays[modality]
            data = stored.astype(np.float32, order="C")[None]
        return Volume(
            data,
            np.array(header.affine),
            header.units[modality],
            modality,
            header.origins[modality].file,
        )

    def mask(self, modalities: Iterable[str] | None = None) -> np.ndarray:
        """Where the body or brain is, as far as these modalities show it (None: all of them); bool [D, H, W]."""
        return self.inside(self.arrays[MASK], modalities)

    def inside(self, bits: np.ndarray, modalities: Iterable[str] | None = None) -> np.ndarray:
        """Which voxels of (a part of) the mask are set for some of these modalities."""
        chosen = self.header.units if modalities is None else modalities
        computed = () if self.contrasts is None else self.contrasts.names
        shown = {PROTONS if name in computed else name for name in chosen}
        stored = (name for name in self.header.units if name not in computed)
        wanted = sum(1 << k for k, name in enumerate(stored) if name in shown)
        return bits & bits.dtype.type(wanted) != 0


def misalignments(case: PreparedCase, fixed: str | None = None) -> dict[str, Misalignment]:
    """The misalignment of each scan of a case from `fixed`, by modality; maps, which show no anatomy, are left out.

    fixed: by default, or where it shows nothing, the first scan.
    """
    header = case.header
    shown = [name for name in header.visible if header.units[name] in SHOW_ANATOMY]
    if len(shown) < 2:
        return {}
    to = fixed if fixed in shown else shown[0]
    others = [name for name in shown if name != to]
    if is_resolved(header.shape, header.spacing_mm).sum() < 2:
        return {name: Misalignment(to, reason=TOO_COARSE) for name in others}
    mask = case.mask([to]) if MASK in case.arrays else np.ones(header.shape, bool)
    still = case.volume(to)
    found = {}
    for name in others:
        moving = case.volume(name)
        units = still.unit, moving.unit
        median_mm = median_displacement(
            still.data[0], moving.data[0], header.spacing_mm, mask, units
        )
        reason = NOTHING_IN_COMMON if median_mm is None else ""
        found[name] = Misalignment(to, median_mm, reason)
    return found


def check_extent(name: str, scan: Volume, case: str) -> None:
    """Raise BadInput where a scan is so small or large that its voxels must be in another unit."""
    longest_mm = max(np.multiply(scan.grid.shape, scan.grid.spacing_mm))
    if not LEAST_MM <= longest_mm <= MOST_MM:
        raise BadInput(
            f"{case}: expected {name} to be {LEAST_MM:g} to {MOST_MM:g} mm long, found {longest_mm:.3g} mm. Correct the voxel size in its header, which is in mm."
        )


def prepare_case(
    case: str,
    scans: Mapping[str, Volume],
    preparation: Preparation,
    *,
    mask: Volume | None = None,
    labels: Mapping[str, Volume] | None = None,
    masked: bool = True,
    find_body: Callable[[Volume], np.ndarray] = foreground,
) -> PreparedCase:
    """Resample a patient's scans to one grid, in canonical orientation, and compute their mask and statistics.

    scans, mask, labels: as read; a mask from the user replaces the computed one. masked: whether a mask is needed;
    find_body: the outline of a scan, in which its statistics are computed.
    Raises BadInput where scans do not fit together, and where no brain is found or a head is cut off.
    """
    for name, scan in scans.items():
        check_extent(name, scan, case)
    in_ras = {name: canonical(scan) for name, scan in scans.items()}
    common = find_common_grid(case, in_ras, preparation)
    by_brain = masked and mask is None and preparation.mask == "brain"
    if by_brain:
        scan = _brain_scan(case, in_ras, preparation)
        if not same_grid(scan.grid, common.grid):
            brain(scan)  # refuses a head that is cut off, before resampling adds air around it
    volumes = {name: common.align(name, in_ras.pop(name)) for name in scans}
    arrays, statistics, outlines = _store_and_measure(volumes, find_body)
    outlined = {
        name: outline for name, outline in zip(volumes, outlines) if name not in TISSUE_MAPS
    }
    source = ""
    if masked:
        source = FOREGROUND_OF + ", ".join(volumes)
        if mask is not None:
            source = Path(mask.origin).name
            inside = common.align_labels(canonical(mask)).data[0] > 0
            if not inside.any():
                raise BadInput(
                    f"{mask.origin}: expected a mask with voxels above 0, found none. Fix or remove the file."
                )
            outlines = [inside] * len(volumes)
        elif by_brain:
            source = f"{BRAIN_OF}{preparation.mask_from}"
            outlines = [brain(_brain_scan(case, volumes, preparation))] * len(volumes)
        arrays[MASK] = _join_bits(outlines)
        if common.transforms:  # outside its field of view, a scan holds only the fill value
            arrays[MASK][~common.cover()] = 0
            source += ", where all were scanned"
    for name, label_map in (labels or {}).items():
        arrays[LABEL + name] = compact(common.align_labels(canonical(label_map)).data[0])
    header = CaseHeader(
        case=case,
        patient=case,
        units={name: volume.unit for name, volume in volumes.items()},
        origins={name: Origin.of(scan) for name, scan in scans.items()},
        labels=[*(labels or ())],
        statistics=statistics,
        mask_from=source,
        **_geometry(common.grid, arrays.get(MASK)),
        registered=common.registered,
    )
    return PreparedCase(header, arrays, common.transforms, outlines=outlined)


def resize_case(case: PreparedCase, size: Size, slices: tuple[int, int]) -> PreparedCase:
    """A case in memory with its slices (first, last + 1) resized to `size`, and the statistics of these."""
    first, last = slices
    volumes = resize_slices({k: case.volume(k) for k in case.header.units}, size, first, last)
    arrays, statistics, _ = _store_and_measure(volumes)
    grid = next(iter(volumes.values())).grid
    if MASK in case.arrays:
        masks = (case.mask([name])[first:last] for name in case.header.units)
        # cubic splines overshoot and undershoot
        arrays[MASK] = _join_bits([zoom(mask.astype(np.float32), size) > 0.5 for mask in masks])
    header = replace(case.header, statistics=statistics, **_geometry(grid, arrays.get(MASK)))
    return PreparedCase(header, arrays, axes=case.axes)


def thin_slices(case: PreparedCase, parts: int) -> PreparedCase:
    """A case in memory with each slice cut into thinner ones, interpolated between the middles of slices; statistics stay."""
    if parts == 1:
        return case
    depth = case.header.shape[0]
    at = np.clip((np.arange(parts * depth) + 0.5) / parts - 0.5, 0, depth - 1)
    below = np.minimum(at.astype(int), max(depth - 2, 0))
    share = (at - below).astype(np.float32)[:, None, None]
    arrays = {}
    for name in case.header.units:
        values = case.volume(name).data[0]
        above = values[np.minimum(below + 1, depth - 1)]
        arrays[name] = (1 - share) * values[below] + share * above
    if MASK in case.arrays:
        arrays[MASK] = np.repeat(case.arrays[MASK], parts, axis=0)
    affine = np.array(case.header.affine)
    affine[:3, 3] -= (parts - 1) / (2 * parts) * affine[:3, 2]
    affine[:3, 2] /= parts
    grid = Grid((parts * depth, *case.header.shape[1:]), affine)
    header = replace(case.header, **_geometry(grid, arrays.get(MASK)))
    return PreparedCase(header, arrays, axes=case.axes)


def _store_and_measure(
    volumes: Mapping[str, Volume],
    find_body: Callable[[Volume], np.ndarray] = foreground,
) -> tuple[dict[str, np.ndarray], dict[str, Statistics], list[np.ndarray]]:
    """The voxels as they are stored, their statistics inside each scan's own foreground, and these foregrounds.

    Each scan has its own foreground because synthesis has no target and, as a rule, no mask file. Maps of tissue
    parameters have that of the proton density, since some of them show a few vessels and nothing else.
    """
    arrays = {}
    statistics = {}
    outlines = []
    bodies = {}
    for name, volume in volumes.items():
        shown = PROTONS if name in TISSUE_MAPS and PROTONS in volumes else name
        if shown not in bodies:
            bodies[shown] = find_body(volumes[shown])
        values = volume.data[0]
        if name in TISSUE_MAPS:
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            # too coarse for means and percentiles
            arrays[name] = half if np.array_equal(half, values) else values
        else:
            values = arrays[name] = compact(values)
        statistics[name] = intensity_statistics(values, bodies[shown])
        outlines.append(bodies[shown])
    return arrays, statistics, outlines


def _brain_scan(case: str, scans: Mapping[str, Volume], preparation: Preparation) -> Volume:
    name = preparation.mask_from
    if name is None or name not in scans:
        raise BadInput(
            f"case {case}: expected {name}, in which the brain is found, found {', '.join(scans)}. Name another scan by --mask-from, or give this case a mask file."
        )
    return scans[name]


def _join_bits(planes: list[np.ndarray]) -> np.ndarray:
    """The masks as one array, whose bit k is set inside the k-th mask."""
    dtype = np.min_scalar_type((1 << len(planes)) - 1)
    bits = np.zeros(planes[0].shape, dtype)
    for k, plane in enumerate(planes):
        bits[plane] |= dtype.type(1 << k)
    return bits


def _geometry(grid: Grid, bits: np.ndarray | None) -> dict[str, Any]:
    """The header's entries on the grid and on the mask; without a mask, all voxels count as inside."""
    inside = np.broadcast_to(np.True_, grid.shape)
    if bits is not None:
        inside = bits != 0
    area = inside.sum(axis=(1, 2))
    return {
        "shape": grid.shape,
        "spacing_mm": grid.spacing_mm,
        "affine": grid.affine.tolist(),
        "mask_area": area.tolist(),
        "mask_box": box_around(inside),
        "mask_ml": float(area.sum() * np.prod(grid.spacing_mm) / 1000),
    }


def compact(values: np.ndarray) -> np.ndarray:
    """The values as int16 where that loses nothing, else as float32."""
    return values.astype(smallest_type(values))


def write_case(path: Path, case: PreparedCase) -> None:
    """Write a case uncompressed, so that readers map it and copy only the slices that they need."""
    arrays = {name: np.ascontiguousarray(values) for name, values in case.arrays.items()}
    header = replace(case.header, voxels={name: digest(array) for name, array in arrays.items()})
    header = replace(header, checksum=_header_digest(asdict(header)))
    open_case.kept.cache_clear()  # Windows replaces no file that is mapped
    write_tensors(path, arrays, {"voxlate": json.dumps(asdict(header), allow_nan=False)})


def _header_digest(plain: dict[str, Any]) -> str:
    """The checksum of a header as it is written, with an empty checksum."""
    text = json.dumps({**plain, "checksum": ""}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(values: np.ndarray) -> str:
    """SHA-256 of an array as a case file holds it."""
    return checksum("", {"": values}, lambda _, array: repr((array.shape, array.dtype.str)))


@partial(KeptByFile, most=OPEN_FILES)
def open_case(path: Path) -> PreparedCase:
    """A case on disk; each process opens its file once, unless the file changes."""
    header = read_header(path)
    _check_arrays(path)
    return PreparedCase(header, map_arrays(path))


@KeptByFile
def _check_arrays(path: Path) -> None:
    """Compare all arrays with their digests, once in each process; raises BadInput where one differs."""
    stated = read_header(path).voxels
    found = {name: digest(values) for name, values in map_arrays(path).items()}
    _record(path).check(stated == found, "other arrays (a checksum differs)")


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a sound safetensors file, as views of the file: a part is read when it is accessed."""
    whole = np.asarray(np.memmap(path, np.uint8, mode="r"))
    begin = 8 + int(whole[:8].view("<u8")[0])  # a header in JSON and its length come first
    entries = json.loads(whole[8:begin].tobytes())
    entries.pop("__metadata__", None)
    arrays = {}
    for name, entry in entries.items():
        first, end = (begin + offset for offset in entry["data_offsets"])
        arrays[name] = whole[first:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


@partial(KeptByFile, most=4096)
def read_header(path: Path) -> CaseHeader:
    """The header of a case file; each process reads it once, unless the file changes."""
    record = _record(path)
    with record.tensors() as file:
        text = file.text("voxlate")
        stated = record.table(text)
        header: CaseHeader = record.fill(CaseHeader, stated)
        record.check(
            header.checksum == _header_digest(stated),
            "another header (its checksum differs)",
        )
    return header


def _record(path: Path) -> Record:
    return Record(path, "a prepared case", "Remove it and prepare again.")


def lay_out(case: PreparedCase, axes: str) -> PreparedCase:
    """The case with other axes (arrays, affine, shape, boxes); its arrays are views of the old ones."""
    if case.axes == axes:
        return case
    arrays = {name: reorder_axes(array, case.axes, axes) for name, array in case.arrays.items()}
    header = lay_out_header(case.header, axes, case.axes)
    return replace(case, header=header, arrays=arrays, axes=axes, outlines={})


def lay_out_header(header: CaseHeader, axes: str, now: str = CANONICAL) -> CaseHeader:
    """The header of a case with other axes; now: those that it has."""
    if now == axes:
        return header
    change = _change(now, axes)
    boxes: list[Any] = [None] * 3  # along the new x, y and z
    for (new, sign), length, (first, end) in zip(change, header.shape[::-1], header.mask_box[::-1]):
        boxes[int(new)] = (first, end) if sign > 0 else (length - end, length - first)
    affine = np.array(header.affine) @ inv_ornt_aff(change, header.shape[::-1])
    shape = reorder_axes(np.broadcast_to(0, header.shape), now, axes).shape
    return replace(
        header,
        shape=shape,
        spacing_mm=Grid(shape, affine).spacing_mm,
        affine=affine.tolist(),
        mask_box=boxes[::-1],
    )


def reorder_axes(values: np.ndarray, now: str, axes: str) -> np.ndarray:
    """Values [..., D, H, W] whose axes are `now` with other axes; a view."""
    return apply_orientation(values.T, _change(now, axes)).T


def _change(now: str, axes: str) -> np.ndarray:
    """The change from axes to others, in the order x, y, z, as nibabel states it."""
    old, new = (axcodes2ornt(tuple(reversed(letters))) for letters in (now, axes))
    return ornt_transform(old, new)


def axis_of(axes: str, directions: str) -> int:
    """The axis, from the end (-3 is D), that grows in one of two opposite directions ("LR")."""
    return next(k for k, letter in enumerate(axes, -3) if letter in directions)
