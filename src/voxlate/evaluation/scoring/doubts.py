"""Messages on what makes scores doubtful: cases far worse than others, images of other software, unknown patients."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import UNOWNED, Message, message
from voxlate.checks.check_table import exact_messages
from voxlate.evaluation.scoring.case_scores import Row, ScoredItem
from voxlate.evaluation.scoring.own_metrics import without_value
from voxlate.evaluation.scoring.scored_images import Item
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.verdict import SYNTHESIS

FEWEST_CASES = 4  # cases, below which a median says little
# Times the median error, and median absolute deviations above it: a truth that was blurred by 6 mm has 1.84 and 15, one that
# was turned by 5° 1.78 and 14 (4 heads each); of 62 evaluations with ordinary truths none has both (slices: 2.4 and 11).
TIMES, DEVIATIONS = 1.7, 12.0


def doubts_on(
    scored: Mapping[Item, ScoredItem],
    rows: Sequence[Row],
    own: Collection[str],
    recognised: Mapping[str, str],
) -> Iterator[Message]:
    """Messages on what makes scores doubtful: outliers, values, and unknown patients.

    own: keys of metrics of the user; recognised: the path of each image of other software.
    """
    if recognised:
        label, place = next(iter(recognised.items()))
        yield message(
            "recognised",
            f"{plural(len(recognised), 'image')} of other software: cases and modalities by their paths ({place} is {label}).",
            images=len(recognised),
        )
    ours = (row for row in rows if row.method == SYNTHESIS)
    errors = grouped((row.modality, (row.case, row.scores["mae"])) for row in ours)
    for name, of_cases in errors.items():
        yield from find_outliers(name, dict(of_cases))
    yield from without_value(own, rows)
    for prepared in {item.prepared for item in scored if item.prepared}:
        with suppress(BadInput):  # scores need no cohort that is damaged or gone
            yield from (one for one in open_cohort(prepared).warnings if one.code == UNOWNED)
    for item, result in scored.items():
        if not item.provenance and result.truth.unit == "HU":  # a CT of other software
            for said in exact_messages(result.truth.sketch.image, "HU", "synthetic CT"):
                yield said.on(item.label)


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
