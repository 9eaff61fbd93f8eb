"""The jobs of the page: in the memory of the server, and in folders, from which the next server goes on.

DATA/jobs/<job>/job.json      what is asked for and the state; the server alone writes it
DATA/jobs/<job>/progress.json how far the work is; the job's own process alone writes this file and all below
DATA/jobs/<job>/outcome.json  how the work ended
DATA/jobs/<job>/found.json    what the page shows of a finished job
DATA/jobs/<job>/scans, out    uploaded scans; images of a synthesis

A check finds which models fit scans; a synthesis has links to the scans of its check.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from voxlate import __version__
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, write_json

Json = dict[str, Any]
Asked = Mapping[str, Any]  # the request of a job
State = Literal["queued", "running", "done", "failed"]
Kind = Literal["check", "synthesise"]
JOB, PROGRESS, OUTCOME, FOUND = "job.json", "progress.json", "outcome.json", "found.json"
SCANS, OUT, VIEWS = "scans", "out", "views"  # folders of a job
REPORT, DICOM_ZIP = "report.html", "dicom.zip"
FOLDER = 0o700  # for its owner alone


class NoSuchJob(BadInput):
    """There is no job of this name."""


@dataclass(frozen=True)
class Job:
    """A job: its request and its progress. Times are in seconds since 1970.

    title: what people call it; request: the arguments of its work; why: the reason of a failure, one sentence.
    """

    name: str
    kind: Kind
    title: str
    request: Json = field(default_factory=dict)
    state: State = "queued"
    created: float = 0.0
    ended: float = 0.0
    why: str = ""
    version: str = __version__

    @property
    def has_ended(self) -> bool:
        """Whether the job neither waits nor runs."""
        return self.state in ("done", "failed")


class Jobs:
    """The jobs below a data folder. One process at a time may hold a folder (see files.lock)."""

    def __init__(self, data: Path) -> None:
        self.root = data / "jobs"
        self._lock = threading.RLock()
        self._jobs = dict[str, Job]()

    def folder(self, name: str) -> Path:
        """The folder of a job; raises NoSuchJob where there is none of this name."""
        return self.root / self.read(name).name

    def reserve(self) -> Path:
        """A new folder, into which an upload is written before it becomes a job."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        folder = self.root / f"{stamp}-{secrets.token_hex(6)}"
        folder.mkdir(parents=True)
        return folder

    def add(self, kind: Kind, title: str, request: Asked, folder: Path) -> Job:
        """Put a job into the queue. folder: that was reserved for it."""
        with self._lock:
            job = Job(folder.name, kind, title, {**request}, created=time.time())
            return self._keep(job)

    def _keep(self, job: Job) -> Job:
        write_json(self.root / job.name / JOB, asdict(job))
        self._jobs[job.name] = job
        return job

    def read(self, name: str) -> Job:
        """A job; raises NoSuchJob where there is none of this name."""
        if name not in self._jobs:
            raise NoSuchJob(
                "job: expected a job that exists, found none: it was removed, its time is over, or another version of voxlate made it. Go to the list."
            )
        return self._jobs[name]

    def all(self) -> list[Job]:
        """All jobs in the order in which they were made."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: (job.created, job.name))

    def change(self, name: str, **changes: Any) -> Job:
        """Change a job; returns it as it is then."""
        with self._lock:
            return self._keep(replace(self.read(name), **changes))

    def take(self) -> Job | None:
        """The job that waits longest, as running; None where none waits."""
        with self._lock:
            for job in self.all():
                if job.state == "queued":
                    for name in (PROGRESS, OUTCOME):
                        (self.root / job.name / name).unlink(missing_ok=True)
                    return self.change(job.name, state="running")
        return None

    def end(self, name: str, why: str = "") -> Job:
        """Note that a job is done, or why it has failed."""
        state: State = "failed" if why else "done"
        return self.change(name, state=state, ended=time.time(), why=why)

    def begin(self) -> None:
        """Go on with the jobs of an earlier server: one that ran waits again; unfinished uploads, and what another version made, go.

        The owner alone may enter the folder of all jobs.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(FOLDER)
        for folder in self.root.iterdir():
            try:
                job = Job(**read_json(folder / JOB))
            except (BadInput, TypeError):
                job = None
            if job is None or job.version != __version__:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._jobs[job.name] = job if job.has_ended else replace(job, state="queued")

    def remove(self, name: str) -> None:
        """Remove what there is of a job, in whatever state it is."""
        with self._lock:
            self._jobs.pop(name, None)
        shutil.rmtree(self.root / name, ignore_errors=True)

    def remove_old(self, seconds: float, now: float) -> None:
        """Remove the jobs that ended so long ago."""
        for job in self.all():
            if job.has_ended and now - job.ended >= seconds:
                self.remove(job.name)

    def __contains__(self, name: str) -> bool:
        return name in self._jobs

    def read_file(self, name: str, file: str) -> dict[str, Any]:
        """The content of a file that the process of a job wrote; {} before it has."""
        try:
            content: Json = read_json(self.folder(name) / file)
        except BadInput:
            return {}
        return content


def places_of(folder: Path, request: Asked) -> dict[str, str]:
    """What stands for the absolute places in the sentences of a job."""
    places = {str(folder / SCANS): "the upload", str(folder): "the job"}
    places |= {run: label for label, run in request.get("runs", {}).items()}
    return places | ({request["run"]: request["label"]} if "run" in request else {})
