"""The error that the intervals of an image let expect, and bounds of the errors of single cases, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.evaluation.scoring.interval_scores import Interval, interval_of, percent
from voxlate.evaluation.scoring.metrics import METRIC_OF
from voxlate.evaluation.scoring.scored_images import images_in
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.provenance import Provenance, is_distrusted, provenance_of

MOST_CASES = 12  # of more, the lowest, the median and the highest bound are printed
_text = METRIC_OF["mae"].text
UNKNOWN = "not known, because the intervals hold for scans like those of the calibration, and this one is not to be trusted."


def expected_errors(case: Path) -> dict[str, str]:
    """A sentence on the expected error of each image of a case that has intervals."""
    provenance = provenance_of(case)
    images = images_in(case)
    sentences = {}
    units = provenance.get("units", {})
    for name in filter(images.__contains__, units):
        interval = interval_of(images, name, provenance)
        if interval is not None and not interval.changed:
            low, high = (read_volume(path, name) for path in (interval.low, interval.high))
            image = replace(read_volume(images[name], name), unit=units[name])
            width = replace(high, data=high.data - low.data)
            sentences[name] = expected_error(width, image, interval, provenance)
    return {name: said for name, said in sentences.items() if said}


def expected_error(width: Volume, image: Volume, interval: Interval, provenance: Provenance) -> str:
    """A sentence on the error of an image that its intervals let expect inside the body; "" without a body.

    Of images that are not to be trusted it is not known.

    The mean error is that of the distribution whose quantiles are the intervals' half widths at their levels of coverage.
    """
    if is_distrusted(provenance):
        return f"Expected error of {image.modality}: {UNKNOWN}"
    half = width.data[0][foreground(image)] / 2
    if not half.size:
        return ""
    mean = mean_error({float(level): by for level, by in interval.levels.items()})
    about = f"Expected error of {image.modality}: about {_round(mean * float(half.mean()))} {image.unit} on average in the body."
    middle, most = (_round(float(np.percentile(half, share))) for share in (50, 90))
    widths = f"For half of its voxels, the interval that has {percent(interval.coverage)} of the true values is ±{middle} {image.unit} or narrower; for the most uncertain tenth, ±{most} {image.unit} or wider."
    return f"{about} {widths}" if mean else f"Expected error of {image.modality}: {widths}"


def _round(value: float) -> str:
    """Two significant digits, which is what such an expectation is worth."""
    return np.format_float_positional(float(f"{value:.2g}"), trim="-")


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
    coverage = float(provenance["calibration"]["coverage"])
    units = provenance.get("units", {})
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
    before, last = quantiles[-2:]
    low, high = levels[-2:]
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
