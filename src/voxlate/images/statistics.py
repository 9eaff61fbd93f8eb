"""Statistics of a volume's intensities, from which intensity maps take their scales."""

from dataclasses import dataclass

import numpy as np

from voxlate.images.large_sets import LargeSet
from voxlate.system import slabs
from voxlate.system.records import NotNegative, Number
from voxlate.system.slabs import by_plane, reduced

# The tails are dense because intensity maps are stated there; others are interpolated linearly between these.
PERCENTILES = (
    0,
    0.1,
    0.2,
    0.5,
    1,
    2,
    3,
    5,
    10,
    25,
    50,
    75,
    90,
    95,
    97,
    98,
    99,
    99.5,
    99.8,
    99.9,
    99.95,
    100,
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
    def signed(self) -> bool:
        """Whether its mean was subtracted: much of the body, or air without its noise, is below 0."""
        limit = -SIGNED * (self.all.at(99.9) - self.all.at(0.1))
        return self.foreground.at(25) < limit or self.all.at(25) < min(
            limit, CONSTANT * self.all.at(1)
        )


def intensity_statistics(values: np.ndarray, mask: np.ndarray | None = None) -> Statistics:
    """Statistics of a volume; values, mask: [D, H, W]. Without a mask, or with an empty one, all is foreground."""
    everything = distribution(values)
    has_mask = mask is not None and any(reduced(np.any, mask))
    return Statistics(
        foreground=distribution(values, mask) if has_mask else everything,
        all=everything,
        slice_low=tuple(
            by_plane(lambda slab: slab.min(axis=(1, 2)), values).astype(float).tolist()
        ),
        slice_high=tuple(
            by_plane(lambda slab: slab.max(axis=(1, 2)), values).astype(float).tolist()
        ),
    )


def distribution(values: np.ndarray, mask: np.ndarray | None = None) -> Distribution:
    """The distribution of an array of any shape, or of its values inside a mask, which must not be empty."""
    if values.size > slabs.SLAB and values.dtype in (np.int16, np.float32):
        large = LargeSet(values, mask)
        mean, sd = large.mean_and_sd()
        return Distribution(mean, sd, large.percentiles(PERCENTILES))
    flat = values.reshape(-1) if mask is None else values[mask > 0]
    return Distribution(
        mean=float(flat.mean(dtype=np.float64)),
        sd=float(flat.std(dtype=np.float64)),
        percentiles=tuple(float(point) for point in np.percentile(flat, PERCENTILES)),
    )
