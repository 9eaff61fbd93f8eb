"""Reports of a synthesis: finished patches, evaluations of a network, and warnings."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxlate.base.executors.job import no_report as no_report
from voxlate.base.messages import Message

if TYPE_CHECKING:
    from torch import nn

PatchProgress = Callable[[int, int], None]
"""Called with the number of finished patches and of all patches."""


def warn_unless_note(message: Message) -> None:
    """Warn as Python does, except of notes, which the images and their provenance contain."""
    if message.grade != "note":
        warnings.warn(str(message), stacklevel=3)  # of the caller of `synthesise`


def progress_function(progress: PatchProgress | bool) -> PatchProgress:
    """The progress report of one scan: a function, or none, because a progress bar for seconds is of no use."""
    return no_report if isinstance(progress, bool) else progress


def report_part(progress: PatchProgress, number: int, count: int, done: int, total: int) -> None:
    """Report the progress of one of `count` equal parts as part of the progress of all."""
    progress(number * total + done, count * total)


@dataclass
class Calls:
    """The number of evaluations of a network; a batch of four counts four."""

    count: int = 0


@contextlib.contextmanager
def count_calls(*nets: "nn.Module", report: Callable[[int], None] = no_report) -> Iterator[Calls]:
    """Count the evaluations of networks inside the block, without changing their results. report: gets the count."""
    calls = Calls()

    def _count(
        _: "nn.Module",
        __: tuple[Any, ...],
        output: Any,
    ) -> None:
        calls.count += len(output.image)
        report(calls.count)

    hooks = [net.register_forward_hook(_count) for net in nets]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
