"""Paired tests of methods on the same patients, corrected for the number of tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 0.05


def least_p(pairs: int, tests: int) -> float:
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
    return [float(value) for value in corrected]


def wilcoxon_p(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Two-sided p of the signed-rank test of paired values; 1 if no pair differs; exact up to 50 untied pairs."""
    from scipy.stats import wilcoxon

    if not np.any(a != b):
        return 1.0
    return float(wilcoxon(a, b).pvalue)
