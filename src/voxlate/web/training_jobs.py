"""The work of the jobs that read cohorts, train, calibrate and compare: each calls the function of its command."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxlate.api.cohorts import prepare as prepare_cohort
from voxlate.api.cohorts import survey as survey_cohort
from voxlate.api.images import compare as compare_scores
from voxlate.api.images import evaluate, synthesise
from voxlate.api.progress import Reporter
from voxlate.api.training import calibrate as fit_intervals
from voxlate.api.training import plan as plan_training
from voxlate.api.training import train as train_recipe
from voxlate.options.layout import layout_of
from voxlate.recipe import from_dict
from voxlate.reports.comparison import write_page
from voxlate.reports.page import report
from voxlate.reports.prepared import report_prepared
from voxlate.scoring.comparison_tables import comparison_tables
from voxlate.scoring.tables import Tables, score_tables
from voxlate.scoring.verdict import verdict_lines
from voxlate.system.errors import BadInput
from voxlate.system.files import write_json
from voxlate.system.messages import Message, message
from voxlate.web.hiding import cleaned
from voxlate.web.looking import cohort_of
from voxlate.web.places import RECIPE, ROOT, check_links
from voxlate.web.shown import FOUND, OUT, PLANNED, REPORT

Progress = Callable[[str, int, int], None]
Facts = dict[str, Any]
Request = Mapping[str, Any]
Work = Callable[[Path, Request, Reporter], Facts]


def survey(folder: Path, request: Request, reporter: Reporter) -> Facts:
    """The facts that `voxlate prepare --dry-run` shows of a cohort."""
    cohort = Path(request["cohort"])
    check_links(Path(request["root"]), cohort)
    found = survey_cohort(cohort, progress=reporter, **request["options"])
    files = [{**vars(file), "path": _below(found.root, file.path)} for file in found.files]
    return {**found.facts, "small": " ".join(map(str, found.small)), "files": files}


def _below(root: Path, place: str) -> str:
    path = Path(place)
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def prepare(folder: Path, request: Request, reporter: Reporter) -> Facts:
    """Prepare a cohort, and write the page of its overlays."""
    cohort = Path(request["cohort"])
    check_links(Path(request["root"]), cohort)
    place = Path(request["prepared"])
    prepared = prepare_cohort(cohort, place, progress=reporter, **request["options"])
    report_prepared(prepared.folder, folder / REPORT, places={request["root"]: ROOT})
    return {"unread": list(prepared.provenance["unread"])}


def plan(folder: Path, request: Request, reporter: Reporter) -> Facts:
    """Plan a training; the plan is written as the folder of a planned run."""
    names = ("source", "target", "minutes", "memory_bytes", "mode", "device", "from_scratch")
    options = {name: request[name] for name in names}
    chosen = plan_training(Path(request["prepared"]), progress=reporter, **options)
    chosen = chosen.change(request["changes"])
    from_dict(dict(chosen.tables), "the plan")  # raises BadInput where a change names code
    for earlier in (folder / PLANNED).glob("*"):  # of an attempt that was interrupted
        earlier.unlink()
    chosen.write_run(folder / PLANNED)
    return {
        "title": chosen.tables["title"],
        "reasons": [list(pair) for pair in chosen.why.items()],
        "minutes": chosen.seconds / 60,
        "memory_gib": chosen.memory / 2**30,
        "of_minutes": chosen.limits.minutes,
        "of_memory_gib": chosen.limits.memory_bytes / 2**30,
    }


def train(folder: Path, request: Request, reporter: Reporter) -> Facts:
    """Train a planned run, a recipe or a further part of a run, or resume it."""
    run = Path(request["run"])
    options: Facts = {"device": request["device"], "progress": reporter}
    if request["how"] == "further":
        steps, minutes = request["steps"], request["minutes"]
        options["steps"] = None if steps is None else f"+{steps}"
        options["minutes"] = None if minutes is None else f"+{minutes:f}"
        done = train_recipe(run, **options)
    else:
        planned = request["how"] == "planned"
        if planned and not (run / RECIPE).is_file():
            raise BadInput("run: expected a planned run, found none. Plan it again.")
        recipe = "auto" if planned else request["recipe"]
        changes = None if planned else request["changes"]
        done = train_recipe(recipe, Path(request["prepared"]), run, changes=changes, **options)
    return {"verdicts": verdict_lines(done.verdicts)}


def calibrate(folder: Path, request: Request, reporter: Reporter) -> Facts:
    """Fit the prediction intervals of a run."""
    run, cohort = Path(request["run"]), Path(request["cohort"])
    options = {name: request[name] for name in ("answer", "samples", "split", "device")}
    layout = _layout(run, cohort)
    return {"lines": fit_intervals(run, cohort, progress=reporter, **options, **layout)}


def compare(folder: Path, request: Request, reporter: Reporter) -> Facts:
    """Synthesise and score the same held-out cases with each run, then compare them."""
    cohort = Path(request["cohort"])
    documents = dict[Path, Facts]()
    for label, place in request["runs"].items():
        out = folder / OUT / label
        layout = _layout(Path(place), cohort)
        options = {name: request[name] for name in ("split", "samples", "device")}
        done = synthesise(
            place, cohort, out, progress=_of_run(label, reporter), **options, **layout
        )
        for sentence in done.left_out.values():
            reporter.say(message("case-left-out", f"{label}: left out {sentence}"))
        scores = evaluate(out, cohort, progress=False, split=request["split"], **layout)
        documents[out] = scores.document()
    places = {place: label for label, place in request["runs"].items()}
    places |= {str(out): out.name for out in documents} | {request["root"]: ROOT}
    if len(documents) == 1:
        report(next(iter(documents)), folder / REPORT, places=places)
        tables = score_tables(next(iter(documents.values())))
    else:
        comparison = compare_scores([*documents])
        write_page(comparison.document, folder / REPORT, places)
        tables = comparison_tables(comparison.document, "main")
    return {"tables": _plain(tables)}


def _of_run(label: str, reporter: Reporter) -> Reporter:
    """A reporter that names the run with each stage."""

    step = reporter.step
    return Reporter(lambda name, *rest: step(f"{label}: {name}", *rest), reporter.say)


def _plain(tables: Tables) -> Facts:
    """Tables for the page, by modality."""
    parts = [
        {"modality": name, "lines": [*map(asdict, part)]} for name, part in tables.lines.items()
    ]
    return {
        "title": tables.title,
        "methods": list(tables.methods),
        "parts": parts,
        "caption": list(tables.caption),
    }


def _layout(run: Path, cohort: Path) -> Facts:
    """The layout of a cohort, which is known where the run was trained on it."""
    prepared = cohort_of(run)
    stated = {} if prepared is None else prepared.provenance
    if not stated.get("root") or Path(stated["root"]).resolve() != cohort.resolve():
        return {}
    return layout_of(stated)


STAGES = {"check": "scans", "prepare": "cases"}  # as the page calls them
WORKS: dict[str, Work] = {
    "survey": survey,
    "prepare": prepare,
    "plan": plan,
    "train": train,
    "calibrate": calibrate,
    "compare": compare,
}


def work(kind: str, folder: Path, request: Request, progress: Progress) -> None:
    """Do the work of a job, and write what it has found for the page, without places of this machine."""
    said = list[Message]()

    def step(name: str, done: int, total: int, *_: object) -> None:
        """Report the progress of a stage under the name that the page has for it."""
        stage = f"training, stage {name}" if kind == "train" else STAGES.get(name, name)
        progress(stage, done, total)

    progress("probe" if kind == "plan" else kind, 0, 1)
    found = WORKS[kind](folder, request, Reporter(step, said.append))
    places = {request["root"]: ROOT, str(folder): "the job"}
    write_json(folder / FOUND, cleaned({"said": [str(one) for one in said], **found}, places))
