"""The work of the jobs that read cohorts, train, calibrate and compare: each calls the function of its command.

A job's request has the arguments of that function and its options, as they are by name.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.messages import message
from voxlate.commands.api import cohorts, images, scores, training
from voxlate.commands.api.next_steps import cohort_of
from voxlate.commands.api.progress import Reporter
from voxlate.evaluation.reports.comparison import write_page
from voxlate.evaluation.reports.page import report
from voxlate.evaluation.reports.prepared import report_prepared
from voxlate.evaluation.scoring.tables import Tables
from voxlate.page.check import place_in
from voxlate.page.folders import RECIPE, ROOT, check_links
from voxlate.page.jobs import OUT, PLANNED, REPORT, Asked, Json
from voxlate.scans.options.layout import layout_of
from voxlate.training.recipe import from_dict
from voxlate.training.verdict import verdict_lines


def _call(function: Callable[..., Any], request: Asked, reporter: Reporter, **more: Any) -> Any:
    """The result of a command with the arguments and options of a request."""
    return function(**request["arguments"], progress=reporter, **request["options"], **more)


def survey(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """The facts that `voxlate prepare --dry-run` shows of a cohort."""
    check_links(Path(request["root"]), Path(request["arguments"]["root"]))
    survey = _call(cohorts.survey, request, reporter)
    files = [
        {**vars(file), "path": place_in(Path(file.path), survey.root)} for file in survey.files
    ]
    return {**survey.facts, "small": " ".join(map(str, survey.small)), "files": files}


def prepare(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Prepare a cohort, and write the page of its overlays."""
    check_links(Path(request["root"]), Path(request["arguments"]["root"]))
    prepared = _call(cohorts.prepare, request, reporter)
    report_prepared(prepared.folder, folder / REPORT, places={request["root"]: ROOT})
    return {"unread": list(prepared.provenance["unread"])}


def plan(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Plan a training; the plan is written as the folder of a planned run."""
    chosen = _call(training.plan, request, reporter).change(request["changes"])
    from_dict(dict(chosen.tables), "the plan")  # raises BadInput where a change names code
    chosen.write_run(folder / PLANNED)
    return {
        "title": chosen.tables["title"],
        "reasons": [list(pair) for pair in chosen.why.items()],
        "minutes": chosen.seconds / 60,
        "memory_gib": chosen.memory / 2**30,
        "of_minutes": chosen.limits.minutes,
        "of_memory_gib": chosen.limits.memory_bytes / 2**30,
        "text": (folder / PLANNED / RECIPE).read_text(encoding="utf-8"),
    }


def train(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Train a planned run, a recipe or a further part of a run, or resume it."""
    asked = request["arguments"]
    if asked["recipe"] == training.AUTO and not (Path(asked["out"]) / RECIPE).is_file():
        raise BadInput("run: expected a planned run, found none. Plan it again.")
    done = _call(training.train, request, _rename_stages("training, stage {}", reporter))
    return {"verdicts": verdict_lines(done.verdicts)}


def calibrate(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Fit the prediction intervals of a run."""
    layout = _layout(*map(Path, request["arguments"].values()))
    return {"lines": _call(training.calibrate, request, reporter, **layout)}


def compare(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Synthesise and score the same held-out cases with each run, then compare them."""
    options, (runs, place) = request["options"], request["arguments"].values()
    cohort = Path(place)
    folders = []
    for label, run in runs.items():
        out = folder / OUT / label
        layout = _layout(Path(run), cohort)
        named = _rename_stages(f"{label}: {{}}", reporter)
        done = images.synthesise(run, cohort, out, progress=named, **options, **layout)
        for sentence in done.left_out.values():
            reporter.say(message("case-left-out", f"{label}: left out {sentence}"))
        split = options.get("split")
        scored = scores.evaluate(out, cohort, progress=False, split=split, **layout)
        folders.append(out)
    places = {run: label for label, run in runs.items()} | {request["root"]: ROOT}
    places |= {str(out): out.name for out in folders}
    if len(folders) > 1:
        comparison = scores.compare(folders)
        write_page(comparison.document, folder / REPORT, places)
        tables = comparison.short_table()
    else:
        report(folders[0], folder / REPORT, places=places)
        tables = scored.table()
    return {"tables": _plain(tables)}


def _rename_stages(name: str, reporter: Reporter) -> Reporter:
    """A reporter that puts the name of each stage into a text."""
    step = reporter.step
    return replace(reporter, step=lambda stage, *rest: step(name.format(stage), *rest))


def _plain(tables: Tables) -> Json:
    """Tables for the page, by modality."""
    lines = tables.lines.items()
    return {
        "title": tables.title,
        "methods": list(tables.methods),
        "parts": [{"modality": name, "lines": [*map(asdict, part)]} for name, part in lines],
        "caption": list(tables.caption),
    }


def _layout(run: Path, cohort: Path) -> Json:
    """The layout of a cohort, which is known where the run was trained on it."""
    prepared = cohort_of(run)
    stated = {} if prepared is None else prepared.provenance
    if not stated.get("root") or Path(stated["root"]).resolve() != cohort.resolve():
        return {}
    return layout_of(stated)
