"""Regions of a body that are calibrated as well: thresholds of the image's values, and label maps."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from voxlate.images.grid import Volume
from voxlate.images.mask import foreground
from voxlate.images.ranges import range_for
from voxlate.scoring.regions import regions_from, thresholded
from voxlate.system.errors import BadInput
from voxlate.trust.calibration import BODY

Mask = NDArray[np.bool_]
OWN_NAMES = (BODY, "mae")
CT_REGIONS = {"soft_tissue": "-200<{0}<250", "bone": "{0}>250"}  # in HU


def default_regions(
    target: str,
    unit: str,
    labels: Iterable[str],
) -> dict[str, str]:
    """Rules by name: soft tissue and bone if the unit is HU, and the voxels of each label map."""
    rules = dict[str, str]()
    if unit == "HU":
        rules = {name: rule.format(target) for name, rule in CT_REGIONS.items()}
    for name in labels:
        rules[name] = f"{name}>0.5"
    return rules


def check_regions(
    rules: Mapping[str, str],
    target: str,
    labels: Collection[str],
) -> None:
    """Raise BadInput for a region that is no threshold of the target or of a label map."""
    for region in regions_from(rules):
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
            values = thresholded(image, range_for(image.unit), body)
        if values is not None:
            masks[region.name] = region.select(values.astype(np.float32, copy=False), body)
    return masks
