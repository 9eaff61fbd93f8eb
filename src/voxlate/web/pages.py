"""The pages: each function answers one address. Forms answer with a redirect, so that they work without scripts."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import APIRouter, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from voxlate.cohorts.pseudonyms import without_names
from voxlate.system.config import adapter
from voxlate.system.errors import BadInput
from voxlate.system.files import read_json
from voxlate.web.folders import below_root
from voxlate.web.gate import WRONG_TOKEN, Sessions
from voxlate.web.jobs import SCANS, Job, Jobs
from voxlate.web.places import check_links, finished_runs
from voxlate.web.private import FOLDER
from voxlate.web.results import downloads_of, file_of, result_of, row_of, rows_of, viewer_images
from voxlate.web.settings import Settings
from voxlate.web.shown import CHECKED, DICOM_ZIP, REPORT, Checked
from voxlate.web.uploads import Space, receive, unpack_archives

router = APIRouter()
SEE_OTHER = 303
LARGEST_SEED = 2**31 - 1
LONGEST_TITLE = 60
NIFTI_TYPE, ZIP_TYPE = "application/gzip", "application/zip"


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
            for label, path in finished_runs(self.settings.root).items()
            if label not in given and str(path) not in given.values()
        }
        return given | found

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A filled template."""
        return HTMLResponse(self.templates.get_template(template).render(**values), status)

    def job_page(self, template: str, request: Request, job: Job, **values: Any) -> HTMLResponse:
        """The page of a job; where htmx asks for one that has ended since, the browser is told to load all of it."""
        answer = self.page(template, job=job, row=row_of(self.jobs, job), **values)
        if job.has_ended and "hx-request" in request.headers:
            answer.headers["HX-Refresh"] = "true"
        return answer

    def error(self, status: int, sentence: str) -> HTMLResponse:
        """A page with one sentence, in which no absolute path is left."""
        return self.page("error.html", status, sentence=without_names(sentence, {}))


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


@router.get("/enter")
def enter(request: Request, token: str = "") -> Response:
    """Exchange the token of the printed URL for a session. The page leads on by itself.

    A redirect would not do: a link from another program starts it, and SameSite=Strict holds back the new cookie.
    """
    site = site_of(request)
    session = site.sessions.enter(token)
    if session is None:
        return site.error(
            WRONG_TOKEN,
            "token: expected the one that voxlate serve printed, which one browser can use once, found another or a spent one. Start voxlate serve again for a new one.",
        )
    answer = site.page("enter.html")
    secure = request.headers.get("x-forwarded-proto") == "https"
    answer.set_cookie(
        site.settings.cookie, session, httponly=True, samesite="strict", path="/", secure=secure
    )
    return answer


@router.get("/")
def index(request: Request) -> Response:
    site = site_of(request)
    return site.page(
        "index.html",
        runs=list(site.runs),
        rows=rows_of(site.jobs),
        limits=site.settings.limits,
        has_root=site.settings.root is not None,
    )


@router.get("/queue")
def queue(request: Request) -> Response:
    """The queue alone, which the page asks for every few seconds."""
    site = site_of(request)
    return site.page("queue.html", rows=rows_of(site.jobs))


@router.post("/uploads")
async def upload(request: Request) -> Response:
    """Take files, and put the check of which models fit them into the queue."""
    site = site_of(request)
    limits = site.settings.limits
    size = int(request.headers["content-length"])
    used = await run_in_threadpool(site.jobs.bytes)
    with site.space.reserve(size, used, site.settings.data):
        folder = site.jobs.reserve()
        scans = folder / SCANS
        scans.mkdir(FOLDER)
        try:
            kind = request.headers.get("content-type", "")
            received = await receive(kind, request.stream(), scans, limits)
            first = next((path for path in sorted(scans.rglob("*")) if path.is_file()), None)
            if first is None:
                raise BadInput("upload: expected files, found none. Choose a scan first.")
            await run_in_threadpool(unpack_archives, received)
            title = _title(first.relative_to(scans), received.files)
            asked = _check_request(site, hidden=received.clutter)
            add = site.jobs.add
            job = await run_in_threadpool(add, "check", title, asked, limits.queue, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return RedirectResponse(f"/uploads/{job.name}", SEE_OTHER)


def _title(first: Path, files: int) -> str:
    """What people call an upload: its file, or its folder and the number of files."""
    name = first.parts[0][:LONGEST_TITLE]
    return name if files == 1 else f"{name} ({files} files)"


def _check_request(site: Site, **more: Any) -> dict[str, Any]:
    return {"runs": site.runs, "device": site.settings.device, **more}


@router.post("/folders")
def folder(request: Request, place: Annotated[str, Form()] = "") -> Response:
    """Take a scan of this machine that lies below the root folder."""
    site = site_of(request)
    path = below_root(site.settings.root, place)
    if not path.is_dir():
        raise BadInput("folder: expected a folder with a scan, found a file. Name its folder.")
    assert site.settings.root is not None  # below_root refuses a server without one
    check_links(site.settings.root.resolve(), path)
    job = site.jobs.add(
        "check",
        path.name[:LONGEST_TITLE],
        _check_request(site, place=str(path)),
        site.settings.limits.queue,
    )
    return RedirectResponse(f"/uploads/{job.name}", SEE_OTHER)


@router.get("/uploads/{name}")
def fit(request: Request, name: str) -> Response:
    """Which models fit an upload, and why; while the check waits or runs, how far it is."""
    site = site_of(request)
    job = _check_job(site, name)
    return site.job_page(
        "fit.html",
        request,
        job,
        checked=_checked(site, job) if job.state == "done" else None,
        said=job.request.get("names"),
        limits=site.settings.limits,
    )


def _check_job(site: Site, name: str) -> Job:
    job = site.jobs.read(name)
    if job.kind != "check":
        raise BadInput(f"job {name}: expected an upload, found another job. Go to the list.")
    return job


def _checked(site: Site, job: Job) -> Checked:
    """What a finished check has found."""
    if job.state != "done":
        raise BadInput(
            f"job {job.name}: expected a finished check, found one that is {job.state}. Wait for it."
        )
    content = read_json(site.jobs.folder(job.name) / CHECKED)
    return adapter(Checked).validate_python(content)


@router.post("/uploads/{name}/names")
async def say_names(request: Request, name: str) -> Response:
    """Take which file is which modality, and check again with these names."""
    site = site_of(request)
    form = await request.form(max_files=0, max_fields=1000)
    return await run_in_threadpool(_check_again, site, name, dict(form))


def _check_again(site: Site, name: str, form: dict[str, Any]) -> Response:
    job = _check_job(site, name)
    checked = _checked(site, job)
    allowed = {*checked.names, ""}
    names = dict[str, str]()
    for number, entry in enumerate(checked.entries):
        chosen = form.get(f"name_{number}", "")
        if not isinstance(chosen, str) or chosen not in allowed:
            raise BadInput(
                "modality: expected one of the list, found another. Choose one of the list."
            )
        if chosen and chosen in names.values():
            raise BadInput(
                f"modality: expected each name once, found {chosen} twice. Choose one scan of each."
            )
        if chosen:
            names[entry.place] = chosen
    again = {**job.request, "names": names}
    changed = site.jobs.change(name, state="queued", request=again, ended=0.0, attempts=0)
    return RedirectResponse(f"/uploads/{changed.name}", SEE_OTHER)


@router.post("/uploads/{name}/synthesise")
def synthesise(
    request: Request,
    name: str,
    run: Annotated[str, Form()],
    answer: Annotated[str, Form()] = "",
    samples: Annotated[str, Form()] = "",
    steps: Annotated[str, Form()] = "",
    seed: Annotated[str, Form()] = "",
) -> Response:
    """Put a synthesis into the queue: of the inputs that the check found for this model."""
    site = site_of(request)
    limits = site.settings.limits
    job = _check_job(site, name)
    fits = [fit for fit in _checked(site, job).fits if fit.label == run and not fit.why_not]
    chosen = next(iter(fits), None)
    runs = site.runs
    if chosen is None or run not in runs:
        raise BadInput("model: expected one that fits the scan, found another. Choose one.")
    if answer not in ("", *chosen.answers):
        raise BadInput(
            f"prediction: expected {' or '.join(chosen.answers)}, found another. Choose one of these."
        )
    answer = answer or chosen.answers[0]
    options: dict[str, Any] = {
        "answer": answer if len(chosen.answers) > 1 else None,
        "samples": number_of(samples, "number of samples", 1, limits.samples),
        "steps": number_of(steps, "number of steps", 1, limits.steps),
        "seed": number_of(seed, "seed", 0, LARGEST_SEED) or 0,
        "device": site.settings.device,
    }
    if answer == "mean":  # which draws no noise
        options |= {"samples": None, "steps": None, "seed": 0}
    asked = {
        "run": runs[run],
        "label": run,
        "answer": answer,
        "has_steps": chosen.steps is not None,
        "check": name,
        "inputs": list(chosen.inputs),
        "options": options,
        **({"place": job.request["place"]} if "place" in job.request else {}),
    }
    title = f"{' and '.join(chosen.targets)} of {job.title}"
    made = site.jobs.add("synthesise", title, asked, limits.queue)
    return RedirectResponse(f"/jobs/{made.name}", SEE_OTHER)


def number_of(text: str, what: str, least: int, most: int) -> int | None:
    """The number that a form gives; None for an empty field. Raises BadInput for any other text."""
    if not text.strip():
        return None
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 12):
        raise BadInput(f"{what}: expected a whole number, found another text. Write digits alone.")
    if not least <= int(digits) <= most:
        raise BadInput(f"{what}: expected {least} to {most}, found {int(digits)}. Change it.")
    return int(digits)


@router.get("/jobs/{name}")
def job_page(request: Request, name: str) -> Response:
    """A synthesis: its progress, and once it is finished its images, warnings and downloads."""
    site = site_of(request)
    job = site.jobs.read(name)
    if job.kind != "synthesise":
        return RedirectResponse(row_of(site.jobs, job).url, SEE_OTHER)
    result = result_of(site.jobs, job) if job.state == "done" else None
    return site.job_page(
        "result.html",
        request,
        job,
        result=result,
        images=[] if result is None else viewer_images(job, result),
        downloads=[] if result is None else downloads_of(site.jobs, job, result),
        expires=site.settings.limits.keep_hours,
    )


@router.post("/jobs/{name}/cancel")
def cancel(request: Request, name: str) -> Response:
    """Cancel a job that waits or runs; of one that has ended nothing changes."""
    site_of(request).jobs.cancel(name)
    return RedirectResponse("/", SEE_OTHER)


@router.post("/jobs/{name}/delete")
def delete(request: Request, name: str) -> Response:
    """Remove a job with its files."""
    site_of(request).jobs.remove(name)
    return RedirectResponse("/", SEE_OTHER)


@router.get("/jobs/{name}/{kind}/{file}")
def image(request: Request, name: str, kind: str, file: str) -> Response:
    """An image as voxlate synth writes it (kind images), or one of the viewer (kind views)."""
    site = site_of(request)
    if kind not in ("images", "views"):
        return site.error(404, "page: expected one that exists, found none. Go to the list.")
    path = file_of(site.jobs, site.jobs.read(name), kind, file)
    return FileResponse(path, media_type=NIFTI_TYPE, filename=path.name)


@router.get("/jobs/{name}/{file}")
def other_file(request: Request, name: str, file: str) -> Response:
    """The report, or the DICOM series as an archive. The report is saved and not shown: its styles are inline."""
    site = site_of(request)
    types = {REPORT: "text/html", DICOM_ZIP: ZIP_TYPE}
    job = site.jobs.read(name)
    path = site.jobs.folder(job.name) / file
    if file not in types or job.state != "done" or not path.is_file():
        return site.error(404, "page: expected one that exists, found none. Go to the list.")
    return FileResponse(path, media_type=types[file], filename=f"{job.name}_{file}")
