"""Exact percentiles of volumes that do not fit into memory, by two passes over their planes."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

HALF = 2**16  # values of the upper, and of the lower, half of 32 bits
SIGN = np.uint32(2**31)

Chunks = Callable[[], Iterable[np.ndarray]]  # gives the values anew, piece by piece, for each pass


def percentiles(chunks: Chunks, points: Sequence[float]) -> np.ndarray:
    """What numpy.percentile gives for all the values together; they are finite and exact in float32.

    A float32's bits, read as a whole number, sort as the float does. The first pass counts the upper halves of these
    numbers, the second the lower halves of those that hold a wanted rank; so memory is the same for any data.
    """
    upper = np.zeros(HALF, np.int64)
    for keys in _keys(chunks):
        upper += np.bincount(keys >> 16, minlength=HALF)
    count = int(upper.sum())
    place = (count - 1) * (np.asarray(points, np.float64) / 100)
    below = np.floor(place).astype(np.int64)
    ranks = np.stack([below, np.minimum(below + 1, count - 1)])
    low, high = _values_at(ranks.reshape(-1), upper, chunks).reshape(ranks.shape)
    return _between(low, high, place - below)


def _values_at(ranks: np.ndarray, upper: np.ndarray, chunks: Chunks) -> np.ndarray:
    """The values at these places of the sorted values."""
    ends = upper.cumsum()
    bins = np.searchsorted(ends, ranks, side="right")
    wanted = np.unique(bins)
    slot = np.full(HALF, -1)
    slot[wanted] = np.arange(len(wanted))
    lower = np.zeros(len(wanted) * HALF, np.int64)
    for keys in _keys(chunks):
        slots = slot[keys >> 16]
        inside = slots >= 0
        lower += np.bincount(slots[inside] * HALF + (keys[inside] & (HALF - 1)), minlength=len(lower))
    within = lower.reshape(-1, HALF).cumsum(axis=1)
    left = ranks - (ends - upper)[bins]
    found = [np.searchsorted(within[slot[b]], rank, side="right") for b, rank in zip(bins, left)]
    return _floats(bins * HALF + np.array(found))


def _keys(chunks: Chunks) -> Iterator[np.ndarray]:
    """uint32 in the order of the values: a float's bits with the sign turned, all turned where it is negative."""
    for values in chunks():
        bits = (values.reshape(-1).astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
        yield np.where(bits & SIGN, ~bits, bits | SIGN)


def _floats(keys: np.ndarray) -> np.ndarray:
    keys = keys.astype(np.uint32)
    return np.where(keys & SIGN, keys ^ SIGN, ~keys).view(np.float32)


def _between(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Linear interpolation, rounded as numpy's: from the nearer end."""
    step = high - low
    return np.where(share < 0.5, low + step * share, high - step * (1 - share))
