"""Increasing maps of an image's values by straight lines."""

from dataclasses import dataclass

import numpy as np

from voxlate.base.slabs import in_slabs


@dataclass(frozen=True)
class Curve:
    """A continuous, increasing map by straight lines between knots; the first and the last line go on beyond them.

    start, goal: the values of the knots before and after it, at least two, in increasing order.
    """

    start: tuple[float, ...]
    goal: tuple[float, ...]

    @property
    def _slopes(self) -> list[float]:
        slopes: list[float] = (np.diff(self.goal) / np.diff(self.start)).tolist()
        return slopes

    def map(self, values: np.ndarray) -> np.ndarray:
        """The values [N, ...] after the map."""
        return in_slabs(self._map_slab, values)

    def map_sd(self, sd: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The standard deviations after the map of values that had them; both: [N, ...]."""
        return in_slabs(self._map_sd_slab, sd, values)

    def _map_slab(self, values: np.ndarray) -> np.ndarray:
        slopes = self._slopes
        # slope x value + offset leaves values as they are where slope = 1 and offset = 0
        offsets = [goal - slope * x for slope, x, goal in zip(slopes, self.start, self.goal)]
        mapped = slopes[0] * values + offsets[0]
        for knot, slope, offset in zip(self.start[1:], slopes[1:], offsets[1:]):
            np.copyto(mapped, slope * values + offset, where=values > knot)
        return mapped

    def _map_sd_slab(self, sd: np.ndarray, values: np.ndarray) -> np.ndarray:
        first, *others = self._slopes
        mapped = first * sd
        for knot, slope in zip(self.start[1:], others):
            np.copyto(mapped, slope * sd, where=values > knot)
        return mapped
