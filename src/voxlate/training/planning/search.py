"""The search for the network with the least predicted error within the time and memory of a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil, inf, log, log2, sqrt

from voxlate.base.errors import BadInput, plural
from voxlate.base.messages import Say, message
from voxlate.training.planning import rules
from voxlate.training.planning.cohort_facts import CohortFacts
from voxlate.training.planning.probe import Probe
from voxlate.training.planning.roles import Roles
from voxlate.training.planning.rules import LEAST_STEPS, Size, Tables, Why, first_stage

WIDTHS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128)
BATCHES = (2, 4, 8)
# The law's own error, by which a stem of twice the side must be better: of two stems that it told apart by 2 %, the coarser one
# had 31 % more error (vessels; 1,080 steps against 392).
DOUBT = 1.09
FASTER = 1.5  # least factor by which a coarser stem must make a step faster
# The exponents extrapolate the seconds of a step from other networks.
BY_WIDTH = 1.3
BY_STEM = 2.0
BY_BATCH = 1.0
FILLED = 1.25  # largest factor of the useful steps up to which all of the time is used
SPARE = 0.04  # share of the time that is reserved for starting, validating, saving
RUNNERS_UP = 2  # number of further networks that a reason names


@dataclass(frozen=True)
class Candidate:
    """A network with the seconds of its step, its steps, its predicted relative error, and the steps that would fit."""

    size: Size
    seconds: float
    steps: int
    error: float
    fitting: int = 1


@dataclass
class Search:
    """Times steps of the network with the best prediction, until the best network has been timed.

    say: receives a message on each timed network; tried: seconds of a step by size, infinite if it needs too much memory.
    """

    facts: CohortFacts
    roles: Roles
    probe: Probe
    say: Say
    tried: dict[Size, float] = field(default_factory=dict)

    def rank(self, share: float, most_items: float) -> list[Candidate]:
        """The networks for a share of the time, the best of those whose step was timed first.

        most_items: largest useful number of training slices. Raises BadInput if nothing fits in memory.
        """
        seconds = self.seconds(share)
        while candidates := self._candidates(seconds, most_items):
            untried = self._to_try(candidates)
            if untried is None or not (self.probe.has_time or not self._times):
                break
            self._try(untried)
        best = next((found for found in candidates if found.size in self._times), None)
        if best is None:
            raise BadInput(
                f"--memory: expected enough for the smallest network, found {self.probe.limits.memory_bytes / 2**30:.2f} GiB; it needs {self.probe.most / 2**30:.2f} GiB. Give more."
            )
        candidates.remove(best)
        return [best, *candidates]

    def seconds(self, share: float = 1.0) -> float:
        """A share of the seconds that are left for training steps."""
        return self.probe.seconds * (1 - SPARE) * share

    @property
    def _times(self) -> Mapping[Size, float]:
        return {size: seconds for size, seconds in self.tried.items() if seconds < inf}

    def _recipe(self, size: Size) -> Tables:
        return first_stage(self.facts, self.roles, size, LEAST_STEPS).tables

    def _try(self, size: Size) -> None:
        measured = self.probe.measure(self._recipe(size), 0)
        self.tried[size] = inf if measured is None else measured.seconds
        cost = "too much memory" if measured is None else f"{measured.seconds:.3f} s a step"
        self.say(message("probe", f"probe: {size}: {cost}"))

    def _to_try(self, candidates: list[Candidate]) -> Size | None:
        """The best candidate if it was not timed yet, otherwise the next finer stem if that decides about it."""
        best = candidates[0].size
        if best not in self.tried:
            return self._halfway(best)
        finer = replace(best, stem=best.stem // 2)
        if finer.stem in rules.stems(self.facts) and finer not in self.tried:
            return finer
        return None

    def _halfway(self, size: Size) -> Size:
        """The size, or a narrower one between the largest that fits and the smallest that did not."""
        similar = {width: self.tried.get(replace(size, width=width)) for width in WIDTHS}
        fitting = [width for width, seconds in similar.items() if (seconds or inf) < inf]
        refused = [width for width, seconds in similar.items() if seconds == inf]
        if not fitting or not refused:
            return size
        middle = sqrt(max(fitting) * min(refused))
        between = [width for width in WIDTHS if max(fitting) < width <= middle]
        return replace(size, width=min(max(between, default=size.width), size.width))

    def _candidates(self, seconds: float, most_items: float) -> list[Candidate]:
        choices = product(rules.stems(self.facts), WIDTHS, BATCHES)
        sizes = [Size(width, stem, batch) for stem, width, batch in choices]
        possible = [size for size in sizes if not self._is_too_large(size) and self._pays(size)]
        if not self._times:  # the smallest network is tried first
            return [Candidate(size, inf, 1, inf) for size in possible[:1]]
        candidates = [
            self.candidate(size, self._seconds(size), seconds, most_items) for size in possible
        ]
        return sorted(candidates, key=lambda candidate: candidate.error)

    def candidate(self, size: Size, each: float, seconds: float, most_items: float) -> Candidate:
        """The network whose step takes `each` seconds, in a training of `seconds`."""
        fitting = max(int(seconds / each), 1)
        steps = useful_steps(fitting, ceil(most_items / size.batch))
        feature_mm = size.stem * self.facts.pixel_mm
        error = relative_error(size.width, feature_mm, size.batch, steps)
        error *= DOUBT ** log2(size.stem)
        return Candidate(size, each, steps, error, fitting)

    def _is_too_large(self, size: Size) -> bool:
        """Whether this size, or one that needs less memory, did not fit."""
        refused = self.tried.keys() - self._times.keys()
        return any(
            size.width >= other.width and size.stem <= other.stem and size.batch >= other.batch
            for other in refused
        )

    def _pays(self, size: Size) -> bool:
        """Whether the stem makes steps much faster than the next finer stem, as far as both were timed."""
        times = self._times
        return not any(
            2 * fine.stem == size.stem
            and times.get(replace(fine, stem=size.stem), 0) * FASTER > seconds
            for fine, seconds in times.items()
        )

    def _seconds(self, size: Size) -> float:
        """Seconds of a step: measured, or extrapolated from the nearest networks that were timed."""
        times = self._times
        if size in times:
            return times[size]
        near, *others = sorted(times, key=lambda other: _distance(other, size))
        power = BY_WIDTH
        if others and _distance(others[0], size)[:2] == _distance(near, size)[:2] == (0, 0):
            growth = log(times[others[0]] / times[near])
            power = max(growth / log(others[0].width / near.width), 0.0)
        wider = (size.width / near.width) ** power
        larger = (size.batch / near.batch) ** BY_BATCH
        return times[near] * wider * larger * (near.stem / size.stem) ** BY_STEM


def useful_steps(fitting: int, most: int) -> int:
    """All steps that fit in the time if these are hardly more than the largest useful number, else that number."""
    return fitting if fitting <= FILLED * most else most


def _distance(size: Size, other: Size) -> tuple[float, ...]:
    """By stem, by batch and by width, as the distance of logarithms."""
    pairs = (size.stem, other.stem), (size.batch, other.batch), (size.width, other.width)
    return tuple(abs(log(a / b)) for a, b in pairs)


def reason(best: Candidate, others: list[Candidate]) -> Why:
    """The reason for the best candidate, with the predicted loss of the next ones."""
    text = "the least predicted error"
    if any(candidate.error < best.error for candidate in others):
        text += " of the networks whose step was timed"
    if named := [_compare(candidate, best) for candidate in others[:RUNNERS_UP]]:
        text += f"; others: {', '.join(named)}"
    return Why(f"{best.size} gets {plural(best.steps, 'step')} of {best.seconds:.3f} s", text)


def _compare(candidate: Candidate, best: Candidate) -> str:
    """A network with its predicted error relative to the chosen one; a lower one was not timed."""
    untimed = (
        ", which was not timed in the time of the probe" if candidate.error < best.error else ""
    )
    difference = candidate.error / best.error - 1
    return f"{candidate.size} ({candidate.steps:,} steps of {candidate.seconds:.3f} s) {difference:+.1%}{untimed}"


GAIN = 0.074
LATE = 42.1
DECAY = 0.643
COARSE = 1.69
NARROW = 0.409
FEW = 0.247


def relative_error(width: int, feature_mm: float, batch: int, steps: float) -> float:
    """Predicted error relative to an unlimited training of width 1; feature_mm: side of a feature after the stem."""
    late = LATE * (feature_mm / 2) ** COARSE * (32 / width) ** NARROW * (4 / batch) ** FEW
    return width**-GAIN * (1 + (late / steps) ** DECAY)
