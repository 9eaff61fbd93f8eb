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
from voxlate.scans.images.misalignment import NOTHING_IN_COMMON
from voxlate.scans.images.units import TISSUE_MAPS

MOST_CASES = 12
BOARDS = "A chequerboard shows the fixed scan and the other one in turn: where the two are in register, edges go on from square to square. Each scan has its own colour scale."
SIDE_BY_SIDE = "The scans of a case on its one grid, each on its own colour scale."


def report_prepared(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a prepared cohort (default: report.html inside it) and return its path.

    Raises BadInput if the folder is no prepared cohort, or is damaged.
    """
    cohort = open_cohort(path)
    cases, ordered = _in_order(cohort)
    moved = cohort.provenance.get("resample") or cohort.provenance.get("register")
    compared = moved or any(entry.misaligned for entry in cohort.cases)
    chosen = [cases[number] for number in evenly(len(cases), MOST_CASES)]
    scales = BOARDS if compared else SIDE_BY_SIDE
    if len(chosen) < len(cohort.cases):
        scales = f"{len(chosen)} of {len(cases)} cases, evenly {ordered}. {scales}"
    sections = []
    for entry in chosen:
        nearest = next((estimate.to for estimate in entry.misaligned.values()), None)
        sections.append(_section(cohort, entry, cohort.preparation.fixed if moved else nearest))
    context = {
        "kind": "Prepared cohort",
        "folder": cohort.folder.name,
        "title": f"{plural(len(cohort.cases), 'case')} of {', '.join(cohort.modalities)}",
        "plain_scores": [
            *registration_lines(cohort.cases).items(),
            *misalignment_lines(cohort.cases).items(),
            *(
                (said.grade, f"{said.case}: {said.text}".removeprefix(": "))
                for said in summarise(cohort.warnings)
            ),
        ],
        "cases": sections,
        "cases_total": len(sections),
        "scales": scales,
    }
    return write_report(context, cohort.folder, out)


def _in_order(cohort: Cohort) -> tuple[Sequence[CaseEntry], str]:
    """The cases of a cohort, those that are least in register first, and their order in words."""
    examined = [entry for entry in cohort.cases if entry.misaligned]
    if any(_farthest_mm(entry) >= 0 for entry in examined):
        ordered = sorted(examined, key=_farthest_mm, reverse=True)
        return ordered, "from the most to the least out of register"
    return cohort.cases, "in the order of the list"


def _farthest_mm(entry: CaseEntry) -> float:
    """The largest misalignment of a case that was measured; -1 without any."""
    medians = [estimate.median_mm for estimate in entry.misaligned.values()]
    return max((median for median in medians if median is not None), default=-1.0)


def _section(cohort: Cohort, entry: CaseEntry, fixed: str | None) -> dict[str, Any]:
    """The pictures of one case."""
    case = cohort.case(entry.case)
    scans = {name: case.volume(name) for name in case.header.units}
    facts = [entry.split, str(next(iter(scans.values())).grid)]
    sheets = scan_sheets(entry.case, scans, fixed if fixed in scans else None)
    return {"case": entry.case, "facts": facts, "sheets": sheets}


def registration_lines(cases: Sequence[CaseEntry]) -> dict[str, str]:
    """A line on each modality that was registered: the steps kept, and how similar the scans were before and after."""
    registered = grouped((name, scan) for case in cases for name, scan in case.registered.items())
    lines = {}
    for name, scans in sorted(registered.items()):
        before = median(scan.before.mutual_information for scan in scans)
        after = median(scan.after.mutual_information for scan in scans)
        steps = Counter(scan.kept.replace("none", "unchanged") for scan in scans)
        kept = ", ".join(f"{step} in {count}" for step, count in steps.items())
        lines[name] = (
            f"registered to {scans[0].to}: {kept}; mutual information {before:.3f} → {after:.3f} (median)"
        )
    return lines


def misalignment_lines(entries: Sequence[CaseEntry]) -> dict[str, str]:
    """A line on each modality: its misalignment from each scan it was compared with."""
    pairs = grouped(
        ((name, estimate.to), (entry.case, estimate))
        for entry in entries
        for name, estimate in entry.misaligned.items()
        if name not in TISSUE_MAPS  # computed from the same head: there is nothing to measure
    )
    lines = dict[str, list[str]]()
    for (name, to), scans in pairs.items():
        known = {case: one.median_mm for case, one in scans if one.median_mm is not None}
        line = f"against {to}: {scans[0][1].reason or NOTHING_IN_COMMON}"
        if known:
            worst = max(known, key=known.__getitem__)
            in_plane = any("D" in one.unseen for _, one in scans)
            plane = " in the plane of the slices" if in_plane else ""
            line = f"{median(known.values()):.1f} mm from {to}{plane} in the median case, {known[worst]:.1f} mm in the worst ({worst})"
        measured = f"measured in {len(known)} of {plural(len(scans), 'case')}"
        lines.setdefault(name, []).append(f"{line}; {measured}")
    return {name: "; ".join(parts) for name, parts in lines.items()}
