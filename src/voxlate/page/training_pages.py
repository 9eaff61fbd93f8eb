"""The pages of cohorts, plans, trainings, calibrations and comparisons; what they show is computed by the jobs, or by reports."""

import shutil
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from voxlate.base.errors import BadInput
from voxlate.page.api import JobState, answers, asks, leads_to
from voxlate.page.folders import (
    ROOT,
    below_root,
    content_of,
    list_folder,
    new_folder,
    place_of,
)
from voxlate.page.forms import FORMS
from voxlate.page.jobs import PLANNED, REPORT, Json, Kind
from voxlate.page.pages import (
    ADDRESSES,
    Form,
    OfSite,
    Site,
    text_in,
)
from voxlate.page.words import for_page
from voxlate.training.recipe import text as recipe_text

router = APIRouter(prefix="/training")
CONTENTS = {"scans": "scans", "prepared": "a prepared cohort", "run": "a run"}
RESUMED: tuple[Kind, ...] = ("prepare", "train", "calibrate", "compare")


@router.get("", include_in_schema=False)
def folders(site: OfSite, place: str = ".") -> Response:
    """The folders below the root; without a root, how to start the server with one."""
    root = site.settings.root
    return site.page(
        "folders.html",
        listing=None if root is None else list_folder(root, place),
        rows=_rows(site),
    )


@router.get("/queue", include_in_schema=False)
def training_queue(site: OfSite) -> Response:
    """The jobs of these pages alone, which they ask for every few seconds."""
    return site.page("training_queue.html", rows=_rows(site))


def _rows(site: Site) -> list[JobState]:
    return [row for row in site.rows() if row.kind not in ADDRESSES]


def _root(site: Site) -> Path:
    """The root folder; raises BadInput where the server has none."""
    return below_root(site.settings.root, ".")


def _chosen(site: Site, place: str, content: str) -> Path:
    """A folder below the root that holds scans, a prepared cohort or a run; raises BadInput for any other."""
    path = below_root(site.settings.root, place)
    if not path.is_dir() or content_of(path) != content:
        raise BadInput(
            f"folder: expected one with {CONTENTS[content]}, found another place. Choose one of the list."
        )
    return path


def _add(
    site: Site,
    kind: Kind,
    title: str,
    arguments: Json,
    options: Json,
    shown: Json,
    **more: Any,
) -> Response:
    """Put a job into the queue, which calls the function of a command, and go to its page.

    shown: what the page of the job shows beside its results.
    """
    request = {"root": str(_root(site)), "arguments": arguments, "options": options, **more}
    return site.add(kind, title, {**request, "shown": shown})


@router.post("/survey", **asks("survey"))
def survey(site: OfSite, form: Form) -> Response:
    """Look at what `prepare` would make of a folder."""
    cohort = _chosen(site, text_in(form, "place"), "scans")
    options = FORMS["survey"].read(form)
    here = place_of(_root(site), cohort)
    new = "" if here.place == "." else f"{here.place}_prepared"
    shown = {"options": options, "place": here.place, "new": new}
    return _add(site, "survey", f"Look at {here.title}", {"root": str(cohort)}, options, shown)


@router.post("/jobs/{name}/prepare", **asks("prepare"))
def prepare(site: OfSite, form: Form, name: str) -> Response:
    """Prepare the cohort of a survey, with its options."""
    asked = site.find_job(name, ("survey",), ("done",)).request
    cohort = asked["arguments"]["root"]
    root = _root(site)
    prepared = new_folder(root, text_in(form, "folder"), apart_from=Path(cohort))
    arguments = {"root": cohort, "out": str(prepared)}
    shown = {"place": prepared.relative_to(root).as_posix()}
    return _add(site, "prepare", f"Prepare {prepared.name}", arguments, asked["options"], shown)


@router.get("/prepared", include_in_schema=False)
def cohort_page(site: OfSite, place: str) -> Response:
    """A prepared cohort: its table, how its scans are aligned, and the forms of a plan and of a recipe."""
    root = _root(site)
    path = _chosen(site, place, "prepared")
    from voxlate.page.facts import facts_of_prepared  # see its head

    facts = facts_of_prepared(path)
    facts["warnings"] = for_page(facts["warnings"], {str(root): ROOT})
    here = place_of(root, path).place
    return site.page(
        "prepared.html",
        place=here,
        new=_new_run(here),
        recipes=recipe_text.names(),
        **facts,
    )


def _new_run(prepared: str) -> str:
    """The name that is proposed for a run."""
    return f"{prepared.removesuffix('_prepared')}_run"


@router.post("/plan", **asks("plan"))
def plan(site: OfSite, form: Form) -> Response:
    """Plan a training on a prepared cohort."""
    path = _chosen(site, text_in(form, "place"), "prepared")
    options = {**FORMS["plan"].read(form), "device": site.settings.device}
    changes = options.pop("changes", {})
    here = place_of(_root(site), path).place
    shown = {"prepared": here, "new": _new_run(here)}
    arguments = {"data": str(path)}
    title = f"Plan for {path.name}"
    return _add(site, "plan", title, arguments, options, shown, changes=changes)


@router.post("/jobs/{name}/start", **asks("start"))
def start_plan(site: OfSite, form: Form, name: str) -> Response:
    """Train a plan into a new folder, which becomes a planned run that `voxlate train auto` would train, too."""
    prepared = site.find_job(name, ("plan",), ("done",)).request["arguments"]["data"]
    run = new_folder(_root(site), text_in(form, "folder"), apart_from=Path(prepared))
    shutil.copytree(site.jobs.folder(name) / PLANNED, run, dirs_exist_ok=True)
    return _train(site, run, {"recipe": "auto", "data": prepared, "out": str(run)}, {})


@router.post("/recipe", **asks("recipe"))
def start_recipe(site: OfSite, form: Form) -> Response:
    """Train a shipped recipe, or a TOML file below the root, into a new folder."""
    prepared = _chosen(site, text_in(form, "place"), "prepared")
    name = text_in(form, "recipe")
    if name not in recipe_text.names():
        path = below_root(site.settings.root, name)
        if path.suffix != ".toml" or not path.is_file():
            raise BadInput(
                "recipe: expected the name of a shipped recipe, or a TOML file below the root folder, found another. Choose one of the list."
            )
        name = str(path)
    options = FORMS["recipe"].read(form)
    recipe_text.values_of(name, options.get("changes", {}))  # raises BadInput before the job
    run = new_folder(_root(site), text_in(form, "folder"), apart_from=prepared)
    return _train(site, run, {"recipe": name, "data": str(prepared), "out": str(run)}, options)


def _train(site: Site, run: Path, arguments: Json, options: Json) -> Response:
    options = {**options, "device": site.settings.device}
    title = f"Training {run.relative_to(_root(site)).as_posix()}"
    return _add(site, "train", title, arguments, options, {}, run=str(run))


@router.post("/further", **asks("further"))
def further(site: OfSite, form: Form) -> Response:
    """Train a finished run for more steps or minutes; without both, resume a stopped one."""
    run = _chosen(site, text_in(form, "place"), "run")
    options = FORMS["further"].read(form)
    if len(options) > 1:
        raise BadInput("steps: expected steps or minutes, found both. Write one of them.")
    more = {name: f"+{number.lstrip('+')}" for name, number in options.items()}
    return _train(site, run, {"recipe": str(run)}, more)


@router.post("/calibrate", **asks("calibrate"))
def calibrate(site: OfSite, form: Form) -> Response:
    """Calibrate a run on held-out patients."""
    run = _chosen(site, text_in(form, "place"), "run")
    options = {**FORMS["calibrate"].read(form), "device": site.settings.device}
    shown = {"place": place_of(_root(site), run).place}
    arguments = {"run": str(run), "cohort": _cohort(site, form)}
    return _add(site, "calibrate", f"Calibration of {run.name}", arguments, options, shown)


def _cohort(site: Site, form: Form) -> str:
    return str(_chosen(site, text_in(form, "cohort"), "scans"))


@router.post("/compare", **asks("compare"))
def compare(site: OfSite, form: Form) -> Response:
    """Score the same held-out cases with each chosen run, and compare."""
    places = [text for text in form.getlist("runs") if isinstance(text, str)]
    if not places:
        raise BadInput("runs: expected at least one run, found none. Choose the runs to compare.")
    root = _root(site)
    runs = {}
    for place in places:
        path = _chosen(site, place, "run")
        runs[place_of(root, path).place.replace("/", "_")] = str(path)
    options = {**FORMS["compare"].read(form), "device": site.settings.device}
    arguments = {"runs": runs, "cohort": _cohort(site, form)}
    return _add(site, "compare", f"Comparison of {', '.join(runs)}", arguments, options, {})


@router.post("/jobs/{name}/stop", **leads_to(JobState))
def stop(site: OfSite, name: str) -> Response:
    """Stop a job: a training saves its state first."""
    return site.go_to(site.jobs.end(name, "cancelled"))


@router.post("/jobs/{name}/again", **leads_to(JobState))
def again(site: OfSite, name: str) -> Response:
    """Put a stopped or failed job into the queue again, which resumes it."""
    site.find_job(name, RESUMED, ("cancelled", "failed"))
    return site.go_to(site.jobs.change(name, state="queued", ended=0.0, attempts=0, why=""))


@router.get("/jobs/{name}", **answers(JobState))
def job_page(request: Request, site: OfSite, name: str) -> Response:
    """The page of a job: its progress, and what it found."""
    job = site.read_job(name)
    if job.kind in ADDRESSES:
        return site.go_to(job)
    facts = dict(job.request.get("shown", {}))
    if job.kind == "train":
        facts = _facts_of_run(site, Path(job.request["run"]))
    has_report = job.state == "done" and (site.jobs.folder(name) / REPORT).is_file()
    return site.job_page(
        request,
        job,
        report=f"/jobs/{name}/{REPORT}" if has_report else "",
        can_resume=job.kind in RESUMED and job.state in ("cancelled", "failed"),
        **facts,
    )


@router.get("/runs", include_in_schema=False)
def run_page(site: OfSite, place: str) -> Response:
    """A run below the root: its curves and pictures, and what can be done with it."""
    facts = _facts_of_run(site, _chosen(site, place, "run"))
    return site.page("train.html", job=None, row=None, found={}, report="", **facts)


@router.get("/picture", include_in_schema=False)
def picture(site: OfSite, place: str, name: str) -> Response:
    """A picture of a run's validation."""
    run = _chosen(site, place, "run")
    from voxlate.evaluation.reports.page import newest_pictures  # loads matplotlib

    for path in newest_pictures(run):
        if path.stem == name:
            return FileResponse(path, media_type="image/png")
    raise BadInput("picture: expected one of the page, found another. Load the page again.")


def _facts_of_run(site: Site, run: Path) -> Json:
    """The curves, pictures and verdicts of a run, and the choices of its forms."""
    from voxlate.page.facts import facts_of_run  # see its head

    root = _root(site)
    return for_page(facts_of_run(root, run), {str(root): ROOT})
