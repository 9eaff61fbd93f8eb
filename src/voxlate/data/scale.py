"""Intensity maps from stored statistics, so that training never reads a whole volume to scale a slice."""

from dataclasses import dataclass

import numpy as np

from voxlate.images.intensity import Intensity, MinMax, Percentile, Scale, Window

# The tails are dense because intensity maps are stated there; others are interpolated linearly between these.
PERCENTILES = (0, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 25, 50, 75, 90, 95, 97, 98, 99, 99.5, 99.8, 99.9, 99.95, 100)


@dataclass(frozen=True)
class Spread:
    """How a set of voxels is distributed: mean, standard deviation and the values at PERCENTILES."""

    mean: float
    sd: float
    percentiles: tuple[float, ...]

    def at(self, percentile: float) -> float:
        """The value at a percentile (0 to 100), exact at PERCENTILES and interpolated between them."""
        return float(np.interp(percentile, PERCENTILES, self.percentiles))


@dataclass(frozen=True)
class Statistics:
    """What an intensity map may need of one volume; slice_low and slice_high: extremes of each slice along D."""

    foreground: Spread
    all: Spread
    slice_low: tuple[float, ...]
    slice_high: tuple[float, ...]


def intensity_statistics(values: np.ndarray, mask: np.ndarray | None = None) -> Statistics:
    """Statistics of a volume; values, mask: [D, H, W]. Without a mask, or with an empty one, all is foreground."""
    everything = spread(values)
    return Statistics(
        foreground=spread(values, mask) if mask is not None and mask.any() else everything,
        all=everything,
        slice_low=tuple(values.min(axis=(1, 2)).astype(float).tolist()),
        slice_high=tuple(values.max(axis=(1, 2)).astype(float).tolist()),
    )


def spread(values: np.ndarray, mask: np.ndarray | None = None) -> Spread:
    """The Spread of an array of any shape, or of its values inside a mask, which must not be empty."""
    flat = values.reshape(-1) if mask is None else values[mask > 0]
    points = np.percentile(flat, PERCENTILES)
    return Spread(
        mean=float(flat.mean(dtype=np.float64)),
        sd=float(flat.std(dtype=np.float64)),
        percentiles=tuple(float(point) for point in points),
    )


def case_scale(spec: Intensity, statistics: Statistics | None, index: int | None = None) -> Scale:
    """The map that `spec` gives for a volume with these statistics: what spec.fit would find on its voxels.

    statistics: None for a window, which asks nothing of the volume.
    index: the slice along D, for a spec that works slice by slice; without it such a spec takes the whole volume.
    """
    if isinstance(spec, Window):
        return Scale(spec.low, spec.high)
    assert statistics is not None
    if isinstance(spec, Percentile):
        inside = statistics.foreground if spec.inside == "foreground" else statistics.all
        return Scale(inside.at(spec.low) if spec.floor is None else spec.floor, inside.at(spec.high))
    if isinstance(spec, MinMax):
        if spec.per == "slice" and index is not None:
            return Scale(statistics.slice_low[index], statistics.slice_high[index])
        return Scale(statistics.all.at(0), statistics.all.at(100))
    reach = spec.clip * statistics.foreground.sd
    return Scale(statistics.foreground.mean - reach, statistics.foreground.mean + reach)


def typical_scale(spec: Intensity, cases: list[Statistics]) -> Scale:
    """The map that brings a synthesis back to physical units where the truth's own statistics cannot be known.

    For a window it is the window itself. Otherwise it is the median over training cases of each case's low and high
    end: MR units are arbitrary, so no better scale exists for a patient whose target was never scanned.
    """
    scales = [case_scale(spec, one) for one in cases]
    return Scale(float(np.median([one.low for one in scales])), float(np.median([one.high for one in scales])))
