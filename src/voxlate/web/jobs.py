"""The jobs of the page: folders on disk, which survive a killed server.

DATA/jobs/<job>/job.json      what is asked for and the state; the server alone writes it
DATA/jobs/<job>/progress.json how far the work is; the job's own process alone writes this file and all below
DATA/jobs/<job>/outcome.json  how the work ended
DATA/jobs/<job>/scans, out    uploaded scans of a check; images of a synthesis

A check finds which models fit uploaded scans; a synthesis refers to the check whose scans it takes. The other kinds read
cohorts and write prepared cohorts and runs below the root folder of the server; those stay when the job is removed.
"""

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from voxlate.system.config import adapter
from voxlate.system.errors import BadInput
from voxlate.system.files import read_json, write_json
from voxlate.web.private import FILE, FOLDER, make_folders

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["check", "synthesise", "survey", "prepare", "plan", "train", "calibrate", "compare"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
JOBS, JOB, PROGRESS, OUTCOME, SCANS = "jobs", "job.json", "progress.json", "outcome.json", "scans"
NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{12}")
HIDDEN = "."  # first letter of folders that are being filled or removed
MOST_ATTEMPTS = 3  # of a job during which the server was killed


class NoSuchJob(BadInput):
    """There is no job of this name."""


@dataclass(frozen=True)
class Job:
    """A job: what is asked for, and how far it is. Times are in seconds since 1970.

    title: what people call it; request: the arguments of its work; why: the reason of a failure, one sentence;
    attempts: number of times that its work was started.
    """

    name: str
    kind: Kind
    title: str
    request: dict[str, Any] = field(default_factory=dict)
    state: State = "queued"
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    why: str = ""
    attempts: int = 0

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Progress:
    """How far the work of a job is: finished parts of all parts, and when that was.

    begun: parts that were finished at the time `since`, as those of a training that was resumed.
    """

    stage: str
    done: int
    total: int
    since: float
    at: float
    begun: int = 0

    def seconds_left(self, now: float) -> float | None:
        """The time that the other parts take at the pace of the finished ones; None before the first of them."""
        if not self.begun < self.done < self.total:
            return None
        each = (self.at - self.since) / (self.done - self.begun)
        return max(0.0, each * (self.total - self.done) - (now - self.at))


@dataclass
class Jobs:
    """The jobs below a data folder. One process at a time may hold a folder (see files.locked)."""

    data: Path
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _read: dict[str, tuple[tuple[int, int, int], Job]] = field(default_factory=dict, repr=False)

    @property
    def root(self) -> Path:
        return self.data / JOBS

    def folder(self, name: str) -> Path:
        """The folder of a job; raises NoSuchJob for a text that is no job's name."""
        if not NAME.fullmatch(name):
            raise NoSuchJob("job: expected the name of a job, found another text. Go to the list.")
        return self.root / name

    def reserve(self) -> Path:
        """A new hidden folder, into which an upload is written before it becomes a job."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        folder = self.root / f"{HIDDEN}{stamp}-{secrets.token_hex(6)}"
        self.close()
        folder.mkdir(FOLDER)
        return folder

    def close(self) -> None:
        """Make the folder of all jobs, and close one that an earlier version left open: the owner alone may enter it."""
        make_folders(self.root)
        self.root.chmod(FOLDER)

    def _write(self, folder: Path, job: Job) -> None:
        write_json(folder / JOB, asdict(job))
        (folder / JOB).chmod(
            FILE
        )  # no umask: it would be that of all threads, and of the trainings they start

    def add(
        self,
        kind: Kind,
        title: str,
        request: Mapping[str, Any],
        most: int,
        reserved: Path | None = None,
    ) -> Job:
        """Put a job into the queue; raises BadInput where `most` jobs wait or run already."""
        with self._lock:
            waiting = sum(not job.has_ended for job in self.all())
            if waiting >= most:
                raise BadInput(
                    f"queue: expected fewer than {most} jobs that wait or run, found {waiting}. Wait until one has ended, or cancel one."
                )
            folder = reserved or self.reserve()
            name = folder.name.removeprefix(HIDDEN)
            job = Job(name, kind, title, dict(request), created=time.time())
            self._write(folder, job)
            os.replace(folder, self.root / name)
            return job

    def read(self, name: str) -> Job:
        """A job; raises NoSuchJob where there is none of this name."""
        path = self.folder(name) / JOB
        try:
            found = path.stat()
        except OSError as error:
            self._read.pop(name, None)
            raise NoSuchJob(
                f"job {name}: expected a job that exists, found none: it was removed, or its time is over. Go to the list."
            ) from error
        state = (found.st_mtime_ns, found.st_size, found.st_ino)
        known = self._read.get(name)
        if known is not None and known[0] == state:
            return known[1]
        try:
            job = adapter(Job).validate_python(read_json(path))
        except ValueError as error:
            raise NoSuchJob(
                f"job {name}: expected a job as voxlate wrote it, found a damaged one. Delete its folder."
            ) from error
        self._read[name] = (state, job)
        return job

    def all(self) -> list[Job]:
        """All jobs in the order in which they were made; a job that cannot be read is left out."""
        if not self.root.is_dir():
            return []
        found = list[Job]()
        for folder in sorted(self.root.iterdir()):
            if NAME.fullmatch(folder.name):
                try:
                    found.append(self.read(folder.name))
                except NoSuchJob:
                    continue  # removed in the meantime, or damaged: it remains on disk until its time is over
        return sorted(found, key=lambda job: (job.created, job.name))

    def change(self, name: str, unless: Sequence[State] = (), **changes: Any) -> Job:
        """Write changes of a job, unless it is in one of some states; returns the job as it is then."""
        with self._lock:
            job = self.read(name)
            if job.state in unless:
                return job
            changed = replace(job, **changes)
            self._write(self.folder(name), changed)
            return changed

    def take(self, kinds: Collection[Kind]) -> Job | None:
        """The job of these kinds that waits longest, as running; None where none waits."""
        with self._lock:
            waiting = [job for job in self.all() if job.state == "queued" and job.kind in kinds]
            if not waiting:
                return None
            first = waiting[0]
            for name in (PROGRESS, OUTCOME):
                (self.folder(first.name) / name).unlink(missing_ok=True)
            return self.change(
                first.name, state="running", started=time.time(), attempts=first.attempts + 1
            )

    def cancel(self, name: str) -> Job:
        """Cancel a job that waits or runs; the process of a running job is ended by its lane."""
        return self.change(name, unless=ENDED, state="cancelled", ended=time.time())

    def mend(self) -> None:
        """Go on after a server that was killed: running jobs return to the queue, half-written folders are removed."""
        if not self.root.is_dir():
            return
        for folder in self.root.glob(f"{HIDDEN}*"):
            shutil.rmtree(folder, ignore_errors=True)
        for job in self.all():
            if job.state != "running":
                continue
            if job.attempts >= MOST_ATTEMPTS:
                why = f"The server ended {job.attempts} times while it worked on this job. Ask for it again with a smaller scan or fewer samples."
                self.change(job.name, state="failed", ended=time.time(), why=why)
            else:
                self.change(job.name, state="queued")

    def remove(self, name: str) -> None:
        """Remove a job with its files; raises BadInput while it runs, or while another job needs its scans."""
        with self._lock:
            job = self.read(name)
            users = [one.name for one in self.all() if not one.has_ended and _uses(one, name)]
            if job.state == "running" or users:
                raise BadInput(
                    "job: expected one that neither runs nor is needed by another job, found one that is. Cancel first."
                )
            hidden = self.root / f"{HIDDEN}{name}"
            os.replace(self.folder(name), hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def remove_old(self, seconds: float, now: float) -> list[str]:
        """Remove the jobs that ended so long ago, and damaged ones; returns their names."""
        removed = list[str]()
        jobs = {job.name: job for job in self.all()}
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if not NAME.fullmatch(folder.name):
                continue
            job = jobs.get(folder.name)
            since = folder.stat().st_mtime if job is None else job.ended if job.has_ended else now
            needed = any(not one.has_ended and _uses(one, folder.name) for one in jobs.values())
            if now - since < seconds or needed:
                continue
            hidden = self.root / f"{HIDDEN}{folder.name}"
            os.replace(folder, hidden)
            shutil.rmtree(hidden, ignore_errors=True)
            removed.append(folder.name)
        return removed

    def progress(self, name: str) -> Progress | None:
        """How far the work of a job is; None before it has said so."""
        content = self._written(name, PROGRESS)
        return None if content is None else adapter(Progress).validate_python(content)

    def outcome(self, name: str) -> dict[str, Any] | None:
        """What the work of a job ended with; None before it has ended."""
        return self._written(name, OUTCOME)

    def _written(self, name: str, file: str) -> dict[str, Any] | None:
        path = self.folder(name) / file
        try:
            content: dict[str, Any] = read_json(path)
        except BadInput:
            return None
        return content

    def bytes(self) -> int:
        """The size of all files below the data folder."""
        total = 0
        for place, _, files in os.walk(self.data):
            for file in files:
                try:
                    total += os.lstat(os.path.join(place, file)).st_size
                except FileNotFoundError:
                    continue  # removed in the meantime
        return total


def _uses(job: Job, name: str) -> bool:
    """Whether a job takes its scans from another one."""
    return job.request.get("check") == name
