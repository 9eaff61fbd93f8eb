"""The maps of an image's prediction intervals, and what its calibration says of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.files import HIGH, LOW
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

    coverage: nominal coverage; bound: upper bound of the mean absolute error inside the body in physical units; changed:
    whether the maps were changed after synthesis.
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
    low, high = images.get(modality + LOW), images.get(modality + HIGH)
    if low is None or high is None or not calibration:
        return None
    bound = provenance.get("bounds", {}).get(modality, {}).get("mae")
    changed = is_changed(low, provenance) or is_changed(high, provenance)
    return Interval(low, high, float(calibration["coverage"]), bound, changed)


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
