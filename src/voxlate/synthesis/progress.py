"""Reports of a synthesis: finished slices, and warnings."""

import warnings

from voxlate.base.executors.case_work import Progress
from voxlate.base.messages import Message


def warn_unless_note(message: Message, stacklevel: int = 3) -> None:
    """Warn as Python does, except of notes, which the images and their provenance contain; by default of the caller of `synthesise`."""
    if message.grade != "note":
        warnings.warn(str(message), stacklevel=stacklevel)


def report_part(
    progress: Progress, number: int, count: int, slices: int, done: int, total: int
) -> None:
    """Report one of `count` parts that take equal times as slices of the image, whatever the part's own total."""
    progress(slices * (number * total + done) // (count * total), slices)
