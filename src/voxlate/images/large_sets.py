"""Mean, standard deviation and percentiles of sets of voxels larger than memory, as numpy computes them, to the bit.

Sums are added in numpy's own order. Percentiles are exact: the values at their ranks are counted, never sorted.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from voxlate.system import slabs
from voxlate.system.slabs import release

BUFFER = 8192  # values that numpy converts at a time, where it sums an array of another type than the sum's
HALF = 1 << 16  # values of 16 bits
SIGN = np.uint32(1 << 31)


class LargeSet:
    """The values [D, H, W] (int16 or float32) inside a mask, read slab by slab in C order."""

    def __init__(self, values: np.ndarray, mask: np.ndarray | None = None) -> None:
        self._values = values
        self._mask = mask
        self._count = values.size
        if mask is not None:
            self._count = int(sum(slabs.reduced(lambda slab: np.count_nonzero(slab > 0), mask)))

    def _chunks(self) -> Iterator[np.ndarray]:
        """The values in C order, a slab at a time."""
        for piece in slabs.slabs(self._values.shape):
            yield self._chunk(piece)
            release(self._values)

    def _chunk(self, piece: slice) -> np.ndarray:
        values = self._values[piece]
        if self._mask is None:
            return values.reshape(-1)
        inside = values[self._mask[piece] > 0]
        release(self._mask)
        return inside

    def mean_and_sd(self) -> tuple[float, float]:
        """Mean and standard deviation in float64."""
        mean = self._sum_in_blocks() / self._count
        squares = self._pairwise_sum(lambda values: _squares(values, mean))
        return float(mean), float(np.sqrt(squares / self._count))

    def _sum_in_blocks(self) -> np.float64:
        """The sum by blocks of BUFFER values, which numpy adds up one after the other."""
        total = np.float64(0)
        left = np.empty(0, self._values.dtype)
        for chunk in self._chunks():
            joined = np.concatenate([left, chunk]) if len(left) else chunk
            whole = len(joined) // BUFFER * BUFFER
            total = np.add.reduce(joined[:whole], dtype=np.float64, initial=total)
            left = joined[whole:].copy()
        return np.add.reduce(left, dtype=np.float64, initial=total)

    def _pairwise_sum(self, change: Callable[[np.ndarray], np.ndarray]) -> np.float64:
        """The sum of changed values (float64) by numpy's pairwise summation, which halves an array until it is short.

        The halves are summed from left to right, so that the values are read once.
        """
        reader = _Reader(self._chunks())

        def sum_of(count: int) -> np.float64:
            if count <= slabs.SLAB // 4:
                return np.add.reduce(change(reader.take(count)))
            left = count // 2
            left -= left % 8
            first = sum_of(left)
            return first + sum_of(count - left)

        return sum_of(self._count)

    def percentiles(self, levels: Sequence[float]) -> tuple[float, ...]:
        """The percentiles at levels from 0 to 100, interpolated linearly as by numpy.percentile."""
        places = np.asarray(levels) / 100 * (self._count - 1)
        below = np.floor(places).astype(np.int64)
        above = np.minimum(below + 1, self._count - 1)
        ranks, inverse = np.unique([below, above], return_inverse=True)
        found = self._at_ranks(ranks)[inverse.reshape(2, -1)]
        between = [
            _between(low, high, np.float64(share))
            for low, high, share in zip(found[0], found[1], places - below)
        ]
        return tuple(float(value) for value in between)

    def _at_ranks(self, ranks: np.ndarray) -> np.ndarray:
        """The values at sorted ranks from 0, by counting the upper 16 bits of their keys, then the lower ones."""
        if self._values.dtype == np.int16:
            counts = np.zeros(HALF, np.int64)
            for chunk in self._chunks():
                counts += np.bincount(chunk.view(np.uint16) ^ np.uint16(1 << 15), minlength=HALF)
            keys = np.searchsorted(counts.cumsum(), ranks, side="right")
            return (keys - (1 << 15)).astype(np.int16)
        counts = np.zeros(HALF, np.int64)
        for chunk in self._chunks():
            counts += np.bincount(_keys(chunk) >> 16, minlength=HALF)
        ends = counts.cumsum()
        upper = np.searchsorted(ends, ranks, side="right")
        bins = np.unique(upper)
        numbers = np.full(HALF, -1)
        numbers[bins] = np.arange(len(bins))
        inner = np.zeros(len(bins) * HALF, np.int64)
        for chunk in self._chunks():
            keys = _keys(chunk)
            number = numbers[keys >> 16]
            chosen = number >= 0
            places = number[chosen] * HALF + (keys[chosen] & (HALF - 1))
            inner += np.bincount(places, minlength=len(inner))
        inner_ends = inner.reshape(-1, HALF).cumsum(axis=1)
        before = ends - counts
        lower = [
            np.searchsorted(inner_ends[numbers[one]], rank - before[one], side="right")
            for one, rank in zip(upper, ranks)
        ]
        return _values_of((upper.astype(np.uint32) << 16) | np.array(lower, np.uint32))


class _Reader:
    """Takes any number of values from a sequence of chunks."""

    def __init__(self, chunks: Iterator[np.ndarray]) -> None:
        self._chunks = chunks
        self._left: np.ndarray | None = None

    def take(self, count: int) -> np.ndarray:
        """The next `count` values."""
        parts = [] if self._left is None else [self._left]
        held = sum(len(part) for part in parts)
        while held < count:
            chunk = next(self._chunks)
            parts.append(chunk)
            held += len(chunk)
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._left = joined[count:].copy()
        return joined[:count]


def _squares(values: np.ndarray, mean: np.float64) -> np.ndarray:
    """The squared distances from a mean, in float64."""
    away = values - mean
    return np.multiply(away, away, out=away)


def _keys(values: np.ndarray) -> np.ndarray:
    """Integers (uint32) in the order of float32 values; both zeros are one."""
    bits = (values + np.float32(0)).view(np.uint32)
    negative = bits >= SIGN
    return np.where(negative, ~bits, bits | SIGN)


def _values_of(keys: np.ndarray) -> np.ndarray:
    """The float32 values of keys."""
    bits = np.where(keys >= SIGN, keys ^ SIGN, ~keys)
    return bits.astype(np.uint32).view(np.float32)


def _between(low: np.number, high: np.number, share: np.float64) -> np.number:
    """A value a share of the way from low to high, in the order of operations of numpy.percentile."""
    step = np.subtract(high, low)
    if share >= 0.5:
        return np.subtract(high, step * (1 - share))
    return np.add(low, step * share)
