"""Cases whose error is far above that of the others."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from voxlate.scoring.documents import rows_of
from voxlate.system.errors import first_of

FEWEST = 4  # cases, below which a median says little
TIMES = 3.0  # the median error: patients of one cohort differ by less
DEVIATIONS = 5.0  # median absolute deviations above the median


def outlier_lines(document: Mapping[str, Any]) -> list[str]:
    """A sentence for each modality of a metrics.json with syntheses whose MAE is far above the median."""
    lines = list[str]()
    for name in document["modalities"]:
        errors = {case: row.get("mae") for case, row in rows_of(document, name).items()}
        known = {case: error for case, error in errors.items() if error is not None}
        lines.append(outlier_line(name, known))
    return [line for line in lines if line]


def outlier_line(name: str, errors: Mapping[str, float]) -> str:
    """A sentence on the cases whose error of the image `name` is far above the median, else ''; errors: by case."""
    if len(errors) < FEWEST:
        return ""
    values = np.array([*errors.values()])
    median = float(np.median(values))
    spread = float(np.median(np.abs(values - median)))
    least = max(TIMES * median, median + DEVIATIONS * spread)
    odd = {case: error / median for case, error in errors.items() if error > least > 0}
    if not odd:
        return ""
    worst = sorted(odd, key=lambda case: -odd[case])
    return f"{name}: {len(odd)} of {len(errors)} cases have an error of up to {odd[worst[0]]:.1f} times the median ({first_of(worst, 3)}): is the truth, the image or the patient wrong? They count all the same."
