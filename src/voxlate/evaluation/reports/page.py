"""One offline HTML page about a run, a folder of syntheses, a comparison or a prepared cohort: scores, pictures, curves and recipe."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from voxlate import __version__
from voxlate.base.errors import BadInput, plural
from voxlate.base.files import write_text
from voxlate.base.messages import Message, read_messages, summarise, without_names
from voxlate.evaluation.compare import Comparison
from voxlate.evaluation.intervals.summary import error_line, error_lines
from voxlate.evaluation.reports.case_pictures import (
    evenly,
    scan_sheet,
    sections_of,
    syntheses_in,
)
from voxlate.evaluation.reports.charts import curve_chart, score_charts
from voxlate.evaluation.scoring.scored_images import check_unchanged
from voxlate.evaluation.scoring.scores import FILE, NO_SCORES, Scores, read_scores
from voxlate.scans.cases.prepared import CaseEntry, open_cohort
from voxlate.scans.images.ranges import WHOLE_MASK
from voxlate.synthesis.provenance import provenance_of, run_folders
from voxlate.training.log_file import VALIDATION, history_of, read_verdicts
from voxlate.training.verdict import METRIC, SYNTHESIS, Outcome, Verdict, verdict_lines

MOST_CASES = 9
MOST_COMPARED = 4  # cases of a comparison
MOST_PREPARED = 12  # cases of a prepared cohort
Table = dict[str, Any]
TISSUES = ("soft_tissue", "bone", "air")  # whose errors stand at the beginning
ALL_CASES = "Errors (image − truth) and standard deviations (sd) each have one colour scale for all cases and methods."


def report(
    path: Path | str,
    out: Path | str | None = None,
    *,
    places: Mapping[str, str] | None = None,
    title: str = "",
) -> Path:
    """Write the report of a run, of syntheses or of a prepared cohort (default: report.html inside it) and return its path.

    The file contains everything and needs no network. places: labels of absolute paths, for a report that shows no path
    of this machine; title: in place of the folder's name. Raises BadInput if the folder is none of these.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: expected the folder of a run, of syntheses or of a prepared cohort, found none. Check the path."
        )
    if (folder / "cohort.json").is_file():
        return write_report(_of_cohort(folder), folder, out)
    is_run = (folder / "recipe.toml").is_file() or (folder / "log.jsonl").is_file()
    scores = scores_in(folder)
    check_unchanged(folder, scores.header)
    cases = [] if is_run else sections_of({"": folder}, {"": scores}, MOST_CASES)
    if not (is_run or cases or scores.header):
        raise BadInput(
            f"{folder}: expected a run (recipe.toml, log.jsonl) or syntheses (<case>/<modality>.nii.gz), found none. Name the folder that train or synth wrote."
        )
    stated = {} if is_run else provenance_of(folder)
    runs = [folder] if is_run else run_folders(stated)
    run = next((run for run in runs if (run / "log.jsonl").is_file()), folder)
    verdicts = scores.verdicts
    if is_run and not verdicts:
        verdicts = read_verdicts(run / "log.jsonl").get("final", [])
    recipe = run / "recipe.toml"
    context: Table = {
        "kind": "Training run" if is_run else "Synthesis",
        "folder": folder.name,
        "title": title or stated.get("model", {}).get("title") or folder.name,
        "lead": _beginning(folder, scores, verdicts, is_run),
        "verdicts": [(one.outcome, line) for one, line in zip(verdicts, verdict_lines(verdicts))],
        "score_charts": score_charts(scores),
        "cases": cases,
        "cases_total": len(scores.patients),
        "charts": charts_of(run / "log.jsonl"),
    }
    if scores.header:
        context |= {"tables": scores.short_table(), "all_tables": scores.table()}
    if recipe.is_file():
        context["recipe"] = recipe.read_text(encoding="utf-8").strip()
    return write_report(context, folder, out, places)


def _of_cohort(folder: Path) -> Table:
    """The content of a prepared cohort's page: the scans of each case, from the most to the least out of register."""
    cohort = open_cohort(folder)
    entries = sorted(cohort.cases, key=_farthest_mm, reverse=True)
    sections = []
    for entry in (entries[number] for number in evenly(len(entries), MOST_PREPARED)):
        case = cohort.case(entry.case)
        scans = {name: case.volume(name) for name in case.header.units}
        compared_to = [estimate.to for estimate in entry.misaligned.values()]
        names = [cohort.preparation.fixed, *compared_to, *scans]
        fixed = next(name for name in names if name in scans)
        facts = [entry.split, str(scans[fixed].grid), *_alignment(entry)]
        sheet = scan_sheet(entry.case, scans, fixed)
        sections.append({"case": entry.case, "facts": facts, **sheet})
    count = plural(len(entries), "case")
    return {
        "kind": "Prepared cohort",
        "folder": cohort.folder.name,
        "title": f"{count} of {', '.join(cohort.modalities)}",
        "plain_scores": [
            (said.grade, f"{said.case}: {said.text}".removeprefix(": "))
            for said in summarise(cohort.warnings)
        ],
        "cases": sections,
        "cases_total": len(sections),
        "scales": f"{len(sections)} of {count}, from the most to the least out of register. Each scan has its own colour scale.",
    }


def _farthest_mm(entry: CaseEntry) -> float:
    """The largest misalignment of a case that was measured; -1 without any."""
    medians = [estimate.median_mm for estimate in entry.misaligned.values()]
    return max((median for median in medians if median is not None), default=-1.0)


def _alignment(entry: CaseEntry) -> Iterator[str]:
    """The registration that was kept of each scan of a case, and how far each lies from another one."""
    for name, scan in entry.registered.items():
        yield f"{name}, registration: {scan.kept}"
    for name, estimate in entry.misaligned.items():
        distance = estimate.reason
        if estimate.median_mm is not None:
            distance = f"{estimate.median_mm:.1f} mm"
        yield f"{name} against {estimate.to}: {distance}"


def _beginning(
    folder: Path, scores: Scores, verdicts: Sequence[Verdict], is_run: bool
) -> tuple[Outcome, str]:
    """What a report says first (see `lead`): of the scores, or else of the images' intervals."""
    cases = [] if is_run else [case for case, _ in syntheses_in(folder)]
    stated = {case: provenance_of(folder, case) for case in cases}
    errors = measured_lines(scores)
    if not errors and not (is_run and verdicts):  # the verdicts of a run state its error
        errors = error_lines(*stated.values())
    warnings = {case: [*dict.fromkeys(read_messages(own))] for case, own in stated.items()}
    return lead(warnings, verdicts, errors)


def write_comparison(compared: Comparison, path: Path | str) -> None:
    """Write the page of a comparison: its table, and the same cases of each method side by side."""
    parts = compared.scores.parts
    context = {
        "kind": "Comparison",
        "folder": f"{len(compared.methods)} methods",
        "title": f"{', '.join(parts)}: {', '.join(compared.methods)}",
        "tables": compared.table("main"),
        "all_tables": compared.table(),
        "cases": sections_of(compared.folders, compared.methods, MOST_COMPARED * len(parts)),
        "cases_total": max(part["cases"] for part in parts.values()),
    }
    write_text(path, render(context))


def write_report(
    context: Mapping[str, Any],
    folder: Path,
    out: Path | str | None,
    places: Mapping[str, str] | None = None,
) -> Path:
    """Write a page to `out`, or to report.html in the folder that it is about; returns its path."""
    path = folder / "report.html" if out is None else Path(out)
    write_text(path, render(context, places))
    return path


def render(context: Mapping[str, Any], places: Mapping[str, str] | None = None) -> str:
    """Fill the page's template; sections without an entry in the context are left out.

    places: labels of absolute paths. They replace these paths in each text before it becomes part of the page, so that
    neither the page's markup nor its pictures can be changed.
    """

    def clean(value: Any) -> Any:
        """A text without the paths; markup and pictures as they are."""
        is_text = isinstance(value, str) and not isinstance(value, Markup)
        if places is None or not is_text or value.startswith("data:"):
            return value
        return without_names(value, places)

    template = (
        resources.files("voxlate.evaluation.reports")
        .joinpath("templates", "page.html")
        .read_text(encoding="utf-8")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=clean
    )
    always = {
        "date": datetime.date.today().isoformat(),
        "version": __version__,
        "scales": ALL_CASES,
    }
    return environment.from_string(template).render({**always, **context})


def scores_in(folder: Path) -> Scores:
    """The scores of a folder, or none if they are absent; raises BadInput if damaged."""
    path = folder / FILE
    return read_scores(path) if path.is_file() else NO_SCORES


def charts_of(log: Path) -> list[Table]:
    """The charts of a training, of each stage; validation scores have different units, so each has its own chart."""
    history = history_of(log)
    stages = [] if history.empty else [*history.groupby("stage", sort=False)]
    charts = []
    for stage, rows in stages:
        values = rows.set_index("step").drop(columns="stage")
        curves = [values[name].dropna() for name in values]
        drawn = [curve for curve in curves if len(curve) > 1]
        scores = [[curve] for curve in drawn if curve.name.startswith(VALIDATION)]
        losses = [curve for curve in drawn if not curve.name.startswith(VALIDATION)]
        title = "" if len(stages) == 1 else f", {stage}"
        if losses:
            charts.append(curve_chart(losses, f"Training loss{title}"))
        charts += [curve_chart(part, f"Validation{title}") for part in scores]
    return charts


def lead(
    warnings: Mapping[str, Sequence[Message]],
    verdicts: Sequence[Verdict] = (),
    errors: Sequence[str] = (),
) -> tuple[Outcome, str]:
    """The outcome, and the sentences with which a report begins: why not to use the images, their error, and cautions.

    warnings: of the images by case, {} where there are no images; verdicts: on their scores; errors: sentences on them.
    """
    stated = " ".join(errors)
    if failed := [verdict for verdict in verdicts if verdict.outcome == "worse"]:
        names = "; ".join(verdict.modality for verdict in failed)
        why = f"the error is higher than that of a naive baseline ({names})"
        return "worse", f"Do not use: {why}. {stated}".rstrip()
    for grade in ("do not trust", "caution"):
        reasons = [
            said.on(case)
            for case, of_case in warnings.items()
            for said in of_case
            if said.grade == grade
        ]
        if not reasons:
            continue
        first, *others = summarise(reasons)
        named = f"{first.case}: {first.text}".removeprefix(": ")
        why = f"{named} {plural(len(others), 'other reason')} below." if others else named
        if len(warnings) == 1:
            why = " ".join(dict.fromkeys(said.text for said in reasons))
        if grade == "do not trust" and {said.case for said in reasons} == warnings.keys():
            return "worse", f"Do not trust: the model does not take such scans. {why}"
        return "unclear", f"{stated} {grade.capitalize()}: {why}".lstrip()
    is_better = bool(verdicts) and all(verdict.outcome == "better" for verdict in verdicts)
    return "better" if is_better else "unknown", stated


def measured_lines(scores: Scores) -> list[str]:
    """A sentence on the scored error of each modality, by tissue where that is scored."""
    lines = []
    for name, part in scores.parts.items():
        means = scores.means[name].get(SYNTHESIS, {})
        where = "whole image" if part["mask"] == WHOLE_MASK else part["mask"]
        regions = {}
        for region in (*TISSUES, where):
            key = METRIC if region == where else f"{region}.{METRIC}"
            if (error := means.get(key, {}).get("mean")) is not None:
                regions[region] = error
        if regions:
            how = f"mean over {plural(part['patients'], 'patient')}"
            lines.append(error_line(f"Measured error of {name}", regions, part["unit"], how))
    return lines
