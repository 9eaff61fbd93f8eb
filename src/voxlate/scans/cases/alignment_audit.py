"""The misalignment of the scans of prepared cases, and the cases of a cohort whose misalignment is estimated."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voxlate.scans.cases.case import MASK, CaseHeader, PreparedCase
from voxlate.scans.images.misalignment import NOTHING_IN_COMMON, Misalignment, misalignment
from voxlate.scans.images.units import SHOW_ANATOMY

ALL_OF, ONE_OF = 12, 10  # so many cases are examined at least, and one in so many of the others
MAPS = "a map shows no anatomy to compare"


def choose_cases(cases: Sequence[str]) -> frozenset[str]:
    """The cases to examine, all of a few and a tenth of many, chosen alike on every machine and not by the alphabet."""
    by_digest = sorted(cases, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    wanted = ALL_OF + max(0, len(by_digest) - ALL_OF) // ONE_OF
    return frozenset(by_digest[:wanted])


def misalignments(case: PreparedCase, fixed: str | None = None) -> dict[str, Misalignment]:
    """The misalignment of each scan of a case from `fixed`, by modality.

    fixed: by default, or where it shows nothing, the first scan that shows anatomy. A scan that has too little in common
    with it is compared with the others.
    """
    header = case.header
    shown = header.visible
    if len(shown) < 2:
        return {}
    anatomy = [name for name in shown if header.units[name] in SHOW_ANATOMY]
    to = fixed if fixed in shown else [*anatomy, shown[0]][0]
    mask = case.mask([to]) if MASK in case.arrays else np.ones(header.shape, bool)

    def measured(name: str, to: str) -> Misalignment:
        """The misalignment of a scan from another one."""
        if not {to, name} <= {*anatomy}:
            return Misalignment(to=to, reason=MAPS)
        still, moving = case.volume(to), case.volume(name)
        units = still.unit, moving.unit
        found = misalignment(still.data[0], moving.data[0], header.spacing_mm, mask, units)
        return replace(found, to=to)

    by_name = {name: measured(name, to) for name in shown if name != to}
    for name, found in by_name.items():
        if found.reason == NOTHING_IN_COMMON:
            # disease may look different in these two alone
            others = (measured(name, one) for one in anatomy if one not in (to, name))
            by_name[name] = next((one for one in others if one.median_mm is not None), found)
    return by_name


def worst_first(headers: Sequence[CaseHeader]) -> list[tuple[CaseHeader, str, Misalignment]]:
    """Each scan of a case with its misalignment, the farthest first."""
    pairs = ((header, *scan) for header in headers for scan in header.misaligned.items())
    return sorted(pairs, key=lambda pair: -(pair[-1].median_mm or 0.0))
