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


class Loops:
    """Joins loops inside each other to one: the outermost with several parts, and the share of the part inside it."""

    def __init__(self, show: Callable[[str, float, int, str, bool], None]):
        self.show = show
        self.parts = dict[str, tuple[int, int]]()
        self.last: tuple[str, float] = ("", 0)

    def __call__(self, name: str, done: int, total: int, numbers: Any = None) -> None:
        shown: tuple[str, float, int] = (name, done, total)
        if name in NESTED:
            outer = NESTED[: NESTED.index(name)]
            self.parts = {key: self.parts[key] for key in outer if key in self.parts}
            self.parts[name] = done, total
            share = 0.0
            for key, (done, total) in reversed(self.parts.items()):
                share += done
                if total > 1:
                    shown = key, share, total
                share /= max(total, 1)
        name, before = self.last
        self.last = shown[:2]
        note = "  ".join(f"{key} {value:.3g}" for key, value in (numbers or {}).items())
        self.show(*shown, note, shown[0] != name or shown[1] < before)


class Bars:
    """One bar, of the loop that reports; is_new: whether that is another one, or begins anew."""

    def __init__(self, progress: Any):
        self.progress = progress
        self.task = progress.add_task("", visible=False, note="")

    def __call__(self, name: str, done: float, total: int, note: str, is_new: bool) -> None:
        now = {"completed": done, "total": total}
        if is_new:
            self.progress.reset(self.task, description=name, visible=True, **now)
        self.progress.update(self.task, note=note, **now)


class Lines:
    """Progress, the time left and the last numbers, as lines that become rarer; is_new: as for Bars."""

    def __init__(self, console: Console):
        self.console = console
        self.printed = time.monotonic()
        self.wait = SECONDS

    def __call__(self, name: str, done: float, total: int, note: str, is_new: bool) -> None:
        now = time.monotonic()
        if is_new:  # a resumed run does not begin at 0
            self.began = now, done
        start, before = self.began
        ends = done >= total and now - start >= SECONDS
        if now - self.printed < self.wait and not ends:
            return
        self.printed = now
        self.wait = min(self.wait * GROWTH, LONGEST_SECONDS)
        left = ""
        if before < done < total:
            left = f", {_clock((now - start) / (done - before) * (total - done))} left"
        say(f"{name} {int(done)}/{total}{left}{'  ' if note else ''}{note}", self.console)


@contextmanager
def progress_on(console: Console) -> Iterator[StepCallback]:
    """Gives a callback (name, done, total, numbers) that reports progress; on stderr, so that --json stays clean."""
    drawn = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    if not drawn:
        yield Loops(Lines(console))
        return
    from rich import progress as rich  # which --help does not need

    with rich.Progress(
        rich.SpinnerColumn(),
        rich.TextColumn("[bold]{task.description}"),
        rich.BarColumn(bar_width=24),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("[dim]left"),
        rich.TimeRemainingColumn(elapsed_when_finished=False),
        rich.TextColumn("[dim]{task.fields[note]}"),
        console=console,
    ) as progress:
        yield Loops(Bars(progress))


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
