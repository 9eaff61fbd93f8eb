"""The error that the intervals of an image let expect, as the page, the documents and the exports state it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from voxlate.evaluation.intervals.bounds import mean_error
from voxlate.evaluation.scoring.intervals import Interval, interval_of, percent
from voxlate.evaluation.scoring.scored_images import images_in
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.provenance import Provenance, is_distrusted, provenance_of

UNKNOWN = "not known, because the intervals hold for scans like those of the calibration, and this one is not to be trusted."


def expected_errors(case: Path) -> dict[str, str]:
    """A sentence on the expected error of each image of a case that has intervals."""
    provenance, images = provenance_of(case), images_in(case)
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
