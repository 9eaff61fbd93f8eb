"""Commands in forked processes: killed at a chosen moment, and watched for their time and file-system events.

A fork saves the import of torch. The process that forks runs no command itself, so that it has one thread.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from voxlate.base.files import is_scaffold
from voxlate.commands import cli

LONGEST = 600.0  # seconds of a command that takes a few, also on a busy machine
GONE = 10.0  # seconds after which the workers of a killed process must have ended
# File-system events of Python (PEP 578) before which a process can be killed or its disk filled.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
Hook = Callable[[int, str, str], None]  # number of the event, its kind, the path


@dataclass(frozen=True)
class Ended:
    """What came of a process; `code` is negative where a signal ended it."""

    code: int
    err: str
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it ended with exit code 2 or 3 and a sentence."""
        sentences = [line for line in self.err.splitlines() if line.startswith("voxlate: ")]
        return self.code in (2, 3) and bool(sentences) and "Traceback" not in self.err


class Child:
    """A forked process that does `action` in a folder; what it says on stderr is kept."""

    def __init__(self, action: Callable[[], int], folder: Path, hook: Hook | None = None) -> None:
        self.err = tempfile.TemporaryFile()  # noqa: SIM115 (`wait` closes it)
        self.start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(action, folder, hook)

    def _run(self, action: Callable[[], int], folder: Path, hook: Hook | None) -> NoReturn:
        code = 70
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self.err.fileno(), 2)
            os.chdir(folder)
            if hook is not None:
                sys.addaudithook(changes_below(folder.resolve(), hook))
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def kill(self) -> None:
        """End the process with SIGKILL; processes that it started are left to themselves."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, kill_after: float | None = None) -> Ended:
        """Wait for the end, with SIGKILL after some seconds since the start where they are given."""
        limit = LONGEST if kill_after is None else kill_after
        late = False
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            seconds = time.monotonic() - self.start
            if pid:
                break
            if seconds > limit and not late:
                late = True
                self.kill()
            time.sleep(0.002)
        self.err.seek(0)
        said = self.err.read().decode(errors="replace")
        self.err.close()
        return Ended(os.waitstatus_to_exitcode(status), said, seconds)

    def workers_are_gone(self) -> bool:
        """Whether every process that this one started has ended."""
        end = time.monotonic() + GONE
        while time.monotonic() < end:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False


def command_line(command: tuple[str, ...]) -> Callable[[], int]:
    """A voxlate command as an action, which returns the exit code."""

    def run() -> int:
        sys.argv = ["voxlate", *command]
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


def changes_below(folder: Path, hook: Hook) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that numbers the changes below a folder; the hook's own changes are not counted."""
    root, writes = str(folder) + os.sep, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    number, busy = 0, False

    def listen(event: str, details: tuple[Any, ...]) -> None:
        nonlocal number, busy
        if busy or (event != "open" and event not in CHANGES):
            return
        if event == "open" and not (isinstance(details[2], int) and details[2] & writes):
            return
        if not isinstance(details[0], str | bytes | os.PathLike):
            return
        busy = True
        path = os.path.abspath(os.fsdecode(details[0]))
        if path.startswith(root):
            hook(number, event, path[len(root) :])
            number += 1
        busy = False

    return listen


def killed_at(last: int) -> Hook:
    """A hook that kills its process just before the file-system event of a number."""

    def hook(number: int, kind: str, path: str) -> None:
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def strays(folder: Path) -> list[str]:
    """Locks and incomplete files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if is_scaffold(path))
