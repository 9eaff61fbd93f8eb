"""The items of a prepared cohort, slices or patches, and how one of them is read from disk in network units."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors import safe_open
from torch import Tensor

from voxlate.batch import BACKGROUND, stable_id
from voxlate.config import settings
from voxlate.data.augment import AugmentSettings
from voxlate.data.prepared import MASK, CaseHeader, Cohort
from voxlate.data.scale import case_scale
from voxlate.data.slice_filter import SliceSettings
from voxlate.errors import BadInput
from voxlate.images.intensity import Intensity, MinMax

Place = tuple[int, int, int]
OPEN_FILES = 256  # mapped at a time in each process


@settings
class DataSettings:
    """Which modalities are read, and in which pieces."""

    source: Annotated[list[str], Field(min_length=1, description="modalities that the model is given")]
    target: Annotated[list[str], Field(min_length=1, description="modalities that it makes")]
    patch: Annotated[
        tuple[int, int, int], Field(description="size of a piece in voxels, D, H, W; a slice has D = 1")
    ] = (1, 256, 256)
    stack: Annotated[int, Field(ge=0, description="neighbouring slices on each side as more source channels")] = 0
    foreground: Annotated[
        float,
        Field(ge=0, lt=1, description="least share of a piece that the body must cover; emptier ones are skipped"),
    ] = 0.0
    slices: Annotated[
        SliceSettings | None, Field(description="keep only slices where two scans show enough of the same; unset: all")
    ] = None
    centred: Annotated[
        bool,
        Field(description="left and right are cut off, or filled, evenly: the mid-plane stays in the middle column"),
    ] = False
    allow_missing: Annotated[
        bool, Field(description="keep cases that lack some source modality (its channel is background)")
    ] = False
    augment: Annotated[AugmentSettings, Field(description="random changes in training")] = field(
        default_factory=AugmentSettings
    )

    @property
    def channels(self) -> list[tuple[str, int]]:
        """Modality and slice offset of each source channel: the slice itself, then below, above, two below, …"""
        steps = [0] + [sign * k for k in range(1, self.stack + 1) for sign in (-1, 1)]
        return [(name, step) for step in steps for name in self.source]

    def __post_init__(self) -> None:
        if min(self.patch) < 1:
            raise BadInput(
                f"data.patch: expected three sizes of at least 1 voxel, found {self.patch}. Mend the recipe."
            )
        for name in ("source", "target"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise BadInput(
                    f"data.{name}: expected each modality once, found {getattr(self, name)}. Mend the recipe."
                )
        if self.centred and (moving := self.augment.off_centre):
            raise BadInput(
                f"data.augment.{moving[0]}: expected 0 with data.centred, found {getattr(self.augment, moving[0]):g}, "
                "which moves the mid-plane away from the middle. Set it to 0."
            )


@dataclass(frozen=True)
class Span:
    """Where the pieces of a case may start along D."""

    case: str
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """One item as read: source [S, D, H, W], target [T, D, H, W], mask [1, D, H, W], present [S], id and spacing."""

    source: Tensor
    target: Tensor
    mask: Tensor
    present: Tensor
    item: int
    spacing_mm: tuple[float, float, float]


def usable_cases(cohort: Cohort, data: DataSettings, split: str) -> tuple[list[str], dict[str, int]]:
    """Cases of a split that have what the settings ask for, and how many lack what.

    Raises BadInput where the cohort has no case with some modality, or the split no usable case.
    """
    wanted = list(dict.fromkeys([*data.source, *data.target]))
    if unknown := [name for name in wanted if name not in cohort.modalities]:
        there = ", ".join(cohort.modalities)
        raise BadInput(
            f"{cohort.folder}: expected the recipe's modalities {', '.join(wanted)}, found {there} in the cohort "
            f"(no {', '.join(unknown)}). Choose a recipe for these, or set data.source and data.target."
        )
    usable: list[str] = []
    lacking: dict[str, int] = {}
    for one in cohort.cases:
        if one.split != split:
            continue
        absent = [name for name in data.target if name not in one.present]
        missing = [name for name in data.source if name not in one.present]
        if missing and (not data.allow_missing or len(missing) == len(data.source)):
            absent += missing
        for name in absent:
            lacking[name] = lacking.get(name, 0) + 1
        if not absent:
            usable.append(one.case)
    if not usable:
        there = ", ".join(f"{name}: {len(cases)}" for name, cases in cohort.splits.items())
        raise BadInput(
            f"{cohort.folder}: expected a case with {', '.join(wanted)} in the split {split}, found none "
            f"(cases in {there}). Prepare the cohort with other shares, or choose other modalities."
        )
    return usable, lacking


def check_intensity(data: DataSettings, intensity: Mapping[str, Intensity]) -> None:
    """Raise BadInput where a modality has no intensity map."""
    for name in [*data.source, *data.target]:
        if name not in intensity:
            known = ", ".join(intensity) or "none"
            raise BadInput(f"recipe: expected an intensity map for {name}, found {known}. Add [intensity] {name} = ….")


def span_of(header: CaseHeader, data: DataSettings, kept: np.ndarray | None = None) -> Span:
    """Starts along D whose slab holds enough mask, and kept slices only; a volume thinner than the patch has one."""
    depth, height, width = (min(a, b) for a, b in zip(header.shape, data.patch))
    # divided by the patch's own area: a narrow patch can be full of body in a slice that is mostly air
    enough = _sums(header.mask_area, depth) / (depth * height * width) >= data.foreground
    if kept is not None:
        enough &= _sums(kept, depth) == depth
    return Span(header.case, tuple(int(start) for start in np.flatnonzero(enough)))


def _sums(values: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
    """The sum of each run of `width` neighbours."""
    total = np.cumsum([0, *values])
    sums: np.ndarray = total[width:] - total[: len(total) - width]
    return sums


def centred_start(length: int, patch: int) -> int:
    """The start that centres a patch on an axis; 0 where the patch is the longer one, so that padding follows."""
    return max(0, even_start(length, patch))


def even_start(length: int, patch: int) -> int:
    """The start that centres a patch on an axis, below 0 where the patch is the longer one.

    Where length and patch are not both even or both odd, the middle of the axis lies half a voxel above the patch's.
    """
    return (length - patch) // 2


def read_piece(
    cohort: Cohort, data: DataSettings, intensity: Mapping[str, Intensity], case: str, start: Place
) -> Piece:
    """Read one patch at `start` (D, H, W; may lie partly outside, where background is filled in).

    Source channels: the modalities in order, then with `stack` the same again for the slice below, above, two below, ….
    """
    header = cohort.header(case)
    source, present = [], []
    for name, step in data.channels:
        there = name in header.units
        moved = (start[0] + step, *start[1:])
        source.append(
            _read_channel(cohort, header, name, intensity[name], moved, data.patch, bool(step))
            if there
            else torch.full(data.patch, BACKGROUND)
        )
        present.append(there)
    target = [_read_channel(cohort, header, name, intensity[name], start, data.patch) for name in data.target]
    mask = read_box(cohort.path(case), MASK, start, data.patch, header.shape, 0)
    return Piece(
        source=torch.stack(source),
        target=torch.stack(target),
        mask=mask.float()[None],
        present=torch.tensor(present),
        item=stable_id(case, *start),
        spacing_mm=header.spacing_mm,
    )


def _read_channel(
    cohort: Cohort,
    header: CaseHeader,
    name: str,
    spec: Intensity,
    start: Place,
    patch: tuple[int, int, int],
    neighbour: bool = False,
) -> Tensor:
    """A modality in network units, [D, H, W], background outside the volume; a neighbour beyond the ends is the end."""
    if neighbour and patch[0] == 1:
        start = (min(max(start[0], 0), header.shape[0] - 1), *start[1:])
    statistics = header.statistics[name]
    values = read_box(cohort.path(header.case), name, start, patch, header.shape, None)
    inside = box_inside(start, patch, header.shape)
    out = torch.full(patch, BACKGROUND)
    if values.numel() == 0:
        return out
    if isinstance(spec, MinMax) and spec.per == "slice":
        rows = range(start[0] + inside[0].start, start[0] + inside[0].stop)
        scaled = [case_scale(spec, statistics, d).forward(one) for d, one in zip(rows, values)]
        out[inside] = torch.stack(scaled)
    else:
        out[inside] = case_scale(spec, statistics).forward(values)
    return out


def box_inside(start: Place, patch: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """The part of a patch that lies inside the volume, in the patch's own indices."""
    a, b, c = (
        slice(min(max(0, -first), size), max(min(size, length - first), min(max(0, -first), size)))
        for first, size, length in zip(start, patch, shape)
    )
    return a, b, c


def read_box(
    path: Path, name: str, start: Place, patch: tuple[int, int, int], shape: tuple[int, int, int], fill: float | None
) -> Tensor:
    """Copy only the patch's voxels from the mapped file; with `fill` as a whole patch, else the part inside."""
    inside = box_inside(start, patch, shape)
    z, y, x = (slice(first + one.start, first + one.stop) for first, one in zip(start, inside))
    if min(one.stop - one.start for one in inside) == 0:
        values = torch.empty(0)
    else:
        values = _mapped(path, path.stat().st_mtime_ns).get_slice(name)[z, y, x]
    if fill is None:
        return values
    out = torch.full(patch, fill, dtype=torch.float32)
    if values.numel():
        out[inside] = values.float()
    return out


@functools.lru_cache(maxsize=OPEN_FILES)
def _mapped(path: Path, mtime_ns: int) -> Any:
    """An open file; the time stamp among the arguments forgets a file that was prepared anew."""
    return safe_open(path, framework="pt")
