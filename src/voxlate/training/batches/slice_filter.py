"""Slices to learn from: those where the bright parts of two scans overlap and are large enough."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.scans.cases.case import open_case
from voxlate.scans.cases.prepared import Cohort, case_path

IN_PLANE = (1, 2)  # axes of a volume


@settings
class SliceFilter:
    """Slices to keep: where the bright parts of the named modalities overlap and are large enough."""

    above: Annotated[
        dict[str, float | Literal["mean"]],
        setting(
            "modality = value in its unit above which it is bright, or 'mean', its volume's",
            min_length=1,
        ),
    ]
    overlap: Annotated[
        float,
        setting("least Dice overlap of the bright parts, for each pair of modalities", ge=0, le=1),
    ] = 0.0
    pixels: Annotated[int, setting("least pixels of each bright part", ge=0)] = 0

    def __post_init__(self) -> None:
        if self.overlap > 0 and len(self.above) < 2:
            raise BadInput(
                f"data.slices.above: expected two modalities or more for an overlap, found {', '.join(self.above)}. Name another one, or leave out data.slices.overlap."
            )


def select_slices(cohort: Cohort, chosen: SliceFilter, cases: list[str]) -> dict[str, np.ndarray]:
    """Which slices of each case are kept, bool [D], by `filter_slices`; each process reads a case once."""
    rule = json.dumps(dataclasses.asdict(chosen))
    return {
        case: _select(case_path(cohort.folder, case), cohort.header(case).checksum, rule)
        for case in cases
    }


@functools.cache
def _select(path: Path, checksum: str, rule: str) -> np.ndarray:
    """The slices of a case file that a rule keeps, cached; a case that was prepared again has another checksum."""
    case = open_case(path)
    images = {name: case.arrays[name] for name in case.header.units}
    return filter_slices(images, SliceFilter(**json.loads(rule)))


def filter_slices(images: Mapping[str, np.ndarray], chosen: SliceFilter) -> np.ndarray:
    """Which slices of images [D, H, W] in their own units pass a filter: bool [D]. Constant slices do not.

    Modalities that are not among the images are ignored. A mask (bool) may be constant, if it is true.
    """
    kept = np.ones(len(next(iter(images.values()))), bool)
    bright = dict[str, np.ndarray]()
    area = dict[str, np.ndarray]()
    for name, limit in chosen.above.items():
        if name not in images:
            continue
        image = images[name]
        if image.dtype == np.bool_:
            kept &= image.any(IN_PLANE)
        else:
            kept &= image.min(IN_PLANE) != image.max(IN_PLANE)
        bright[name] = image > (float(image.mean(dtype=np.float64)) if limit == "mean" else limit)
        area[name] = bright[name].sum(IN_PLANE)
        kept &= area[name] >= chosen.pixels
    for a, b in combinations(bright, 2):
        both = (bright[a] & bright[b]).sum(IN_PLANE)
        kept &= 2 * both >= chosen.overlap * (area[a] + area[b])
    return kept
