"""Regions of a body that are calibrated as well: thresholds of the image's values, and label maps."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from voxlate.base.errors import BadInput
from voxlate.evaluation.intervals.calibration import BODY
from voxlate.evaluation.scoring.regions import regions_from, scale_to_peak
from voxlate.evaluation.tissues import BORDERS_HU
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import range_for

Mask = NDArray[np.bool_]
OWN_NAMES = (BODY, "mae")
CT_REGIONS = {"soft_tissue": "-200<{0}<250", "bone": "{0}>250"}  # in HU
LABEL_RULE = "{0}>0.5"


def calibration_regions(
    target: str, unit: str, labels: Collection[str], asked: Mapping[str, str]
) -> dict[str, str]:
    """Rules by name: soft tissue and bone if the unit is HU, the voxels of each label map, and those of the user.

    Raises BadInput for a rule that is no threshold of the target or of a label map.
    """
    for region in regions_from(asked):
        if region.name in OWN_NAMES:
            raise BadInput(
                f"region {region.name}: expected a name that the calibration has no use for, found one of {', '.join(OWN_NAMES)}. Choose another."
            )
        if region.mirrored:
            raise BadInput(
                f"region {region.name}: expected a plain threshold, found {region.text!r}. Drop the %."
            )
        if region.modality != target and str(region.modality) not in labels:
            known = ", ".join(labels) or "none"
            raise BadInput(
                f"region {region.name}: expected a threshold of {target} or of a label map ({known}), found {region.text!r}. Write {region.name}={target}>100."
            )
    of_unit = CT_REGIONS if unit == "HU" else {}
    rules = {name: rule.format(target) for name, rule in of_unit.items()}
    return {**rules, **{name: LABEL_RULE.format(name) for name in labels}, **asked}


def tissue_borders(unit: str, scale: tuple[float, float]) -> list[float]:
    """The values between tissues in network units, of an image in HU whose ends in HU are the scale; none of other units."""
    low, high = scale
    borders = BORDERS_HU if unit == "HU" else ()
    return [2 * (value - low) / (high - low) - 1 for value in borders if low < value < high]


def region_masks(
    rules: Mapping[str, str],
    image: Volume,
    labels: Mapping[str, NDArray[np.generic]] | None = None,
) -> dict[str, Mask]:
    """The masks [D, H, W] of the body and of regions in an image; those of label maps only where labels has them.

    Thresholds of images without a unit are shares of their peak, as in evaluate.
    """
    body = foreground(image)
    masks = {BODY: body}
    for region in regions_from(rules):
        values = (labels or {}).get(str(region.modality))
        if region.modality == image.modality:
            values = scale_to_peak(image, range_for(image.unit), body)
        if values is not None:
            masks[region.name] = region.select(values.astype(np.float32, copy=False), body)
    return masks
