"""The pages of scans and results: each function answers one address. Forms answer with a redirect, so that they work without scripts."""

import hmac
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import APIRouter, Depends, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)

from voxlate.base.errors import BadInput
from voxlate.page.api import (
    UPLOAD,
    JobState,
    Listed,
    SynthesisForm,
    wants_json,
)
from voxlate.page.jobs import (
    DICOM_ZIP,
    FOUND,
    OUT,
    PROGRESS,
    REPORT,
    SCANS,
    Job,
    Jobs,
    Json,
    Kind,
)
from voxlate.page.page_settings import Settings
from voxlate.page.uploads import receive
from voxlate.page.words import CONTRASTS, for_page
from voxlate.scans.formats.io import without_ending

router = APIRouter()
SEE_OTHER = 303
LONGEST_TITLE = 60
DOWNLOADS = {DICOM_ZIP: "DICOM series (zip)", REPORT: "Report (HTML)"}
NO_PAGE = "page: expected one that exists, found none. Go to the list."
# of what a job has found, the parts of its state
SHOWN = ("fits", "warnings", "expected", "verdict", "summary", "windows", "descriptions")


@dataclass(frozen=True)
class Site:
    """What the pages need."""

    settings: Settings
    jobs: Jobs
    templates: jinja2.Environment

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A filled template."""
        return HTMLResponse(self.templates.get_template(template).render(**values), status)

    def finished(self, name: str, kind: Kind) -> tuple[Job, Json]:
        """A finished job of a kind, and what it has found; raises BadInput for any other."""
        job = self.jobs.read(name)
        if job.kind != kind or job.state != "done":
            raise BadInput(
                f"job {name}: expected a finished one of the kind {kind}, found another job or state. Go to its page."
            )
        return job, self.found(job)

    def found(self, job: Job) -> Json:
        """What a job has found; {} before it is finished."""
        return self.jobs.read_file(job.name, FOUND) if job.state == "done" else {}

    def state_of(self, job: Job) -> JobState:
        """A job with its progress or its place in the queue, and what it has found."""
        folder = self.jobs.folder(job.name)
        url = url_of(job)
        found = self.found(job)
        progress = self.jobs.read_file(job.name, PROGRESS) if job.state == "running" else {}
        return JobState(
            job.name,
            url,
            job.kind,
            job.title,
            job.state,
            time.strftime("%d %b %H:%M", time.localtime(job.created)),
            why=job.why,
            images={
                without_ending(file): f"{url}/images/{file}" for file in found.get("images", ())
            },
            files={file: f"{url}/{file}" for file in DOWNLOADS if (folder / file).is_file()},
            **progress,
            **{key: found[key] for key in SHOWN if key in found},
        )

    def error(self, request: Request, status: int, sentence: str) -> Response:
        """A page with one sentence, in the words of the page."""
        said = for_page(sentence, {})
        if wants_json(request):
            return JSONResponse({"error": said}, status)
        return self.page("error.html", status, sentence=said)

    def add(self, kind: Kind, title: str, request: Json, folder: Path) -> Response:
        """Put a job into the queue, and go to its page."""
        return self.go_to(self.jobs.add(kind, title[:LONGEST_TITLE], request, folder))

    def go_to(self, job: Job) -> Response:
        """Lead the browser to the page of a job."""
        return RedirectResponse(url_of(job), SEE_OTHER)

    def rows(self) -> list[JobState]:
        """The jobs, the last first."""
        return [self.state_of(job) for job in reversed(self.jobs.all())]


def url_of(job: Job) -> str:
    """The address of a job's page."""
    return f"/uploads/{job.name}" if job.kind == "check" else f"/jobs/{job.name}"


def site_of(request: Request) -> Site:
    """The site of the application that a request asks."""
    site: Site = request.app.state.site
    return site


OfSite = Annotated[Site, Depends(site_of)]


@router.get("/enter")
async def enter(request: Request, site: OfSite, token: str = "") -> Response:
    """Exchange the token of the printed URL for a session. The page leads on by itself.

    A redirect would not do: a link from another program starts it, and SameSite=Strict holds back the new cookie.
    """
    settings = site.settings
    if not hmac.compare_digest(token.encode(), settings.token.encode()):
        return site.error(
            request,
            403,
            "token: expected the one that the server printed, found another. Open the address in the terminal of the server.",
        )
    page = JSONResponse({"entered": True}) if wants_json(request) else site.page("enter.html")
    secure = request.headers.get("x-forwarded-proto") == "https"
    page.set_cookie(
        settings.cookie, settings.session, httponly=True, samesite="strict", path="/", secure=secure
    )
    return page


@router.get("/", response_model=Listed)
def index(request: Request, site: OfSite) -> Response:
    """The form of an upload, the models, and all jobs."""
    if wants_json(request):
        return JSONResponse(asdict(Listed([*site.settings.runs], [*CONTRASTS], site.rows())))
    return site.page(
        "index.html",
        rows=site.rows(),
        settings=site.settings,
    )


@router.post("/uploads", response_model=JobState, openapi_extra=UPLOAD)
async def upload(request: Request, site: OfSite) -> Response:
    """Take files, and put the check of which models fit them into the queue."""
    settings = site.settings
    folder = site.jobs.reserve()
    scans = folder / SCANS
    scans.mkdir()
    try:
        await receive(request, scans, settings.upload_bytes)
        files = sorted(path for path in scans.rglob("*") if path.is_file())
        if not files:
            raise BadInput("upload: expected files, found none. Choose a scan first.")
        name = files[0].relative_to(scans).parts[0]
        title = name if len(files) == 1 else f"{name} ({len(files)} files)"
        asked = {"runs": settings.runs, "device": settings.device}
        return await run_in_threadpool(site.add, "check", title, asked, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@router.get("/uploads/{name}", response_model=JobState)
@router.get("/jobs/{name}", response_model=JobState)
def job_page(request: Request, site: OfSite, name: str) -> Response:
    """A check or a synthesis: how far it is, and what it has found.

    Where htmx asks for one that has ended since, the browser is told to load all of it.
    """
    job = site.jobs.read(name)
    state = site.state_of(job)
    if wants_json(request):
        return JSONResponse(asdict(state))
    page = site.page(
        f"{job.kind}.html",
        job=job,
        row=state,
        found=site.found(job),
        downloads=DOWNLOADS,
        expires=site.settings.keep_hours,
    )
    if job.has_ended and "hx-request" in request.headers:
        page.headers["HX-Refresh"] = "true"
    return page


@router.post("/uploads/{name}/names", include_in_schema=False)
def check_again(site: OfSite, name: str, names: Annotated[list[str], Form()]) -> Response:
    """Take which file is which modality, and check again with these names, one for each entry, "" for an unused scan."""
    job, found = site.finished(name, "check")
    entries = found["entries"]
    if len(names) != len(entries) or not {*names} <= {"", *found["names"]}:
        raise BadInput("modality: expected one of the list, found another. Choose one of the list.")
    chosen = {entry["place"]: one for entry, one in zip(entries, names) if one}
    again = {**job.request, "names": chosen}
    return site.go_to(site.jobs.change(name, state="queued", request=again, ended=0.0))


@router.post("/uploads/{name}/synthesise", response_model=JobState)
def synthesise(site: OfSite, name: str, form: Annotated[SynthesisForm, Form()]) -> Response:
    """Put a synthesis into the queue: of the inputs that the check found for this model."""
    job, checked = site.finished(name, "check")
    run = site.settings.runs.get(form.run)
    fits = {fit["label"]: fit for fit in checked["fits"] if not fit["why_not"]}
    if run is None or form.run not in fits:
        raise BadInput("model: expected one that fits the scan, found another. Choose one.")
    fit = fits[form.run]
    asked = {
        "run": run,
        "label": form.run,
        "check": name,
        "inputs": fit["inputs"],
        "options": {"anyway": form.anyway, "device": site.settings.device},
    }
    folder = site.jobs.reserve()
    scans = site.jobs.folder(name) / SCANS
    shutil.copytree(scans, folder / SCANS, copy_function=os.link)  # the check may be removed
    title = f"{', '.join(fit['targets']).upper()} of {job.title}"
    return site.add("synthesise", title, asked, folder)


@router.post("/jobs/{name}/delete", response_model=Listed)
def delete(site: OfSite, name: str) -> Response:
    """Remove a job with its files; one that runs ends."""
    site.jobs.remove(site.jobs.read(name).name)
    return RedirectResponse("/", SEE_OTHER)


@router.get("/jobs/{name}/{place:path}", response_class=FileResponse)
def file(request: Request, site: OfSite, name: str, place: str) -> Response:
    """A file of a result: images/FILE as voxlate synth writes it, views/FILE of the viewer, report.html or dicom.zip.

    The report is saved and not shown: its styles are inline.
    """
    _, found = site.finished(name, "synthesise")
    offered = {file: file for file in (*DOWNLOADS, *(view["file"] for view in found["views"]))}
    offered |= {f"images/{image}": f"{OUT}/{found['case']}/{image}" for image in found["images"]}
    path = site.jobs.folder(name) / offered.get(place, "none")
    if not path.is_file():
        return site.error(request, 404, NO_PAGE)
    if place in DOWNLOADS:
        return FileResponse(path, filename=f"{name}_{place}")
    return FileResponse(path, media_type="application/gzip", filename=path.name)
