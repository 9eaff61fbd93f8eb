"""Regions of a body that are calibrated as well: thresholds of the image's values, and label maps."""

from collections.abc import Collection, Mapping

from voxlate.base.errors import BadInput
from voxlate.scans.images.regions import BODY, regions_from
from voxlate.scans.images.tissues_hu import BORDERS_HU

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
