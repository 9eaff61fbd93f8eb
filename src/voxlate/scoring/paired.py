"""Paired tests of the scores of methods on the same patients, corrected for their number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 0.05


def least_p(pairs: int, tests: int) -> float:
    """The least p of an exact signed-rank test of so many pairs once it is corrected for so many tests by Holm.

    All differences of one sign: 2 of 2^pairs outcomes; the smallest p then counts once for each test.
    """
    return min(1.0, tests * 2.0 ** (1 - pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the k-th smallest of m times m - k + 1, never falling, at most 1.

    Source: Holm 1979.
    """
    order = np.argsort(p_values)
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in corrected]


def wilcoxon_p(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Two-sided p of the signed-rank test of paired values; 1 where no pair differs. Exact up to 50 untied pairs."""
    from scipy.stats import wilcoxon

    if not np.any(a != b):
        return 1.0
    return float(wilcoxon(a, b).pvalue)
