"""How often a network is evaluated, and how many patches are done."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

PatchProgress = Callable[[int, int], None]
"""Called with the patches done and all patches."""


def no_report(*_: object) -> None:
    """Where nobody follows the progress."""


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
