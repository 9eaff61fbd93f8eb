"""Lanes: each works on the jobs of some kinds, one at a time, in a process of its own."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from voxlate.web.jobs import Job, Jobs, Kind, State

LOOK_SECONDS = 0.2  # between two looks at the queue, and at a process
MERCY_SECONDS = 3.0  # after which a process that is asked to end is killed
CLEAN_SECONDS = 60.0  # between two removals of old jobs
CANCELLED: tuple[State, ...] = ("cancelled",)
MESSAGES = "messages.txt"  # what the process of a job prints, for whoever runs the server


def start_process(folder: Path) -> subprocess.Popen[bytes]:
    """Start the work of a job; its process ends when this one does, because its standard input is closed then."""
    with open(folder / MESSAGES, "wb") as messages:
        return subprocess.Popen(
            [sys.executable, "-m", "voxlate.web.work", str(folder)],
            stdin=subprocess.PIPE,
            stdout=messages,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C in the terminal reaches the server alone, which ends its jobs
        )


Start = Callable[[Path], "subprocess.Popen[bytes]"]


@dataclass
class Lane:
    """A thread that works on the waiting jobs of some kinds until `stop` is set."""

    jobs: Jobs
    kinds: Collection[Kind]
    start: Start = start_process
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Work on jobs until the lane is stopped; a job that runs then returns to the queue."""
        while not self.stop.is_set():
            job = self.jobs.take(self.kinds)
            if job is None:
                self.stop.wait(LOOK_SECONDS)
                continue
            self._run_one(job)

    def _run_one(self, job: Job) -> None:
        try:
            process = self.start(self.jobs.folder(job.name))
        except OSError as error:
            why = f"process: expected a new process for the job, found '{error.strerror}'. Try again later."
            self.jobs.change(job.name, state="failed", ended=time.time(), why=why)
            return
        code = None
        while code is None:
            code = process.poll()
            if code is not None:
                break
            if self.jobs.read(job.name).has_ended:  # cancelled
                end(process)
                return
            if self.stop.wait(LOOK_SECONDS):
                end(process)
                self.jobs.change(
                    job.name, unless=CANCELLED, state="queued", attempts=job.attempts - 1
                )
                return
        _close(process)
        self._finish(job.name, code)

    def _finish(self, name: str, code: int) -> None:
        outcome = self.jobs.outcome(name)
        if outcome is None:
            why = f"This should not happen: the process of the job ended without a result (exit code {code}). The reason may be too little memory; the server's folder has {MESSAGES} with its messages."
        else:
            why = outcome["why"]
        state = "failed" if why else "done"
        self.jobs.change(name, unless=CANCELLED, state=state, ended=time.time(), why=why)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process: by its closed input, then by a signal that it cannot ignore."""
    _close(process)
    process.terminate()
    try:
        process.wait(MERCY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def clean_regularly(jobs: Jobs, keep_seconds: float, stop: threading.Event) -> None:
    """Remove old uploads and results until `stop` is set."""
    while not stop.is_set():
        jobs.remove_old(keep_seconds, time.time())
        stop.wait(CLEAN_SECONDS)
