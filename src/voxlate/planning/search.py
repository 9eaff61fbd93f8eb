"""The network whose predicted error is least in the time and memory that a plan has."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from voxlate.planning import law, rules
from voxlate.planning.facts import Facts
from voxlate.planning.probe import Probe
from voxlate.planning.rules import Size, Tables

WIDTHS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128)
BATCHES = (2, 4, 8)
FASTER = 1.5  # a coarser stem must make a step so many times as fast
# powers by which a step's seconds are guessed until they are measured
BY_WIDTH, BY_STEM, BY_BATCH = 1.3, 2.0, 1.0
# times the steps that few patients are worth, up to which time is filled rather than left over
FILLED = 1.25
RUNNERS_UP = 2  # that are measured or guessed, and named


@dataclass(frozen=True)
class Candidate:
    """A network with the seconds of its step, the steps that it is given, and its predicted relative error."""

    size: Size
    seconds: float
    steps: int
    error: float


@dataclass
class Search:
    """Times steps of the network that is predicted best, until the one that is predicted best has been timed.

    recipe: of a size, for the probe; say: is given a sentence for each network that is timed; tried: seconds of a step
    by size, infinite where it needs too much memory.
    """

    facts: Facts
    probe: Probe
    recipe: Callable[[Size], Tables]
    say: Callable[[str], None]
    tried: dict[Size, float] = field(default_factory=dict)

    def ranked(self, seconds: float, most_items: float) -> list[Candidate]:
        """The best network for a training of so many seconds, then the runners-up; empty where nothing fits in memory.

        most_items: training items that the patients are worth.
        """
        found = self._candidates(seconds, most_items)
        while found and (untried := self._to_try(found)) is not None and (self.probe.has_time or not self._fitting):
            self._try(untried)
            found = self._candidates(seconds, most_items)
        first = next((one for one in found if one.size in self._fitting), None)
        return [] if first is None else [first, *(one for one in found if one is not first)]

    def retimed(self, candidate: Candidate, seconds: float, most_items: float) -> Candidate:
        """A candidate whose step was timed again, or for another number of seconds."""
        return self._candidate(candidate.size, self.tried[candidate.size], seconds, most_items)

    @property
    def _fitting(self) -> dict[Size, float]:
        return {size: seconds for size, seconds in self.tried.items() if seconds < math.inf}

    def _try(self, size: Size) -> None:
        measured = self.probe.measure(self.recipe(size), 0)
        self.tried[size] = math.inf if measured is None else measured.seconds
        cost = "too much memory" if measured is None else f"{measured.seconds:.3f} s a step"
        self.say(f"probe: {size}: {cost}")

    def _to_try(self, found: list[Candidate]) -> Size | None:
        """The best candidate where it was not timed, else the next finer stem where that decides about it."""
        best = found[0].size
        if best not in self.tried:
            return self._halfway(best)
        finer = replace(best, stem=best.stem // 2)
        return finer if finer.stem in rules.stems(self.facts) and finer not in self.tried else None

    def _halfway(self, size: Size) -> Size:
        """The size itself; nearer to the largest one that fits where one of its stem did not fit in memory."""
        alike = [one for one in self.tried if (one.stem, one.batch) == (size.stem, size.batch)]
        largest = max((one.width for one in alike if one in self._fitting), default=None)
        refused = [one.width for one in alike if one not in self._fitting]
        if largest is None or not refused:
            return size
        middle = math.sqrt(largest * min(refused))
        width = max((one for one in WIDTHS if largest < one <= middle), default=size.width)
        return replace(size, width=min(width, size.width))

    def _candidates(self, seconds: float, most_items: float) -> list[Candidate]:
        every = itertools.product(rules.stems(self.facts), WIDTHS, BATCHES)
        sizes = [Size(width, stem, batch) for stem, width, batch in every]
        possible = [size for size in sizes if not self._too_large(size) and self._pays(size)]
        if not self._fitting:  # the smallest network first
            return [Candidate(size, math.inf, 1, math.inf) for size in possible[:1]]
        found = [self._candidate(size, self._seconds(size), seconds, most_items) for size in possible]
        return sorted(found, key=lambda one: one.error)

    def _candidate(self, size: Size, each: float, seconds: float, most_items: float) -> Candidate:
        fitting = max(int(seconds / each), 1)
        most_steps = math.ceil(most_items / size.batch)
        steps = fitting if fitting <= FILLED * most_steps else most_steps
        error = law.relative_error(size.width, size.stem * self.facts.pixel_mm, size.batch, steps)
        return Candidate(size, each, steps, error)

    def _too_large(self, size: Size) -> bool:
        """Whether it, or a network that needs less memory, did not fit."""
        refused = [one for one, seconds in self.tried.items() if seconds == math.inf]
        return any(size.width >= one.width and size.stem <= one.stem and size.batch >= one.batch for one in refused)

    def _pays(self, size: Size) -> bool:
        """Whether its stem makes steps enough faster than the next finer one, as far as both were timed."""
        pairs = [
            (self._fitting[fine], self._fitting[coarse])
            for fine in self._fitting
            if 2 * fine.stem == size.stem and (coarse := replace(fine, stem=size.stem)) in self._fitting
        ]
        return all(fine >= FASTER * coarse for fine, coarse in pairs)

    def _seconds(self, size: Size) -> float:
        """Of a step, as timed; else guessed from the nearest network that was timed, and from how two of them grow."""
        if size in self._fitting:
            return self._fitting[size]
        near, *others = sorted(self._fitting, key=lambda one: _distance(one, size))
        power = BY_WIDTH
        if others and (others[0].stem, others[0].batch) == (near.stem, near.batch) == (
            size.stem,
            size.batch,
        ):
            growth = math.log(self._fitting[others[0]] / self._fitting[near])
            power = max(growth / math.log(others[0].width / near.width), 0.0)
        wider = (size.width / near.width) ** power
        larger = (size.batch / near.batch) ** BY_BATCH
        return self._fitting[near] * wider * larger * (near.stem / size.stem) ** BY_STEM


def _distance(one: Size, other: Size) -> tuple[float, float, float]:
    return (
        _apart(one.stem, other.stem),
        _apart(one.batch, other.batch),
        _apart(one.width, other.width),
    )


def _apart(one: int, other: int) -> float:
    return abs(math.log(one / other))


def reason(ranked: list[Candidate]) -> str:
    """Why the first candidate was taken, with the next ones and what they were predicted to lose."""
    best, *others = ranked
    text = f"{best.size} gets {best.steps:,} steps of {best.seconds:.3f} s: the least predicted error"
    if any(one.error < best.error for one in others):
        text += " of the networks that there was time to try (more minutes would try others)"
    named = [
        f"{one.size} ({one.steps:,} steps of {one.seconds:.3f} s) {one.error / best.error - 1:+.1%}"
        for one in others[:RUNNERS_UP]
    ]
    return text + (f"; next best: {', '.join(named)}" if named else "")
