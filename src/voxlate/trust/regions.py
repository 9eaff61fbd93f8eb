"""Parts of a body that are calibrated, too: by the values of an image, or by a label map."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from voxlate.errors import BadInput
from voxlate.images.grid import Volume
from voxlate.images.mask import foreground
from voxlate.images.ranges import range_for
from voxlate.scoring.regions import regions_from, thresholded
from voxlate.trust.calibration import BODY

Mask = NDArray[np.bool_]
OWN_NAMES = (BODY, "mae")
OF_CT = {"soft_tissue": "-200<{0}<250", "bone": "{0}>250"}  # in HU


def default_regions(target: str, unit: str, labels: Iterable[str]) -> dict[str, str]:
    """Rules by name: of Hounsfield units soft tissue and bone, and what each label map marks."""
    found = {name: rule.format(target) for name, rule in OF_CT.items()} if unit == "HU" else {}
    return {**found, **{name: f"{name}>0.5" for name in labels}}


def check_regions(texts: Mapping[str, str], target: str, labels: Collection[str]) -> None:
    """Raise BadInput for a region that no target and no label map can say."""
    for region in regions_from(texts):
        if region.name in OWN_NAMES:
            raise BadInput(
                f"region {region.name}: expected a name that the calibration has no use for, found one of "
                f"{', '.join(OWN_NAMES)}. Choose another."
            )
        if region.mirrored:
            raise BadInput(f"region {region.name}: expected a plain threshold, found {region.text!r}. Drop the %.")
        if region.modality != target and str(region.modality) not in labels:
            known = ", ".join(labels) or "none"
            raise BadInput(
                f"region {region.name}: expected a threshold of {target} or of a label map ({known}), found "
                f"{region.text!r}. Write {region.name}={target}>100."
            )


def parts_of(
    texts: Mapping[str, str], image: Volume, labels: Mapping[str, NDArray[np.generic]] | None = None
) -> dict[str, Mask]:
    """Where body and regions lie in an image or a truth, [D, H, W]; those of label maps where these are given.

    Thresholds of images without a unit are in shares of their peak, as those of evaluate.
    """
    body = foreground(image)
    found = {BODY: body}
    for region in regions_from(texts):
        own = region.modality == image.modality
        values = thresholded(image, range_for(image.unit), body) if own else (labels or {}).get(str(region.modality))
        if values is not None:
            found[region.name] = region.select(values.astype(np.float32, copy=False), body)
    return found
