"""How often truth lies within the intervals that a synthesis states, and how wide they are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.files import HIGH, LOW
from voxlate.images.io import content_hash
from voxlate.scoring.metrics import LEVELS, correlation

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

COUNTED = {  # how a calibration counts its patients, and with which confidence the coverage then holds
    "none": "on average over these patients, WITHOUT A MARGIN FOR CHANCE: other patients would give other intervals",
    "normal": "with confidence {0} if patients' shares are about normal (Student's t)",
    "any": "with confidence {0}, whatever the distribution of patients' shares",
}


@dataclass(frozen=True, eq=False)
class Interval:
    """The maps of the values between which truth lies; levels: of other coverages, their width over that of these.

    coverage: that was asked for; bound: of the mean absolute error inside the body of the truth, physical; changed: the
    maps are not as they were written.
    """

    low: Path
    high: Path
    coverage: float
    levels: Mapping[str, float]
    bound: float | None
    changed: bool = False


def interval_of(images: Mapping[str, Path], modality: str, made: Mapping[str, Any]) -> Interval | None:
    """The intervals of an image among its case's maps, as its provenance describes them; None where it has none."""
    low = images.get(modality + LOW)
    high = images.get(modality + HIGH)
    stated = made.get("calibration")
    if low is None or high is None or not isinstance(stated, Mapping):
        return None
    bound = made.get("bounds", {}).get(modality, {}).get("mae")
    listed = made.get("images", {})
    changed = any(path.name in listed and listed[path.name] != content_hash(path) for path in (low, high))
    levels = stated.get("levels", {}).get(modality, {})
    return Interval(low, high, float(stated["coverage"]), levels, bound, changed)


def percent(share: float) -> str:
    """90 %, or 99.99 %: never rounded to a certainty."""
    return f"{100 * share:.6g}%"


def counted_as(bound: str, confidence: float) -> str:
    """How sure a coverage is, in words."""
    return COUNTED[bound].format(percent(confidence))


def interval_scores(
    interval: Interval, low: Array, high: Array, made: Array, truth: Array, inside: Mask
) -> dict[str, float]:
    """Shares of voxels inside, widths, and what the width says of the error; arrays [D, H, W], on the scored range."""
    below = (made - low)[inside]
    above = (high - made)[inside]
    error = (truth - made)[inside]
    if not error.size:
        return {}

    def share(scale: float) -> float:
        return float(np.mean((error >= -scale * below - 1e-6) & (error <= scale * above + 1e-6)))

    mae = float(np.abs(error).mean())
    found = {
        "coverage": share(1.0),
        "interval": float((below + above).mean(dtype=np.float64)),
        "interval_r": correlation(below + above, np.abs(error)),
    }
    for level, scale in interval.levels.items():
        if (percent := round(100 * float(level))) in LEVELS:
            found[f"coverage_{percent}"] = share(float(scale))
    if interval.bound is not None:
        found |= {
            "mae_bound": interval.bound,
            "mae_bound_held": float(mae <= interval.bound),
        }
        found["mae_bound_ratio"] = interval.bound / mae if mae > 0 else math.nan
    return found


def region_coverage(low: Array, high: Array, truth: Array, inside: Mask) -> dict[str, float]:
    """The share of a region's voxels inside their intervals, and their mean width; NaN where it is empty."""
    if not inside.any():
        return {"coverage": math.nan, "interval": math.nan}
    held = (truth[inside] >= low[inside] - 1e-6) & (truth[inside] <= high[inside] + 1e-6)
    return {
        "coverage": float(held.mean()),
        "interval": float((high - low)[inside].mean(dtype=np.float64)),
    }
