"""The bright end of images whose scale is each scan's own: a mean answer falls short of it."""

from dataclasses import dataclass

import numpy as np

from voxlate.images.intensity import Percentile, Scale
from voxlate.images.mask import foreground
from voxlate.images.statistics import intensity_statistics
from voxlate.images.volume import Volume

REACHED = 0.95  # of the range: mean answers of a scanner's own patients end at 0.88 to 0.93, others' at 0.56 to 0.9
MOST = 4.0  # slope beyond which an image is too unlike a scan to be corrected
TELLING = 1.25  # slope from which a note says so


@dataclass(frozen=True)
class Peak:
    """Values above `middle` (the median of an image's foreground) are this many times as far from it."""

    middle: float
    slope: float

    def stretch(self, values: np.ndarray) -> np.ndarray:
        """Values of any shape, in the unit of `middle`."""
        bright = values > self.middle
        return np.where(bright, self.middle + (values - self.middle) * np.float32(self.slope), values)

    def stretch_sd(self, sd: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The standard deviations that belong to the stretched values."""
        return np.where(values > self.middle, sd * np.float32(self.slope), sd)

    def note(self, name: str) -> str:
        """A sentence where a picture was changed much; empty elsewhere."""
        if self.slope < TELLING:
            return ""
        return (
            f"{name}: the model's bright values fell short, as of scans unlike the training's; above the median they "
            f"were stretched {self.slope:.2f} times (synth.peaks)."
        )


def peak_of(made: Volume, spec: Percentile, scale: Scale) -> Peak | None:
    """What moves an image's upper percentile near to where every training scan's lay, whose scale it is.

    made: in physical units, on the grid that the model works on; scale: from network units to these. None: it lies
    there, or nothing can move it.
    """
    inside = intensity_statistics(made.data[0], foreground(made)).foreground
    middle, peak, goal = inside.at(50), inside.at(spec.high), scale.low + REACHED * (scale.high - scale.low)
    if not middle < peak < goal:
        return None
    slope = (goal - middle) / (peak - middle)
    return Peak(middle, slope) if slope <= MOST else None
