"""The misalignment of the scans of prepared cases, and the pairs of a cohort that a user should look at."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from voxlate.base.messages import Message, message
from voxlate.checks.check_table import Numbers, ask, first
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import MASK, PreparedCase
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.misalignment import NOTHING_IN_COMMON, Misalignment, misalignment

REFINED_MM = 1.0  # of a coarse estimate, whose error is below 0.7 mm
MOST_PAIRS = 6
LEAST_SLICES = 4  # along each axis, as registration asks for
ALL_OF, ONE_OF = 12, 10  # so many cases are examined at least, and one in so many of the others
MAPS = "a map shows no anatomy to compare"
# Units of scans whose place can be seen: a map of seconds seemed 3 mm off.
SHOW_ANATOMY = ("HU", "a.u.", "grey")


def choose_cases(patients: Mapping[str, str], count: int | None = None) -> frozenset[str]:
    """The cases to examine (patients: of all cases), spread over the patients; the names alone decide.

    count: how many; default: all of a few cases, a tenth of many.
    """

    def place(name: str) -> str:
        """A key whose order is unrelated to the alphabet, and the same on every machine."""
        return hashlib.sha256(name.encode()).hexdigest()

    wanted = ALL_OF + max(0, len(patients) - ALL_OF) // ONE_OF if count is None else count
    taken = Counter[str]()
    turns = []
    for case in sorted(patients, key=place):
        turns.append((taken[patients[case]], place(patients[case]), case))
        taken[patients[case]] += 1
    return frozenset(case for _, _, case in sorted(turns)[:wanted])


def misalignments(
    case: PreparedCase, fixed: str | None = None, coarse: bool = False
) -> dict[str, Misalignment]:
    """The misalignment of each scan of a case from `fixed`, by modality; coarse: without the finest voxels.

    fixed: by default, or where it shows nothing, the first scan that shows anatomy. A scan that has too little in common
    with it is compared with the others.
    """
    header = case.header
    shown = case.header.visible
    if len(shown) < 2:
        return {}
    anatomy = [name for name in shown if header.units[name] in SHOW_ANATOMY]
    to = fixed if fixed in shown else [*anatomy, shown[0]][0]
    mask = case.mask([to]) if MASK in case.arrays else np.ones(header.shape, bool)

    def measured(name: str, to: str) -> Misalignment:
        """The misalignment of a scan from another one."""
        if not {to, name} <= {*anatomy}:
            return Misalignment(None, None, None, None, 0, 0, to=to, reason=MAPS)
        still = case.volume(to)
        moving = case.volume(name)
        images = still.data[0], moving.data[0]
        units = still.unit, moving.unit
        return replace(misalignment(*images, header.spacing_mm, mask, units, coarse), to=to)

    by_name = {}
    for name in shown:
        if name == to:
            continue
        found = measured(name, to)
        if found.reason == NOTHING_IN_COMMON:
            # disease may look different in these two alone
            others = (measured(name, one) for one in anatomy if one not in (to, name))
            found = next((one for one in others if one.median_mm is not None), found)
        by_name[name] = found
    return by_name


def check_together(case: PreparedCase) -> Iterator[Message]:
    """A message on scans of a case that are one, and on each that lies far from the first, moved or of another patient."""
    for one, other in combinations(case.header.statistics, 2):
        if np.array_equal(case.arrays[one], case.arrays[other]):
            yield message(
                "same-voxels", f"{one} and {other} have the same voxels.", grade="do not trust"
            )
    for name, found in misalignments(case, coarse=True).items():
        yield from check_apart(case.header, name, found, of_input=1.0)


def check_apart(
    header: CaseHeader, name: str, found: Misalignment, advice: str = "", of_input: float = 0.0
) -> list[Message]:
    """A message where a scan is far from the scan that it was compared with, or how far is not known.

    advice: what to do, beside looking at it; of_input: 1 for scans that are given to a model.
    """
    numbers = {**_apart_numbers(header, found), "advice": advice, "of_input": of_input}
    return ask(("apart", "unmeasured"), numbers, name)


def is_misaligned(header: CaseHeader, measured: Misalignment) -> bool:
    """Whether a scan is so far from the scan that it was compared with that it is said."""
    return first("apart", _apart_numbers(header, measured)) is not None


def _apart_numbers(header: CaseHeader, found: Misalignment) -> Numbers:
    resolved = [mm for axis, mm in zip("DHW", header.spacing_mm) if axis not in found.unseen]
    apart_mm = found.median_mm or 0.0
    return {
        "apart_mm": apart_mm,
        "p95_mm": found.p95_mm or 0.0,
        "voxels": apart_mm / max(resolved, default=math.inf),
        "unmeasured": found.median_mm is None and found.reason != MAPS,
        "reason": found.reason or NOTHING_IN_COMMON,
        "to": found.to,
    }


def not_examined(shown: Sequence[str], misaligned: Mapping[str, Misalignment]) -> bool:
    """Whether a case shows several scans, whose misalignment was not estimated."""
    return len(shown) > 1 and not misaligned


def to_refine(headers: Sequence[CaseHeader]) -> frozenset[str]:
    """The cases of the worst pairs that have only a coarse estimate."""
    return frozenset(
        header.case
        for header, _, found in _worst_first(headers)[:MOST_PAIRS]
        if found.coarse and (found.median_mm or 0.0) > REFINED_MM
    )


def check_alignment(headers: Sequence[CaseHeader], preparation: Preparation) -> Iterator[Message]:
    """A message on each misaligned pair, the worst first, on what cannot be measured, and on what was not examined."""
    for header, name, found in _worst_first(headers):
        may_register = preparation.register is None and min(header.shape) >= LEAST_SLICES
        advice = " Register (--register rigid)." if may_register else ""
        yield from (said.on(header.case) for said in check_apart(header, name, found, advice))
    left = sum(not_examined(header.visible, header.misaligned) for header in headers)
    several = sum(len(header.visible) > 1 for header in headers)
    if 0 < left < several:
        yield message(
            "not-examined",
            f"How far scans lie from each other was examined in {several - left} of {several} cases, spread over the patients; of the other {left} it is not known. --audit-cases {len(headers)} examines all of them.",
            cases=left,
        )


def _worst_first(headers: Sequence[CaseHeader]) -> list[tuple[CaseHeader, str, Misalignment]]:
    """Each scan of a case with its misalignment, the farthest first."""
    pairs = ((header, *scan) for header in headers for scan in header.misaligned.items())
    return sorted(pairs, key=lambda pair: -(pair[-1].median_mm or 0.0))
