"""The work of a job, in a process of its own: `python -m voxlate.page.work FOLDER`.

A crash, a lack of memory or a cancelled job ends this process and not the server. The process is asked to end (SIGTERM)
when its standard input is closed, which the system does when the server is killed; a training saves its state then.
"""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from voxlate.base.errors import BadInput, Stopped
from voxlate.base.files import lock, read_json, write_json
from voxlate.base.messages import Message
from voxlate.commands.api.progress import Reporter
from voxlate.page.jobs import FOUND, JOB, OUTCOME, PROGRESS, Asked, Kind, Progress, places_of
from voxlate.page.words import for_page

EVERY_SECONDS = 0.5  # between two writings of the progress
STDIN = 0  # file descriptor
FOR_OWNER = 0o077  # as an umask
WAIT_SECONDS = 60.0  # for the process of a killed server to end
# The other kinds work below the root folder.
SCANS_ALONE: tuple[Kind, ...] = ("check", "synthesise")


@dataclass
class ProgressFile:
    """Writes how far the work of a job is, at most twice a second."""

    folder: Path
    stage: str = ""
    since: float = 0.0
    written: float = 0.0
    begun: int = 0

    def __call__(self, stage: str, done: int, total: int, *_: object) -> None:
        """Write the progress of a stage."""
        now = time.time()
        if stage != self.stage or done == 0:
            self.stage = stage
            self.since = now
            self.written = 0.0
            self.begun = done
        if now - self.written < EVERY_SECONDS and done < total:
            return
        self.written = now
        moved = Progress(stage, done, total, self.since, now, self.begun)
        write_json(self.folder / PROGRESS, asdict(moved))


def do_job(kind: str, folder: Path, request: Asked, progress: Callable[..., None]) -> None:
    """Do the work of a job, and write what it has found and said for the page, without places of this machine."""
    said = list[Message]()
    module = kind
    if kind not in SCANS_ALONE:
        module = "training_work"
        progress(kind, 0, 1)
    # the module of a synthesis takes half a second, which a check saves
    own = importlib.import_module(f"voxlate.page.{module}")
    result = getattr(own, kind)(folder, request, Reporter(progress, said.append))
    sentences = [line.on_page for line in said if not line.case or kind not in SCANS_ALONE]
    write_json(folder / FOUND, for_page({"said": sentences, **result}, places_of(folder, request)))


def work(folder: Path) -> None:
    """Do the work of a job and write its outcome: {"why": ""} where it is done, else one sentence."""
    job = read_json(folder / JOB)
    kind, request = job["kind"], job["request"]
    places = places_of(folder, request)
    why = ""
    try:
        with lock(folder, WAIT_SECONDS), _files_of(kind):
            do_job(kind, folder, request, ProgressFile(folder))
    except (BadInput, Stopped) as error:
        why = str(error)
    except MemoryError:
        why = "memory: expected enough for this scan, found too little. Choose a smaller scan, or fewer samples."
    with _files_of(kind):
        write_json(folder / OUTCOME, for_page({"why": why}, places))


@contextmanager
def _files_of(kind: str) -> Iterator[None]:
    """Who may read the files of a job: uploads and results the owner alone; prepared cohorts and runs as the umask says."""
    former = os.umask(FOR_OWNER) if kind in SCANS_ALONE else None
    try:
        yield
    finally:
        if former is not None:
            os.umask(former)


def _end_with_the_server() -> None:
    """Ask this process to end when its standard input is closed.

    It is read without sys.stdin: a process that is forked during its read would wait for its lock for ever.
    """
    while os.read(STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Do the job whose folder is the argument."""
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    work(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
