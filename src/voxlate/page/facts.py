"""What the page shows of a prepared cohort and of a run.

The server imports this module when such a page is opened for the first time, because it loads torch and matplotlib.
"""

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from voxlate.checks.audit import is_misaligned
from voxlate.checks.survey import cohort_overview
from voxlate.commands.api.next_steps import cohort_of
from voxlate.evaluation.reports.alignment import misalignment_lines, registration_lines
from voxlate.evaluation.reports.page import charts_of, newest_pictures
from voxlate.page.folders import find_runs, place_of
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.log_file import read_verdicts
from voxlate.training.run import Run
from voxlate.training.verdict import verdict_lines
from voxlate.training.weights import is_finished

STYLE = re.compile(r' style="([^"]*)"| id="[^"]*"')


def facts_of_prepared(folder: Path) -> dict[str, Any]:
    """What `voxlate prepare` says of a prepared cohort: its table, how its scans are aligned, and warnings."""
    cohort = open_cohort(folder)
    distances = []
    for entry in cohort.cases:
        header = cohort.header(entry.case)
        for name, found in entry.misaligned.items():
            distances.append((entry.case, name, found, is_misaligned(header, found)))
    distances.sort(key=lambda row: -(row[2].median_mm or 0.0))
    return {
        "table": cohort_overview(cohort),
        "aligned": {
            **misalignment_lines(cohort.cases),
            **registration_lines(cohort.cases),
        },
        "distances": distances,
        "warnings": [said.on_page for said in cohort.warnings],
        "modalities": list(cohort.modalities),
    }


def facts_of_run(root: Path, run: Path) -> dict[str, Any]:
    """The curves, pictures and verdicts of a run, and the choices of its forms."""
    own = place_of(root, run).place
    log = Run(run).log
    trained_on = cohort_of(run)
    scans = Path(str(trained_on.provenance.get("root", ""))) if trained_on else None
    below = scans is not None and scans.is_dir() and scans.is_relative_to(root)
    finished = has_ended(Run(run))
    return {
        "place": own,
        "has_begun": Run(run).has_begun,
        "finished": finished,
        "verdicts": verdict_lines(read_verdicts(log).get("final", [])) if finished else [],
        "charts": [
            {**chart, "svg": without_styles(chart["svg"])}
            for chart in (charts_of(log) if log.is_file() else ())
        ],
        "pictures": [path.stem for path in newest_pictures(run)],
        "others": [place for place in find_runs(root) if place != own],
        "cohort": place_of(root, scans).place if below and scans is not None else "",
    }


def without_styles(svg: Markup) -> Markup:
    """A chart whose styles are attributes, which the content security policy of the page allows."""
    return Markup(STYLE.sub(_as_attributes, str(svg)))  # what was escaped stays escaped


def _as_attributes(match: re.Match[str]) -> str:
    attributes = ""
    for part in (match[1] or "").split(";"):
        name, colon, value = part.partition(":")
        if colon and name.strip() != "font-family":
            attributes += f' {name.strip()}="{value.strip()}"'
    return attributes


def has_ended(run: Run) -> bool:
    """Whether a run has the weights of its last stage, and waits for no further steps; no code of a recipe is imported."""
    weights = run.weights()
    if not weights.is_file() or not run.provenance.is_file():
        return weights.is_file()
    return is_finished(weights, run.origin.get("recipe", {}).get("train", {}).get("more"))
