"""The page of a prepared cohort: the alignment of its scans, or the scans side by side, case by case."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from voxlate.base.errors import plural
from voxlate.base.groups import grouped
from voxlate.base.messages import summarise
from voxlate.evaluation.reports.case_pictures import evenly, scan_sheets
from voxlate.evaluation.reports.page import write_report
from voxlate.scans.cases.prepared import CaseEntry, Cohort, open_cohort

MOST_CASES = 12
BOARDS = "A chequerboard shows the first scan and another one in turn: where the two are in register, edges go on from square to square. Each scan has its own colour scale."


def report_prepared(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a prepared cohort (default: report.html inside it) and return its path.

    Raises BadInput if the folder is no prepared cohort, or is damaged.
    """
    cohort = open_cohort(path)
    cases = sorted(cohort.cases, key=_farthest_mm, reverse=True)
    chosen = [cases[number] for number in evenly(len(cases), MOST_CASES)]
    shown = f"{len(chosen)} of {len(cases)} cases, from the most to the least out of register."
    said = [
        (one.grade, f"{one.case}: {one.text}".removeprefix(": "))
        for one in summarise(cohort.warnings)
    ]
    context = {
        "kind": "Prepared cohort",
        "folder": cohort.folder.name,
        "title": f"{plural(len(cohort.cases), 'case')} of {', '.join(cohort.modalities)}",
        "plain_scores": [
            *registration_lines(cohort.cases).items(),
            *misalignment_lines(cohort.cases).items(),
            *said,
        ],
        "cases": [_section(cohort, entry) for entry in chosen],
        "cases_total": len(chosen),
        "scales": f"{shown} {BOARDS}",
    }
    return write_report(context, cohort.folder, out)


def _farthest_mm(entry: CaseEntry) -> float:
    """The largest misalignment of a case that was measured; -1 without any."""
    medians = [estimate.median_mm for estimate in entry.misaligned.values()]
    return max((median for median in medians if median is not None), default=-1.0)


def _section(cohort: Cohort, entry: CaseEntry) -> dict[str, Any]:
    """The pictures of one case."""
    case = cohort.case(entry.case)
    scans = {name: case.volume(name) for name in case.header.units}
    compared_to = [estimate.to for estimate in entry.misaligned.values()]
    names = [cohort.preparation.fixed, *compared_to, *scans]
    fixed = next(name for name in names if name in scans)
    facts = [entry.split, str(scans[fixed].grid)]
    return {"case": entry.case, "facts": facts, "sheets": scan_sheets(entry.case, scans, fixed)}


def registration_lines(cases: Sequence[CaseEntry]) -> dict[str, str]:
    """A line on each modality that was registered: the steps kept."""
    registered = grouped((name, scan) for case in cases for name, scan in case.registered.items())
    lines = {}
    for name, scans in sorted(registered.items()):
        steps = Counter(scan.kept.replace("none", "unchanged") for scan in scans)
        kept = ", ".join(f"{step} in {count}" for step, count in steps.items())
        lines[name] = f"registered to {scans[0].to}: {kept}"
    return lines


def misalignment_lines(entries: Sequence[CaseEntry]) -> dict[str, str]:
    """A line on each modality: its misalignment from each scan it was compared with."""
    pairs = grouped(
        ((name, estimate.to), (entry.case, estimate))
        for entry in entries
        for name, estimate in entry.misaligned.items()
    )
    lines = dict[str, list[str]]()
    for (name, to), scans in pairs.items():
        known = {case: one.median_mm for case, one in scans if one.median_mm is not None}
        line = f"against {to}: {scans[0][1].reason}"
        if known:
            worst = max(known, key=known.__getitem__)
            line = f"{median(known.values()):.1f} mm from {to} in the median case, {known[worst]:.1f} mm in the worst ({worst})"
        measured = f"measured in {len(known)} of {plural(len(scans), 'case')}"
        lines.setdefault(name, []).append(f"{line}; {measured}")
    return {name: "; ".join(parts) for name, parts in lines.items()}
