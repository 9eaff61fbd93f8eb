"""Work on single cases, and its outcomes."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message, Say

Case = TypeVar("Case")
Progress = Callable[[int, int], None]
NamedProgress = Callable[[str, int, int], None]
StepCallback = Callable[..., None]
"""Called after every step with the stage's name, steps done, steps in all, and the numbers last logged."""


def no_report(*_: object) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Context:
    """What the work on a case may use.

    progress, warn: report parts of the case, and messages on it.
    """

    progress: Progress = no_report
    warn: Say = no_report


QUIET = Context()
Work = Callable[[Any, Context], Any]
"""Takes a case and its context, and returns a result that can be sent between processes."""


class Job(Protocol):
    """The work on the cases of a command. A job is sent to each worker once, and opened there once."""

    @property
    def uses_network(self) -> bool:
        """Whether a network computes: then a worker has a GPU if there is one."""

    def open(self) -> Work:
        """Load what all cases need, and return the work on one case."""


@dataclass(frozen=True)
class Outcome:
    """The result of a case or its error, and the messages that a worker has not reported."""

    result: Any = None
    error: Exception | None = None
    messages: tuple[Message, ...] = ()


Outcomes = Generator[tuple[int, Outcome], None, None]
"""The number and the outcome of each case, in the order in which they finish; closing it ends all workers."""


class WorkerDied(BadInput):
    """The worker of a case ended while it worked on the case."""


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
    return [outcomes[number] for number in range(len(cases))]


def case_sentence(case: str, error: Exception) -> str:
    """A sentence on the error of a case; the errors of an input state the case themselves."""
    if isinstance(error, WorkerDied):
        return f"{case}: {error}"
    if isinstance(error, BadInput):
        return f"{error}"
    return f"{case}: expected a result or a sentence on its scans, found {type(error).__name__}: {' '.join(str(error).split())}. Report it, with what --debug prints for this case alone."


def report_part(
    progress: Progress, number: int, count: int, slices: int, done: int, total: int
) -> None:
    """Report one of `count` parts that take equal times as slices of the image, whatever the part's own total."""
    progress(slices * (number * total + done) // (count * total), slices)
