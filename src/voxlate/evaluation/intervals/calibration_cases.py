"""What held-out cases show of a run's errors: voxels of images and truths.

Regions of a body are calibrated as well: thresholds of the image's values, and label maps.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.base.errors import BadInput
from voxlate.checks.truths import SketchedTruth, sketch_of
from voxlate.evaluation.intervals.fit import CalibrationVoxels
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.regions import BODY, BORDERS_HU, region_masks, regions_from
from voxlate.synthesis.calibration import Array, Prediction
from voxlate.synthesis.out_of_distribution import Patches
from voxlate.synthesis.widths import voxel_features

BODY_VOXELS = 30_000  # of a case's body that are kept: they determine the share outside to 0.2 %
AIR_VOXELS = 500  # of the surroundings that are kept, so that intervals of air are learned, too
OWN_NAMES = (BODY, "mae")
CT_REGIONS = {"soft_tissue": "-200<{0}<250", "bone": "{0}>250", "inner_air": "{0}<-300"}  # in HU
LABEL_RULE = "{0}>0.5"


@dataclass(frozen=True)
class CaseData:
    """What a held-out case contributes: the hashes of its files, voxels and truths by target, and patches of its scans.

    A completion has patches for each modality that is left out in turn. truths: with what states whether each is that
    of its image; planes: in how many it was read, of a model of several; else 0.
    """

    patient: str
    content: Mapping[str, str]
    voxels: dict[str, CalibrationVoxels]
    truths: dict[str, SketchedTruth]
    patches: list[Patches]
    planes: int


@dataclass(frozen=True)
class TrueImage:
    """The true image of a case on the voxels of its prediction, with label maps [D, H, W] of the case there.

    values: [D, H, W] in network units, by its own scale.
    """

    volume: Volume
    values: Array
    labels: Mapping[str, NDArray[np.generic]]


def calibration_regions(
    target: str, unit: str, labels: Collection[str], asked: Mapping[str, str]
) -> dict[str, str]:
    """Rules by name: soft tissue, bone and the air inside the body if the unit is HU, the voxels of each label map, and those of the user.

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


def choose_voxels(
    case: str,
    patient: str,
    prediction: Prediction,
    predicted_scale: Scale,
    truth: TrueImage,
    sources: Sequence[Array],
    rules: Mapping[str, str],
    generator: np.random.Generator,
) -> tuple[CalibrationVoxels, SketchedTruth]:
    """Random voxels of the body that the image or the truth shows, and a few of its surroundings; and what shows whether the truth is the image's.

    sources: [D, H, W] in network units, on the voxels of the prediction; rules: of regions, by name.
    """
    volume = truth.volume
    image = Volume(
        predicted_scale.inverse(prediction.values)[None],
        volume.affine,
        volume.unit,
        volume.modality,
    )
    truth_parts = region_masks(rules, volume, truth.labels)
    image_parts = region_masks(rules, image)
    body = (truth_parts[BODY] | image_parts[BODY]).ravel()
    inside = generator.permutation(np.flatnonzero(body))[:BODY_VOXELS]
    outside = generator.permutation(np.flatnonzero(~body))[:AIR_VOXELS]
    places = np.sort(np.concatenate([inside, outside]))

    def choose(values: np.ndarray) -> Any:
        """The values of [D, H, W, …] at these places."""
        return values.reshape(-1, *values.shape[3:])[places]

    # a missing modality is background, whose likeness to a truth says nothing
    shown = [source for source in sources if source.min() < source.max()]
    source = Volume((shown or sources)[0][None], volume.affine, "a.u.", "source")
    sketch = sketch_of(volume, image, source, volume.grid)
    features = voxel_features(prediction.values, sources, prediction.sd)
    voxels = CalibrationVoxels(
        case,
        patient,
        choose(features),
        choose(prediction.values),
        choose(truth.values),
        {region: choose(mask) for region, mask in truth_parts.items()},
        {region: choose(mask) for region, mask in image_parts.items()},
    )
    return voxels, SketchedTruth(patient, volume.unit, volume.unit, sketch)
