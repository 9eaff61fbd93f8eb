"""The pages that lead to a prepared cohort: folders below the root, what a cohort holds, and its preparation."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from voxlate.cohorts.patient_names import EACH
from voxlate.options.layout import presets
from voxlate.options.prepare import PrepareOptions
from voxlate.recipe import text as recipe_text
from voxlate.system.errors import BadInput
from voxlate.web.folders import below_root
from voxlate.web.hiding import cleaned
from voxlate.web.jobs import Job, Kind
from voxlate.web.pages import LONGEST_TITLE, SEE_OTHER, Site, site_of
from voxlate.web.places import ROOT, content_of, listing, new_folder, place_of
from voxlate.web.results import PLACES, row_of, rows_of

router = APIRouter(prefix="/training")
REGISTER = ("rigid", "affine", "smooth", "bspline")
MODES = {
    "both": "mean and samples",
    "mean": "mean only (a regression)",
    "samples": "samples (a diffusion)",
}


@router.get("")
def folders(request: Request, place: str = ".") -> Response:
    """The folders below the root; without a root, how to start the server with one."""
    site = site_of(request)
    root = site.settings.root
    return site.page(
        "folders.html",
        listing=None if root is None else listing(root, place),
        rows=_rows(site),
        presets=presets(),
        registrations=REGISTER,
    )


@router.get("/queue")
def training_queue(request: Request) -> Response:
    """The jobs of these pages alone, which they ask for every few seconds."""
    site = site_of(request)
    return site.page("training_queue.html", rows=_rows(site))


def _rows(site: Site) -> list[Any]:
    return [row for row in rows_of(site.jobs) if row.job.kind not in PLACES]


def root_of(site: Site) -> Path:
    """The root folder; raises BadInput where the server has none."""
    return below_root(site.settings.root, ".")


def chosen_folder(site: Site, place: str, content: str) -> Path:
    """A folder below the root that holds scans, a prepared cohort or a run; raises BadInput for any other."""
    path = below_root(site.settings.root, place)
    names = {"scans": "scans", "prepared": "a prepared cohort", "run": "a run"}
    if not path.is_dir() or content_of(path) != content:
        raise BadInput(
            f"folder: expected one with {names[content]}, found another place. Choose one of the list."
        )
    return path


def add_job(site: Site, kind: Kind, title: str, **asked: Any) -> Response:
    """Put a job into the queue, and go to its page."""
    root, device = str(root_of(site)), site.settings.device
    request = {"root": root, "device": device, **asked}
    job = site.jobs.add(kind, title[:LONGEST_TITLE], request, site.settings.limits.queue)
    return RedirectResponse(row_of(site.jobs, job).url, SEE_OTHER)


@router.post("/survey")
def survey(
    request: Request,
    place: Annotated[str, Form()],
    preset: Annotated[str, Form()] = "",
    pattern: Annotated[str, Form()] = "",
    modalities: Annotated[str, Form()] = "",
    exclude: Annotated[str, Form()] = "",
    registration: Annotated[str, Form()] = "",
    resample: Annotated[str, Form()] = "",
    each: Annotated[str, Form()] = "",
    fixed: Annotated[str, Form()] = "",
) -> Response:
    """Look at what `prepare` would make of a folder."""
    site = site_of(request)
    cohort = chosen_folder(site, place, "scans")
    if preset not in ("", *presets()) or registration not in ("", *REGISTER):
        raise BadInput("form: expected a choice of the lists, found another. Choose one of them.")
    if ".." in pattern or pattern.startswith(("/", "\\")):
        raise BadInput(
            "pattern: expected a path below the chosen folder, found another. Write it without '..' and without '/' in front."
        )
    asked = {
        "preset": preset or None,
        "pattern": pattern.strip() or None,
        "modalities": names_in(modalities) or None,
        "exclude": names_in(exclude) or None,
        "register": registration or None,
        "resample": bool(resample),
        "patients": EACH if each else None,
        "fixed": fixed.strip() or None,
    }
    options = {name: value for name, value in asked.items() if value}
    title = f"Look at {place_of(root_of(site), cohort).title}"
    return add_job(site, "survey", title, cohort=str(cohort), options=options)


def names_in(text: str) -> list[str]:
    """Names that are separated by commas or spaces."""
    return text.replace(",", " ").split()


def survey_facts(site: Site, job: Job) -> dict[str, Any]:
    """What the page of a survey shows: that of the dry run, and where the cohort may be prepared."""
    cohort, root = Path(job.request["cohort"]), root_of(site)
    shown = asdict(PrepareOptions(**job.request["options"]))
    options = [(name, shown[name]) for name in job.request["options"]]
    place = place_of(root, cohort).place
    new = "" if place == "." else f"{place}_prepared"
    return {"options": options, "place": place, "new": new}


@router.post("/jobs/{name}/prepare")
def prepare(request: Request, name: str, folder: Annotated[str, Form()]) -> Response:
    """Prepare the cohort of a survey, with its options."""
    site = site_of(request)
    job = site.jobs.read(name)
    if job.kind != "survey" or job.state != "done":
        raise BadInput(
            f"job {name}: expected a finished look at a cohort, found another job or state. Go to the list."
        )
    cohort = Path(job.request["cohort"])
    prepared = new_folder(root_of(site), folder, apart_from=cohort)
    title = f"Prepare {prepared.name}"
    options = job.request["options"]
    return add_job(
        site, "prepare", title, cohort=str(cohort), prepared=str(prepared), options=options
    )


@router.get("/prepared")
def prepared(request: Request, place: str) -> Response:
    """A prepared cohort: its table, how its scans are aligned, and the forms of a plan and of a recipe."""
    site = site_of(request)
    root = root_of(site)
    path = chosen_folder(site, place, "prepared")
    from voxlate.web.looking import prepared_facts  # see its head

    facts = prepared_facts(path)
    own = place_of(root, path).place
    return site.page(
        "prepared.html",
        place=own,
        new=f"{own.removesuffix('_prepared')}_run",
        recipes=recipe_text.names(),
        modes=MODES,
        **{**facts, **cleaned({key: facts[key] for key in ("warnings",)}, {str(root): ROOT})},
    )
