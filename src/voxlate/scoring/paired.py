"""Paired tests of methods on the same patients, corrected for the number of tests."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 0.05  # a difference counts as one where p of its test is below this


def too_few(pairs: int, tests: int = 1) -> str:
    """Who a difference cannot be told from, such as "3 patients (at least 6 are needed)"; "" for enough patients."""
    if least_p(pairs, tests) < SIGNIFICANT:
        return ""
    if pairs == 1:
        return "one patient"
    enough = next(count for count in itertools.count(pairs) if least_p(count, tests) < SIGNIFICANT)
    return f"{pairs} patients (at least {enough} are needed)"


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
    """Two-sided p of the signed-rank test of paired values; 1 if no pair differs; exact up to 50 untied pairs.

    Where values are tied, the test's approximation may be below the least possible p, which is then returned.
    """
    from scipy.stats import wilcoxon

    if not np.any(a != b):
        return 1.0
    return max(float(wilcoxon(a, b).pvalue), least_p(len(a), tests=1))
