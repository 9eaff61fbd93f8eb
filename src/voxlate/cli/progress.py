"""Progress bars: what is done, how long it took, how long it will take, and the last numbers."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def bar(console: Console) -> Progress:
    """A set of bars on a console (stderr, so that --json stays clean); use it as a context."""
    columns = (SpinnerColumn(), TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    left = TimeRemainingColumn(elapsed_when_finished=False)
    times = (TimeElapsedColumn(), TextColumn("[dim]left"), left)
    return Progress(*columns, *times, TextColumn("[dim]{task.fields[note]}"), console=console)


class Bars:
    """One bar for each thing that reports under its own name."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int, numbers: Mapping[str, float] | None = None) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, completed=done, note="")
        note = "  ".join(f"{key} {value:.3g}" for key, value in (numbers or {}).items())
        self.progress.update(self.tasks[name], completed=done, total=total, note=note)
