"""What commands print: results on stdout; progress, notes and warnings on stderr.

Progress is bars on a terminal and in notebooks, and plain lines in a cluster's log.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.text import Text

from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.messages import Grade, Message, Say, warn_unless_note

SECONDS = 20.0  # to the first plain line; each further one takes GROWTH times as long
GROWTH, LONGEST_SECONDS = 1.5, 600.0
STYLES: dict[Grade, str] = {"note": "yellow", "caution": "bold yellow", "do not trust": "bold red"}
# Of the processes that torchrun or accelerate started, the main one alone prints.
main_process = os.environ.get("RANK", "0") == "0"
# paths and titles may hold '[/]' or ':x:', which are no markup
out = Console(quiet=not main_process, markup=False, emoji=False)
err = Console(stderr=True, quiet=not main_process, markup=False, emoji=False)


def say(line: Any, console: Console = out, style: str | None = None) -> None:
    """Print a line unwrapped, so that paths and commands in it can be copied; a table fits the terminal."""
    console.print(line, style=style, highlight=False, soft_wrap=isinstance(line, str | Text))


def note(said: Message) -> None:
    """Print a message on stderr, as loud as its grade."""
    case = f"{said.case}: " if said.case else ""
    label = "note" if said.grade == "note" else said.grade.upper()
    say(f"{label}: {case}{said.text}", err, STYLES[said.grade])


class Bars:
    """A bar for each loop; one that begins anew starts again."""

    def __init__(self, progress: Any):
        self.progress = progress
        self.tasks = dict[str, Any]()

    def __call__(self, name: str, done: int, total: int, numbers: Any = None) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, note="")
        self.progress.update(self.tasks[name], completed=done, total=total, note=_numbers(numbers))


class Lines:
    """Progress as lines that become rarer, for the log of a cluster."""

    def __init__(self, console: Console):
        self.console = console
        self.printed = time.monotonic()
        self.wait = SECONDS

    def __call__(self, name: str, done: int, total: int, numbers: Any = None) -> None:
        now = time.monotonic()
        if now - self.printed >= self.wait:
            self.printed = now
            self.wait = min(self.wait * GROWTH, LONGEST_SECONDS)
            say(f"{name} {done}/{total}  {_numbers(numbers)}".rstrip(), self.console)


def _numbers(numbers: Any) -> str:
    return "  ".join(f"{key} {value:.3g}" for key, value in (numbers or {}).items())


@contextmanager
def progress_on(console: Console) -> Iterator[StepCallback]:
    """Gives a callback (name, done, total, numbers) that reports progress; on stderr, so that --json stays clean."""
    if not (console.is_terminal or (console.is_jupyter and find_spec("ipywidgets"))):
        yield Lines(console)
        return
    from rich import progress as rich  # which --help does not need

    columns = (*rich.Progress.get_default_columns(), rich.TextColumn("[dim]{task.fields[note]}"))
    with rich.Progress(*columns, console=console) as progress:
        yield Bars(progress)


def say_in_python(said: Message) -> None:
    """Print a note on stderr; Python warns of the other messages."""
    if said.grade == "note":
        note(said)
    warn_unless_note(said)


def draw_bars(*_: object) -> None:
    """Stands for the progress on stderr, which exists while a command runs."""


@dataclass(frozen=True)
class Reporter:
    """Where a command reports its progress and its messages.

    step: is called with (name, done, total, numbers); by default progress is drawn on stderr.
    """

    step: StepCallback = draw_bars
    say: Say = say_in_python

    def count(self, name: str) -> Callable[..., None]:
        """A callback (done, total) of the progress under a name."""

        def step(done: int, total: int, *_: Any) -> None:
            self.step(name, done, total, {})

        return step


Feedback = bool | StepCallback | Reporter


@contextmanager
def report_to(progress: Feedback) -> Iterator[Reporter]:
    """The reporter of a function's `progress`: True draws bars and prints notes on stderr, False reports nothing.

    A function is called with (name, done, total, numbers).
    """
    reporter = progress if isinstance(progress, Reporter) else Reporter()
    if progress is False:
        reporter = Reporter(no_report, warn_unless_note)
    elif callable(progress):

        def step(name: str, done: int, total: int, numbers: Any = None) -> None:
            progress(name, done, total, numbers or {})

        reporter = Reporter(step, warn_unless_note)
    if reporter.step is not draw_bars:
        yield reporter
        return
    with progress_on(err) as drawn:
        yield replace(reporter, step=drawn)
