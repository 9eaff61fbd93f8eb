"""The work of jobs: the server's worker, and the process of one job: `python -m voxlate.page.work FOLDER`.

The worker works on the jobs one at a time, each in a process of its own: a crash, a lack of memory or a removed job ends
that process and not the server. The process ends when its standard input is closed, which the system does when the server
is killed.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, write_json
from voxlate.base.messages import Message
from voxlate.commands.api.progress import Reporter
from voxlate.page.jobs import (
    FOUND,
    JOB,
    OUTCOME,
    PROGRESS,
    Asked,
    Job,
    Jobs,
    Kind,
    NoSuchJob,
    places_of,
)
from voxlate.page.words import for_page

_log = logging.getLogger(__name__)
LOOK_SECONDS = 0.2  # between two looks at the queue, and at a process
RETRY_SECONDS = 5.0  # after a fault of the disk
MESSAGES = "messages.txt"  # what the process of a job prints, for whoever runs the server
EVERY_SECONDS = 0.5  # between two writings of the progress
STDIN = 0  # file descriptor
STAGES = {
    "models": "comparing the scan with the models",
    "cases": "reading and preparing the scan",
    "slices": "synthesising",
    "views": "writing the report and the images of the viewer",
}


def start_process(folder: Path) -> subprocess.Popen[bytes]:
    """Start the work of a job; its process ends when this one does, because its standard input is closed then."""
    with open(folder / MESSAGES, "wb") as messages:
        return subprocess.Popen(
            [sys.executable, "-m", "voxlate.page.work", str(folder)],
            stdin=subprocess.PIPE,
            stdout=messages,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C in the terminal reaches the server alone, which ends its jobs
        )


Start = Callable[[Path], "subprocess.Popen[bytes]"]


@dataclass
class Worker:
    """What works on the waiting jobs, and removes those that ended `keep_seconds` ago, until `stop` is set."""

    jobs: Jobs
    start: Start
    stop: threading.Event
    keep_seconds: float

    def run(self) -> None:
        """Work on jobs until the worker is stopped."""
        while not self.stop.is_set():
            try:
                self.jobs.remove_old(self.keep_seconds, time.time())
                job = self.jobs.take()
                if job is not None:
                    self._work_on(job)
                    continue
            except Exception:  # a full disk, say: the worker must go on once there is room
                _log.exception("a job could not be worked on; the next attempt follows")
                self.stop.wait(RETRY_SECONDS)
            self.stop.wait(LOOK_SECONDS)

    def _work_on(self, job: Job) -> None:
        """Wait until the job's process ends, the job is removed, or the worker is to stop; note which."""
        process = self.start(self.jobs.folder(job.name))
        try:
            while process.poll() is None:
                if job.name not in self.jobs or self.stop.wait(LOOK_SECONDS):
                    return
            none = f"This should not happen: the process of the job ended without a result (exit code {process.poll()}). The reason may be too little memory; the server's folder has {MESSAGES} with its messages."
            why = self.jobs.read_file(job.name, OUTCOME).get("why", none)
            self.jobs.end(job.name, why)
        except NoSuchJob:  # it was removed just now
            return
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
            if job.name not in self.jobs:  # what it wrote after the removal
                self.jobs.remove(job.name)


def writes_progress(folder: Path) -> Callable[..., None]:
    """A function that writes how far the work of a job is, at most twice a second."""
    written = 0.0
    begun = dict[str, tuple[float, int]]()  # time and finished parts of each stage's first report

    def step(stage: str, done: int, total: int, *_: object) -> None:
        nonlocal written
        now = time.monotonic()
        since, before = begun.setdefault(stage, (now, done))
        if now - written >= EVERY_SECONDS or done >= total:
            written = now
            percent = round(100 * done / max(total, 1))
            facts: dict[str, str | int] = {"stage": STAGES.get(stage, stage), "percent": percent}
            if done > before:
                facts["seconds_left"] = round((now - since) / (done - before) * (total - done))
            write_json(folder / PROGRESS, facts)

    return step


def do_job(kind: Kind, folder: Path, request: Asked, progress: Callable[..., None]) -> None:
    """Do the work of a job, and write what it has found and said for the page, without places of this machine."""
    said = list[Message]()
    reporter = Reporter(progress, said.append)
    if kind == "check":
        from voxlate.page.model_check import check

        found = check(folder, request, reporter)
    else:
        # takes half a second, which a check saves
        from voxlate.page.synthesise import synthesise

        found = synthesise(folder, request, reporter)
    found["said"] = [f"{line}" for line in said if not line.case]
    write_json(folder / FOUND, for_page(found, places_of(folder, request)))


def work(folder: Path) -> None:
    """Do the work of a job and write its outcome: {"why": ""} where it is done, else one sentence."""
    job = read_json(folder / JOB)
    request = job["request"]
    why = ""
    try:
        do_job(job["kind"], folder, request, writes_progress(folder))
    except BadInput as error:
        why = str(error)
    write_json(folder / OUTCOME, for_page({"why": why}, places_of(folder, request)))


def _end_with_the_server() -> None:
    """End this process when its standard input is closed.

    It is read without sys.stdin: a process that is forked during its read would wait for its lock for ever.
    """
    while os.read(STDIN, 1):
        pass
    os._exit(1)


def main() -> None:
    """Do the job whose folder is the argument."""
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    work(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
