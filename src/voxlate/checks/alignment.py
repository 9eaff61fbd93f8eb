"""Messages on scans of a case that lie far from each other, and on the pairs of a cohort that a user should look at."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from voxlate.base.messages import Message, message
from voxlate.checks.check_table import Numbers, ask, first
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.alignment_audit import MAPS, misalignments, not_examined, worst_first
from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.misalignment import NOTHING_IN_COMMON, Misalignment

LEAST_SLICES = 4  # along each axis, as registration asks for


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


def check_alignment(headers: Sequence[CaseHeader], preparation: Preparation) -> Iterator[Message]:
    """A message on each misaligned pair, the worst first, on what cannot be measured, and on what was not examined."""
    for header, name, found in worst_first(headers):
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
