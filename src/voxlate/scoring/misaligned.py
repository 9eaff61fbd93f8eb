"""The part of an error that is due to misaligned scans: the error of the truth against a shifted copy of itself."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage

from voxlate.cases.audit import is_misaligned
from voxlate.cases.case import read_header
from voxlate.cases.prepared import case_path
from voxlate.images.misalignment import Misalignment
from voxlate.scoring.metrics import mae
from voxlate.system.arrays import Bool, Float32

# The standard deviation in voxels removes noise and keeps the mean error of a shifted edge.
SMOOTHED = 1.0


@dataclass(frozen=True)
class Floor:
    """The effect of a misalignment: its length in mm to the scan `source`, and the MAE of the shifted truth."""

    source: str
    mm: float
    mae: float


def estimate_for(
    cohort: Path | None, case: str, modality: str, sources: Collection[str]
) -> Misalignment | None:
    """The largest misalignment of a truth with one of its sources (`to`) above the threshold of prepare, or None."""
    path = None if cohort is None else case_path(cohort, case)
    if path is None or not path.is_file():
        return None
    header = read_header(path)
    pairs = []
    for name, estimate in header.misaligned.items():
        if name == modality and estimate.to in sources:
            pairs.append(estimate)
        elif name in sources and estimate.to == modality:
            pairs.append(replace(estimate, to=name))
    far = [estimate for estimate in pairs if is_misaligned(header, estimate)]
    return max(far, key=lambda estimate: estimate.median_mm or 0.0, default=None)


def floor_of(
    truth: Float32,
    inside: Bool | None,
    spacing_mm: tuple[float, float, float],
    estimate: Misalignment,
) -> Floor:
    """The error of the truth [D, H, W] on its scored range after a shift by the median length in the mean direction."""
    assert estimate.median_mm is not None
    assert estimate.translation_mm is not None
    direction = np.array(estimate.translation_mm)
    length = float(np.linalg.norm(direction))
    # A pure rotation has no direction, so any direction serves.
    direction = direction / length if length > 0 else np.array([0.0, 1.0, 0.0])
    voxels = estimate.median_mm * direction / np.array(spacing_mm)
    smooth = scipy.ndimage.gaussian_filter(truth, [SMOOTHED if n > 1 else 0.0 for n in truth.shape])
    moved = scipy.ndimage.shift(smooth, voxels, order=1, mode="nearest")
    return Floor(estimate.to, estimate.median_mm, mae(smooth, moved, inside))


def summarise_floors(floors: Mapping[tuple[str, str], Floor]) -> dict[str, Any]:
    """The entry of metrics.json from floors by (modality, case), with their means by modality; empty without any."""
    parts = dict[str, Any]()
    for (modality, case), floor in floors.items():
        parts.setdefault(modality, {"mm": [], "mae": [], "cases": {}})
        parts[modality]["cases"][case] = asdict(floor)
        parts[modality]["mm"].append(floor.mm)
        parts[modality]["mae"].append(floor.mae)
    for part in parts.values():
        part |= {key: float(np.mean(part[key])) for key in ("mm", "mae")}
    return parts
