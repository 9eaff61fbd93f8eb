"""The making of a plan: the roles of modalities, the networks, and the steps that fit in the minutes and the memory.

The path of `train auto`, in the order in which these functions are called:

1. Facts: cohort_facts reads sizes, units and intensities of the cohort from its headers.
2. Roles: cohort_facts.choose_roles finds the sources and targets, from_weights.find_starter a starter that fits.
3. Network: Planner.best times a step and takes the network of the least predicted error;
   rules turns facts into the settings of each stage, each with its reason.
4. Race: Planner trains from the starter and from random weights; held-out patients decide.
5. Plan: plan.Plan keeps recipe, reasons and cost; the command writes it into the run.
6. Training: training.train.train trains each stage by loop.train_stage, for the seconds that the plan gives it (job.Clock).
7. Verdict: training.verdict compares the validation error with that of naive baselines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil, inf, isnan
from pathlib import Path
from typing import Any

from voxlate.base.devices import find_device
from voxlate.base.errors import BadInput, plural
from voxlate.base.option import merge
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.planning import rules
from voxlate.training.planning.cohort_facts import CohortFacts, Roles, choose_roles
from voxlate.training.planning.from_weights import Starter, begin_from, find_starter
from voxlate.training.planning.plan import Plan
from voxlate.training.planning.probe import (
    Candidate,
    Probe,
    relative_error,
    step_cost,
)
from voxlate.training.planning.rules import (
    LEAST_STEPS,
    PREDICTOR,
    Draft,
    Size,
    first_stage,
    most_steps,
)
from voxlate.training.precision import choose
from voxlate.training.recipe import from_dict
from voxlate.training.recipe.text import apply_changes
from voxlate.training.training_options import PlanOptions

WIDTHS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128)
LESS = 0.75  # factor of the load of a network that needs too much memory
MOST_TIMED = 4  # networks whose steps are timed for a share of the minutes
PROBED = 0.05  # share of the minutes after which no other network is timed
# With fewer steps of a second stage, its samples are noise.
FEWEST_OF_SAMPLES = 200
ROOM = 1.5  # factor on the advised minutes
FEW = 2  # passes over the slices below which a training is too short
SHARE = 0.1  # of the first stage's seconds that a race takes
# Share of the time for the regression: by the law, an image of both costs it 2 % of its error after 20 minutes.
SHARES = {"both": 0.75, "samples": 0.4}


def plan_training(
    data: Path | str,
    options: PlanOptions | None = None,
    *,
    fold: int | None = None,
    settings: Mapping[str, Any] | None = None,
    allow_code: bool = False,
    **changes: Any,
) -> Plan:
    """Plan a training on a prepared cohort within limits of time and memory, by default 60 minutes and most of what is free.

    fold: plan for the training cases of this fold (see Cohort.in_fold); settings: see Plan.change; changes: fields of the
    options. from_scratch: begin from random weights even where a starter fits.
    Raises BadInput if the cohort does not suffice for a training, or if the memory is too small for the smallest network.
    Minutes that are too few for one pass over the slices train on a part of them, which the plan states. With a stated
    speed nothing is timed: the plan has steps in float32 and no budgets, the same on every machine.
    """
    asked = merge(PlanOptions, options, changes)
    if asked.speed is not None and asked.memory is not None:
        raise BadInput(
            f"--speed: expected no --memory with it, because no step's memory is measured, found {asked.memory}. Drop one."
        )
    minutes = 60.0 if asked.minutes is None else float(asked.minutes)
    cohort = open_cohort(data) if fold is None else open_cohort(data).in_fold(fold)
    facts, roles = choose_roles(cohort, asked)
    if settings:
        _check_settings(facts, roles, settings, allow_code)
    probe = Probe(cohort, minutes, asked.device, float(asked.memory or 0), speed=asked.speed)
    starter, about = None, ""
    if not asked.from_scratch:
        starter, about = find_starter(facts, roles)
    draft = Planner(facts, roles, probe, starter).plan_stages(asked.mode)
    why = {"--from-scratch": about, **draft.why} if about else draft.why
    precision, why["train.precision"] = choose(find_device(asked.device))
    if asked.speed is not None:
        precision, why["train.precision"] = "float32", "with --speed, the same on every machine"
        why["--speed"] = f"steps of {asked.speed:g} GFLOP/s are assumed; none is timed"
    for stage in (*draft.tables.get("stages", ()), draft.tables):
        stage["train"]["precision"] = precision
    planned = Plan(
        tables=draft.tables,
        why=why,
        seconds=sum(one.seconds for one in draft.budgets.values()) + probe.probe_seconds,
        memory=probe.most,
        minutes=minutes,
        where=str(cohort.folder),
        budgets=draft.budgets if asked.speed is None else {},
        speed=asked.speed,
    )
    return planned.change(settings or {}, allow_code)


def _check_settings(
    facts: CohortFacts, roles: Roles, settings: Mapping[str, Any], allow_code: bool
) -> None:
    """Raise BadInput for settings that fit none of the recipes that may be planned, before a step is timed."""
    # A width that is divisible by most numbers, and patches of the most features.
    size = Size(WIDTHS[-1], rules.stems(facts)[0])
    plain = first_stage(facts, roles, size, LEAST_STEPS).tables
    both = rules.with_samples(plain, plain["net"], LEAST_STEPS, "both")
    try:
        from_dict(apply_changes(plain, settings), "the plan", allow_code)
    except BadInput:
        if roles.completes:
            raise
        from_dict(apply_changes(both, settings), "the plan", allow_code)


@dataclass
class Planner:
    """The planning of stages.

    timed: seconds of a step of networks; most_load: of those that may fit in memory.
    """

    facts: CohortFacts
    roles: Roles
    probe: Probe
    starter: Starter | None
    timed: dict[Size, float] = field(default_factory=dict)
    most_load: float = inf

    def draft(self, size: Size, steps: int = LEAST_STEPS, mean_alone: bool = False) -> Draft:
        """A first stage from random weights."""
        return first_stage(self.facts, self.roles, size, steps, mean_alone)

    def plan_stages(self, mode: str | None) -> Draft:
        """The stages of a plan: a regression, or a regression and a diffusion of its residual."""
        completes = self.roles.completes
        alone = "the recipe umm_csgm samples missing images" if completes else ""
        if not completes and mode != "mean":
            second, alone = self._second_stage(mode)
            if second is not None:
                return self._plan_samples(mode or "both", second)
        most = most_steps(self.facts, times=2 if completes else 1)
        _, draft = self._plan_first(1.0, "final", most)
        draft.tables["synth"] |= rules.mirror(draft.tables)
        if alone:
            draft.why["--mode"] = f"the mean prediction alone: {alone}"
        return draft

    def _second_stage(self, asked: str | None) -> tuple[Candidate | None, str]:
        """The network of a diffusion of the regression's residual; None and the reason where the regression stands alone.

        It begins from random weights, so its network is the best one for its own share of the time. asked: the mode.
        """
        facts, probe, mode = self.facts, self.probe, asked or "both"
        if not asked and rules.takes_planes(facts):
            why = "a second stage takes slices of one plane, which would cost the mean 5 to 8 % of its error; --mode both gives a sharp image too"
            return None, why
        share = 1 - SHARES[mode]
        size = self.best(share, most_steps(facts)).size
        tables = self.draft(size).tables
        tables = rules.with_samples(tables, tables["net"], LEAST_STEPS, mode)
        step_seconds = probe.measure(from_dict(tables, "the plan"), 1)
        if step_seconds is None:
            return None, "a second stage needs more --memory"
        most = most_steps(facts, 2, rules.BATCH)
        second = Candidate(size, step_seconds, probe.seconds(share), most)
        steps = second.steps
        if mode == "both" and steps < min(FEWEST_OF_SAMPLES, ceil(second.most_steps)):
            minutes = ceil(ROOM * probe.minutes * FEWEST_OF_SAMPLES / steps)
            why = f"{steps:,} steps of a diffusion to sharp images would fit, which needs {FEWEST_OF_SAMPLES}: give about --minutes {minutes}"
            return None, why
        return second, ""

    def _plan_samples(self, mode: str, second: Candidate) -> Draft:
        """The plan of a regression and a diffusion of its residual, which has the remaining time."""
        best, draft = self._plan_first(SHARES[mode], PREDICTOR, most_steps(self.facts))
        left = self.probe.seconds() - best.budget.seconds
        second = replace(second, seconds=left)
        own = self.draft(second.size)
        draft.tables = rules.with_samples(draft.tables, own.tables["net"], second.steps, mode)
        draft.budgets["final"] = second.budget
        why = {}
        for key, reason in draft.why.items():
            of_stage = key.partition(".")[0] in ("method", "net", "train")
            why[f"stages.{PREDICTOR}.{key}" if of_stage else key] = reason
        why["net"] = own.why["net"]
        why["net.width"] = f"{second.why}, in the remaining time"
        if mode == "both":
            why["synth.gradient_ratio"] = (
                "one image between the mean and a sample, by validation cases; --mode samples shows what is uncertain"
            )
        draft.why = why
        return draft

    def _plan_first(self, share: float, name: str, most: float) -> tuple[Candidate, Draft]:
        """The network of the first stage, with its draft and its budget.

        name: of the stage, "final" where no second one follows; most: largest useful number of steps.
        """
        best = self.best(share, most)
        draft = self.draft(best.size, best.steps, name == "final")
        if self.starter is not None:
            best, draft = self._choose_start(self.starter, best, draft, share)
        draft.why["net.width"] = best.why
        _warn_of_short(draft, best.fitting, self.probe.minutes)
        draft.budgets[name] = best.budget
        return best, draft

    def _choose_start(
        self, starter: Starter, best: Candidate, random: Draft, share: float
    ) -> tuple[Candidate, Draft]:
        """The first stage from a starter or from random weights, whichever is better after a race.

        best, random: the best network from random weights. Without a validation patient, the starter is chosen.
        """
        probe, net = self.probe, starter.tables["net"]
        size = Size(net["width"], net.get("patch", 1))
        draft = self.draft(size)
        begin_from(starter, draft)
        step_seconds = probe.measure(draft.recipe, 0)
        if step_seconds is None:
            random.why["start_from"] = "random weights: the starter's network needs too much memory"
            return best, random
        has_race = bool(self.facts.cohort.splits["val"])
        left = probe.seconds(share)
        of_second_stage = probe.seconds() - left
        raced = SHARE / 2 * left if has_race else 0.0  # of each
        left -= 2 * raced
        own = Candidate(size, step_seconds, left, best.most_steps)
        draft = self.draft(size, own.steps, random.mean_alone)
        begin_from(starter, draft)
        if not has_race:
            draft.why["start_from"] = "no validation patient for a race with random weights"
            return own, draft
        fresh = replace(best, seconds=left)
        random = self.draft(fresh.size, fresh.steps, random.mean_alone)
        error, steps = probe.trial(draft.recipe, raced)
        error_of_random, steps_of_random = probe.trial(random.recipe, raced)
        why = f"{starter.name}: {error:.3f} after {plural(steps, 'step')}; {fresh.size} from random weights: {error_of_random:.3f} after {plural(steps_of_random, 'step')}: errors on validation patients over the mean absolute deviation of the truth, after the same seconds of training, of the starter with its best kept share"
        # An error that is NaN is of a training that diverged.
        if error_of_random < error or isnan(error):
            own, draft = fresh, random
        draft.why["start_from"] = why
        # a race is shorter where it comes to the last useful step, and longer where its fewest steps take longer
        return replace(own, seconds=probe.seconds() - of_second_stage), draft

    def best(self, share: float, most: float) -> Candidate:
        """The network of the least predicted error for a share of the time, after its step was timed.

        most: largest useful number of steps. Raises BadInput if nothing fits in memory.
        """
        probe, most_timed = self.probe, len(self.timed) + MOST_TIMED
        sizes = [Size(*one) for one in product(WIDTHS, rules.stems(self.facts))]
        while len(self.timed) < most_timed or not self.timed:
            fitting = [size for size in sizes if size.load <= self.most_load]
            if not fitting:
                raise BadInput(
                    f"--memory: expected enough for the smallest network, found {probe.memory_bytes / 2**30:.2f} GiB; it needs {probe.most / 2**30:.2f} GiB. Give more."
                )
            size = fitting[0]
            if self.timed:
                best = self._least_error(fitting, share, most)
                if best.size in self.timed:
                    return best
                if probe.probe_seconds > PROBED * 60 * probe.minutes:
                    break
                size = best.size
            self._time(size)
        return self._least_error(self.timed, share, most)

    def _time(self, size: Size) -> None:
        """Time a step of a network."""
        seconds = self.probe.measure(self.draft(size).recipe, 0)
        if seconds is None:
            self.most_load = LESS * size.load
        else:
            self.timed[size] = seconds

    def _least_error(self, sizes: Iterable[Size], share: float, most: float) -> Candidate:
        """The network of the least predicted error; its step takes the measured time, or that of the law."""
        seconds, pixel_mm = self.probe.seconds(share), self.facts.pixel_mm
        candidates = dict[float, Candidate]()
        for size in sizes:
            near = min(self.timed, key=size.distance)
            each = self.timed[near] * step_cost(size) / step_cost(near)
            one = Candidate(size, each, seconds, most)
            candidates.setdefault(relative_error(size, pixel_mm, one.steps), one)
        return candidates[min(candidates)]


def _warn_of_short(draft: Draft, fitting: int, minutes: float) -> None:
    """State in a draft that its training is too short; fitting: steps that fit in the minutes of the whole plan."""
    passes = fitting * rules.FIRST_BATCH / max(draft.facts.slices, 1)
    if fitting >= LEAST_STEPS and passes >= FEW:
        return
    # Images will be blurred and lack rare structures such as lesions.
    enough = minutes * max(2 * LEAST_STEPS / fitting, 2 * FEW / passes)
    share = min(2 * passes, 1)  # about half of the slices contain body
    draft.why["--minutes"] = (
        f"{plural(fitting, 'step')} on about {share:.0%} of the slices, drawn at random: EXPECT BLUR, AND LESIONS THAT ARE MISSING; give {plural(ceil(enough), 'minute')}"
    )
