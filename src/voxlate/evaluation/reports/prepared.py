"""The page of a prepared cohort: the alignment of its scans, or the scans side by side, case by case."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxlate.base.errors import plural
from voxlate.checks.audit import not_examined
from voxlate.evaluation.reports.alignment import misalignment_lines, registration_lines
from voxlate.evaluation.reports.case_pictures import evenly, in_a_row, scan_columns
from voxlate.evaluation.reports.page import flat, write_report
from voxlate.scans.cases.align import Registered
from voxlate.scans.cases.prepared import CaseEntry, Cohort, open_cohort
from voxlate.scans.images.misalignment import NOTHING_IN_COMMON, Misalignment

MOST_CASES = 12
BOARDS = "A chequerboard shows the fixed scan and the other one in turn: where the two are in register, edges go on from square to square. Each scan has its own colour scale."
SIDE_BY_SIDE = "The scans of a case on its one grid, each on its own colour scale."


def report_prepared(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a prepared cohort (default: report.html inside it) and return its path.

    Raises BadInput if the folder is no prepared cohort, or is damaged.
    """
    cohort = open_cohort(path)
    preparation = cohort.preparation
    moved = bool(cohort.provenance.get("resample") or cohort.provenance.get("register"))
    every = cohort.cases
    cases: Sequence[CaseEntry] = every
    known = any(_farthest_mm(entry) >= 0 for entry in every)
    ordered = "in the order of the list"
    if preparation.register:
        cases = sorted(cases, key=_similarity)
        ordered = "from the least to the most similar"
    elif known:
        examined = [entry for entry in cases if entry.misaligned]
        cases = sorted(examined, key=_farthest_mm, reverse=True)
        ordered = "from the most to the least out of register"
    chosen = [cases[number] for number in evenly(len(cases), MOST_CASES)]
    some = (
        f"{len(chosen)} of {len(cases)} cases, evenly {ordered}. "
        if len(chosen) < len(every)
        else ""
    )
    sections = []
    for entry in chosen:
        nearest = next((estimate.to for estimate in entry.misaligned.values()), None)
        sections.append(_section(cohort, entry, preparation.fixed if moved else nearest, known))
    context = {
        "kind": "Prepared cohort",
        "folder": cohort.folder.name,
        "title": f"{plural(len(cohort.cases), 'case')} of {', '.join(cohort.modalities)}",
        "plain_scores": [
            *registration_lines(every).items(),
            *misalignment_lines(every).items(),
            *(("warning", str(message)) for message in cohort.warnings),
        ],
        "cases": sections,
        "cases_total": len(sections),
        "scales": some + (BOARDS if moved or known else SIDE_BY_SIDE),
        "provenance": flat(cohort.provenance),
    }
    return write_report(context, cohort.folder, out)


def _similarity(entry: CaseEntry) -> float:
    """Sort key of the page: the scan that is least similar to the fixed one after registration."""
    after = [registered.after.mutual_information for registered in entry.registered.values()]
    return min(after, default=0.0)


def _farthest_mm(entry: CaseEntry) -> float:
    """The largest misalignment of a case that was measured; -1 without any."""
    medians = [estimate.median_mm for estimate in entry.misaligned.values()]
    return max((median for median in medians if median is not None), default=-1.0)


def _section(cohort: Cohort, entry: CaseEntry, fixed: str | None, audited: bool) -> dict[str, Any]:
    """The pictures of one case, with the misalignment of its scans and the gain of registration."""
    case = cohort.case(entry.case)
    scans = {name: case.volume(name) for name in case.header.units}
    apart = {name: _distance(estimate) for name, estimate in entry.misaligned.items()}
    if audited and not_examined(entry.present, entry.misaligned):
        apart = dict.fromkeys(entry.present, "distance from the others not examined")
    gains = {name: _gain(registered) for name, registered in entry.registered.items()}
    notes = {
        name: "; ".join(filter(None, [gains.get(name), apart.get(name)])) for name in gains | apart
    }
    columns = scan_columns(entry.case, scans, fixed if fixed in scans else None, notes)
    facts = [entry.split, str(next(iter(scans.values())).grid)]
    return {
        "case": entry.case,
        "facts": facts,
        "columns": columns,
        "in_a_row": in_a_row(len(columns)),
    }


def _gain(registered: Registered) -> str:
    before = registered.before
    after = registered.after
    information = (
        f"mutual information {before.mutual_information:.3f} → {after.mutual_information:.3f}"
    )
    return f"{registered.kept} kept: {information}, bodies {before.bodies:.2f} → {after.bodies:.2f}"


def _distance(estimate: Misalignment) -> str:
    if estimate.median_mm is None:
        return f"distance from {estimate.to} cannot be measured: {estimate.reason or NOTHING_IN_COMMON}"
    plane = ", in the plane of the slices" if "D" in estimate.unseen else ""
    return f"{estimate.median_mm:.1f} mm from {estimate.to} (95th percentile {estimate.p95_mm:.1f}){plane}: {estimate.windows} windows, {estimate.left_out} left out{', coarse estimate' if estimate.coarse else ''}"
