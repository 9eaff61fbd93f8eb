"""The work of a job, in a process of its own: `python -m voxlate.page.work FOLDER`.

A crash, a lack of memory or a cancelled job ends this process and not the server. The process ends when its standard input
is closed, which the system does when the server is killed.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import lock, read_json, write_json
from voxlate.base.messages import Message
from voxlate.commands.api.progress import Reporter
from voxlate.page.jobs import FOUND, JOB, OUTCOME, PROGRESS, Asked, Kind, Progress, places_of
from voxlate.page.words import for_page

EVERY_SECONDS = 0.5  # between two writings of the progress
STDIN = 0  # file descriptor
WAIT_SECONDS = 60.0  # for the process of a killed server to end


@dataclass
class ProgressFile:
    """Writes how far the work of a job is, at most twice a second."""

    folder: Path
    stage: str = ""
    since: float = 0.0
    written: float = 0.0

    def __call__(self, stage: str, done: int, total: int, *_: object) -> None:
        """Write the progress of a stage."""
        now = time.time()
        if stage != self.stage or done == 0:
            self.stage = stage
            self.since = now
            self.written = 0.0
        if now - self.written < EVERY_SECONDS and done < total:
            return
        self.written = now
        moved = Progress(stage, done, total, self.since, now)
        write_json(self.folder / PROGRESS, asdict(moved))


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
    found["said"] = [line.on_page for line in said if not line.case]
    write_json(folder / FOUND, for_page(found, places_of(folder, request)))


def work(folder: Path) -> None:
    """Do the work of a job and write its outcome: {"why": ""} where it is done, else one sentence."""
    job = read_json(folder / JOB)
    request = job["request"]
    why = ""
    try:
        with lock(folder, WAIT_SECONDS):
            do_job(job["kind"], folder, request, ProgressFile(folder))
    except BadInput as error:
        why = str(error)
    except MemoryError:
        why = "memory: expected enough for this scan, found too little. Choose a smaller scan, or fewer samples."
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
