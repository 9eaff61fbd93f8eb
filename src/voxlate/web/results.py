"""What the page says of jobs: progress and time left, and of a finished synthesis its images, warnings and downloads."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlate.data.grades import Grade, grade_of
from voxlate.data.pseudonyms import without_names
from voxlate.errors import BadInput
from voxlate.files import read_json
from voxlate.scoring.provenance import provenance_of
from voxlate.synthesis.bounds import bound_lines
from voxlate.web.jobs import Job, Jobs, Kind
from voxlate.web.viewing import LIST, VIEWS
from voxlate.web.work import DICOM, OUT, REPORT

STAGES = {
    "models": "comparing the scan with the models",
    "cases": "reading and preparing the scan",
    "slices": "synthesising",
    "views": "writing the report and the images of the viewer",
}
PLACES: dict[Kind, str] = {"check": "/uploads", "synthesise": "/jobs"}
ANSWERS = {"mean": "mean", "sample": "sharp (a sample)"}
DICOM_ZIP = f"{DICOM}.zip"


@dataclass(frozen=True)
class Row:
    """A job as the queue shows it. percent: None before it is known."""

    job: Job
    url: str
    position: int = 0
    stage: str = ""
    percent: int | None = None
    left: str = ""


@dataclass(frozen=True)
class Result:
    """A finished synthesis as its page shows it; images: see viewer.html; downloads: label and address."""

    images: list[dict[str, Any]]
    warnings: list[tuple[Grade, str]]
    bounds: list[str]
    said: list[str]
    downloads: list[tuple[str, str]]
    settings: list[tuple[str, str]] = field(default_factory=list)


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


def case_folder(jobs: Jobs, job: Job) -> Path:
    """The folder of the images of a finished synthesis."""
    outcome = jobs.outcome(job.name)
    if job.kind != "synthesise" or job.state != "done" or outcome is None:
        raise BadInput(
            f"job {job.name}: expected a finished synthesis, found another job or state. Go to its page."
        )
    return jobs.folder(job.name) / OUT / str(outcome["case"])


def result_of(jobs: Jobs, job: Job) -> Result:
    """The images, warnings, bounds and downloads of a finished synthesis."""
    case = case_folder(jobs, job)
    stated = provenance_of(case)
    views = read_json(jobs.folder(job.name) / LIST)["views"]
    images = [{**view, "url": f"/jobs/{job.name}/views/{view['file']}"} for view in views]
    warnings = [(grade_of(text), without_names(text, {})) for text in stated.get("warnings", ())]
    outcome = jobs.outcome(job.name) or {}
    return Result(
        images,
        warnings,
        [line.strip() for line in bound_lines([case])],
        list(outcome.get("said", ())),
        list(_downloads(jobs, job, case, stated)),
        settings_of(job, stated),
    )


def _downloads(
    jobs: Jobs, job: Job, case: Path, stated: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    base = f"/jobs/{job.name}"
    for name in stated.get("images", {}):
        if (case / name).is_file():
            yield name, f"{base}/images/{name}"
    folder = jobs.folder(job.name)
    if (folder / DICOM_ZIP).is_file():
        yield "DICOM series (zip)", f"{base}/{DICOM_ZIP}"
    if (folder / REPORT).is_file():
        yield "Report (HTML)", f"{base}/{REPORT}"


def settings_of(job: Job, stated: dict[str, Any]) -> list[tuple[str, str]]:
    """The settings with which images were synthesised, as their provenance states them."""
    synth = stated.get("synth", {})
    model = stated.get("model", {})
    facts = {
        "model": f"{job.request['label']}: {model.get('title', '')}",
        "prediction": ANSWERS[job.request["answer"]],
        "samples": synth.get("samples"),
        "steps": synth.get("steps"),
        "seed": stated.get("seed"),
        "weights": model.get("weights"),
        "voxlate": stated.get("voxlate"),
        "computed on": stated.get("device"),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def file_of(jobs: Jobs, job: Job, kind: str, name: str) -> Path:
    """A file of a finished synthesis: an image that its provenance lists, or one of the viewer's list.

    Raises BadInput for every other name.
    """
    case = case_folder(jobs, job)
    folder = jobs.folder(job.name)
    if kind == "images":
        allowed = {one: case / one for one in provenance_of(case).get("images", {})}
    else:
        listed = read_json(folder / LIST)["views"]
        allowed = {view["file"]: folder / VIEWS / view["file"] for view in listed}
    path = allowed.get(name)
    if path is None or not path.is_file():
        raise BadInput("file: expected one of the page's links, found another. Go to the page.")
    return path
