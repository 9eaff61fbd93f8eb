"""The pages of scans and results: each function answers one address. Forms answer with a redirect, so that they work without scripts."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import jinja2
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)
from starlette.datastructures import FormData

from voxlate.base.errors import BadInput, did_you_mean
from voxlate.base.options.check import read_text
from voxlate.base.options.table import field_types, text_type
from voxlate.page.access import BROWSER, WRONG_TOKEN
from voxlate.page.api import (
    Entered,
    JobState,
    Listed,
    Refused,
    answers,
    form,
    said_of,
    stated_fits,
    wants_json,
)
from voxlate.page.folders import below_root, check_links, find_runs
from voxlate.page.jobs import (
    DICOM_ZIP,
    FOUND,
    OUT,
    REPORT,
    SCANS,
    SHEET,
    VIEWS,
    Job,
    Jobs,
    Kind,
    State,
)
from voxlate.page.settings import LOOPBACK, Sessions, Settings
from voxlate.page.uploads import Space, receive
from voxlate.page.words import for_page
from voxlate.scans.formats.archive import FOLDER
from voxlate.scans.formats.io import without_ending
from voxlate.synthesis.options import SynthOptions

router = APIRouter()
SEE_OTHER = 303
LARGEST_SEED = 2**31 - 1
LONGEST_TITLE = 60
DOWNLOADS = {DICOM_ZIP: "DICOM series (zip)", REPORT: "Report (HTML)"}
NO_PAGE = "page: expected one that exists, found none. Go to the list."
VERDICTS = {"worse": "Do not trust", "unclear": "Usable with care", "better": "Usable"}
STAGES = {
    "models": "comparing the scan with the models",
    "cases": "reading and preparing the scan",
    "prepare": "reading and preparing the scan",
    "check": "scans",
    "slices": "synthesising",
    "views": "writing the report and the images of the viewer",
    "plan": "probe",
}
ADDRESSES: dict[Kind, str] = {"check": "/uploads", "synthesise": "/jobs"}


@dataclass(frozen=True)
class Row:
    """A job as the queue shows it. percent: None before it is known; small: a picture."""

    job: Job
    url: str
    position: int = 0
    stage: str = ""
    percent: int | None = None
    left: str = ""
    patient: str = ""
    verdict: str = ""
    small: str = ""

    @property
    def at(self) -> str:
        """When the job was asked for, in the time of the machine that runs voxlate."""
        return time.strftime("%d %b %H:%M", time.localtime(self.job.created))


@dataclass(frozen=True)
class Site:
    """What the pages need: the settings, who is in, the jobs, and the room on disk."""

    settings: Settings
    sessions: Sessions
    jobs: Jobs
    space: Space
    templates: jinja2.Environment

    @property
    def runs(self) -> dict[str, str]:
        """The models by label: those of the command line, then finished runs below the root."""
        given = self.settings.runs
        found = {
            label: str(path)
            for label, path in find_runs(self.settings.root).items()
            if label not in given and str(path) not in given.values()
        }
        return given | found

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A filled template."""
        return HTMLResponse(self.templates.get_template(template).render(**values), status)

    def read_job(self, name: str) -> Job:
        """A job; raises BadInput where there is none of this name, and for one of another version of voxlate."""
        job = self.jobs.read(name)
        if job.refusal:
            raise BadInput(job.refusal)
        return job

    def find_job(
        self, name: str, kinds: tuple[Kind, ...], states: tuple[State, ...] = get_args(State)
    ) -> Job:
        """A job of some kinds in one of some states; raises BadInput for any other."""
        job = self.read_job(name)
        if job.kind not in kinds or job.state not in states:
            raise BadInput(
                f"job {name}: expected {' or '.join(kinds)} that is {' or '.join(states)}, found another job or state. Go to its page."
            )
        return job

    def job_page(self, request: Request, job: Job, **values: Any) -> Response:
        """The page of a job; where htmx asks for one that has ended since, the browser is told to load all of it."""
        if wants_json(request):
            return JSONResponse(asdict(self.state_of(self.row_of(job))))
        found = self.jobs.read_file(job.name, FOUND) if job.state == "done" else {}
        page = self.page(f"{job.kind}.html", job=job, row=self.row_of(job), found=found, **values)
        if job.has_ended and "hx-request" in request.headers:
            page.headers["HX-Refresh"] = "true"
        return page

    def state_of(self, row: Row) -> JobState:
        """A job as programs read it."""
        job, folder = row.job, self.jobs.folder(row.job.name)
        found = self.jobs.read_file(job.name, FOUND) if job.state == "done" else {}
        made = found if job.kind == "synthesise" else {}  # others call other things by these keys
        return JobState(
            job.name,
            row.url,
            job.kind,
            job.title,
            job.state,
            row.percent,
            row.left,
            for_page(job.why, {}),
            stated_fits(found),
            {without_ending(file): f"{row.url}/images/{file}" for file in made.get("images", ())},
            {file: f"{row.url}/{file}" for file in DOWNLOADS if (folder / file).is_file()},
            said_of(made.get("warnings", ())),
            [*made.get("expected", ())],
            made["use"][1] if made else "",
        )

    def error(self, request: Request, status: int, sentence: str) -> Response:
        """A page with one sentence, in the words of the page."""
        said = for_page(sentence, {})
        if wants_json(request):
            return JSONResponse(asdict(Refused(said)), status)
        return self.page("error.html", status, sentence=said)

    def add(
        self, kind: Kind, title: str, request: dict[str, Any], reserved: Path | None = None
    ) -> Response:
        """Put a job into the queue, and go to its page."""
        most = self.settings.limits.queue
        return self.go_to(self.jobs.add(kind, title[:LONGEST_TITLE], request, most, reserved))

    def go_to(self, job: Job) -> Response:
        """Lead the browser to the page of a job."""
        return RedirectResponse(url_of(job), SEE_OTHER)

    def rows(self) -> list[Row]:
        """The jobs that wait or run in their order, then those that have ended, the last first."""
        found = self.jobs.all()
        working = [job for job in found if not job.has_ended]
        ended = [job for job in found if job.has_ended]
        return [self.row_of(job) for job in [*working, *reversed(ended)]]

    def row_of(self, job: Job) -> Row:
        """A job with its progress, or its place in the queue."""
        alike = [other for other in self.jobs.all() if other.kind == job.kind]
        waiting = [other.name for other in alike if other.state == "queued"]
        position = waiting.index(job.name) + 1 if job.name in waiting else 0
        progress = self.jobs.progress(job.name) if job.state == "running" else None
        if progress is None:
            found = self.jobs.read_file(job.name, FOUND) if job.state == "done" else {}
            return Row(
                job,
                url_of(job),
                position,
                patient=job.request.get("patient", found.get("patient", "")),
                verdict=VERDICTS[found["use"][0]] if "use" in found else "",
                small=next((view["small"] for view in found.get("views", ()) if view["small"]), ""),
            )
        is_even = progress.stage == "slices" or job.kind == "train"
        left = progress.seconds_left(time.time()) if is_even else None
        percent = round(100 * progress.done / max(1, progress.total))
        stage = STAGES.get(progress.stage, progress.stage)
        return Row(job, url_of(job), position, stage, percent, duration(left))


def url_of(job: Job) -> str:
    """The address of a job's page."""
    return f"{ADDRESSES.get(job.kind, '/training/jobs')}/{job.name}"


def duration(seconds: float | None) -> str:
    """A time for people, such as "40 s" or "3 min"; "" for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def site_of(request: Request) -> Site:
    """The site of the application that a request asks."""
    site: Site = request.app.state.site
    return site


async def _read_form(request: Request) -> FormData:
    return await request.form(max_files=0, max_fields=1000)


OfSite = Annotated[Site, Depends(site_of)]
Form = Annotated[FormData, Depends(_read_form)]


def text_in(form: FormData, name: str) -> str:
    """The text of a field of a form; "" for none."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def read_options(table: Any, form: FormData, *names: str) -> dict[str, Any]:
    """The options of a command that a form gives, read and checked as on the command line; empty fields are left out.

    Several values are on a line each, as changes of a recipe are, or else separated by commas or spaces.
    """
    hints, found = field_types(table), dict[str, Any]()
    for name in names:
        text = text_in(form, name)
        kind = text_type(hints[name])
        if not text:
            continue
        if kind is bool:
            found[name] = True
        elif get_origin(kind) is list:
            parts = text.splitlines() if "=" in text or name == "changes" else None
            values = parts or text.replace(",", " ").split()
            found[name] = read_text(name, [value for value in values if value.strip()], hints[name])
        else:
            value = read_text(name, text, hints[name])
            found[name] = f"{value}" if isinstance(value, Path) else value
    return found


def check_most(options: dict[str, Any], **most: int) -> None:
    """Raise BadInput for a number above what the page allows."""
    for name, largest in most.items():
        if options.get(name, 0) > largest:
            raise BadInput(f"{name}: expected at most {largest}, found {options[name]}. Change it.")


@router.get("/enter", **answers(Entered))
async def enter(request: Request, site: OfSite, token: str = "") -> Response:
    """Exchange the token of the printed URL for a session. The page leads on by itself.

    A redirect would not do: a link from another program starts it, and SameSite=Strict holds back the new cookie.
    """
    session = site.sessions.enter(token)
    if session is None:
        return site.error(
            request,
            WRONG_TOKEN,
            "token: expected the one that the server printed, which one browser can use once, found another or a spent one. Open the newest address in the terminal of the server.",
        )
    page = JSONResponse(asdict(Entered())) if wants_json(request) else site.page("enter.html")
    secure = request.headers.get("x-forwarded-proto") == "https"
    page.set_cookie(
        site.settings.cookie, session, httponly=True, samesite="strict", path="/", secure=secure
    )
    return page


@router.get("/", **answers(Listed))
def index(request: Request, site: OfSite) -> Response:
    """The form of an upload, the models, and all jobs."""
    if wants_json(request):
        jobs = [site.state_of(row) for row in site.rows() if row.job.kind in ADDRESSES]
        return JSONResponse(asdict(Listed([*site.runs], jobs)))
    return site.page(
        "index.html",
        runs=list(site.runs),
        rows=site.rows(),
        limits=site.settings.limits,
        has_root=site.settings.root is not None,
        in_browser=BROWSER if site.settings.browser is not None else "",
    )


@router.get("/queue", include_in_schema=False)
def queue(site: OfSite) -> Response:
    """The queue alone, which the page asks for every few seconds."""
    return site.page("queue.html", rows=site.rows())


_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}


@router.post(
    "/uploads",
    **answers(JobState),
    openapi_extra=form("multipart/form-data", "files", files=_FILES),
)
async def upload(request: Request, site: OfSite) -> Response:
    """Take files, and put the check of which models fit them into the queue."""
    size = 2 * int(request.headers["content-length"])  # the form, and its files
    used = await run_in_threadpool(site.jobs.bytes)
    with site.space.reserve(size, used, site.settings.data):
        folder = site.jobs.reserve()
        scans = folder / SCANS
        scans.mkdir(FOLDER)
        try:
            received = await receive(request, scans, site.settings.limits)
            first = next((path for path in sorted(scans.rglob("*")) if path.is_file()), None)
            if first is None:
                raise BadInput("upload: expected files, found none. Choose a scan first.")
            name = first.relative_to(scans).parts[0][:LONGEST_TITLE]
            title = name if received.files == 1 else f"{name} ({received.files} files)"
            asked = _check_request(site, hidden=received.clutter)
            return await run_in_threadpool(site.add, "check", title, asked, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _check_request(site: Site, **more: Any) -> dict[str, Any]:
    """The request of a check.

    is_local: a browser on another machine reads no name of a patient in the queue.
    """
    local = site.settings.host in LOOPBACK
    return {"runs": site.runs, "device": site.settings.device, "is_local": local, **more}


@router.post("/folders", include_in_schema=False)
def folder(site: OfSite, form: Form) -> Response:
    """Take a scan of this machine that lies below the root folder."""
    root = site.settings.root
    path = below_root(root, text_in(form, "place"))
    if not path.is_dir():
        raise BadInput("folder: expected a folder with a scan, found a file. Name its folder.")
    check_links(below_root(root, "."), path)
    return site.add("check", path.name, _check_request(site, place=str(path)))


@router.get("/uploads/{name}", **answers(JobState))
def upload_page(request: Request, site: OfSite, name: str) -> Response:
    """Which models fit an upload, and why; while the check waits or runs, how far it is."""
    job = site.find_job(name, ("check",))
    said = job.request.get("names")
    return site.job_page(request, job, said=said, limits=site.settings.limits)


@router.post("/uploads/{name}/names", include_in_schema=False)
def check_again(site: OfSite, form: Form, name: str) -> Response:
    """Take which file is which modality, and check again with these names."""
    job = site.find_job(name, ("check",), ("done",))
    found = site.jobs.read_file(name, FOUND)
    names = dict[str, str]()
    for number, entry in enumerate(found["entries"]):
        chosen = text_in(form, f"name_{number}")
        if chosen not in ("", *found["names"]):
            raise BadInput(
                "modality: expected one of the list, found another. Choose one of the list."
            )
        if chosen:
            names[entry["place"]] = chosen
    again = {**job.request, "names": names}
    return site.go_to(site.jobs.change(name, state="queued", request=again, ended=0.0, attempts=0))


@router.post(
    "/uploads/{name}/synthesise",
    **answers(JobState),
    openapi_extra=form(
        "application/x-www-form-urlencoded",
        "run",
        run={"type": "string"},
        scan={"type": "string"},
        answer={"enum": ["mean", "sample"]},
        samples={"type": "integer"},
        steps={"type": "integer"},
        sharpness={"type": "number"},
        seed={"type": "integer"},
        anyway={"type": "boolean"},
    ),
)
def synthesise(request: Request, site: OfSite, form: Form, name: str) -> Response:
    """Put a synthesis into the queue: of the inputs that the check found for this model."""
    job = site.find_job(name, ("check",), ("done",))
    runs, label = site.runs, text_in(form, "run")
    checked = site.jobs.read_file(name, FOUND)
    fits = checked["fits"]
    scan = text_in(form, "scan")
    offered = [fit for fit in fits if fit["label"] == label and not fit["why_not"]]
    fit = next((fit for fit in offered if scan in ("", *fit["used"].values())), None)
    if fit is None or label not in runs:
        raise BadInput("model: expected one that fits the scan, found another. Choose one.")
    names = ("answer", "samples", "steps", "sharpness", "seed", "anyway")
    for field in {*form} - {"run", "scan", *names}:
        hint = did_you_mean(field, names) or "Leave it out."
        raise BadInput(f"form: expected run, scan, {', '.join(names)}, found '{field}'. {hint}")
    options = read_options(SynthOptions, form, *names)
    limits = site.settings.limits
    check_most(options, samples=limits.samples, steps=limits.steps, seed=LARGEST_SEED)
    anyway = options.pop("anyway", False)
    answers = fit["answers"]
    answer = options.pop("answer", answers[0])
    if answer not in answers:
        raise BadInput(
            f"prediction: expected {' or '.join(answers)}, found another. Choose one of these."
        )
    # a page hides the fields of a mean prediction, with what they hold
    idle = options if wants_json(request) or fit["samples"] is None else {}
    if answer == "mean" and idle:
        raise BadInput(
            f"form: expected no settings of samples for a mean prediction, which draws none, found {', '.join(idle)}. Leave them empty."
        )
    options = {} if answer == "mean" else _options_of_samples(options, fit)
    asked = {
        "run": runs[label],
        "label": label,
        "answer": answer,
        "has_steps": fit["steps"] is not None,
        "check": name,
        "patient": checked["patient"],
        "inputs": fit["inputs"],
        "place": job.request.get("place"),
        "options": {
            **options,
            "anyway": anyway,
            "answer": answer if len(answers) > 1 else None,
            "device": site.settings.device,
        },
    }
    return site.add("synthesise", f"{', '.join(fit['targets']).upper()} of {job.title}", asked)


def _options_of_samples(options: dict[str, Any], fit: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a sample without those that have no effect; a slider always has a value.

    Raises BadInput for a sharpness that the model or several samples cannot have.
    """
    sharpness = options.pop("sharpness", fit.get("sharpness"))
    if sharpness == fit.get("sharpness"):
        return options
    if fit.get("sharpness") is None or not 0 <= sharpness <= 1:
        raise BadInput(
            f"sharpness: expected a value from 0 to 1, of a model with a mean prediction and samples, found {sharpness:g}. Leave it as it is."
        )
    if sharpness == 0:  # the mean prediction, which draws no noise
        return {"sharpness": 0.0}
    samples = options.get("samples") or fit["samples"]
    if sharpness < 1 and samples > 1:
        raise BadInput(
            f"samples: expected 1 with a sharpness below 1, found {samples}. Set the number of samples to 1, or the sharpness to 1."
        )
    return {**options, "sharpness": sharpness}


@router.get("/jobs/{name}", **answers(JobState))
def result_page(request: Request, site: OfSite, name: str) -> Response:
    """A synthesis: its progress, and once it is finished its images, warnings and downloads."""
    job = site.read_job(name)
    if job.kind != "synthesise":
        return site.go_to(job)
    folder = site.jobs.folder(name)
    others = {label: file for file, label in DOWNLOADS.items() if (folder / file).is_file()}
    views = site.jobs.read_file(name, FOUND).get("views", ())
    return site.job_page(
        request,
        job,
        others=others,
        images=[{**view, "url": f"/jobs/{name}/{VIEWS}/{view['file']}"} for view in views],
        expires=site.settings.limits.keep_hours,
    )


@router.get("/jobs/{name}/sheet", include_in_schema=False)
def sheet(site: OfSite, name: str) -> Response:
    """A synthesis on one page of paper."""
    job = site.find_job(name, ("synthesise",), ("done",))
    rows = site.jobs.read_file(name, SHEET)["rows"]
    found = site.jobs.read_file(name, FOUND)
    return site.page("sheet.html", job=job, row=site.row_of(job), found=found, rows=rows)


@router.post("/jobs/{name}/cancel", **answers(Listed))
def cancel(site: OfSite, name: str) -> Response:
    """Cancel a job that waits or runs; of one that has ended nothing changes."""
    site.jobs.end(name, "cancelled")
    return RedirectResponse("/", SEE_OTHER)


@router.post("/jobs/{name}/delete", **answers(Listed))
def delete(site: OfSite, name: str) -> Response:
    """Remove a job with its files."""
    site.jobs.remove(name)
    return RedirectResponse("/", SEE_OTHER)


@router.get(
    "/jobs/{name}/{kind}/{file}",
    **answers(description="An image as NIfTI", content={"application/gzip": {}}),
)
def image(site: OfSite, name: str, kind: str, file: str) -> Response:
    """An image as voxlate synth writes it (kind images), or one of the viewer (kind views)."""
    site.find_job(name, ("synthesise",), ("done",))
    found = site.jobs.read_file(name, FOUND)
    folders = {"images": f"{OUT}/{found['case']}", VIEWS: VIEWS}
    allowed = {"images": found["images"], VIEWS: [view["file"] for view in found["views"]]}
    if file not in allowed.get(kind, ()):
        raise BadInput("file: expected one of the page's links, found another. Go to the page.")
    path = site.jobs.folder(name) / folders[kind] / file
    return FileResponse(path, media_type="application/gzip", filename=file)


@router.get(
    "/jobs/{name}/{file}",
    **answers(description="report.html or dicom.zip", content={"application/octet-stream": {}}),
)
def other_file(request: Request, site: OfSite, name: str, file: str) -> Response:
    """The report, or the DICOM series as an archive. The report is saved and not shown: its styles are inline."""
    job = site.jobs.read(name)
    path = site.jobs.folder(name) / file
    if file not in DOWNLOADS or job.state != "done" or not path.is_file():
        return site.error(request, 404, NO_PAGE)
    return FileResponse(path, filename=f"{name}_{file}")
