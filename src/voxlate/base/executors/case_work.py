"""Work on single cases, and its outcomes."""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeVar

from voxlate.base.errors import BadInput, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, Say, message

Case = TypeVar("Case")
BUSY = 0.9  # share of time in which a GPU should compute
Progress = Callable[[int, int], None]
NamedProgress = Callable[[str, int, int], None]
StepCallback = Callable[..., None]
"""Called after every step with the stage's name, steps done, steps in all, and the numbers last logged."""


def no_report(*_: object) -> None:
    """Report nothing."""


class Turn:
    """The use of a worker's network by one case: other cases wait, and the times of the use are kept."""

    def __init__(self, lock: threading.Lock):
        self.lock = lock
        self.times = list[tuple[float, float]]()
        self.began = 0.0

    def __enter__(self) -> None:
        self.lock.acquire()
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.times.append((self.began, time.monotonic()))
        self.lock.release()


@dataclass(frozen=True)
class Context:
    """What the work on a case may use.

    turn: is held while the network computes; progress, warn: report parts of the case, and messages on it.
    """

    turn: Turn = field(default_factory=lambda: Turn(threading.Lock()))
    progress: Progress = no_report
    warn: Say = no_report


QUIET = Context()
Work = Callable[[Any, Context], Any]
"""Takes a case and its context, and returns a result that can be sent between processes."""


class Job(Protocol):
    """The work on the cases of a command. A job is sent to each worker once, and opened there once."""

    @property
    def uses_network(self) -> bool:
        """Whether a network computes: then a worker has a GPU if there is one, and several cases at a time."""

    def open(self) -> Work:
        """Load what all cases need, and return the work on one case."""


@dataclass(frozen=True)
class Cost:
    """The time of a case: begin, end, and the times in which it used the network, on the clock of the machine.

    device: what computes, as no other machine names it; it is a GPU that several workers may share, or the worker.
    """

    worker: int
    device: str
    is_gpu: bool
    began: float
    ended: float
    network: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The result of a case or its error, the warnings that are not yet reported, and its cost in a worker."""

    result: Any = None
    error: Exception | None = None
    warnings: tuple[Message, ...] = ()
    cost: Cost | None = None


Outcomes = Generator[tuple[int, Outcome], None, None]
"""The number and the outcome of each case, in the order in which they finish; closing it ends all workers."""


class WorkerDied(BadInput):
    """The worker of a case ended twice while it worked on the case."""


class Executor(Protocol):
    """Applies a job to cases."""

    def run(self, job: Job, cases: Sequence[Case], context: Context = QUIET) -> Outcomes:
        """The outcomes of the cases; context: what the work may use, of which workers take the messages alone."""


class InProcess:
    """Works on the cases one after the other in this process, and reports the progress within a case."""

    def run(self, job: Job, cases: Sequence[Case], context: Context = QUIET) -> Outcomes:
        """See Executor.run."""
        work = job.open()
        for number, case in enumerate(cases):
            try:
                outcome = Outcome(work(case, context))
            except BadInput as error:
                outcome = Outcome(error=error)
            yield number, outcome


def run_cases(
    executor: Executor,
    job: Job,
    cases: Sequence[Any],
    progress: NamedProgress,
    warn: Say,
    fatal: type[Exception] | tuple[type[Exception], ...],
) -> list[Outcome]:
    """The outcomes of all cases in their order; raises an error of a fatal type at once.

    progress: is called with "cases" or "slices", and the number of finished ones and of all.
    """
    outcomes = {}
    progress("cases", 0, len(cases))
    context = Context(progress=partial(progress, "slices"), warn=warn)
    with closing(executor.run(job, cases, context)) as running:
        for number, outcome in running:
            if isinstance(outcome.error, fatal):
                raise outcome.error
            outcomes[number] = outcome
            progress("cases", len(outcomes), len(cases))
    if busy := busy_line([outcome.cost for outcome in outcomes.values()]):
        warn(message("workers", busy))
    return [outcomes[number] for number in range(len(cases))]


def case_sentence(case: str, error: Exception) -> str:
    """A sentence on the error of a case; the errors of an input state the case themselves."""
    if isinstance(error, WorkerDied):
        return f"{case}: {error}"
    if isinstance(error, BadInput):
        return f"{error}"
    return f"{case}: expected a result or a sentence on its scans, found {type(error).__name__}: {' '.join(str(error).split())}. Report it, with what --debug prints for this case alone."


def busy_line(costs: Iterable[Cost | None]) -> str:
    """A sentence on the share of time in which networks computed; "" where none did.

    The time of a GPU, or of a worker without one, is from the begin of its first case that used the network to the end
    of the last one. A GPU is busy while a network of any of its workers computes.
    """
    used = [cost for cost in costs if cost is not None and cost.network]
    if not used:
        return ""
    by_device = grouped((cost.device, cost) for cost in used)
    span = busy = 0.0
    for own in by_device.values():
        span += max(cost.ended for cost in own) - min(cost.began for cost in own)
        end = -math.inf
        for start, stop in sorted(chain.from_iterable(cost.network for cost in own)):
            busy += max(0.0, stop - max(start, end))
            end = max(end, stop)
    share = busy / span
    workers = plural(len({cost.worker for cost in used}), "worker")
    if not used[0].is_gpu:
        return f"The network computed during {share:.0%} of the time of {workers} (cases: {len(used)})."
    advice = "" if share >= BUSY else " More --workers keep a GPU busier."
    return f"The network computed during {share:.0%} of the time of {plural(len(by_device), 'GPU')} ({workers}, cases: {len(used)}).{advice}"


def report_part(
    progress: Progress, number: int, count: int, slices: int, done: int, total: int
) -> None:
    """Report one of `count` parts that take equal times as slices of the image, whatever the part's own total."""
    progress(slices * (number * total + done) // (count * total), slices)
