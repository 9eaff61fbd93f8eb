"""The distribution of cases over workers: bounded, and safe against workers that end.

A case that a worker did not finish because it ended is tried once more, alone in a worker. If that worker ends as well,
the case is to blame and fails. Cases that only shared a worker with it succeed at their second try.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from voxlate.base.errors import BadInput
from voxlate.base.executors.job import Outcome, Outcomes, WorkerDied, no_report
from voxlate.base.messages import Say

WAITING = 1  # cases that wait in a worker, so that it does not wait for the next one
MOST_FAILED_STARTS = 3  # workers in succession that end before they are ready


@dataclass(frozen=True)
class Ready:
    """A worker has opened the job."""

    worker: int


@dataclass(frozen=True)
class Finished:
    """A worker has finished a case; ticket: of the case."""

    worker: int
    ticket: int
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """A worker has ended, with the error that opening the job raised, if it raised one."""

    worker: int
    error: Exception | None = None


Event = Ready | Finished | Died


def event_of(worker: int, ticket: int | None, content: Any) -> Event:
    """The event of an answer: the outcome of a case, or without a ticket the error of opening the job, if any."""
    if ticket is not None:
        return Finished(worker, ticket, content)
    return Ready(worker) if content is None else Died(worker, content)


class Fleet(Protocol):
    """Workers of one job, each with a number.

    size: number of workers; slots: cases on which a worker works at the same time.
    """

    size: int
    slots: int

    def start(self, worker: int) -> None:
        """Start a worker, or start it again after it has ended."""

    def send(self, worker: int, ticket: int, case: Any) -> None:
        """Give a case to a worker."""

    def wait(self) -> list[Event]:
        """Wait until something happens, and return it."""

    def close(self) -> None:
        """End all workers at once."""


@dataclass
class _Load:
    """The cases that a worker has, by ticket; alone: whether it has a case that no other may disturb."""

    cases: dict[int, Any] = field(default_factory=dict)
    ready: bool = False
    alone: bool = False


class _Schedule:
    """Which worker has which case, and which cases are tried again."""

    def __init__(self, fleet: Fleet, cases: Iterable[Any], count: int):
        self.fleet = fleet
        self.left = count
        self.rest = iter(enumerate(cases))
        self.again = deque[tuple[int, Any]]()
        self.tried = set[int]()
        self.loads = dict[int, _Load]()
        self.failed_starts = 0

    def start(self, worker: int) -> None:
        """Start a worker without cases."""
        self.loads[worker] = _Load()
        self.fleet.start(worker)

    def fill(self) -> None:
        """Give cases to workers that have room: no more than their share of those that are left."""
        share = -(-self.left // self.fleet.size)
        room = min(self.fleet.slots + WAITING, max(1, share))
        for worker, load in self.loads.items():
            if not load.ready or (load.alone and load.cases):
                continue
            load.alone = bool(self.again) and not load.cases
            if load.alone:
                self._give(worker, self.again.popleft())
                continue
            while len(load.cases) < room and (following := next(self.rest, None)) is not None:
                self._give(worker, following)

    def _give(self, worker: int, numbered: tuple[int, Any]) -> None:
        ticket, case = numbered
        self.loads[worker].cases[ticket] = case
        self.fleet.send(worker, ticket, case)

    def take(self, event: Event) -> Iterator[tuple[int, Outcome]]:
        """The outcomes that an event brings."""
        match event:
            case Ready(worker):
                self.failed_starts = 0
                self.loads[worker].ready = True
            case Finished(worker, ticket, outcome):
                del self.loads[worker].cases[ticket]
                self.tried.discard(ticket)
                self.left -= 1
                yield ticket, outcome
            case Died(worker, error):
                if error is not None:
                    raise error
                yield from self._replace(worker)

    def _replace(self, worker: int) -> Iterator[tuple[int, Outcome]]:
        """Replace a worker that ended: its cases are queued again, or fail where they were tried already."""
        load = self.loads[worker]
        if not load.ready:
            self.failed_starts += 1
            if self.failed_starts >= MOST_FAILED_STARTS:
                raise BadInput(
                    f"--executor: expected workers that start, found {self.failed_starts} in succession that ended before their first case. Give each more memory by fewer --workers; a script must call voxlate below `if __name__ == '__main__':`."
                )
        for place, (ticket, case) in enumerate(load.cases.items()):
            if ticket in self.tried:
                self.left -= 1
                error = WorkerDied(
                    "expected a worker that finishes this case, found that two workers ended while they worked on it (most often their memory is exhausted). Run the same command again with fewer --workers or more memory."
                )
                yield ticket, Outcome(error=error)
                continue
            if place < self.fleet.slots:  # the others waited in the worker
                self.tried.add(ticket)
            self.again.append((ticket, case))
        self.start(worker)


def schedule_cases(
    fleet: Fleet, cases: Iterable[Any], count: int, warn: Say = no_report
) -> Outcomes:
    """The number and outcome of each case in the order in which they finish.

    count: of the cases; warn: is called with the warnings of cases. No case is taken from `cases` before a worker has room for it, so that the memory of this
    process does not grow with the number of cases. All workers end with the iterator.
    """
    schedule = _Schedule(fleet, cases, count)
    try:
        for worker in range(fleet.size):
            schedule.start(worker)
        while schedule.left:
            schedule.fill()
            for event in fleet.wait():
                for ticket, outcome in schedule.take(event):
                    for warning in outcome.warnings:
                        warn(warning)
                    yield ticket, outcome
    finally:
        fleet.close()
