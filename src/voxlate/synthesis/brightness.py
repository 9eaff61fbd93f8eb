"""Predictions in physical units, whose bright end is corrected, because predicted means are too dark."""

from dataclasses import dataclass, replace

import numpy as np

from voxlate.base.array_types import AnyArray
from voxlate.base.messages import Message, message
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap, Scale, intensity_statistics
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.calibration import Prediction
from voxlate.synthesis.facts import ModelFacts

REACHED = 0.95  # of the range: predicted means end at 0.88 to 0.93 for scanners of the training, else at 0.56 to 0.9
# Of the median body of the training: a part of a body may lack its bright tissue.
WHOLE_BODY_SHARE = 0.6
MOST_SLOPE = 4.0  # slope beyond which an image differs too much from a scan to be corrected
NOTED = 1.1  # slope from which a note states the correction


@dataclass(frozen=True)
class SynthesisedImage:
    """An image [D, H, W] on the network's grid in physical units, and the prediction that it is in network units.

    scale: from network units to physical units; peak: the stretch of its values after the network.
    """

    values: np.ndarray
    prediction: Prediction
    scale: Scale
    peak: "Peak | None" = None

    @property
    def physical_sd(self) -> np.ndarray | None:
        """The standard deviation over samples and planes in physical units; None for a single image or plane."""
        if self.prediction.sd is None:
            return None
        return self.prediction.sd * np.float32(self.scale.half)


@dataclass(frozen=True)
class Peak:
    """A stretch of the values above the median of an image's foreground (`middle`) by a factor (`slope`)."""

    middle: float
    slope: float

    def stretch(self, values: np.ndarray) -> np.ndarray:
        """The values [N, ...] after the stretch, in the unit of `middle`."""
        stretched = self.slope * values + (self.middle - self.slope * self.middle)
        return np.where(values > self.middle, stretched, values)

    def stretch_sd(self, sd: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The standard deviations after the stretch of values that had them; both: [N, ...]."""
        return np.where(values > self.middle, self.slope * sd, sd)

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


def in_physical_units(
    facts: ModelFacts, name: str, prediction: Prediction, affine: AnyArray
) -> SynthesisedImage:
    """A prediction of a target in physical units, and its values in network units as those are rounded.

    Its bright end is stretched where synth.peaks asks for it; affine: of the network's grid.
    """
    scale = facts.scales[name]
    values = scale.inverse(prediction.values)
    sd = prediction.sd
    peak = None
    if facts.synth.peaks:
        volume = Volume(values[None], affine, facts.units[name], name)
        share = facts.synth.peak_shares.get(name)
        peak = find_peak(volume, facts.intensity[name], scale, facts.training_ml, share)
    if peak is not None:
        if sd is not None:
            half = np.float32(scale.half)
            sd = np.asarray(peak.stretch_sd(sd * half, values) / half, np.float32)
        values = peak.stretch(values)
    prediction = replace(prediction, values=scale.of(values), sd=sd)
    return SynthesisedImage(values, prediction, scale, peak)


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
    body_ml = np.count_nonzero(body) * np.prod(image.grid.spacing_mm) / 1000
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
