"""What resampling the scans of a cohort loses: parts of scans, and detail."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from voxlate.base.array_types import Float64
from voxlate.base.messages import Message, message
from voxlate.scans.cases.align import Preparation
from voxlate.scans.images.grid import Grid, share_inside

COARSER = 1.2  # times: a smaller difference of voxels is not reported
LEAST_KEPT = 0.5  # of a scan's box inside the case's grid: less is reported
Resampled = tuple[str, Grid, Mapping[str, Grid]]  # a case, its common grid, the grids of its scans


def check_resampling(cases: Sequence[Resampled], preparation: Preparation) -> Iterator[Message]:
    """A message on each modality that resampling cuts or makes coarser, unless the user chose the voxels."""
    if preparation.changes_voxels or not (preparation.resample or preparation.register):
        return
    cut = defaultdict(list)
    lost = defaultdict(list)
    for case, grid, origins in cases:
        for name, origin in origins.items():
            kept = share_inside(origin, grid) if preparation.register is None else 1.0
            if kept < LEAST_KEPT:
                cut[name].append((case, kept))
            if (_along_the_body(grid) > COARSER * _along_the_body(origin)).any():
                lost[name].append((case, origin, grid))
    for name, found in cut.items():
        case, kept = found[0]
        yield message(
            "is-cut",
            f"{name} IS CUT to the case's grid in {len(found)} of {len(cases)} cases: in {case} {kept:.0%} of its volume lies on it.",
            cases=len(found),
            kept=kept,
        )
    for name, coarser in lost.items():
        case, before, after = coarser[0]
        yield message(
            "loses-detail",
            f"{name} LOSES DETAIL on the case's grid in {len(coarser)} of {len(cases)} cases: in {case} from {before} to {after}.",
            cases=len(coarser),
        )


def _along_the_body(grid: Grid) -> Float64:
    """Distance of voxels to the left, the front and the top, whichever axes of the array have these directions."""
    steps = np.abs(grid.affine[:3, :3])
    spacing = np.zeros(3)
    spacing[steps.argmax(0)] = np.linalg.norm(steps, axis=0)
    return spacing
