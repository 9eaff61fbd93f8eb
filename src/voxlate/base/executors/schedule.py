"""The distribution of cases over workers: bounded, and safe against workers that end.

A case that a worker did not finish because it ended is tried once more, alone. If that worker ends as well, the case is
to blame and fails. Cases that only shared a worker with it succeed at their second try.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Outcome, Outcomes, WorkerDied, no_report
from voxlate.base.messages import Say

MOST_FAILED_STARTS = 3  # workers that end before they are ready

Numbered = tuple[int, Any]
Answer = list[tuple[int, Outcome]] | Exception
"""The outcomes of finished cases by number, or the error that opening the job raised."""


class Worker(Protocol):
    """A worker that opens a job and works on one or several cases at a time."""

    def advance(self, numbered: Numbered | None) -> Future[Answer]:
        """Begin a case with its number; the answer comes when there is room for another one.

        None waits for the end of a case, or opens the job where the worker has none yet.
        """

    def close(self) -> None:
        """End the worker at once."""


@dataclass
class _Place:
    """A worker and the numbers of the cases that it has."""

    number: int
    worker: Worker
    cases: set[int] = field(default_factory=set)
    ready: bool = False


def schedule_cases(
    hire: Callable[[int], Worker],
    size: int,
    cases: Sequence[Any],
    warn: Say = no_report,
    died: type[Exception] = BrokenExecutor,
) -> Outcomes:
    """The number and outcome of each case in the order in which they finish.

    hire: starts the worker of a number below `size`; warn: is called with the warnings of cases; died: the error of an
    answer that a worker owes as it ends. No case is taken from `cases` before a worker has room for it, so that the
    memory of this process does not grow with the number of cases. All workers end with the iterator.
    """
    lost = list[int]()
    yield from _finish(hire, size, cases, deque(range(len(cases))), lost, warn, died)
    for number in lost:
        died_again = list[int]()
        yield from _finish(hire, 1, cases, deque([number]), died_again, warn, died)
        if died_again:
            error = WorkerDied(
                "expected a worker that finishes this case, found that two workers ended while they worked on it (most often their memory is exhausted). Run the same command again with fewer --workers or more memory."
            )
            yield number, Outcome(error=error)


def _finish(
    hire: Callable[[int], Worker],
    size: int,
    cases: Sequence[Any],
    waiting: deque[int],
    lost: list[int],
    warn: Say,
    died: type[Exception],
) -> Outcomes:
    """The outcomes of waiting cases; those that a worker had as it ended go to `lost`."""
    left, failed_starts = len(waiting), 0
    places = {}
    answers = {}

    def start(number: int) -> None:
        places[number] = place = _Place(number, hire(number))
        answers[place.worker.advance(None)] = place

    try:
        for number in range(size):
            start(number)
        while answers:
            for future in wait(answers, return_when=FIRST_COMPLETED).done:
                place = answers.pop(future)
                try:
                    answer = future.result()
                except died:
                    failed_starts += not place.ready
                    if failed_starts == MOST_FAILED_STARTS:
                        raise BadInput(
                            f"--executor: expected workers that start, found {failed_starts} that ended before their first case. Give each more memory by fewer --workers; a script must call voxlate below `if __name__ == '__main__':`."
                        ) from None
                    lost += sorted(place.cases)
                    left -= len(place.cases)
                    place.worker.close()
                    if waiting:
                        start(place.number)
                    continue
                if isinstance(answer, Exception):
                    raise answer
                place.ready = True
                for number, outcome in answer:
                    place.cases.remove(number)
                    left -= 1
                    for warning in outcome.warnings:
                        warn(warning)
                    yield number, outcome
                following = None
                if waiting and len(place.cases) < -(-left // size):  # its share of those left
                    number = waiting.popleft()
                    place.cases.add(number)
                    following = (number, cases[number])
                if place.cases:
                    answers[place.worker.advance(following)] = place
    finally:
        for place in places.values():
            place.worker.close()
