"""How the scans of a prepared cohort are aligned, a line for each modality."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from statistics import median

from voxlate.base.errors import first_of
from voxlate.base.groups import grouped
from voxlate.scans.cases.prepared import CaseEntry
from voxlate.scans.images.misalignment import NOTHING_IN_COMMON, Misalignment
from voxlate.scans.images.units import TISSUE_MAPS


def registration_lines(cases: Sequence[CaseEntry]) -> dict[str, str]:
    """A line on each modality that was registered: the steps kept, and how similar the scans were before and after."""
    by_name = grouped(
        (name, (case.case, scan)) for case in cases for name, scan in case.registered.items()
    )
    lines = {}
    for name, scans in sorted(by_name.items()):
        by_case = dict(scans)
        before = {case: scan.before.mutual_information for case, scan in by_case.items()}
        after = {case: scan.after.mutual_information for case, scan in by_case.items()}
        worst = min(after, key=after.__getitem__)
        steps = grouped((scan.kept, case) for case, scan in by_case.items())
        unchanged = steps.pop("none", [])
        said = [f"{step} kept in {len(moved)}" for step, moved in steps.items()]
        if unchanged:
            said.append(f"unchanged in {len(unchanged)} ({first_of(unchanged)})")
        to = by_case[worst].to
        lines[name] = (
            f"registered to {to}: {', '.join(said)}; mutual information {median(before.values()):.3f} → {median(after.values()):.3f} (median), {before[worst]:.3f} → {after[worst]:.3f} (worst, {worst})"
        )
    return lines


def misalignment_lines(entries: Sequence[CaseEntry]) -> dict[str, str]:
    """A line on each modality, the farthest first: its misalignment from the scan it was compared with, and in how many cases."""
    several = [entry for entry in entries if len(entry.present) > 1]
    have = Counter(chain.from_iterable(entry.present for entry in several))
    # also where a modality is the one that the others were compared with
    seen = Counter(chain.from_iterable(entry.present for entry in several if entry.misaligned))
    by_name = grouped(
        (name, (entry.case, estimate))
        for entry in entries
        for name, estimate in entry.misaligned.items()
        if name not in TISSUE_MAPS  # computed from the same head: there is nothing to measure
    )

    def farthest(name: str) -> float:
        return max(estimate.median_mm or 0.0 for _, estimate in by_name[name])

    order = sorted(sorted(by_name), key=farthest, reverse=True)
    lines = {}
    for name in order:
        by_scan = grouped((estimate.to, (case, estimate)) for case, estimate in by_name[name])
        most_first = sorted(by_scan.items(), key=lambda group: -len(group[1]))
        parts = [_part(to, dict(scans)) for to, scans in most_first]
        if seen[name] < have[name]:
            parts.append(f"{seen[name]} of {have[name]} cases were examined")
        lines[name] = "; ".join(parts)
    return lines


def _part(to: str, by_case: dict[str, Misalignment]) -> str:
    """The misalignment of a modality from one scan, in the cases in which it was compared with it."""
    known = {
        case: estimate.median_mm
        for case, estimate in by_case.items()
        if estimate.median_mm is not None
    }
    if not known:
        reasons = Counter(one.reason or NOTHING_IN_COMMON for one in by_case.values())
        return f"against {to}: cannot be measured in any case ({reasons.most_common(1)[0][0]})"
    missed = f" of {len(by_case)}" if len(known) < len(by_case) else ""
    worst = max(known, key=known.__getitem__)
    thick = any("D" in estimate.unseen for estimate in by_case.values())
    plane = " in the plane of the slices" if thick else ""
    return f"lies {median(known.values()):.1f} mm from {to}{plane} in the median case, {known[worst]:.1f} mm in the worst ({worst}); measured in {len(known)}{missed} {'case' if len(by_case) == 1 else 'cases'}"
