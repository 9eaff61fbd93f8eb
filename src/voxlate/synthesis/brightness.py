"""The bright end of images whose scale is each scan's own: a mean answer falls short of it."""

from dataclasses import dataclass

import numpy as np

from voxlate.images.intensity import IntensityMap, Scale
from voxlate.images.mask import foreground
from voxlate.images.statistics import intensity_statistics
from voxlate.images.volume import Volume

REACHED = 0.95  # of the range: mean answers of a scanner's own patients end at 0.88 to 0.93, others' at 0.56 to 0.9
WHOLE = 0.6  # of the usual body: a part of one may lack its bright tissue
MOST = 4.0  # slope beyond which an image is too unlike a scan to be corrected
TELLING = 1.1  # slope from which a note says so


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

    @property
    def stated(self) -> dict[str, float]:
        """What a provenance says of it."""
        return {"median": round(self.middle, 4), "slope": round(self.slope, 4)}

    def note(self, name: str) -> str:
        """A sentence where a picture was changed much; empty elsewhere."""
        if self.slope < TELLING:
            return ""
        return (
            f"{name}: the synthesised bright values lay below those of training scans, as those of mean answers and of "
            f"short trainings do; above the median they were stretched {self.slope:.2f} times (synth.peaks)."
        )


def peak_of(made: Volume, spec: IntensityMap, scale: Scale, usual_ml: float = 0.0) -> Peak | None:
    """What moves an image's upper percentile near to where every training scan's lay, whose scale it is.

    made: in physical units, on the grid that the model works on; scale: from network units to these; usual_ml: of
    bodies in training. None: the map has no upper percentile, it lies there, nothing can move it, or it shows but a part, which may lack what is bright.
    """
    if spec.upper_percentile is None:
        return None
    body = foreground(made)
    if body.sum() * np.prod(made.grid.spacing_mm) / 1000 < WHOLE * usual_ml:
        return None
    inside = intensity_statistics(made.data[0], body).foreground
    middle, peak, goal = inside.at(50), inside.at(spec.upper_percentile), scale.low + REACHED * (scale.high - scale.low)
    if not middle < peak < goal:
        return None
    slope = (goal - middle) / (peak - middle)
    return Peak(middle, slope) if slope <= MOST else None
