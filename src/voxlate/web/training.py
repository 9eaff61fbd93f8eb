"""The pages of plans, trainings, calibrations and comparisons; what they show is computed by the jobs, or by reports."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from voxlate.options.option import bytes_of, pairs
from voxlate.recipe import text as recipe_text
from voxlate.system.errors import BadInput
from voxlate.system.files import lock, read_json, write_text
from voxlate.web.cohorts import (
    MODES,
    add_job,
    chosen_folder,
    names_in,
    root_of,
    router,
    survey_facts,
)
from voxlate.web.folders import below_root
from voxlate.web.hiding import cleaned
from voxlate.web.jobs import Job
from voxlate.web.pages import LARGEST_SEED, SEE_OTHER, Site, number_of, site_of
from voxlate.web.places import RECIPE, ROOT, new_folder, place_of
from voxlate.web.results import PLACES, row_of
from voxlate.web.shown import FOUND, PLANNED, REPORT

SPLITS, EVERY = ("val", "test", "train"), "all"
LONGEST_MINUTES = 60 * 24 * 31
AGAIN = ("prepare", "train", "calibrate", "compare")

__all__ = ["router"]


@router.post("/plan")
def plan(
    request: Request,
    place: Annotated[str, Form()],
    minutes: Annotated[str, Form()] = "60",
    source: Annotated[str, Form()] = "",
    target: Annotated[str, Form()] = "",
    memory: Annotated[str, Form()] = "",
    mode: Annotated[str, Form()] = "both",
    from_scratch: Annotated[str, Form()] = "",
    changes: Annotated[str, Form()] = "",
) -> Response:
    """Plan a training on a prepared cohort."""
    site = site_of(request)
    prepared = chosen_folder(site, place, "prepared")
    if mode not in MODES:
        raise BadInput("prediction: expected one of the list, found another. Choose one of these.")
    return add_job(
        site,
        "plan",
        f"Plan for {prepared.name}",
        prepared=str(prepared),
        minutes=_minutes(minutes) or 60.0,
        source=names_in(source),
        target=names_in(target),
        memory_bytes=bytes_of(memory, "memory") if memory.strip() else None,
        mode=mode,
        from_scratch=bool(from_scratch),
        changes=_changes(changes),
    )


def _minutes(text: str) -> float | None:
    """Minutes that a form gives; None for an empty field."""
    if not text.strip():
        return None
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes <= LONGEST_MINUTES:
        raise BadInput(
            f"minutes: expected a number above 0 and at most {LONGEST_MINUTES}, found another text. Change it."
        )
    return minutes


def _changes(text: str) -> dict[str, str]:
    """Changes of a recipe's keys, KEY=VALUE on each line."""
    return pairs([line.strip() for line in text.splitlines() if line.strip()], "changes")


@router.post("/jobs/{name}/start")
def start_plan(request: Request, name: str, folder: Annotated[str, Form()]) -> Response:
    """Train a plan into a new folder, which becomes a planned run that `voxlate train auto` would train, too."""
    site = site_of(request)
    job = site.jobs.read(name)
    if job.kind != "plan" or job.state != "done":
        raise BadInput(
            f"job {name}: expected a finished plan, found another job or state. Go to the list."
        )
    prepared = Path(job.request["prepared"])
    path = new_folder(root_of(site), folder, apart_from=prepared)
    with lock(path):
        for file in sorted((site.jobs.folder(name) / PLANNED).iterdir()):
            write_text(path / file.name, file.read_text(encoding="utf-8"))
    return _add_training(site, path, prepared, how="planned")


@router.post("/recipe")
def start_recipe(
    request: Request,
    place: Annotated[str, Form()],
    recipe: Annotated[str, Form()],
    folder: Annotated[str, Form()],
    changes: Annotated[str, Form()] = "",
) -> Response:
    """Train a shipped recipe, or a TOML file below the root, into a new folder."""
    site = site_of(request)
    prepared = chosen_folder(site, place, "prepared")
    name = recipe.strip()
    if name not in recipe_text.names():
        path = below_root(site.settings.root, name)
        if path.suffix != ".toml" or not path.is_file():
            raise BadInput(
                "recipe: expected the name of a shipped recipe, or a TOML file below the root folder, found another. Choose one of the list."
            )
        name = str(path)
    recipe_text.values_of(
        name, table := _changes(changes)
    )  # raises BadInput before anything is queued
    run = new_folder(root_of(site), folder, apart_from=prepared)
    return _add_training(site, run, prepared, how="recipe", recipe=name, changes=table)


def _add_training(site: Site, run: Path, prepared: Path | None, **asked: Any) -> Response:
    title = f"Training {place_of(root_of(site), run).title}"
    more = {} if prepared is None else {"prepared": str(prepared)}
    return add_job(site, "train", title, run=str(run), **more, **asked)


@router.post("/further")
def further(
    request: Request,
    place: Annotated[str, Form()],
    steps: Annotated[str, Form()] = "",
    minutes: Annotated[str, Form()] = "",
) -> Response:
    """Train a finished run for more steps or minutes; without both, resume a stopped one."""
    site = site_of(request)
    run = chosen_folder(site, place, "run")
    more, longer = number_of(steps, "steps", 1, LARGEST_SEED), _minutes(minutes)
    if more and longer:
        raise BadInput("steps: expected steps or minutes, found both. Write one of them.")
    return _add_training(site, run, None, how="further", steps=more, minutes=longer)


@router.post("/calibrate")
def calibrate(
    request: Request,
    place: Annotated[str, Form()],
    cohort: Annotated[str, Form()],
    split: Annotated[str, Form()] = "val",
    answer: Annotated[str, Form()] = "",
    samples: Annotated[str, Form()] = "",
) -> Response:
    """Calibrate a run on held-out patients."""
    site = site_of(request)
    run = chosen_folder(site, place, "run")
    if answer not in ("", "mean", "sample"):
        raise BadInput("prediction: expected one of the list, found another. Choose one of these.")
    return add_job(
        site,
        "calibrate",
        f"Calibration of {run.name}",
        run=str(run),
        cohort=str(chosen_folder(site, cohort, "scans")),
        split=_split(split),
        answer=answer or None,
        samples=number_of(samples, "number of samples", 1, site.settings.limits.samples),
    )


def _split(text: str) -> str | None:
    """A split of a form; None for all cases, whose name is not "", for which FastAPI puts the default."""
    if text not in (EVERY, *SPLITS):
        raise BadInput("split: expected one of the list, found another. Choose one of these.")
    return None if text == EVERY else text


@router.post("/compare")
async def compare(request: Request) -> Response:
    """Score the same held-out cases with each chosen run, and compare."""
    site = site_of(request)
    form = await request.form(max_files=0, max_fields=200)
    places = [text for text in form.getlist("runs") if isinstance(text, str)]
    fields = {key: text for key, text in form.items() if isinstance(text, str)}
    if not places:
        raise BadInput("runs: expected at least one run, found none. Choose the runs to compare.")
    paths = [chosen_folder(site, place, "run") for place in places]
    root = root_of(site)
    labels = {place_of(root, path).place.replace("/", "_"): str(path) for path in paths}
    samples = fields.get("samples", "")
    return add_job(
        site,
        "compare",
        f"Comparison of {', '.join(labels)}",
        runs=labels,
        cohort=str(chosen_folder(site, fields.get("cohort", ""), "scans")),
        split=_split(fields.get("split", "val")),
        samples=number_of(samples, "number of samples", 1, site.settings.limits.samples),
    )


@router.post("/jobs/{name}/stop")
def stop(request: Request, name: str) -> Response:
    """Stop a job: a training saves its state first."""
    site = site_of(request)
    job = site.jobs.cancel(_of_training(site.jobs.read(name)).name)
    return RedirectResponse(row_of(site.jobs, job).url, SEE_OTHER)


@router.post("/jobs/{name}/again")
def again(request: Request, name: str) -> Response:
    """Put a stopped or failed job into the queue again, which resumes it."""
    site = site_of(request)
    job = _of_training(site.jobs.read(name))
    if job.kind not in AGAIN or job.state not in ("cancelled", "failed"):
        raise BadInput(
            f"job {name}: expected one that was stopped or has failed, found another state. Go to its page."
        )
    site.jobs.change(name, state="queued", ended=0.0, attempts=0, why="")
    return RedirectResponse(row_of(site.jobs, job).url, SEE_OTHER)


def _of_training(job: Job) -> Job:
    if job.kind in PLACES:
        raise BadInput(
            f"job {job.name}: expected a job of these pages, found another one. Go to the list."
        )
    return job


@router.get("/jobs/{name}")
def job_page(request: Request, name: str) -> Response:
    """The page of a job: its progress, and what it found."""
    site = site_of(request)
    job = site.jobs.read(name)
    if job.kind in PLACES:
        return RedirectResponse(row_of(site.jobs, job).url, SEE_OTHER)
    root = root_of(site)
    found = read_json(site.jobs.folder(name) / FOUND) if job.state == "done" else {}
    facts = FACTS[job.kind](site, job)
    has_report = (site.jobs.folder(name) / REPORT).is_file()
    return site.job_page(
        TEMPLATES[job.kind],
        request,
        job,
        found=found,
        said=found.get("said", []),
        report=f"/jobs/{name}/{REPORT}" if has_report and job.state == "done" else "",
        can_resume=job.kind in AGAIN and job.state in ("cancelled", "failed"),
        **cleaned(facts, {str(root): ROOT}),
    )


@router.get("/runs")
def run_page(request: Request, place: str) -> Response:
    """A run below the root: its curves and pictures, and what can be done with it."""
    site = site_of(request)
    run = chosen_folder(site, place, "run")
    facts = cleaned(run_facts(root_of(site), run), {str(root_of(site)): ROOT})
    return site.page("run.html", job=None, row=None, said=[], found={}, report="", **facts)


@router.get("/picture")
def picture(request: Request, place: str, name: str) -> Response:
    """A picture of a run's validation."""
    site = site_of(request)
    run = chosen_folder(site, place, "run")
    from voxlate.web.looking import newest_pictures  # see its head

    for path in newest_pictures(run):
        if path.stem == name:
            return FileResponse(path, media_type="image/png")
    raise BadInput("picture: expected one of the page, found another. Load the page again.")


def run_facts(root: Path, run: Path) -> dict[str, Any]:
    """The curves, pictures and verdicts of a run, and the choices of its forms."""
    from voxlate.web.looking import facts_of_run  # see its head

    return {**facts_of_run(root, run), "splits": SPLITS}


def _train_facts(site: Site, job: Job) -> dict[str, Any]:
    return run_facts(root_of(site), Path(job.request["run"]))


def _prepare_facts(site: Site, job: Job) -> dict[str, Any]:
    return {"place": place_of(root_of(site), Path(job.request["prepared"])).place}


def _plan_facts(site: Site, job: Job) -> dict[str, Any]:
    prepared = place_of(root_of(site), Path(job.request["prepared"])).place
    recipe = site.jobs.folder(job.name) / PLANNED / RECIPE
    text = recipe.read_text(encoding="utf-8") if job.state == "done" else ""
    new = f"{prepared.removesuffix('_prepared')}_run"
    return {"prepared": prepared, "new": new, "text": text}


def _calibrate_facts(site: Site, job: Job) -> dict[str, Any]:
    return {"place": place_of(root_of(site), Path(job.request["run"])).place}


def _compare_facts(site: Site, job: Job) -> dict[str, Any]:
    return {}


FACTS: dict[str, Callable[[Site, Job], dict[str, Any]]] = {
    "survey": survey_facts,
    "prepare": _prepare_facts,
    "plan": _plan_facts,
    "train": _train_facts,
    "calibrate": _calibrate_facts,
    "compare": _compare_facts,
}
TEMPLATES = {
    "survey": "survey.html",
    "prepare": "preparing.html",
    "plan": "plan.html",
    "train": "run.html",
    "calibrate": "calibration.html",
    "compare": "comparison.html",
}
