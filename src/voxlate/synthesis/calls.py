"""Who follows a synthesis: patches that are done, evaluations of a network, and warnings."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from voxlate.data.grades import grade_of

PatchProgress = Callable[[int, int], None]
"""Called with the patches done and all patches."""


Warn = Callable[[str], None]
"""Called with a sentence."""


def warned(sentence: str) -> None:
    """Warn as Python does of all that is more than a note, which images and their provenance state."""
    if grade_of(sentence) != "note":
        warnings.warn(sentence, stacklevel=3)  # of the caller of `synthesise`


def no_report(*_: object) -> None:
    """Where nobody follows the progress."""


def reporting(progress: PatchProgress | bool) -> PatchProgress:
    """What follows the progress of one scan: a function, or nothing; a bar for seconds would help nobody."""
    return no_report if isinstance(progress, bool) else progress


@dataclass
class Calls:
    """Evaluations of a network so far, an item each: a batch of four counts four."""

    count: int = 0


@contextlib.contextmanager
def count_calls(net: nn.Module, report: Callable[[int], None] = no_report) -> Iterator[Calls]:
    """Count the evaluations of `net` inside the block; its results stay as they are. report: is given the count."""
    calls = Calls()

    def note(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        calls.count += len(output.image)
        report(calls.count)

    hook = net.register_forward_hook(note)
    try:
        yield calls
    finally:
        hook.remove()
