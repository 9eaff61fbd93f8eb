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
from voxlate.data.case import CaseHeader, PreparedCase
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
    return {case: _kept(cohort.header(case), chosen, counts[case]) for case in cases}


def _kept(header: CaseHeader, chosen: SliceFilter, counts: Mapping[str, Any]) -> np.ndarray:
    kept = np.ones(header.shape[0], bool)
    for name, area in counts["area"].items():
        statistics = header.statistics[name]
        kept &= np.not_equal(statistics.slice_low, statistics.slice_high)
        kept &= np.array(area) >= chosen.pixels
    for pair, both in counts["both"].items():
        a, b = (np.array(counts["area"][name]) for name in pair.split("+"))
        kept &= 2 * np.array(both) >= chosen.overlap * (a + b)
    return kept


def _count(
    case: PreparedCase, above: Mapping[str, float | Literal["mean"]], names: list[str]
) -> dict[str, dict[str, list[int]]]:
    """Bright pixels of each modality in each slice and those that two have in common; one plane in memory at a time."""
    means = {name: case.header.statistics[name].all.mean for name in names}
    limits = {name: means[name] if above[name] == "mean" else above[name] for name in names}
    area: dict[str, list[int]] = {name: [] for name in names}
    both: dict[str, list[int]] = {f"{a}+{b}": [] for a, b in combinations(names, 2)}
    for d in range(case.header.shape[0]):
        bright = {name: case.arrays[name][d] > limits[name] for name in names}
        for name in names:
            area[name].append(int(bright[name].sum()))
        for a, b in combinations(names, 2):
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
