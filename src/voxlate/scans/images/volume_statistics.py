"""Statistics of a volume's intensities, from which intensity maps take their scales."""

from dataclasses import dataclass

import numpy as np

from voxlate.base.records import NotNegative, Number

# The tails are dense because intensity maps are stated there; others are interpolated linearly between these.
PERCENTILES = (
    *(0, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 25, 50),
    *(75, 90, 95, 97, 98, 99, 99.5, 99.8, 99.9, 99.95, 100),
)

SIGNED = 0.02  # of the range: values so far below 0 are no rounding
CONSTANT = 0.5  # of the first percentile that the lower quartile reaches in air below 0; noise around 0 reaches 0.3


@dataclass(frozen=True)
class Distribution:
    """How a set of voxels is distributed: mean, standard deviation and the values at PERCENTILES."""

    mean: Number
    sd: NotNegative
    percentiles: tuple[Number, ...]

    def at(self, percentile: float) -> float:
        """The value at a percentile (0 to 100), exact at PERCENTILES and interpolated between them."""
        if percentile in PERCENTILES:  # without numpy, because reading asks for each patch anew
            return float(self.percentiles[PERCENTILES.index(percentile)])
        return float(np.interp(percentile, PERCENTILES, self.percentiles))


@dataclass(frozen=True)
class Statistics:
    """Of a volume: its foreground, all of it, and the extremes of each slice along D."""

    foreground: Distribution
    all: Distribution
    slice_low: tuple[Number, ...]
    slice_high: tuple[Number, ...]

    @property
    def blank(self) -> bool:
        """Whether every voxel has the same value."""
        return self.all.at(0) == self.all.at(100)

    @property
    def is_signed(self) -> bool:
        """Whether its mean was subtracted: much of the body, or air without its noise, is below 0."""
        at = self.all.at
        limit = -SIGNED * (at(99.9) - at(0.1))
        air = min(limit, CONSTANT * at(1))
        return self.foreground.at(25) < limit or at(25) < air


def intensity_statistics(values: np.ndarray, mask: np.ndarray | None = None) -> Statistics:
    """Statistics of a volume; values, mask: [D, H, W]. Without a mask, or with an empty one, all is foreground."""
    everything = distribution(values)
    has_mask = mask is not None and mask.any()
    return Statistics(
        foreground=distribution(values, mask) if has_mask else everything,
        all=everything,
        slice_low=tuple(values.min(axis=(1, 2)).astype(float).tolist()),
        slice_high=tuple(values.max(axis=(1, 2)).astype(float).tolist()),
    )


def distribution(values: np.ndarray, mask: np.ndarray | None = None) -> Distribution:
    """The distribution of an array of any shape, or of its values inside a mask, which must not be empty."""
    inside = values.flatten() if mask is None else values[mask > 0]
    mean, sd = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    percentiles = np.percentile(inside, PERCENTILES, overwrite_input=True).astype(float).tolist()
    return Distribution(float(mean), float(sd), tuple(percentiles))
