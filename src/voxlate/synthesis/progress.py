"""Reports of a synthesis: finished slices, and warnings."""

import warnings
from collections.abc import Callable

from voxlate.base.executors.job import no_report as no_report
from voxlate.base.messages import Message

PatchProgress = Callable[[int, int], None]
"""Called with the number of finished slices and of all slices, of which each may have several patches."""


def warn_unless_note(message: Message) -> None:
    """Warn as Python does, except of notes, which the images and their provenance contain."""
    if message.grade != "note":
        warnings.warn(str(message), stacklevel=3)  # of the caller of `synthesise`


def progress_function(progress: PatchProgress | bool) -> PatchProgress:
    """The progress report of one scan: a function, or none, because a progress bar for seconds is of no use."""
    return no_report if isinstance(progress, bool) else progress


def report_part(
    progress: PatchProgress, number: int, count: int, slices: int, done: int, total: int
) -> None:
    """Report one of `count` parts that take equal times as slices of the image, whatever the part's own total."""
    progress(slices * (number * total + done) // (count * total), slices)
