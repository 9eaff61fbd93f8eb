"""The worker: it works on the jobs one at a time, each in a process of its own."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from voxlate.page.jobs import ENDED, OUTCOME, Job, Jobs

_log = logging.getLogger(__name__)
LOOK_SECONDS = 0.2  # between two looks at the queue, and at a process
RETRY_SECONDS = 5.0  # after a fault of the disk
CLEAN_SECONDS = 60.0  # between two removals of old jobs
MESSAGES = "messages.txt"  # what the process of a job prints, for whoever runs the server


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
    """A thread that works on the waiting jobs until `stop` is set.

    check_seconds: after which a check fails.
    """

    jobs: Jobs
    start: Start
    check_seconds: float
    stop: threading.Event

    def run(self) -> None:
        """Work on jobs until the worker is stopped; a job that runs then returns to the queue."""
        while not self.stop.is_set():
            try:
                job = self.jobs.take()
                if job is not None:
                    self._work_on(job)
                    continue
            except Exception:  # a full disk, say: the worker must go on once there is room
                _log.exception("a job could not be worked on; the next attempt follows")
                self.stop.wait(RETRY_SECONDS)
            self.stop.wait(LOOK_SECONDS)

    def _work_on(self, job: Job) -> None:
        try:
            process = self.start(self.jobs.folder(job.name))
        except OSError as error:
            why = f"process: expected a new process for the job, found '{error.strerror}'. Try again later."
            self.jobs.end(job.name, "failed", why)
            return
        try:
            self._wait(job, process)
        finally:
            end(process)

    def _wait(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        """Wait until the process ends, the job is cancelled or takes too long, or the worker is to stop; note which."""
        over = time.monotonic() + self.check_seconds
        while process.poll() is None:
            if self.jobs.read(job.name).has_ended:
                return
            if self.stop.wait(LOOK_SECONDS):
                attempts = job.attempts - 1
                self.jobs.change(job.name, unless=ENDED, state="queued", attempts=attempts)
                return
            if job.kind == "check" and time.monotonic() > over:
                why = f"check: expected an end within {self.check_seconds / 60:g} minutes, found none. Choose a smaller scan."
                self.jobs.end(job.name, "failed", why)
                return
        none = f"This should not happen: the process of the job ended without a result (exit code {process.poll()}). The reason may be too little memory; the server's folder has {MESSAGES} with its messages."
        why = self.jobs.read_file(job.name, OUTCOME).get("why", none)
        self.jobs.end(job.name, "failed" if why else "done", why)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that may have ended; a job keeps nothing of its unfinished work."""
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def clean_regularly(jobs: Jobs, keep_seconds: float, stop: threading.Event) -> None:
    """Remove old uploads and results until `stop` is set."""
    while not stop.is_set():
        with suppress(OSError):  # of a folder that is being removed in another way
            jobs.remove_old(keep_seconds, time.time())
        stop.wait(CLEAN_SECONDS)
