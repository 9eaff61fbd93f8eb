"""Slices to learn from: those where the bright parts of two scans overlap and are large enough."""

import contextlib
import hashlib
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from voxlate.config import settings
from voxlate.data.case import CaseHeader, PreparedCase, Sliceable
from voxlate.data.prepared import Cohort
from voxlate.errors import BadInput
from voxlate.files import read_json, write_json

FOLDER = "slices"  # of a prepared cohort: a cache of the counts


@settings
class SliceFilter:
    """Slices to keep: where the bright parts of the named modalities overlap and are large enough."""

    above: Annotated[
        dict[str, float | Literal["mean"]],
        Field(
            min_length=1, description="modality = value in its unit above which it is bright, or 'mean', its volume's"
        ),
    ]
    overlap: Annotated[
        float, Field(ge=0, le=1, description="least Dice overlap of the bright parts, for each pair of modalities")
    ] = 0.0
    pixels: Annotated[int, Field(ge=0, description="least pixels of each bright part")] = 0

    def __post_init__(self) -> None:
        if self.overlap > 0 and len(self.above) < 2:
            raise BadInput(
                f"data.slices.above: expected two modalities or more for an overlap, found {', '.join(self.above)}. "
                "Name another one, or leave out data.slices.overlap."
            )


def kept_slices(cohort: Cohort, chosen: SliceFilter, cases: list[str]) -> dict[str, np.ndarray]:
    """Which slices of each case are kept: bool [D]. Slices of one value only are not.

    Pixels are counted plane by plane at the first use and remembered in the cohort's folder where that can be.
    """
    path = cohort.folder / FOLDER / f"{_digest(sorted(chosen.above.items()))}.json"
    known = _remembered(path)
    counts: dict[str, Any] = {}
    for case in cases:
        header = cohort.header(case)
        names = [name for name in header.present if name in chosen.above]
        voxels = _digest([header.voxels[name] for name in names])
        old = known.get(case)
        if isinstance(old, dict) and old.get("voxels") == voxels:
            counts[case] = old
        else:
            counts[case] = {"voxels": voxels, **_count(cohort.case(case), chosen.above, names)}
    if any(known.get(case) != counts[case] for case in cases):
        with contextlib.suppress(BadInput, OSError):  # a folder without write permission: counted again next time
            write_json(path, {**known, **counts})
    return {case: _kept_prepared(cohort.header(case), chosen, counts[case]) for case in cases}


def passing_slices(images: Mapping[str, np.ndarray], chosen: SliceFilter) -> np.ndarray:
    """Which slices of images [D, H, W] in their own units pass, by the rule of `kept_slices`: bool [D].

    Every modality that the filter names must be among the images. A mask (bool) may be of one value, if that is true.
    """
    named = {name: images[name] for name in chosen.above}
    limits = {
        name: float(np.mean(named[name], dtype=np.float64)) if limit == "mean" else limit
        for name, limit in chosen.above.items()
    }
    varies: dict[str, np.ndarray] = {
        name: np.asarray(image.any((1, 2)) if image.dtype == np.bool_ else image.min((1, 2)) != image.max((1, 2)))
        for name, image in named.items()
    }
    return _kept(varies, chosen, _count_planes(named, limits, len(next(iter(named.values())))))


def _kept_prepared(header: CaseHeader, chosen: SliceFilter, counts: Mapping[str, Any]) -> np.ndarray:
    statistics = {name: header.statistics[name] for name in counts["area"]}
    varies = {name: np.not_equal(one.slice_low, one.slice_high) for name, one in statistics.items()}
    return _kept(varies, chosen, counts) if varies else np.ones(header.shape[0], bool)


def _kept(varies: Mapping[str, np.ndarray], chosen: SliceFilter, counts: Mapping[str, Any]) -> np.ndarray:
    """varies: by modality, which slices have more than one value."""
    kept: np.ndarray = np.logical_and.reduce(list(varies.values()))
    for area in counts["area"].values():
        kept &= np.array(area) >= chosen.pixels
    for pair, both in counts["both"].items():
        a, b = (np.array(counts["area"][name]) for name in pair.split("+"))
        kept &= 2 * np.array(both) >= chosen.overlap * (a + b)
    return kept


def _count(
    case: PreparedCase, above: Mapping[str, float | Literal["mean"]], names: list[str]
) -> dict[str, dict[str, list[int]]]:
    means = {name: case.header.statistics[name].all.mean for name in names}
    limits = {name: means[name] if (limit := above[name]) == "mean" else limit for name in names}
    return _count_planes({name: case.arrays[name] for name in names}, limits, case.header.shape[0])


def _count_planes(
    arrays: Mapping[str, Sliceable], limits: Mapping[str, float], slices: int
) -> dict[str, dict[str, list[int]]]:
    """Bright pixels of each modality in each slice and those that two have in common; one plane in memory at a time."""
    area: dict[str, list[int]] = {name: [] for name in arrays}
    both: dict[str, list[int]] = {f"{a}+{b}": [] for a, b in combinations(arrays, 2)}
    for d in range(slices):
        bright = {name: array[d] > limits[name] for name, array in arrays.items()}
        for name in arrays:
            area[name].append(int(bright[name].sum()))
        for a, b in combinations(arrays, 2):
            both[f"{a}+{b}"].append(int((bright[a] & bright[b]).sum()))
    return {"area": area, "both": both}


def _remembered(path: Path) -> dict[str, Any]:
    """The cached counts; none where the file is absent or damaged."""
    with contextlib.suppress(BadInput):
        value = read_json(path)
        return value if isinstance(value, dict) else {}
    return {}


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
