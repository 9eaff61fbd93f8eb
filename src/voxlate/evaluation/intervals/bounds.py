"""Bounds of the errors of single cases, by a calibrated run, as lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.evaluation.scoring.metrics import METRIC_OF
from voxlate.synthesis.provenance import provenance_of

MOST_CASES = 12  # of more, the lowest, the median and the highest bound are printed
_text = METRIC_OF["mae"].text


def bounds_of(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """By case and modality, the bounds that synth wrote: of the MAE inside the body and of the means of regions."""
    return {
        folder.name: bounds for folder in folders if (bounds := provenance_of(folder).get("bounds"))
    }


def bound_lines(folders: Sequence[Path]) -> Iterator[str]:
    """A line for each case, or for each modality if the cases are many; none without a calibration."""
    by_case = bounds_of(folders)
    if not by_case:
        return
    provenance = provenance_of(next(folder for folder in folders if folder.name in by_case))
    coverage, units = float(provenance["calibration"]["coverage"]), provenance.get("units", {})
    yield f"Bounds of a case's error, each exceeded with a probability of {1 - coverage:.0%} at most:"
    cases = [*by_case]
    if len(cases) > MOST_CASES:
        cases.sort(key=lambda case: max(of.get("mae", 0.0) for of in by_case[case].values()))
        yield f"  of {len(cases)} cases, those with the lowest, the median and the highest MAE:"
        cases = [cases[place] for place in (0, len(cases) // 2, -1)]
    for case in cases:
        yield f"  {case}: {'; '.join(_texts(by_case[case], units))}"


def mean_error(widths: Mapping[float, float]) -> float:
    """The mean absolute error in half widths of an interval, by the relative widths of several levels of coverage.

    It is the integral of the error's quantiles, which are these widths: linear between the levels, and exponential beyond
    the highest. 0 for fewer than two levels.
    """
    if len(widths) < 2:
        return 0.0
    levels, quantiles = np.array([(0.0, 0.0), *sorted(widths.items())]).T
    (before, last), (low, high) = quantiles[-2:], levels[-2:]
    fall = (last - before) / np.log((1 - low) / (1 - high))  # the mean of an exponential tail
    inside = np.diff(levels) @ (quantiles[1:] + quantiles[:-1]) / 2
    return float(inside + (1 - high) * (last + fall))


def _texts(bounds: Mapping[str, Mapping[str, float]], units: Mapping[str, str]) -> Iterator[str]:
    for modality, values in bounds.items():
        regions = [
            f"mean of {name} {_text(value)}" for name, value in values.items() if name != "mae"
        ]
        whole = [f"MAE inside the body {_text(values['mae'])}"] if "mae" in values else []
        yield f"{modality} {', '.join([*whole, *regions])} {units.get(modality, '')}".rstrip()
