"""Means, standard deviations and bootstrap intervals of values."""

from collections.abc import Sequence

import numpy as np

from voxlate.system.arrays import AnyArray

RESAMPLES = 2000  # the 2.5 % tail then rests on 50 resamples


def mean_and_sd(values: AnyArray) -> dict[str, float | None]:
    """Mean and standard deviation of finite values; None if there are too few values."""
    return {
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
    }


def bootstrap(values: AnyArray, groups: Sequence[str], seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of the mean by drawing whole groups with replacement; None below two groups.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(member, values)
    counts = np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
