"""Disturbances of a command, each of which ends with the same command again and a comparison with an undisturbed run."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from children import Child, command_line, killed_at, strays
from scenarios import SCENARIOS, Scenario, Undisturbed, differences, reset

SAME = "same bits"
FAULT = "FAULT"
SKIPPED = "skipped: no disk of its own could be mounted"
PAGE = os.sysconf("SC_PAGE_SIZE")
FILLER = "filler"  # a file beside the folder to work in


@dataclass(frozen=True)
class Place:
    """Folders of the tries: the trees between commands, and one to work in."""

    states: Path
    work: Path
    runs: dict[str, Undisturbed]
    has_own_disk: bool

    def begin(self, scenario: Scenario) -> None:
        reset(self.work, self.states / str(SCENARIOS.index(scenario)))

    def expected(self, scenario: Scenario) -> Path:
        return self.states / str(SCENARIOS.index(scenario) + 1)

    def again(self, scenario: Scenario) -> tuple[str, ...]:
        return scenario.again(self.work, self.expected(scenario))

    def judge(self, scenario: Scenario) -> str:
        """Run the command again, and compare the tree with that of an undisturbed run."""
        child = Child(command_line(self.again(scenario)), self.work)
        ended = child.wait()
        if ended.code != 0:
            return f"{FAULT}: exit code {ended.code} of the same command: {ended.err[-800:]}"
        if not child.workers_are_gone():
            return f"{FAULT}: processes remain"
        return self.compare(scenario)

    def compare(self, scenario: Scenario) -> str:
        if left := strays(self.work):
            return f"{FAULT}: remaining files {left}"
        found = differences(self.work, self.expected(scenario))
        return f"{FAULT}: {'; '.join(found)}" if found else SAME


Disturbance = Callable[[Place, Scenario, np.random.Generator], str]


def kill_at_a_moment(place: Place, scenario: Scenario, draw: np.random.Generator) -> str:
    """SIGKILL after a random share of the undisturbed time."""
    place.begin(scenario)
    moment = float(draw.uniform(0, place.runs[scenario.name].seconds))
    Child(command_line(scenario.command), place.work).wait(kill_after=moment)
    return place.judge(scenario)


def kill_at_events(place: Place, scenario: Scenario, draw: np.random.Generator) -> str:
    """SIGKILL before a random file-system event; every third time also before one of the command that follows."""
    place.begin(scenario)
    count = len(place.runs[scenario.name].events)
    Child(command_line(scenario.command), place.work, killed_at(int(draw.integers(count)))).wait()
    if draw.random() < 1 / 3:
        Child(
            command_line(place.again(scenario)), place.work, killed_at(int(draw.integers(count)))
        ).wait()
    return place.judge(scenario)


def two_at_once(place: Place, scenario: Scenario, draw: np.random.Generator) -> str:
    """The same command twice at once; every other time the first process is killed meanwhile."""
    place.begin(scenario)
    longest = place.runs[scenario.name].seconds
    first = Child(command_line(scenario.command), place.work)
    second = Child(command_line(scenario.command), place.work)
    if draw.random() < 0.5:
        first.wait(kill_after=float(draw.uniform(0, longest)))
        ends = [second.wait()]
    else:
        ends = [first.wait(), second.wait()]
    for end in ends:
        if end.code != 0 and not end.refused:
            return f"{FAULT}: exit code {end.code}: {end.err[-800:]}"
    return place.judge(scenario)


def kill_a_worker(place: Place, scenario: Scenario, draw: np.random.Generator) -> str:
    """SIGKILL of one worker at a random moment after the first one began: the command itself must finish with all results."""
    place.begin(scenario)
    child = Child(command_line(scenario.command), place.work)
    whole = place.runs[scenario.name].seconds
    begun = time.monotonic()
    while not _workers(child.pid) and time.monotonic() - begun < whole:
        time.sleep(0.05)
    left = max(whole - (time.monotonic() - begun), 0)
    time.sleep(float(draw.uniform(0, left)) / 2)  # the last half is the end of the command
    workers = _workers(child.pid)
    if workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers[int(draw.integers(len(workers)))].kill()
    ended = child.wait()
    if ended.code != 0:
        return f"{FAULT}: exit code {ended.code}: {ended.err[-800:]}"
    if not child.workers_are_gone():
        return f"{FAULT}: processes remain"
    found = place.compare(scenario)
    return found if workers or found != SAME else f"{SAME} (no worker ran at that moment)"


def _workers(command: int) -> list[psutil.Process]:
    """The processes that work on cases: those below a process that the command started, and none of Ray's services."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(command).children(recursive=True)
        lines = [" ".join(one.cmdline()) for one in below]
        if any("/ray/" in line for line in lines):
            return [one for one, line in zip(below, lines) if line.startswith("ray::_RayWorker")]
        return [one for one in below if one.ppid() != command and not one.children()]
    return []


def full_disk(place: Place, scenario: Scenario, draw: np.random.Generator) -> str:
    """A disk that becomes full as a file is opened: entirely, or up to half of what the file takes."""
    if not place.has_own_disk:
        return SKIPPED
    place.begin(scenario)
    seen = place.runs[scenario.name].events
    opened = [number for number, event in enumerate(seen) if event.kind == "open"]
    chosen = int(draw.integers(len(opened)))
    first = opened[chosen]
    end = opened[chosen + 1] if chosen + 1 < len(opened) else len(seen) - 1
    grown = max(event.used_bytes for event in seen[first : end + 1]) - seen[first].used_bytes
    left = grown // 2 // PAGE * PAGE if draw.random() < 0.5 else 0
    filler = place.work.parent / FILLER

    def hook(number: int, kind: str, path: str) -> None:
        if number == first:
            fill(filler, left)

    ended = Child(command_line(scenario.command), place.work, hook).wait()
    filler.unlink(missing_ok=True)
    if ended.code != 0 and not (ended.refused and "No space left" in ended.err):
        return f"{FAULT}: {seen[first].path}: exit code {ended.code}: {ended.err[-800:]}"
    # Workers are killed when a command fails, as they may be in the middle of a long case; the next command removes theirs.
    if "--executor" not in scenario.command and (remaining := strays(place.work)):
        return f"{FAULT}: {seen[first].path}: remaining files {remaining}"
    then = place.judge(scenario)
    return then if then != SAME or ended.code == 0 else f"one sentence, then {SAME}"


def fill(filler: Path, left_bytes: int) -> None:
    """Take all of a disk but some bytes."""
    disk = os.statvfs(filler.parent)
    taken = disk.f_bfree * disk.f_frsize - left_bytes
    if taken > 0:
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)
