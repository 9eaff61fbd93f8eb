"""A race of a plan's first stages, from a starter and from random weights: held-out patients decide about their start.

They train side by side for a part of the minutes, each its own recipe with its own rate and average from the first
step, so that the winner goes on from its state. Their errors are shares of how much the truth varies, because candidates may scale a target differently.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from voxlate.base.errors import plural
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.cohorts.split import patient_order
from voxlate.science.batch import Batch
from voxlate.training.job import Job
from voxlate.training.planning.probe import Candidate, Sizes, TimedSteps
from voxlate.training.planning.rules import LEAST_STEPS, Draft, Size, Why, first_stage
from voxlate.training.planning.starters import Starter, begin_from
from voxlate.training.precision import with_precision
from voxlate.training.processes import processes
from voxlate.training.recipe import from_dict
from voxlate.training.starter import initial_method
from voxlate.training.validate import find_targets, validate, validation_items

SHARE = 0.1  # of the first stage's seconds that a race takes
ITEMS = 16  # validation items, spread over all validation cases
FEWEST_STEPS = 8  # steps of each entrant, before which its error says nothing


@dataclass(frozen=True)
class Entrant:
    """A candidate: its name in messages, its network, and its draft."""

    name: str
    candidate: Candidate
    draft: Draft


@dataclass(frozen=True)
class Result:
    """What a race showed of an entrant.

    error: mean absolute error on held-out items as a share of the truth's mean absolute deviation; state: from which its
    training goes on, None where the race held out training patients.
    """

    entrant: Entrant
    steps: int
    error: float
    state: dict[str, Any] | None

    def __str__(self) -> str:
        return f"{self.entrant.name}: {self.error:.3f} after {self.steps:,} steps"


def hold_out(cohort: Cohort) -> Cohort | None:
    """The cohort whose validation patients judge a race: its own, or one of several training patients; else None."""
    if cohort.splits["val"]:
        return cohort
    training = {entry.patient for entry in cohort.cases if entry.split == "train"}
    if len(training) < 2:
        return None
    held_out = min(training, key=lambda patient: patient_order(0, patient))
    chosen = (entry for entry in cohort.cases if entry.patient == held_out)
    return cohort.with_splits({entry.case: "val" for entry in chosen if entry.split == "train"})


def run_race(
    entrants: Sequence[Entrant], cohort: Cohort, seconds: float, device: str, goes_on: bool
) -> list[Result]:
    """Train the entrants in turns until they took these seconds in all; their results, the best first.

    cohort: has validation patients (see hold_out); goes_on: whether it trains on all patients, as the plan does.
    """
    runners = [_begin(entrant, cohort, device) for entrant in entrants]
    while (behind := min(runners, key=lambda one: one.spent)).spent < seconds / len(runners):
        behind.step()
    results = []
    for entrant, runner in zip(entrants, runners):
        while runner.learner.step < FEWEST_STEPS:
            runner.step()
        state = {**runner.learner.state(), "seconds": 0.0} if goes_on else None
        results.append(Result(entrant, runner.learner.step, _error(runner), state))
    # A diverged training, whose error is NaN, comes last.
    return sorted(results, key=lambda one: (math.isnan(one.error), one.error))


def _begin(entrant: Entrant, cohort: Cohort, device: str) -> TimedSteps:
    """The training of an entrant's first stage before its first step."""
    begun = time.perf_counter()
    tables = entrant.draft.tables
    train = {**tables["train"], "validation_items": ITEMS}
    accelerator, place = processes(device)
    recipe = with_precision(from_dict({**tables, "train": train}, "the plan"), place)
    job = Job(recipe, recipe.all_stages[0], cohort, accelerator, place)
    torch.manual_seed(job.seed)
    method, _ = initial_method(job.stage, {})
    runner = TimedSteps(job, method, iter(job.batches()))
    runner.spent = time.perf_counter() - begun
    return runner


def _error(runner: TimedSteps) -> float:
    """The error of a training on the held-out items as a share of their mean absolute deviation."""
    job = runner.job
    items = validation_items(job.recipe, job.stage, job.cohort)
    error = validate(runner.learner.averaged, items, job.recipe, job.stage, job.device)["mae"]
    # A constant truth has no deviation.
    return error / (sum(map(_deviation, items)) / len(items) or 1.0)


def _deviation(batch: Batch) -> float:
    """The mean absolute deviation of the targets of a batch from their median."""
    assert batch.target is not None
    values = [
        batch.target[item, target]
        for item in range(len(batch))
        for target in find_targets(batch, item)
    ]
    return float(torch.stack([(each - each.median()).abs().mean() for each in values]).mean())


def choose_start(
    sizes: Sizes,
    starter: Starter,
    best: Candidate,
    share: float,
    most_items: int,
    mean_alone: bool,
) -> tuple[Candidate, Draft]:
    """The first stage from a starter or from random weights, whichever is better after a race.

    best: the best network from random weights. Without a patient who could be held out, the starter is chosen.
    """
    facts, probe = sizes.facts, sizes.probe
    held_out = hold_out(facts.cohort)
    goes_on = held_out is facts.cohort  # else the winner begins anew, because it saw fewer patients
    seconds = sizes.seconds(share)
    raced = SHARE * seconds if held_out else 0.0
    seconds -= raced / 2 if goes_on else raced  # a winner that goes on keeps its own half

    def enter(size: Size, step_seconds: float, start: Starter | None) -> Entrant:
        """An entrant with the steps that fit, whose step takes these seconds."""
        candidate = sizes.candidate(size, step_seconds, seconds, most_items)
        draft = first_stage(facts, sizes.roles, size, candidate.steps, mean_alone)
        draft.why["net.width"] = candidate.why
        if start is None:
            return Entrant(f"{size} from random weights", candidate, draft)
        begin_from(start, draft)
        return Entrant(start.start_from, candidate, draft)

    net = starter.tables["net"]
    size = Size(net["width"], net.get("patch", 1), best.size.batch)
    draft = first_stage(facts, sizes.roles, size, LEAST_STEPS, mean_alone)
    begin_from(starter, draft)
    measured = probe.measure(draft.tables, 0)
    chosen = random = enter(best.size, best.seconds, None)
    why = f"{random.name}: the network of the starter needs too much memory"
    if measured is not None:
        chosen = enter(size, measured.seconds, starter)
        why = f"{chosen.name}: there is no patient who could be held out for a race with random weights"
    if measured is not None and held_out is not None:
        begun = time.monotonic()
        result, *others = run_race([chosen, random], held_out, raced, probe.device_name, goes_on)
        chosen = result.entrant
        chosen.draft.state = result.state
        judges = "a training patient held out for it"
        if goes_on:
            patients = {entry.patient for entry in held_out.cases if entry.split == "val"}
            judges = plural(len(patients), "validation patient")
        after = "which goes on" if result.state else "which is trained anew"
        why = f"{result}, {after}; {', '.join(map(str, others))}. These are errors on {judges}, over the mean absolute deviation of the truth, after {time.monotonic() - begun:.0f} s of training side by side"
    chosen.draft.why["start_from"] = Why(why)
    return chosen.candidate, chosen.draft
