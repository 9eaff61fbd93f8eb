"""Whether the windows of a recipe hold the intensities of a cohort's training cases."""

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.checks.intensity_checks import check_floor, check_one_scale, share_outside
from voxlate.scans.cases.prepared import Cohort
from voxlate.training.batches.patches import DataSettings, training_cases
from voxlate.training.recipe import Recipe

NARROWEST = 0.02  # share of a window that the middle 98 % of a body must fill: in other units it is a flat grey
LEAST_STATED = 0.05  # share of a body clipped by a window, from which a message states it


def check_windows(
    cohort: Cohort,
    data: DataSettings,
    recipe: Recipe,
) -> str:
    """A sentence on what a recipe's windows clip of bodies, '' where that is little; medians over training cases.

    Raises BadInput as check_one_scale, and where a window clips more than `clips` allows or leaves a flat grey. Where a map has a floor, each
    volume is checked by itself: it would lose all voxels below the floor (if it is z-scored, say). Where only voxels
    inside a mask count, whose statistics the headers do not hold, nothing is said of bodies.
    """
    where = cohort.folder
    headers = [cohort.header(case) for case in training_cases(cohort, data)]
    check_one_scale(headers, data.target, where)
    bodies = not recipe.ignores_outside
    cut = []
    for name in sorted(data.modalities):
        spec = recipe.intensity[name]
        bodies_of = [
            header.statistics[name].foreground for header in headers if name in header.statistics
        ]
        for header in headers:
            check_floor(name, spec, header, f"{where}: {header.case}")
        if spec.window is None or not bodies_of:
            continue
        low, high = spec.window
        firsts = [body.at(1) for body in bodies_of]
        lasts = [body.at(99) for body in bodies_of]
        clipped = float(np.median([share_outside(body, low, high) for body in bodies_of]))
        widths = [min(last, high) - max(first, low) for first, last in zip(firsts, lasts)]
        width = float(np.median(widths)) / (high - low)
        usual = f"{np.median(firsts):.4g} to {np.median(lasts):.4g}"
        window = f"the window {low:g} to {high:g} of intensity.{name}"
        if bodies and clipped > spec.clips:
            raise BadInput(
                f"{where}: expected {window} to hold the scans' bodies ({usual} from the 1st to the 99th percentile), found {clipped:.0%} of their voxels outside, of at most {spec.clips:.0%}. Are the scans in the recipe's unit? Change the window, or intensity.{name}.clips if it is meant."
            )
        if width < NARROWEST:
            raise BadInput(
                f"{where}: expected the scans' bodies to fill {window}, found {max(width, 0):.1%} filled ({usual}): are the scans in the recipe's unit? Change the window."
            )
        if bodies and clipped >= LEAST_STATED:
            cut.append(
                f"{window} clips {clipped:.0%} of the bodies' voxels ({usual} from the 1st to the 99th percentile)"
            )
    return f"{'; '.join(cut)}; the recipe allows it." if cut else ""
