"""The misalignment of the scans of a prepared case."""

import numpy as np

from voxlate.scans.cases.case import MASK, PreparedCase
from voxlate.scans.images.misalignment import (
    NOTHING_IN_COMMON,
    TOO_COARSE,
    Misalignment,
    is_resolved,
    median_displacement,
)
from voxlate.scans.images.units import SHOW_ANATOMY


def misalignments(case: PreparedCase, fixed: str | None = None) -> dict[str, Misalignment]:
    """The misalignment of each scan of a case from `fixed`, by modality; maps, which show no anatomy, are left out.

    fixed: by default, or where it shows nothing, the first scan.
    """
    header = case.header
    shown = [name for name in header.visible if header.units[name] in SHOW_ANATOMY]
    if len(shown) < 2:
        return {}
    to = fixed if fixed in shown else shown[0]
    others = [name for name in shown if name != to]
    if is_resolved(header.shape, header.spacing_mm).sum() < 2:
        return {name: Misalignment(to, reason=TOO_COARSE) for name in others}
    mask = case.mask([to]) if MASK in case.arrays else np.ones(header.shape, bool)
    still = case.volume(to)
    found = {}
    for name in others:
        moving = case.volume(name)
        units = still.unit, moving.unit
        median_mm = median_displacement(
            still.data[0], moving.data[0], header.spacing_mm, mask, units
        )
        reason = NOTHING_IN_COMMON if median_mm is None else ""
        found[name] = Misalignment(to, median_mm, reason)
    return found
