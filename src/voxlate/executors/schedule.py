"""The distribution of cases over workers: bounded, and safe against workers that end.

A case that a worker did not finish because it ended is tried once more, alone in a worker. If that worker ends as well,
the case is to blame and fails. Cases that only shared a worker with it succeed at their second try.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from voxlate.executors.job import Outcome, Outcomes, WorkerDied
from voxlate.system.errors import BadInput

WAITING = 1  # bundles that wait in a worker, so that it does not wait for the next one
BUNDLE_SECONDS = 0.1  # of work in a message, so that sending costs less than working
MOST_IN_BUNDLE = 16  # cases of a message; the outcomes of Ray arrive by message
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
Bundle = list[tuple[int, Any]]
"""Cases that are sent in one message, each with its ticket."""


class Fleet(Protocol):
    """Workers of one job, each with a number.

    size: number of workers; slots: cases on which a worker works at the same time.
    """

    size: int
    slots: int

    def start(self, worker: int) -> None:
        """Start a worker, or start it again after it has ended."""

    def send(self, worker: int, bundle: Bundle) -> None:
        """Give cases to a worker in one message."""

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
        self.exhausted = False
        self.seconds = BUNDLE_SECONDS  # of a case, as the last ones took

    @property
    def finished(self) -> bool:
        """Whether no case is left."""
        busy = any(load.cases for load in self.loads.values())
        return self.exhausted and not self.again and not busy

    @property
    def bundle(self) -> int:
        """The number of cases in a message: one unless cases take less time than sending them."""
        fitting = int(BUNDLE_SECONDS / max(self.seconds, BUNDLE_SECONDS / MOST_IN_BUNDLE))
        return max(1, fitting)

    @property
    def room(self) -> int:
        """The number of cases that a worker may have: no more than its share of those that are left."""
        share = -(-self.left // self.fleet.size)
        return min((self.fleet.slots + WAITING) * self.bundle, max(1, share))

    def start(self, worker: int) -> None:
        self.loads[worker] = _Load()
        self.fleet.start(worker)

    def fill(self) -> None:
        """Give cases to workers that have room."""
        for worker, load in self.loads.items():
            if not load.ready or (load.alone and load.cases):
                continue
            load.alone = False
            if self.again and not load.cases:
                self._give(worker, [self.again.popleft()])
                load.alone = True
                continue
            room = self.room
            size = min(self.bundle, room)
            while not self.exhausted and len(load.cases) + size <= room:
                following = list(islice(self.rest, size))
                self.exhausted = len(following) < size
                if following:
                    self._give(worker, following)

    def _give(self, worker: int, bundle: Bundle) -> None:
        self.loads[worker].cases.update(bundle)
        self.fleet.send(worker, bundle)

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
                self._learn(outcome)
                yield ticket, outcome
            case Died(worker, error):
                if error is not None:
                    raise error
                yield from self._died(worker)

    def _learn(self, outcome: Outcome) -> None:
        """Follow the time of cases: at once where they become slower, and slowly where they become faster."""
        if outcome.cost is not None:
            took = outcome.cost.ended - outcome.cost.began
            self.seconds = max(took, 0.8 * self.seconds + 0.2 * took)

    def _died(self, worker: int) -> Iterator[tuple[int, Outcome]]:
        """Queue the cases of a worker again, or fail those that are tried already, and replace the worker."""
        load = self.loads[worker]
        if not load.ready:
            self._count_failed_start()
        for place, (ticket, case) in enumerate(load.cases.items()):
            if ticket in self.tried:
                self.left -= 1
                yield ticket, Outcome(error=_blamed())
                continue
            if place < self.fleet.slots:  # the others waited in the worker
                self.tried.add(ticket)
            self.again.append((ticket, case))
        self.start(worker)

    def _count_failed_start(self) -> None:
        self.failed_starts += 1
        if self.failed_starts >= MOST_FAILED_STARTS:
            raise BadInput(
                f"--executor: expected workers that start, found {self.failed_starts} in succession that ended before their first case. Give each more memory by fewer --workers; a script must call voxlate below `if __name__ == '__main__':`."
            )


def _blamed() -> WorkerDied:
    return WorkerDied(
        "expected a worker that finishes this case, found that two workers ended while they worked on it (most often their memory is exhausted). Run the same command again with fewer --workers or more memory."
    )


def schedule_cases(fleet: Fleet, cases: Iterable[Any], count: int) -> Outcomes:
    """The number and outcome of each case in the order in which they finish.

    count: of the cases. No case is taken from `cases` before a worker has room for it, so that the memory of this
    process does not grow with the number of cases. All workers end with the iterator.
    """
    schedule = _Schedule(fleet, cases, count)
    try:
        for worker in range(fleet.size):
            schedule.start(worker)
        while True:
            schedule.fill()
            if schedule.finished:
                return
            for event in fleet.wait():
                yield from schedule.take(event)
    finally:
        fleet.close()
