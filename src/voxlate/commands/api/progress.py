"""Progress on stderr: bars on a terminal and in notebooks, plain lines in a cluster's log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.messages import Message, Say, warn_unless_note
from voxlate.commands.api.console import err, note, say

SECONDS = 20.0  # to the first plain line; each further one takes GROWTH times as long
GROWTH, LONGEST_SECONDS = 1.5, 600.0
NESTED = ("scenarios", "cases", "slices")  # each within those before it


class Bars:
    """A bar for each loop; one that begins anew starts again."""

    def __init__(self, progress: Any):
        self.progress = progress
        self.tasks = dict[str, Any]()

    def __call__(self, name: str, done: int, total: int, numbers: Any = None) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, note="")
        task = self.tasks[name]
        if done < self.progress.tasks[task].completed:
            self.progress.reset(task)
        self.progress.update(task, completed=done, total=total, note=_note(numbers))


class Lines:
    """Progress of the outermost loop of several parts, its time left and the last numbers, as lines that become rarer."""

    def __init__(self, console: Console):
        self.console = console
        self.printed = time.monotonic()
        self.wait = SECONDS
        self.last = ("", 0, 0)
        self.began = (self.printed, 0)

    def __call__(self, name: str, done: int, total: int, numbers: Any = None) -> None:
        outer, before, parts = self.last
        is_inner = outer in NESTED and name in NESTED[NESTED.index(outer) + 1 :]
        if is_inner and before < parts and parts > 1:
            return
        now = time.monotonic()
        if name != outer or done < before:  # a resumed run does not begin at 0
            self.began = now, done
        self.last = name, done, total
        start, first = self.began
        ends = done >= total and now - start >= SECONDS
        if now - self.printed < self.wait and not ends:
            return
        self.printed = now
        self.wait = min(self.wait * GROWTH, LONGEST_SECONDS)
        left = ""
        if first < done < total:
            left = f", {_clock((now - start) / (done - first) * (total - done))} left"
        note = _note(numbers)
        say(f"{name} {done}/{total}{left}{'  ' if note else ''}{note}", self.console)


def _note(numbers: Any) -> str:
    return "  ".join(f"{key} {value:.3g}" for key, value in (numbers or {}).items())


@contextmanager
def progress_on(console: Console) -> Iterator[StepCallback]:
    """Gives a callback (name, done, total, numbers) that reports progress; on stderr, so that --json stays clean."""
    drawn = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    if not drawn:
        yield Lines(console)
        return
    from rich import progress as rich  # which --help does not need

    columns = (
        *rich.Progress.get_default_columns(),
        rich.TextColumn("[dim]{task.fields[note]}"),
    )
    with rich.Progress(*columns, console=console) as progress:
        yield Bars(progress)


def draw_bars(*_: object) -> None:
    """Stands for the bars on stderr, which exist while a command runs."""


def say_in_python(said: Message) -> None:
    """Print a note on stderr; Python warns of the other messages."""
    if said.grade == "note":
        note(said)
    warn(said)


def warn(said: Message) -> None:
    """Warn as Python does, except of notes, which the images and their provenance contain."""
    warn_unless_note(said, stacklevel=5)


@dataclass(frozen=True)
class Reporter:
    """Where a command reports its progress and its messages.

    step: is called with (name, done, total, numbers); by default bars are drawn on stderr.
    """

    step: StepCallback = draw_bars
    say: Say = say_in_python

    def count(self, name: str) -> Callable[..., None]:
        """A callback (done, total) of the progress under a name."""
        return lambda done, total, *_: self.step(name, done, total, {})


Feedback = bool | StepCallback | Reporter


@contextmanager
def report_to(progress: Feedback) -> Iterator[Reporter]:
    """The reporter of a function's `progress`: True draws bars and prints notes on stderr, False reports nothing.

    A function is called with (name, done, total, numbers).
    """
    if isinstance(progress, Reporter):
        reporter = progress
    elif progress is True:
        reporter = Reporter()
    else:
        reporter = Reporter(progress or no_report, warn)
    if reporter.step is draw_bars:
        with progress_on(err) as bars:
            yield replace(reporter, step=bars)
    else:
        step = reporter.step
        yield replace(
            reporter,
            step=lambda name, done, total, numbers=None: step(name, done, total, numbers or {}),
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
