"""Scores of prediction intervals: their coverage of the truth, and their width."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.array_types import Bool, Float32
from voxlate.base.files import HIGH, LOW
from voxlate.evaluation.scoring.metrics import correlation, mean_inside
from voxlate.scans.formats.io import content_hash
from voxlate.synthesis.calibration import describe_fit

# The meaning of a calibration's coverage by the bound that it uses over patients.
COUNTED: dict[str, str] = {
    "none": "on average over these patients, without a margin for chance",
    "normal": "with confidence {0} if patients' shares are about normal (Student's t)",
    "any": "with confidence {0}, whatever the distribution of patients' shares",
}


@dataclass(frozen=True, eq=False)
class Interval:
    """The maps of the lower and upper ends of intervals.

    coverage: nominal coverage; bound: upper bound of
    the mean absolute error inside the body in physical units; changed: whether the maps were changed after synthesis.
    """

    low: Path
    high: Path
    coverage: float
    bound: float | None
    changed: bool


def interval_of(
    images: Mapping[str, Path], modality: str, provenance: Mapping[str, Any]
) -> Interval | None:
    """The intervals of an image among its case's maps, as its provenance describes them; None if there are none."""
    calibration = provenance.get("calibration")
    if not has_ends(modality, images) or not isinstance(calibration, Mapping):
        return None
    low = images[modality + LOW]
    high = images[modality + HIGH]
    bound = provenance.get("bounds", {}).get(modality, {}).get("mae")
    changed = any(is_changed(path, provenance) for path in (low, high))
    return Interval(low, high, float(calibration["coverage"]), bound, changed)


def has_ends(modality: str, images: Collection[str]) -> bool:
    """Whether both ends of an interval of an image are among the images of its case."""
    return {modality + LOW, modality + HIGH} <= {*images}


def is_changed(image: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether the content of an image differs from the one that its provenance states; False if it states none."""
    written: str | None = provenance.get("images", {}).get(image.name)
    return written is not None and written != content_hash(image)


def percent(share: float) -> str:
    """A share in per cent such as 90% or 99.99%, which is never rounded to 100%."""
    return f"{100 * share:.6g}%"


def describe_bound(bound: str, confidence: float) -> str:
    """A clause on the confidence of a coverage."""
    return COUNTED[bound].format(percent(confidence))


def describe_coverage(calibration: Mapping[str, Any]) -> str:
    """Sentences on what intervals should contain, and contain of each tissue; calibration: its entry in a provenance."""
    guarantee = "without a guarantee for patients"
    if "widened" not in calibration:
        bound = describe_bound(calibration["bound"], calibration["confidence"])
        guarantee = f"for patients and scanners like those of the calibration, {bound}"
    share = percent(calibration["coverage"])
    return f"Intervals should contain {share} of a new patient's voxels inside the body, {guarantee}. They were {describe_fit(calibration)}."


def interval_scores(
    interval: Interval,
    low: Float32,
    high: Float32,
    prediction: Float32,
    truth: Float32,
    inside: Bool,
) -> dict[str, float]:
    """Coverage, width, and the width's correlation with the error; arrays are [D, H, W] on the scored range."""
    below = (prediction - low)[inside]
    above = (high - prediction)[inside]
    error = (truth - prediction)[inside]
    if not error.size:
        return {}
    mae = float(np.abs(error).mean())
    scores = {
        "coverage": float(np.mean((error >= -below - 1e-6) & (error <= above + 1e-6))),
        "interval": mean_inside(below + above),
        "interval_r": correlation(below + above, np.abs(error)),
    }
    if (bound := interval.bound) is not None:
        scores["mae_bound"] = bound
        scores["mae_bound_held"] = float(mae <= bound)
        scores["mae_bound_ratio"] = bound / mae if mae > 0 else math.nan
    return scores


def region_coverage(
    name: str, low: Float32, high: Float32, truth: Float32, inside: Bool
) -> dict[str, float]:
    """Coverage of a region's voxels and mean width of their intervals; NaN if the region is empty."""
    low, high, truth = (values[inside] for values in (low, high, truth))
    held = (truth >= low - 1e-6) & (truth <= high + 1e-6)
    return {f"{name}.coverage": mean_inside(held), f"{name}.interval": mean_inside(high - low)}
