"""Progress on stderr: bars on a terminal and in notebooks, plain lines in a cluster's log."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from voxlate.base.messages import Message, Say, reworded
from voxlate.base.options.option import in_python
from voxlate.commands.api.console import err, note, say

StepCallback = Callable[..., None]
SECONDS = 20.0  # to the first plain line; each further one takes GROWTH times as long
GROWTH, LONGEST_SECONDS = 1.5, 600.0
NESTED = ("scenarios", "cases", "slices")  # each within those before it


class Bars:
    """One bar for each thing that reports under its own name."""

    def __init__(self, progress: Any):
        self.progress = progress
        self.tasks = dict[str, Any]()

    def __call__(
        self, name: str, done: int, total: int, numbers: Mapping[str, float] | None = None
    ) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, completed=done, note="")
        elif done < self.progress.tasks[self.tasks[name]].completed:
            self.progress.reset(
                self.tasks[name], total=total, completed=done
            )  # the slices of the next case
        self.progress.update(self.tasks[name], completed=done, total=total, note=_note(numbers))


class Lines:
    """Progress, the time left and the last numbers, as lines that become rarer; loops inside others have none."""

    def __init__(self, console: Console):
        self.console = console
        self.started: dict[str, tuple[float, int]] = {}
        self.last: dict[str, int] = {}
        self.several = set[str]()
        self.printed = time.monotonic()
        self.wait = SECONDS

    def __call__(
        self, name: str, done: int, total: int, numbers: Mapping[str, float] | None = None
    ) -> None:
        now = time.monotonic()
        if done < self.last.get(name, 0):
            del self.started[name]  # the slices of the next case
        self.last[name] = done
        start, before = self.started.setdefault(
            name, (now, done)
        )  # a resumed run does not begin at 0
        if total > 1:
            self.several.add(name)
        outer = NESTED[: NESTED.index(name)] if name in NESTED else ()
        ends = done >= total and now - start >= SECONDS
        if self.several.intersection(outer) or (now - self.printed < self.wait and not ends):
            return
        self.printed = now
        self.wait = min(self.wait * GROWTH, LONGEST_SECONDS)
        left = (
            f", {_clock((now - start) / (done - before) * (total - done))} left"
            if before < done < total
            else ""
        )
        note = _note(numbers)
        say(f"{name} {done}/{total}{left}{'  ' if note else ''}{note}", self.console)


@contextmanager
def progress_on(console: Console) -> Iterator[Bars | Lines]:
    """Gives a callback (name, done, total, numbers) that reports progress; on stderr, so that --json stays clean."""
    drawn = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    if not drawn:
        yield Lines(console)
        return
    from rich import progress as rich  # which --help does not need

    columns = (
        rich.SpinnerColumn(),
        rich.TextColumn("[bold]{task.description}"),
        rich.BarColumn(bar_width=24),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("[dim]left"),
        rich.TimeRemainingColumn(elapsed_when_finished=False),
        rich.TextColumn("[dim]{task.fields[note]}"),
    )
    with rich.Progress(*columns, console=console) as progress:
        yield Bars(progress)


def draw_bars(*_: object) -> None:
    """Stands for the bars on stderr, which exist while a command runs."""


def say_in_python(said: Message) -> None:
    """Print a note on stderr; Python warns of the other messages."""
    if said.grade == "note":
        note(reworded(said, in_python))
    warn_in_python(said)


def warn_in_python(said: Message) -> None:
    """Warn as Python does, except of notes, which the images and their provenance contain."""
    if said.grade != "note":
        warnings.warn(str(reworded(said, in_python)), stacklevel=4)


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
        reporter = Reporter((lambda *_: None) if progress is False else progress, warn_in_python)
    if reporter.step is draw_bars:
        with progress_on(err) as bars:
            yield replace(reporter, step=bars)
    else:
        step = reporter.step
        yield replace(
            reporter,
            step=lambda name, done, total, numbers=None: step(name, done, total, numbers or {}),
        )


def _note(numbers: Mapping[str, float] | None) -> str:
    return "  ".join(f"{key} {value:.3g}" for key, value in (numbers or {}).items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
