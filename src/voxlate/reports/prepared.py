"""The page of a prepared cohort: whether its scans lie on each other, or what they show, case by case."""

from pathlib import Path
from typing import Any

from voxlate.data.align import Registered
from voxlate.data.audit import misalignment_lines, not_examined
from voxlate.data.prepared import Cohort, Entry, open_cohort, registration_lines
from voxlate.files import write_text
from voxlate.images.misalignment import NOTHING_IN_COMMON, Misalignment
from voxlate.reports.page import flat, render
from voxlate.reports.pictures import evenly, in_a_row, scan_columns

MOST_CASES = 12
BOARDS = "A chequerboard shows the fixed scan and the other one in turn: where the two are in register, edges go on from square to square. Each scan has its own colour scale."
SIDE_BY_SIDE = "The scans of a case on its one grid, each on its own colour scale."


def report_prepared(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a prepared cohort (default: report.html inside it) and give its path.

    Raises BadInput where the folder is no prepared cohort, or is damaged.
    """
    cohort = open_cohort(path)
    made = cohort.preparation
    moved = bool(cohort.provenance.get("resample") or cohort.provenance.get("register"))
    cases = sorted(cohort.cases, key=_least_similar if made.register else _most_apart)
    known = any(one.median_mm is not None for entry in cohort.cases for one in entry.misaligned.values())
    examined = [entry for entry in cases if entry.misaligned]
    if known and not made.register and len(examined) >= MOST_CASES:
        cases = examined
    chosen = [cases[number] for number in evenly(len(cases), MOST_CASES)]
    unregistered = "from the most to the least out of register" if known else "in the order of the list"
    ordered = "from the least to the most similar" if made.register else unregistered
    boards = moved or known
    of = f"{len(cases)} examined cases" if len(cases) < len(cohort.cases) else f"{len(cases)} cases"
    some = f"{len(chosen)} of {of}, evenly {ordered}. " if len(chosen) < len(cohort.cases) else ""
    sections = [_section(cohort, entry, made.fixed if moved else _compared_with(entry), known) for entry in chosen]
    context = {
        "kind": "Prepared cohort",
        "folder": cohort.folder.name,
        "title": f"{len(cohort.cases)} cases of {', '.join(cohort.modalities)}",
        "plain_scores": [
            *registration_lines(cohort.cases).items(),
            *misalignment_lines(cohort.cases).items(),
            *(("warning", one) for one in cohort.warnings),
        ],
        "cases": sections,
        "cases_total": len(sections),
        "scales": some + (BOARDS if boards else SIDE_BY_SIDE),
        "provenance": flat(cohort.provenance),
    }
    target = Path(out) if out is not None else cohort.folder / "report.html"
    write_text(target, render(context))
    return target


def _least_similar(entry: Entry) -> float:
    return min((one.after.mutual_information for one in entry.registered.values()), default=0.0)


def _compared_with(entry: Entry) -> str | None:
    return next((one.to for one in entry.misaligned.values()), None)


def _most_apart(entry: Entry) -> float:
    """The order of the page: the worst first, and at the end those that nobody examined."""
    return -max((one.median_mm or 0.0 for one in entry.misaligned.values()), default=-1.0)


def _section(cohort: Cohort, entry: Entry, fixed: str | None, audited: bool) -> dict[str, Any]:
    """The pictures of one case, with how far its scans lie from each other, and what registration gained."""
    case = cohort.case(entry.case)
    scans = {name: case.volume(name) for name in case.header.present}
    apart = {name: _distance(one) for name, one in entry.misaligned.items()}
    if audited and not_examined(entry):
        apart = dict.fromkeys(entry.present, "distance from the others not examined")
    gains = {name: _gain(one) for name, one in entry.registered.items()}
    notes = {name: "; ".join(one[name] for one in (gains, apart) if name in one) for name in gains | apart}
    columns = scan_columns(entry.case, scans, fixed if fixed in scans else None, notes)
    facts = [entry.split, str(next(iter(scans.values())).grid)]
    return {
        "case": entry.case,
        "facts": facts,
        "columns": columns,
        "in_a_row": in_a_row(len(columns)),
    }


def _gain(one: Registered) -> str:
    before = one.before
    after = one.after
    step = "none kept" if one.kept == "none" else one.kept
    information = f"mutual information {before.mutual_information:.3f} → {after.mutual_information:.3f}"
    return f"{step}: {information}, bodies {before.bodies:.2f} → {after.bodies:.2f}"


def _distance(one: Misalignment) -> str:
    if one.median_mm is None:
        return f"distance from {one.to} cannot be measured: {one.reason or NOTHING_IN_COMMON}"
    plane = ", in the plane of the slices" if "D" in one.unseen else ""
    return f"{one.median_mm:.1f} mm from {one.to} (95th percentile {one.p95_mm:.1f}){plane}: {one.windows} windows, {one.left_out} left out{', coarse estimate' if one.coarse else ''}"
