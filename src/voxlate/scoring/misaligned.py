"""How much of an error comes from scans that do not lie on each other: the truth against itself, moved as far."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from voxlate.data.audit import is_misaligned
from voxlate.data.case import read_header
from voxlate.data.prepared import case_path
from voxlate.images.misalignment import Misalignment
from voxlate.scoring.metrics import mae

# standard deviation in voxels: takes noise away, and leaves the mean error of a moved edge as it is
SMOOTHED = 1.0


@dataclass(frozen=True)
class Floor:
    """What a misalignment costs: its length in mm, from the scan `source`, and the truth's MAE against itself moved."""

    source: str
    mm: float
    mae: float


def estimate_for(cohort: Path | None, case: str, modality: str, sources: Collection[str]) -> Misalignment | None:
    """What prepare found between a truth and one of its sources (`to`), where it is over its threshold; else None."""
    path = None if cohort is None else case_path(cohort, case)
    if path is None or not path.is_file():
        return None
    header = read_header(path)
    to_sources = [one for name, one in header.misaligned.items() if name == modality and one.to in sources]
    to_truth = [(name, one) for name, one in header.misaligned.items() if one.to == modality and name in sources]
    pairs = [*to_sources, *(replace(one, to=name) for name, one in to_truth)]
    far = [one for one in pairs if is_misaligned(header, one)]
    return max(far, key=lambda one: one.median_mm or 0.0, default=None)


def floor_of(
    truth: NDArray[np.float32],
    inside: NDArray[np.bool_] | None,
    spacing_mm: tuple[float, float, float],
    estimate: Misalignment,
) -> Floor:
    """The truth [D, H, W] on its scored range against itself, moved by the median length in the mean direction."""
    assert estimate.median_mm is not None
    assert estimate.translation_mm is not None
    direction = np.array(estimate.translation_mm)
    length = float(np.linalg.norm(direction))
    # a rotation alone: any will do
    direction = direction / length if length > 0 else np.array([0.0, 1.0, 0.0])
    voxels = estimate.median_mm * direction / np.array(spacing_mm)
    smooth = scipy.ndimage.gaussian_filter(truth, [SMOOTHED if n > 1 else 0.0 for n in truth.shape])
    moved = scipy.ndimage.shift(smooth, voxels, order=1, mode="nearest")
    return Floor(estimate.to, estimate.median_mm, mae(smooth, moved, inside))


def misaligned_part(floors: Mapping[tuple[str, str], Floor]) -> dict[str, Any]:
    """The entry of metrics.json: floors by (modality, case), and their means by modality; empty without any."""
    found = dict[str, Any]()
    for modality in dict.fromkeys(name for name, _ in floors):
        mine = {case: one for (name, case), one in floors.items() if name == modality}
        found[modality] = {
            "mm": float(np.mean([one.mm for one in mine.values()])),
            "mae": float(np.mean([one.mae for one in mine.values()])),
            "cases": {case: asdict(one) for case, one in mine.items()},
        }
    return found
