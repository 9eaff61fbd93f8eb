"""What the page says of jobs: progress and time left, and of a finished synthesis its images and downloads."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxlate.system.config import adapter
from voxlate.system.errors import BadInput
from voxlate.system.files import read_json
from voxlate.web.jobs import Job, Jobs, Kind
from voxlate.web.shown import DICOM_ZIP, OUT, REPORT, RESULT, VIEWS, Result

STAGES = {
    "models": "comparing the scan with the models",
    "cases": "reading and preparing the scan",
    "slices": "synthesising",
    "views": "writing the report and the images of the viewer",
}
PLACES: dict[Kind, str] = {"check": "/uploads", "synthesise": "/jobs"}


@dataclass(frozen=True)
class Row:
    """A job as the queue shows it. percent: None before it is known."""

    job: Job
    url: str
    position: int = 0
    stage: str = ""
    percent: int | None = None
    left: str = ""


def rows_of(jobs: Jobs) -> list[Row]:
    """The jobs that wait or run in their order, then those that have ended, the last first."""
    found = jobs.all()
    working = [job for job in found if not job.has_ended]
    ended = [job for job in found if job.has_ended]
    return [row_of(jobs, job, found) for job in [*working, *reversed(ended)]]


def row_of(jobs: Jobs, job: Job, others: Sequence[Job] | None = None) -> Row:
    """A job with its progress; others: all jobs, among which it has a place in the queue."""
    found = jobs.all() if others is None else others
    waiting = [one.name for one in found if one.state == "queued" and one.kind == job.kind]
    place = PLACES.get(job.kind, "/training/jobs")
    position = waiting.index(job.name) + 1 if job.name in waiting else 0
    row = Row(job, f"{place}/{job.name}", position)
    progress = jobs.progress(job.name) if job.state == "running" else None
    if progress is None:
        return row
    is_even = progress.stage == "slices" or job.kind == "train"
    left = progress.seconds_left(time.time()) if is_even else None
    percent = round(100 * progress.done / max(1, progress.total))
    stage = STAGES.get(progress.stage, progress.stage)
    return Row(job, row.url, position, stage, percent, duration(left))


def duration(seconds: float | None) -> str:
    """A time for people, such as "40 s" or "3 min"; "" for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def result_of(jobs: Jobs, job: Job) -> Result:
    """The result of a finished synthesis; raises BadInput for any other job."""
    if job.kind != "synthesise" or job.state != "done":
        raise BadInput(
            f"job {job.name}: expected a finished synthesis, found another job or state. Go to its page."
        )
    content = read_json(jobs.folder(job.name) / RESULT)
    return adapter(Result).validate_python(content)


def viewer_images(job: Job, result: Result) -> list[dict[str, Any]]:
    """The images of a result as viewer.html reads them."""
    base = f"/jobs/{job.name}/{VIEWS}"
    return [{**asdict(view), "url": f"{base}/{view.file}"} for view in result.views]


def downloads_of(jobs: Jobs, job: Job, result: Result) -> list[tuple[str, str]]:
    """The downloads of a result: their labels and addresses."""
    base = f"/jobs/{job.name}"
    found = [(name, f"{base}/images/{name}") for name in result.images]
    others = {DICOM_ZIP: "DICOM series (zip)", REPORT: "Report (HTML)"}
    folder = jobs.folder(job.name)
    found += [
        (label, f"{base}/{name}") for name, label in others.items() if (folder / name).is_file()
    ]
    return found


def file_of(jobs: Jobs, job: Job, kind: str, name: str) -> Path:
    """A file of a finished synthesis: one of its images, or one of the viewer's; raises BadInput for every other name."""
    result = result_of(jobs, job)
    folder = jobs.folder(job.name)
    place = folder / OUT / result.case if kind == "images" else folder / VIEWS
    allowed = result.images if kind == "images" else [view.file for view in result.views]
    if name not in allowed or not (place / name).is_file():
        raise BadInput("file: expected one of the page's links, found another. Go to the page.")
    return place / name
