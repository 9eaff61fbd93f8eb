"""The page of a prepared cohort: the alignment of its scans, and the scans side by side, case by case."""

from collections import Counter
from pathlib import Path
from statistics import median

from voxlate.base.errors import plural
from voxlate.base.groups import grouped
from voxlate.base.messages import summarise
from voxlate.evaluation.reports.case_pictures import evenly, scan_sheets
from voxlate.evaluation.reports.page import write_report
from voxlate.scans.cases.prepared import CaseEntry, Cohort, open_cohort

MOST_CASES = 12


def report_prepared(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a prepared cohort (default: report.html inside it) and return its path.

    Raises BadInput if the folder is no prepared cohort, or is damaged.
    """
    cohort = open_cohort(path)
    entries = sorted(cohort.cases, key=_farthest_mm, reverse=True)
    chosen = [entries[number] for number in evenly(len(entries), MOST_CASES)]
    sections = []
    for entry in chosen:
        case = cohort.case(entry.case)
        scans = {name: case.volume(name) for name in case.header.units}
        compared_to = [estimate.to for estimate in entry.misaligned.values()]
        names = [cohort.preparation.fixed, *compared_to, *scans]
        fixed = next(name for name in names if name in scans)
        facts = [entry.split, str(scans[fixed].grid)]
        sheets = scan_sheets(entry.case, scans, fixed)
        sections.append({"case": entry.case, "facts": facts, "sheets": sheets})
    said = [
        (one.grade, f"{one.case}: {one.text}".removeprefix(": "))
        for one in summarise(cohort.warnings)
    ]
    count = plural(len(entries), "case")
    context = {
        "kind": "Prepared cohort",
        "folder": cohort.folder.name,
        "title": f"{count} of {', '.join(cohort.modalities)}",
        "plain_scores": [*alignment_lines(cohort).items(), *said],
        "cases": sections,
        "cases_total": len(chosen),
        "scales": f"{len(chosen)} of {count}, from the most to the least out of register. Each scan has its own colour scale.",
    }
    return write_report(context, cohort.folder, out)


def _farthest_mm(entry: CaseEntry) -> float:
    """The largest misalignment of a case that was measured; -1 without any."""
    medians = [estimate.median_mm for estimate in entry.misaligned.values()]
    return max((median for median in medians if median is not None), default=-1.0)


def alignment_lines(cohort: Cohort) -> dict[str, str]:
    """A line on each modality: the steps of its registration that were kept, and its misalignment from another scan."""
    lines = dict[str, str]()
    steps = grouped(
        (name, scan.kept) for entry in cohort.cases for name, scan in entry.registered.items()
    )
    for name, kept in steps.items():
        counts = ", ".join(f"{step} in {count}" for step, count in Counter(kept).items())
        lines[f"{name}, registration"] = counts
    pairs = grouped(
        ((name, estimate.to), (entry.case, estimate))
        for entry in cohort.cases
        for name, estimate in entry.misaligned.items()
    )
    for (name, to), scans in pairs.items():
        known = {case: one.median_mm for case, one in scans if one.median_mm is not None}
        line = scans[0][1].reason
        if known:
            worst = max(known, key=known.__getitem__)
            line = f"{median(known.values()):.1f} mm in the median case, {known[worst]:.1f} mm in the worst ({worst})"
        measured = f"measured in {len(known)} of {plural(len(scans), 'case')}"
        lines[f"{name} against {to}"] = f"{line}; {measured}"
    return lines
