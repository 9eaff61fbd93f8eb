"""How far the scans of prepared cases lie from each other, and which pairs of a cohort are worth a look."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from voxlate.data.align import Preparation
from voxlate.data.case import CaseHeader, PreparedCase
from voxlate.data.prepared import Cohort
from voxlate.errors import first_of
from voxlate.images.misalignment import Misalignment, misalignment

WORTH_A_WORD_MM = 1.5  # three times what phantoms show to be the estimate's error
MOST_PAIRS = 6
LEAST_SLICES = 4  # along each axis, as registration asks for


def misalignments(case: PreparedCase, fixed: str | None = None) -> dict[str, Misalignment]:
    """How far each scan of a case lies from `fixed` (default, or where that shows nothing: the first), by modality."""
    header = case.header
    if len(header.shown) < 2:
        return {}
    to = fixed if fixed in header.shown else header.shown[0]
    mask = case.mask([to])
    reference = case.volume(to).data[0]
    found = {}
    for name in header.shown:
        if name != to:
            units = header.units[to], header.units[name]
            one = misalignment(reference, case.volume(name).data[0], header.spacing_mm, mask, units)
            found[name] = replace(one, to=to)
    return found


def distances(cohort: Cohort, modalities: Sequence[str]) -> dict[str, float]:
    """By case the largest median displacement (mm) of these modalities from the fixed scan, where one was estimated."""
    found = dict[str, float]()
    for entry in cohort.cases:
        known = [one.median_mm for name, one in entry.misaligned.items() if name in {*modalities}]
        apart = [mm for mm in known if mm is not None]
        if apart:
            found[entry.case] = max(apart)
    return found


def misalignment_warnings(headers: Sequence[CaseHeader], preparation: Preparation) -> Iterator[str]:
    """A sentence on each of the worst pairs, the worst first."""
    pairs = [
        (header, name, one) for header in headers for name, one in header.misaligned.items() if stands_out(header, one)
    ]
    pairs.sort(key=lambda pair: -(pair[2].median_mm or 0.0))
    for header, name, one in pairs[:MOST_PAIRS]:
        may_register = preparation.register is None and min(header.shape) >= LEAST_SLICES
        advice = "register (--register rigid), " if may_register else ""
        yield (
            f"{header.case}: {name} lies {one.median_mm:.1f} mm (95th percentile {one.p95_mm:.1f}) from {one.to}: "
            f"{advice}look at it (voxlate report PREPARED), or leave it out."
        )
    if len(pairs) > MOST_PAIRS:
        yield (
            f"{len(pairs) - MOST_PAIRS} more pairs lie more than {WORTH_A_WORD_MM} mm or a voxel from each other: see "
            "voxlate report PREPARED."
        )
    lost = [
        f"{one.case}/{name}" for one in headers for name, found in one.misaligned.items() if found.median_mm is None
    ]
    if lost:
        yield (
            f"How far {first_of(lost)} ({len(lost)} of "
            f"{sum(len(one.misaligned) for one in headers)} pairs) lie from the fixed scan could not be estimated: "
            "they show too little in common, or lie further apart than some 20 mm. Look at them."
        )


def stands_out(header: CaseHeader, one: Misalignment) -> bool:
    """Whether a scan lies more than 1.5 mm, or a voxel where that is more, from the one it was compared with."""
    voxel_mm = max((mm for axis, mm in zip("DHW", header.spacing_mm) if axis not in one.unseen), default=0.0)
    return one.median_mm is not None and one.median_mm > max(WORTH_A_WORD_MM, voxel_mm)


def misalignment_lines(cases: Iterable[tuple[str, dict[str, Misalignment]]]) -> dict[str, str]:
    """A line on each modality: how far it lies from the scan it was compared with, over (case, its misalignments)."""
    by_name = dict[str, dict[str, Misalignment]]()
    for case, found in cases:
        for name, one in found.items():
            by_name.setdefault(name, {})[case] = one
    return {name: _line(found) for name, found in sorted(by_name.items())}


def _line(found: dict[str, Misalignment]) -> str:
    known = {case: one.median_mm for case, one in found.items() if one.median_mm is not None}
    bare = f"; not measurable in {len(found) - len(known)} of {len(found)} cases" if len(known) < len(found) else ""
    to = next(iter(found.values())).to
    if not known:
        return f"against {to}: not measurable in any case (too little in common to see)"
    worst = max(known, key=lambda case: known[case])
    thick = any("D" in one.unseen for one in found.values())
    plane = " in the plane of the slices" if thick else ""
    return (
        f"lies {median(known.values()):.1f} mm from {to}{plane} (median of {len(known)} cases), at most "
        f"{known[worst]:.1f} ({worst}){bare}"
    )
