"""The search for the network with the least predicted error within the time and memory of a plan."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from voxlate.planning import law, rules
from voxlate.planning.facts import Facts
from voxlate.planning.probe import Probe
from voxlate.planning.rules import Size, Tables
from voxlate.planning.starters import Starter
from voxlate.system.messages import Say, message

WIDTHS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128)
BATCHES = (2, 4, 8)
FASTER = 1.5  # least factor by which a coarser stem must make a step faster
# The exponents extrapolate the seconds of a step from other networks.
BY_WIDTH = 1.3
BY_STEM = 2.0
BY_BATCH = 1.0
FILLED = 1.25  # largest factor of the useful steps up to which all of the time is used
RUNNERS_UP = 2  # number of further networks that a reason names


@dataclass(frozen=True)
class Candidate:
    """A network with the seconds of its step, its number of steps, and its predicted relative error."""

    size: Size
    seconds: float
    steps: int
    error: float


@dataclass
class Search:
    """Times steps of the network with the best prediction, until the best network has been timed.

    recipe: gives the recipe of a size for the probe; say: receives a message on each timed network; tried: seconds of
    a step by size, infinite if it needs too much memory; starter: weights from which the first stage may begin.
    """

    facts: Facts
    probe: Probe
    recipe: Callable[[Size], Tables]
    say: Say
    tried: dict[Size, float] = field(default_factory=dict)
    starter: Starter | None = None

    def ranked(self, seconds: float, most_items: float) -> list[Candidate]:
        """The networks for a training of this time, the best first; empty if nothing fits in memory.

        most_items: largest useful number of training items.
        """
        candidates = self._candidates(seconds, most_items)
        while candidates:
            untried = self._to_try(candidates)
            if untried is None or not (self.probe.has_time or not self._fitting):
                break
            self._try(untried)
            candidates = self._candidates(seconds, most_items)
        fitting = [candidate for candidate in candidates if candidate.size in self._fitting]
        if not fitting:
            return []
        first = fitting[0]
        return [
            first,
            *(candidate for candidate in candidates if candidate is not first),
        ]

    def retimed(self, candidate: Candidate, seconds: float, most_items: float) -> Candidate:
        """The candidate after its step was timed again, or for another time."""
        return self._candidate(candidate.size, self.tried[candidate.size], seconds, most_items)

    @property
    def _fitting(self) -> dict[Size, float]:
        return {size: seconds for size, seconds in self.tried.items() if seconds < math.inf}

    def _try(self, size: Size) -> None:
        measured = self.probe.measure(self.recipe(size), 0)
        self.tried[size] = math.inf if measured is None else measured.seconds
        cost = "too much memory" if measured is None else f"{measured.seconds:.3f} s a step"
        self.say(message("probe", f"probe: {size}: {cost}"))

    def _to_try(self, candidates: list[Candidate]) -> Size | None:
        """The best candidate if it was not timed yet, otherwise the next finer stem if that decides about it."""
        best = candidates[0].size
        if best not in self.tried:
            return self._halfway(best)
        finer = replace(best, stem=best.stem // 2)
        return finer if finer.stem in rules.stems(self.facts) and finer not in self.tried else None

    def _halfway(self, size: Size) -> Size:
        """The size, or a narrower one between the largest that fits and the smallest that did not."""
        similar = [
            other for other in self.tried if (other.stem, other.batch) == (size.stem, size.batch)
        ]
        largest = max((other.width for other in similar if other in self._fitting), default=None)
        refused = [other.width for other in similar if other not in self._fitting]
        if largest is None or not refused:
            return size
        middle = math.sqrt(largest * min(refused))
        width = max(
            (candidate for candidate in WIDTHS if largest < candidate <= middle),
            default=size.width,
        )
        return replace(size, width=min(width, size.width))

    def _candidates(self, seconds: float, most_items: float) -> list[Candidate]:
        every = itertools.product(rules.stems(self.facts), WIDTHS, BATCHES)
        sizes = [Size(width, stem, batch) for stem, width, batch in every]
        possible = [size for size in sizes if not self._too_large(size) and self._pays(size)]
        if not self._fitting:  # the smallest network is tried first
            return [Candidate(size, math.inf, 1, math.inf) for size in possible[:1]]
        candidates = [
            self._candidate(size, self._seconds(size), seconds, most_items) for size in possible
        ]
        return sorted(candidates, key=lambda candidate: candidate.error)

    def _candidate(self, size: Size, each: float, seconds: float, most_items: float) -> Candidate:
        fitting = max(int(seconds / each), 1)
        most_steps = math.ceil(most_items / size.batch)
        steps = fitting if fitting <= FILLED * most_steps else most_steps
        error = law.relative_error(size.width, size.stem * self.facts.pixel_mm, size.batch, steps)
        return Candidate(size, each, steps, error)

    def _too_large(self, size: Size) -> bool:
        """Whether this size, or one that needs less memory, did not fit."""
        for other, seconds in self.tried.items():
            larger = (
                size.width >= other.width and size.stem <= other.stem and size.batch >= other.batch
            )
            if larger and seconds == math.inf:
                return True
        return False

    def _pays(self, size: Size) -> bool:
        """Whether the stem makes steps much faster than the next finer stem, as far as both were timed."""
        for fine, seconds in self._fitting.items():
            coarse = self._fitting.get(replace(fine, stem=size.stem))
            if 2 * fine.stem == size.stem and coarse is not None and seconds < FASTER * coarse:
                return False
        return True

    def _seconds(self, size: Size) -> float:
        """Seconds of a step: measured, or extrapolated from the nearest networks that were timed."""
        if size in self._fitting:
            return self._fitting[size]
        near, *others = sorted(self._fitting, key=lambda other: _distance(other, size))
        power = BY_WIDTH
        second = others[0] if others else None
        if second and (second.stem, second.batch) == (near.stem, near.batch) == (
            size.stem,
            size.batch,
        ):
            growth = math.log(self._fitting[second] / self._fitting[near])
            power = max(growth / math.log(second.width / near.width), 0.0)
        wider = (size.width / near.width) ** power
        larger = (size.batch / near.batch) ** BY_BATCH
        return self._fitting[near] * wider * larger * (near.stem / size.stem) ** BY_STEM


def _distance(size: Size, other: Size) -> tuple[float, float, float]:
    return (
        _apart(size.stem, other.stem),
        _apart(size.batch, other.batch),
        _apart(size.width, other.width),
    )


def _apart(a: int, b: int) -> float:
    return abs(math.log(a / b))


def reason(ranked: list[Candidate]) -> str:
    """The reason for the first candidate, with the predicted loss of the next ones."""
    best, *others = ranked
    text = (
        f"{best.size} gets {best.steps:,} steps of {best.seconds:.3f} s: the least predicted error"
    )
    if any(candidate.error < best.error for candidate in others):
        text += " of the networks whose step was timed"
    named = [_compared(candidate, best) for candidate in others[:RUNNERS_UP]]
    return text + (f"; others: {', '.join(named)}" if named else "")


def _compared(candidate: Candidate, best: Candidate) -> str:
    """A network with its predicted error relative to the chosen one; a lower one was not timed."""
    untimed = (
        ", which was not timed in the time of the probe" if candidate.error < best.error else ""
    )
    difference = candidate.error / best.error - 1
    return f"{candidate.size} ({candidate.steps:,} steps of {candidate.seconds:.3f} s) {difference:+.1%}{untimed}"
