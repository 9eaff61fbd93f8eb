"""Cases whose error is far above that of the others."""

from collections.abc import Mapping

import numpy as np

from voxlate.base.errors import first_of
from voxlate.base.messages import Message, message

FEWEST_CASES = 4  # cases, below which a median says little
# Times the median error, and median absolute deviations above it: a truth that was blurred by 6 mm has 1.84 and 15, one that
# was turned by 5° 1.78 and 14 (4 heads each); of 62 evaluations with ordinary truths none has both (slices: 2.4 and 11).
TIMES, DEVIATIONS = 1.7, 12.0


def find_outliers(name: str, errors: Mapping[str, float]) -> list[Message]:
    """A message on the cases whose error of the image `name` is far above the median; errors: by case."""
    if len(errors) < FEWEST_CASES:
        return []
    values = np.array([*errors.values()])
    median = float(np.median(values))
    spread = float(np.median(np.abs(values - median)))
    least = max(TIMES * median, median + DEVIATIONS * spread)
    odd = {case: error / median for case, error in errors.items() if error > least > 0}
    if not odd:
        return []
    worst = sorted(odd, key=lambda case: -odd[case])
    return [
        message(
            "large-error",
            f"{name}: {len(odd)} of {len(errors)} cases with an error of up to {odd[worst[0]]:.1f} times the median ({first_of(worst, 3)}): is the truth, the image or the patient wrong? They count all the same.",
            cases=len(odd),
            times=odd[worst[0]],
        )
    ]
