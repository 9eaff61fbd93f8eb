"""Work on single cases, and its outcomes."""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from voxlate.errors import BadInput

Case = TypeVar("Case")
Progress = Callable[[int, int], None]
Warn = Callable[[str], None]


def nothing(*_: object) -> None:
    """Report nothing."""


class Turn:
    """The use of a worker's network by one case: other cases wait, and the seconds of the use are counted."""

    def __init__(self, lock: threading.Lock):
        self.lock = lock
        self.seconds = 0.0
        self.began = 0.0

    def __enter__(self) -> None:
        self.lock.acquire()
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self.began
        self.lock.release()


@dataclass(frozen=True)
class Context:
    """What the work on a case may use.

    turn: is held while the network computes; progress, warn: report parts of the case, and sentences about it.
    """

    turn: Turn = field(default_factory=lambda: Turn(threading.Lock()))
    progress: Progress = nothing
    warn: Warn = nothing


Work = Callable[[Any, Context], Any]
"""Takes a case and its context, and returns a result that can be sent between processes."""


class Job(Protocol):
    """The work on the cases of a command. A job is sent to each worker once, and opened there once."""

    @property
    def uses_network(self) -> bool:
        """Whether a network computes: then a worker has a GPU if there is one, and several cases at a time."""

    def opened(self) -> Work:
        """Load what all cases need, and return the work on one case."""


@dataclass(frozen=True)
class Plain:
    """A job that loads nothing and needs no context: a function of a case that can be sent between processes."""

    function: Callable[[Any], Any]
    uses_network: bool = False

    def opened(self) -> Work:
        return self._work

    def _work(self, case: Any, _: Context) -> Any:
        return self.function(case)


@dataclass(frozen=True)
class Cost:
    """The time of a case on the clock of its worker: begin, end, and seconds in which it used the network."""

    worker: int
    began: float
    ended: float
    network: float


@dataclass(frozen=True)
class Outcome:
    """The result of a case or its error, the warnings that are not yet reported, and its cost in a worker."""

    result: Any = None
    error: Exception | None = None
    warnings: tuple[str, ...] = ()
    cost: Cost | None = None

    def get(self) -> Any:
        """The result; raises the error of the case."""
        if self.error is not None:
            raise self.error
        return self.result


Outcomes = Generator[tuple[int, Outcome], None, None]
"""The number and the outcome of each case, in the order in which they finish; closing it ends all workers."""


class WorkerDied(BadInput):
    """The worker of a case ended twice while it worked on the case."""


class Executor(Protocol):
    """Applies a job to cases."""

    def run(
        self, job: Job, cases: Sequence[Case], *, progress: Progress = nothing, warn: Warn = nothing
    ) -> Outcomes:
        """The outcomes of the cases; progress, warn: for parts of a case, and for sentences about it."""


class InProcess:
    """Works on the cases one after the other in this process, and reports the progress within a case."""

    def run(
        self, job: Job, cases: Sequence[Case], *, progress: Progress = nothing, warn: Warn = nothing
    ) -> Outcomes:
        work = job.opened()
        context = Context(progress=progress, warn=warn)
        for number, case in enumerate(cases):
            try:
                outcome = Outcome(work(case, context))
            except BadInput as error:
                outcome = Outcome(error=error)
            yield number, outcome


def in_case_order(outcomes: Iterable[tuple[int, Outcome]]) -> list[Outcome]:
    """All outcomes in the order of the cases, so that no result depends on which case finishes first."""
    by_number = dict(outcomes)
    return [by_number[number] for number in sorted(by_number)]


def case_sentence(case: str, error: Exception) -> str:
    """A sentence on the error of a case; the errors of an input state the case themselves."""
    if isinstance(error, WorkerDied):
        return f"{case}: {error}"
    if isinstance(error, BadInput):
        return f"{error}"
    return f"{case}: expected a result or a sentence on its scans, found {type(error).__name__}: {' '.join(str(error).split())}. Report it, with what --debug prints for this case alone."


def busy_line(costs: Sequence[Cost | None]) -> str:
    """A sentence on the share of time in which the networks of workers computed; "" where none did.

    The time of a worker is from the begin of its first case that used the network to the end of the last one.
    """
    used = [cost for cost in costs if cost is not None and cost.network > 0]
    if not used:
        return ""
    span = 0.0
    workers = {cost.worker for cost in used}
    for worker in workers:
        own = [cost for cost in used if cost.worker == worker]
        span += max(cost.ended for cost in own) - min(cost.began for cost in own)
    share = sum(cost.network for cost in used) / span
    by = "1 worker" if len(workers) == 1 else f"{len(workers)} workers"
    return f"The network computed during {share:.0%} of the time of {by} (cases: {len(used)})."
