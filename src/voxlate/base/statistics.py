"""Means with bootstrap intervals, and paired tests of methods on the same patients, corrected for their number."""

import itertools
from collections.abc import Sequence

import numpy as np

from voxlate.base.array_types import AnyArray

RESAMPLES = 2000  # the 2.5 % tail then rests on 50 resamples
FEWEST = 6  # of a bootstrap: resamples of fewer groups have a 95 % interval that is far too narrow
SIGNIFICANT = 0.05  # a difference counts as one where p of its test is below this


def fixed_text(value: float, size: float, digits: int = 3, fits: bool = False) -> str:
    """A value with digits that fit a size, its own or that of another value which is printed with it.

    A size that would round to zero gives three significant digits; fits: fewer digits from 1, and from 10 on.
    """
    size = abs(size)
    if fits and size >= 1:
        digits = 2 if size < 10 else 1
    if size > 0 and round(size, digits) == 0:
        return f"{value:.3g}"
    return f"{value:.{digits}f}"


def mean_and_sd(values: AnyArray) -> dict[str, float | None]:
    """Mean and standard deviation of finite values; None if there are too few values."""
    return {
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
    }


def bootstrap(values: AnyArray, groups: Sequence[str], seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of the mean by drawing whole groups with replacement; None below six groups.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < FEWEST:
        return None
    sums = np.bincount(member, values)
    counts = np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def patients_needed(pairs: int, tests: int = 1) -> int:
    """The least number of patients of which a difference can be significant; 0 if so many pairs are enough."""
    if least_p(pairs, tests) < SIGNIFICANT:
        return 0
    return next(count for count in itertools.count(pairs) if least_p(count, tests) < SIGNIFICANT)


def least_p(pairs: int, tests: int = 1) -> float:
    """The least possible p of an exact signed-rank test after Holm's correction.

    If all differences have one sign, p is 2 of 2^pairs outcomes; Holm multiplies the smallest p by the number of tests.
    """
    return min(1.0, tests * 2.0 ** (1 - pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values: the k-th smallest of m times m - k + 1, made monotonic, at most 1.

    Source: Holm 1979.
    """
    order = np.argsort(p_values)
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return list(map(float, corrected))


def wilcoxon_p(a: AnyArray, b: AnyArray) -> float:
    """Two-sided p of the signed-rank test of paired values; 1 if no pair differs; exact up to 50 untied pairs.

    Where values are tied, the test's approximation may be below the least possible p, which is then returned.
    """
    # imported here because training reads verdicts and needs no test
    from scipy.stats import wilcoxon

    if not np.any(a != b):
        return 1.0
    return max(float(wilcoxon(a, b).pvalue), least_p(len(a)))
