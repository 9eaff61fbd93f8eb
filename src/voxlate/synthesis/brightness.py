"""Images in physical units, and the correction of their bright end, because predicted means are too dark."""

from dataclasses import dataclass

import numpy as np

from voxlate.images.grid import Volume
from voxlate.images.intensity import IntensityMap, Scale
from voxlate.images.mask import foreground
from voxlate.images.statistics import intensity_statistics
from voxlate.system.messages import Message, message
from voxlate.system.slabs import in_slabs, map_slabs
from voxlate.trust.calibration import Prediction

REACHED = 0.95  # of the range: predicted means end at 0.88 to 0.93 for scanners of the training, else at 0.56 to 0.9
WHOLE = 0.6  # of the median body of the training: a part of a body may lack its bright tissue
MOST = 4.0  # slope beyond which an image differs too much from a scan to be corrected
NOTED = 1.1  # slope from which a note states the correction


@dataclass(frozen=True)
class Peak:
    """A stretch of the values above the median of an image's foreground (`middle`) by a factor (`slope`)."""

    middle: float
    slope: float

    def stretch(self, values: np.ndarray) -> np.ndarray:
        """Values of any shape, in the unit of `middle`."""
        return in_slabs(self._stretch_slab, values)

    def _stretch_slab(self, values: np.ndarray) -> np.ndarray:
        bright = values > self.middle
        return np.where(
            bright, self.middle + (values - self.middle) * np.float32(self.slope), values
        )

    def stretch_sd(self, sd: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The standard deviations that belong to the stretched values."""
        return in_slabs(
            lambda some, of: np.where(of > self.middle, some * np.float32(self.slope), some),
            sd,
            values,
        )

    @property
    def entry(self) -> dict[str, float]:
        """The entry of a provenance."""
        return {"median": round(self.middle, 4), "slope": round(self.slope, 4)}

    def check(self, name: str) -> list[Message]:
        """A message where the image was changed much."""
        if self.slope < NOTED:
            return []
        if self.slope >= MOST:
            text = f"{name}: its bright values were stretched {self.slope:.2f} times above the median, the most that synth.peaks allows, and still lie below those of training scans: do not judge how bright fluid, fat or a lesion is in it."
            return [message("stretched", text, grade="caution", slope=self.slope)]
        text = f"{name}: the synthesised bright values lay below those of training scans, as those of mean answers and of short trainings do; above the median they were stretched {self.slope:.2f} times (synth.peaks)."
        return [message("stretched", text, slope=self.slope)]


@dataclass(frozen=True)
class SynthesisedImage:
    """An image [D, H, W] on the network's grid in physical units, and the prediction that it is in network units.

    scale: from network units to physical units; peak: the correction of its bright end.
    """

    values: np.ndarray
    prediction: Prediction
    scale: Scale
    peak: Peak | None = None

    @property
    def half(self) -> float:
        """The size of one network unit in physical units."""
        return (self.scale.high - self.scale.low) / 2

    @property
    def physical_sd(self) -> np.ndarray | None:
        """The standard deviation over samples and planes in physical units; None for a single image."""
        if self.prediction.sd is None:
            return None
        half = np.float32(self.half)
        return in_slabs(lambda slab: slab * half, self.prediction.sd)

    def stretch(self, peak: Peak) -> "SynthesisedImage":
        """The image with its bright end corrected, and its spread with it."""
        scale = self.scale
        values = peak.stretch(self.values)
        sd = self.physical_sd
        if sd is not None:
            half = np.float32(self.half)
            stretched = peak.stretch_sd(sd, self.values)
            sd = in_slabs(lambda slab: np.asarray(slab / half, np.float32), stretched)
        prediction = Prediction(in_slabs(scale.of, values), sd)
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
    body_ml = sum(map_slabs(np.count_nonzero, body)) * np.prod(image.grid.spacing_mm) / 1000
    if body_ml < WHOLE * training_ml:
        return None
    inside = intensity_statistics(image.data[0], body).foreground
    middle = inside.at(50)
    peak = inside.at(spec.upper_percentile)
    goal = scale.low + (share or REACHED) * (scale.high - scale.low)
    if not middle < peak < goal:
        return None
    slope = (goal - middle) / (peak - middle)
    if slope > MOST:
        return None if share is None else Peak(middle, MOST)
    return Peak(middle, slope)
