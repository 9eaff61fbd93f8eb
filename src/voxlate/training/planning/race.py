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
from voxlate.training.initial import initial_method
from voxlate.training.job import Job
from voxlate.training.planning.probe import TimedSteps
from voxlate.training.planning.rules import LEAST_STEPS, Draft, Size, Why, first_stage
from voxlate.training.planning.search import Candidate, Search
from voxlate.training.planning.starters import Starter, begin_from
from voxlate.training.precision import with_precision
from voxlate.training.processes import processes
from voxlate.training.recipe import from_dict
from voxlate.training.validate import find_targets, validate, validation_items

SHARE = 0.1  # of the first stage's seconds that a race takes
ITEMS = 16  # validation items, spread over all validation cases
FEWEST_STEPS = 8  # steps of each entrant, before which its error says nothing


@dataclass(frozen=True)
class Entrant:
    """A candidate: its name in messages, the seconds of its step by a probe, and its draft."""

    name: str
    step_seconds: float
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


@dataclass(frozen=True)
class Race:
    """The results, the best first, the seconds that all entrants and their validations took, and who judged them."""

    results: tuple[Result, ...]
    seconds: float
    judges: str

    @property
    def best(self) -> Result:
        """The entrant of the least error."""
        return self.results[0]

    @property
    def reason(self) -> str:
        """A sentence on each entrant's steps and error."""
        first, *others = (
            f"{one.entrant.name}: {one.error:.3f} after {one.steps:,} steps" for one in self.results
        )
        goes_on = "which goes on" if self.best.state else "which is trained anew"
        return f"{first}, {goes_on}; {', '.join(others)}. These are errors on {self.judges}, over the mean absolute deviation of the truth, after {self.seconds:.0f} s of training side by side"


@dataclass
class _Runner:
    """An entrant while it trains."""

    entrant: Entrant
    job: Job
    spent: float = 0.0

    def __post_init__(self) -> None:
        begun = time.perf_counter()
        job = self.job
        torch.manual_seed(job.seed)
        method, _ = initial_method(job.stage, {})
        self.training = TimedSteps(job, method, iter(job.batches()))
        self.learner = self.training.learner
        self.spent = time.perf_counter() - begun

    def step(self) -> None:
        """Train one step."""
        self.spent += self.training.step()

    def result(self, goes_on: bool) -> Result:
        """Its error on the held-out items."""
        job, learner = self.job, self.learner
        items = validation_items(job.recipe, job.stage, job.cohort)
        error = validate(learner.averaged, items, job.recipe, job.stage, job.device)["mae"]
        # A constant truth has no deviation.
        deviation = sum(map(_deviation, items)) / len(items) or 1.0
        state = {**learner.state(), "seconds": 0.0} if goes_on else None
        return Result(self.entrant, learner.step, error / deviation, state)


def _deviation(batch: Batch) -> float:
    """The mean absolute deviation of the targets of a batch from their median."""
    assert batch.target is not None
    values = [
        batch.target[item, target]
        for item in range(len(batch))
        for target in find_targets(batch, item)
    ]
    return float(torch.stack([(each - each.median()).abs().mean() for each in values]).mean())


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
) -> Race:
    """Train the entrants in turns until they took these seconds in all, and validate each on the same patients.

    cohort: has validation patients (see hold_out); goes_on: whether it trains on all patients, as the plan does.
    """
    begun = time.monotonic()
    runners = [_Runner(entrant, _job(entrant, cohort, device)) for entrant in entrants]
    while (behind := min(runners, key=lambda runner: runner.spent)).spent < seconds / len(runners):
        behind.step()
    for runner in runners:
        while runner.learner.step < FEWEST_STEPS:
            runner.step()
    # A diverged training, whose error is NaN, comes last.
    results = sorted(
        (runner.result(goes_on) for runner in runners),
        key=lambda one: (math.isnan(one.error), one.error),
    )
    patients = {entry.patient for entry in cohort.cases if entry.split == "val"}
    judges = "a training patient held out for it"
    if goes_on:
        judges = plural(len(patients), "validation patient")
    return Race(tuple(results), time.monotonic() - begun, judges)


def _job(entrant: Entrant, cohort: Cohort, device: str) -> Job:
    """The training of an entrant's first stage."""
    tables = entrant.draft.tables
    train = {**tables["train"], "validation_items": ITEMS}
    accelerator, place = processes(device)
    recipe = with_precision(from_dict({**tables, "train": train}, "the plan"), place)
    return Job(recipe, recipe.all_stages[0], cohort, accelerator, place)


def choose_start(
    search: Search,
    starter: Starter,
    best: Candidate,
    share: float,
    most_items: int,
    mean_alone: bool,
) -> tuple[Candidate, Draft]:
    """The first stage from a starter or from random weights, whichever is better after a race.

    best: the best network from random weights. Without a patient who could be held out, the starter is chosen.
    """
    facts, probe = search.facts, search.probe
    held_out = hold_out(facts.cohort)
    goes_on = held_out is facts.cohort  # else the winner begins anew, because it saw fewer patients
    seconds = search.seconds(share)
    raced = SHARE * seconds if held_out else 0.0
    seconds -= raced / 2 if goes_on else raced  # a winner that goes on keeps its own half

    def candidate(size: Size, each: float) -> Candidate:
        """A network with the steps that fit, whose step takes these seconds."""
        return search.candidate(size, each, seconds, most_items)

    def draft_of(size: Size, steps: int) -> Draft:
        """A first stage of this network and length."""
        return first_stage(facts, search.roles, size, steps, mean_alone)

    net = starter.tables["net"]
    size = Size(net["width"], net.get("patch", 1), best.size.batch)
    draft = draft_of(size, LEAST_STEPS)
    begin_from(starter, draft)
    measured = probe.measure(draft.tables, 0)
    draft = draft_of(best.size, candidate(best.size, best.seconds).steps)
    chosen = random = Entrant(f"{best.size} from random weights", best.seconds, draft)
    if measured is not None:
        draft = draft_of(size, candidate(size, measured.seconds).steps)
        begin_from(starter, draft)
        chosen = Entrant(starter.start_from, measured.seconds, draft)
    if measured is None or held_out is None:
        result = Result(chosen, 0, math.nan, None)
        why = "there is no patient who could be held out for a race with random weights"
        if measured is None:
            why = "the network of the starter needs too much memory"
        why = f"{chosen.name}: {why}"
    else:
        race = run_race([chosen, random], held_out, raced, probe.device_name, goes_on)
        result, why = race.best, race.reason
    winner = result.entrant
    draft = winner.draft
    draft.state = result.state
    draft.why["net.width"] = Why(
        f"{draft.size} gets {plural(draft.steps, 'step')} of {winner.step_seconds:.3f} s"
    )
    draft.why["start_from"] = Why(why)
    return candidate(draft.size, winner.step_seconds), draft
