"""Images in physical units, and the correction of their bright end, because predicted means are too dark."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from voxlate.base.messages import Message, message
from voxlate.base.slabs import count_nonzero, in_slabs
from voxlate.scans.images.curve import Curve
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap, Scale
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.statistics import intensity_statistics
from voxlate.synthesis.calibration import Prediction
from voxlate.synthesis.facts import ModelFacts

REACHED = 0.95  # of the range: predicted means end at 0.88 to 0.93 for scanners of the training, else at 0.56 to 0.9
# Of the median body of the training: a part of a body may lack its bright tissue.
WHOLE_BODY_SHARE = 0.6
MOST_SLOPE = 4.0  # slope beyond which an image differs too much from a scan to be corrected
NOTED = 1.1  # slope from which a note states the correction


class Move(Protocol):
    """A change of an image's values by an increasing curve; key: of its entries in a provenance."""

    @property
    def key(self) -> str: ...

    @property
    def curve(self) -> Curve: ...

    @property
    def entry(self) -> Mapping[str, Any]: ...

    def scale_of(self, scale: Scale) -> Scale:
        """The scale from network units of the image after the change."""

    def check(self, name: str) -> list[Message]:
        """Messages on the change of an image of this name."""


@dataclass(frozen=True)
class SynthesisedImage:
    """An image [D, H, W] on the network's grid in physical units, and the prediction that it is in network units.

    scale: from network units to physical units; move: the change of its values after the network.
    """

    values: np.ndarray
    prediction: Prediction
    scale: Scale
    move: Move | None = None

    @property
    def physical_sd(self) -> np.ndarray | None:
        """The standard deviation over samples and planes in physical units; None for a single image or plane."""
        if self.prediction.sd is None:
            return None
        half = np.float32(self.scale.half)
        return in_slabs(lambda slab: slab * half, self.prediction.sd)

    def moved(self, move: Move) -> "SynthesisedImage":
        """The image with its values changed, and its spread with them."""
        scale = move.scale_of(self.scale)
        values = move.curve.map(self.values)
        sd = self.physical_sd
        if sd is not None:
            half = np.float32(scale.half)
            stretched = move.curve.map_sd(sd, self.values)
            sd = in_slabs(lambda slab: np.asarray(slab / half, np.float32), stretched)
        prediction = replace(self.prediction, values=in_slabs(scale.of, values), sd=sd)
        return SynthesisedImage(values, prediction, scale, move)


@dataclass(frozen=True)
class Peak:
    """A stretch of the values above the median of an image's foreground (`middle`) by a factor (`slope`)."""

    middle: float
    slope: float
    key: ClassVar[str] = "peaks"

    @property
    def curve(self) -> Curve:
        """The map of the values, in the unit of `middle`."""
        ends = (self.middle - 1, self.middle)
        return Curve((*ends, self.middle + 1), (*ends, self.middle + self.slope))

    def scale_of(self, scale: Scale) -> Scale:
        """The scale of the image, which stays that of the training."""
        return scale

    @property
    def entry(self) -> dict[str, float]:
        """The entry of a provenance."""
        return {"median": round(self.middle, 4), "slope": round(self.slope, 4)}

    def check(self, name: str) -> list[Message]:
        """A message where the image was changed much."""
        if self.slope < NOTED:
            return []
        text = f"The bright values of the {name} image were too dark and were stretched {self.slope:.2f} times (synth.peaks)."
        if self.slope < MOST_SLOPE:
            return [message("stretched", text, slope=self.slope)]
        text += (
            " They may still be too dark: do not judge how bright fluid, fat or a lesion is in it."
        )
        return [message("stretched", text, grade="caution", slope=self.slope)]


def in_physical_units(prediction: Prediction, scale: Scale) -> SynthesisedImage:
    """A prediction in physical units; its own values are overwritten by those of the image, which are rounded."""
    values = in_slabs(scale.inverse, prediction.values)
    rounded = in_slabs(scale.of, values, out=prediction.values)
    return SynthesisedImage(values, replace(prediction, values=rounded), scale)


def with_peak(image: SynthesisedImage, volume: Volume, facts: ModelFacts) -> SynthesisedImage:
    """The image with its bright end corrected; volume: the image with its grid."""
    spec = facts.intensity[volume.modality]
    share = facts.synth.peak_shares.get(volume.modality)
    peak = find_peak(volume, spec, image.scale, facts.training_ml, share)
    return image if peak is None else image.moved(peak)


def find_peak(
    image: Volume,
    spec: IntensityMap,
    scale: Scale,
    training_ml: float = 0.0,
    share: float | None = None,
) -> Peak | None:
    """The stretch that moves an image's upper percentile close to that of the training scans.

    image: in physical units, on the network's grid; scale: from network units to physical units; training_ml: median
    volume of bodies in training; share: of the range where the percentile shall lie, as the recipe states
    it; it is approached as far as a moderate slope moves it. None where the map has no upper percentile, where it is close already, where no moderate slope moves it there,
    and where the image shows only a part of a body, which may lack the bright tissue.
    """
    if spec.upper_percentile is None:
        return None
    body = foreground(image)
    body_ml = count_nonzero(body) * np.prod(image.grid.spacing_mm) / 1000
    if body_ml < WHOLE_BODY_SHARE * training_ml:
        return None
    inside = intensity_statistics(image.data[0], body).foreground
    middle = inside.at(50)
    peak = inside.at(spec.upper_percentile)
    goal = scale.low + (share or REACHED) * (scale.high - scale.low)
    if not middle < peak < goal:
        return None
    slope = (goal - middle) / (peak - middle)
    if slope > MOST_SLOPE:
        return None if share is None else Peak(middle, MOST_SLOPE)
    return Peak(middle, slope)
