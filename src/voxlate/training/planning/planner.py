"""The making of a plan: the roles of modalities, the networks, and the steps that fit in the minutes and the memory.

The path of `train auto`, in the order in which these functions are called:

1. Facts: cohort_facts reads sizes, units and intensities of the cohort from its headers.
2. Roles: cohort_facts.choose_roles finds the sources and targets, starters.find_starter a starter that fits.
3. Network: probe.Sizes times a step and takes the network of the least predicted error;
   rules turns facts into the settings of each stage, each with its reason.
4. Race: starters.choose_start trains from the starter and from random weights; held-out patients decide.
5. Plan: plan.Plan keeps recipe, reasons and cost; plan.plan_once writes it into the run.
6. Training: training.train.train trains each stage by loop.train_stage, for the seconds that the plan gives it (job.Clock).
7. Verdict: training.verdict compares the validation error with that of naive baselines.
"""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from voxlate.base.devices import find_device
from voxlate.base.errors import BadInput, plural
from voxlate.base.messages import Say
from voxlate.base.option import merge
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.planning import rules
from voxlate.training.planning.cohort_facts import CohortFacts, Roles, choose_roles
from voxlate.training.planning.plan import Plan
from voxlate.training.planning.probe import (
    WIDTHS,
    Candidate,
    Limits,
    Probe,
    Sizes,
    default_memory_limit,
)
from voxlate.training.planning.rules import LEAST_STEPS, PREDICTOR, Draft, Size
from voxlate.training.planning.starters import (
    Starter,
    choose_start,
    find_starter,
)
from voxlate.training.precision import choose
from voxlate.training.recipe import from_dict
from voxlate.training.recipe.text import apply_changes
from voxlate.training.training_options import PlanOptions

# With fewer steps of a second stage, its samples are noise.
FEWEST_OF_SAMPLES = 200
ROOM = 1.5  # factor on the advised minutes
FEW = 2  # passes over the slices below which a training is too short
# Share of the time for the regression: by the law, an image of both costs it 2 % of its error after 20 minutes.
SHARES = {"both": 0.75, "samples": 0.4}


def plan_training(
    data: Path | str,
    options: PlanOptions | None = None,
    *,
    fold: int | None = None,
    settings: Mapping[str, Any] | None = None,
    allow_code: bool = False,
    say: Say = lambda _: None,
    **changes: Any,
) -> Plan:
    """Plan a training on a prepared cohort within limits of time and memory, by default 60 minutes and most of what is free.

    fold: plan for the training cases of this fold (see Cohort.in_fold); settings: see Plan.change; changes: fields of the
    options. from_scratch: begin from random weights even where a starter fits.
    Raises BadInput if the cohort does not suffice for a training, or if the memory is too small for the smallest network.
    Minutes that are too few for one pass over the slices train on a part of them, which the plan states.
    """
    asked = merge(PlanOptions, options, changes)
    minutes = 60.0 if asked.minutes is None else float(asked.minutes)
    memory = default_memory_limit(asked.device) if asked.memory is None else float(asked.memory)
    limits = Limits(minutes, memory)
    cohort = open_cohort(data) if fold is None else open_cohort(data).in_fold(fold)
    facts, roles = choose_roles(cohort, asked)
    if settings:
        _check_settings(facts, roles, settings, allow_code)
    sizes = Sizes(facts, roles, Probe(cohort, limits, asked.device), say)
    starter, about = None, ""
    if not asked.from_scratch:
        starter, about = find_starter(facts, roles, asked.mode or "both")
    if roles.pairing == "pairs" and asked.mode != "mean":
        draft = _plan_samples(sizes, starter, asked.mode)
    else:
        draft = _plan_stage(sizes, starter, asked.mode == "mean")
    why = {"starter": about, **draft.why} if about else draft.why
    precision, why["train.precision"] = choose(find_device(asked.device))
    for stage in (*draft.tables.get("stages", ()), draft.tables):
        stage["train"]["precision"] = precision
    planned = Plan(
        tables=draft.tables,
        why=why,
        seconds=draft.seconds + sizes.probe.probe_seconds,
        memory=sizes.probe.most,
        limits=limits,
        where=str(cohort.folder),
        budgets=draft.budgets,
        state=draft.state and {**draft.state, "stage": next(iter(draft.budgets))},
    )
    return planned.change(settings or {}, allow_code)


def _check_settings(
    facts: CohortFacts, roles: Roles, settings: Mapping[str, Any], allow_code: bool
) -> None:
    """Raise BadInput for settings that fit none of the recipes that may be planned, before a step is timed."""
    # A width that is divisible by most numbers, and patches of the most features.
    size = Size(WIDTHS[-1], rules.stems(facts)[0], rules.BATCH)
    plain = rules.first_stage(facts, roles, size, LEAST_STEPS).tables
    possible = {
        "pairs": [plain, rules.with_samples(plain, size, LEAST_STEPS, "both")],
        "complete": [plain, rules.with_drawing(plain, size, LEAST_STEPS)],
        "unpaired": [plain],
    }
    for tables in possible[roles.pairing]:
        try:
            from_dict(apply_changes(tables, settings), "the plan", allow_code)
            return
        except BadInput as error:
            refused = error
    raise refused


def _plan_stage(sizes: Sizes, starter: Starter | None, is_mean: bool) -> Draft:
    """The plan of one stage: a regression, a completion (a diffusion unless the mean is asked for), or cycles."""
    pairing = sizes.roles.pairing
    most = rules.most_items(sizes.facts, times=1 if pairing == "pairs" else 2)
    best, draft = _plan_first(sizes, starter, 1.0, most, "final")
    if draft.completes and not is_mean:
        draft.tables = rules.with_drawing(draft.tables, best.size, best.steps)
        draft.why |= rules.reasons_for_training(draft.tables["train"], best.size.width)
        draft.why["method"] = (
            "a diffusion of missing images; --samples 8 gives their mean and standard deviation"
        )
    elif pairing != "unpaired":
        draft.tables["synth"] |= rules.mirror(draft.tables)
    return draft


def _plan_samples(sizes: Sizes, starter: Starter | None, asked: str | None) -> Draft:
    """The plan of a regression and a diffusion of its residual, or of the regression alone if time is short and nobody asked.

    asked: the mode.
    """
    facts, probe, mode = sizes.facts, sizes.probe, asked or "both"
    share = SHARES[mode]
    if not asked and rules.takes_planes(facts):
        reason = "a second stage takes slices of one plane, which would cost the mean 5 to 8 % of its error; --mode both gives a sharp image too"
        return _plan_mean(sizes, starter, reason)
    # The second stage begins from random weights, so its network is the best one for its own share of the time.
    size = sizes.best(1 - share, rules.most_items(facts)).size
    second = rules.first_stage(facts, sizes.roles, size, LEAST_STEPS)
    step_seconds = probe.measure(rules.with_samples(second.tables, size, LEAST_STEPS, mode), 1)
    if step_seconds is None:
        raise BadInput(
            f"--memory: expected enough for the second stage too, found {probe.limits.memory_bytes / 2**30:.2f} GiB. Give more."
        )
    step, items = Size(size.width, size.stem, rules.BATCH), rules.most_items(facts, times=2)
    second_stage = sizes.candidate(step, step_seconds, sizes.seconds(1 - share), items)
    drawn = second_stage.steps
    if mode == "both" and drawn < min(FEWEST_OF_SAMPLES, ceil(second_stage.most_steps)):
        minutes = ceil(ROOM * probe.limits.minutes * FEWEST_OF_SAMPLES / drawn)
        if asked:
            raise BadInput(
                f"--mode both: expected minutes for {FEWEST_OF_SAMPLES} steps of a diffusion after the mean prediction, found room for {drawn:,}. Give about --minutes {minutes}, or --mode mean."
            )
        reason = f"{drawn:,} steps of a diffusion to sharp images would fit, which needs {FEWEST_OF_SAMPLES}: give about --minutes {minutes}"
        return _plan_mean(sizes, starter, reason)
    best, draft = _plan_first(sizes, starter, share, rules.most_items(facts), PREDICTOR)
    left = sizes.seconds() - (best.steps - draft.done) * best.seconds
    second_stage = sizes.candidate(step, step_seconds, left, items)
    drawn = second_stage.steps
    draft.tables = rules.with_samples(draft.tables, size, drawn, mode, second.tables["net"])
    draft.budgets["final"] = second_stage.budget
    synth, why = draft.tables["synth"], draft.why
    for key in ("method", "net", "net.border", "net.width", "train.keep_start"):
        if key in why:
            why[f"stages.{PREDICTOR}.{key}"] = why.pop(key)
    why[f"stages.{PREDICTOR}.train.steps"] = f"{share:.0%} of the time"
    why |= rules.reasons_for_training(draft.tables["train"], size.width)
    why["net"] = second.why["net"]
    why["net.width"] = f"the least predicted error in {1 - share:.0%} of the time"
    why["train.steps"] = (
        f"the remaining time, for a diffusion of the regression's residual: {drawn:,} steps of {step_seconds:.3f} s"
    )
    why["synth.steps"] = (
        f"{synth['steps']} steps from log-SNR -3, because the regression suffices at higher noise"
    )
    if "gradient_ratio" in synth:
        why["synth.gradient_ratio"] = (
            f"one image between the mean and a sample, at a gradient ratio of {synth['gradient_ratio']:g} on validation cases; --mode samples shows what is uncertain"
        )
    return draft


def _plan_mean(sizes: Sizes, starter: Starter | None, reason: str) -> Draft:
    """The plan of a regression without a second stage, for this reason."""
    draft = _plan_stage(sizes, starter, True)
    draft.why["stages"] = f"the mean prediction alone: {reason}"
    return draft


def _plan_first(
    sizes: Sizes, starter: Starter | None, share: float, most_items: int, name: str
) -> tuple[Candidate, Draft]:
    """The network of the first stage, with its draft and its budget; name: of the stage, "final" where no second one follows."""
    facts = sizes.facts
    best = sizes.best(share, most_items)
    mean_alone = name == "final"
    if starter is not None:
        best, draft = choose_start(sizes, starter, best, share, most_items, mean_alone)
    else:
        draft = rules.first_stage(facts, sizes.roles, best.size, best.steps, mean_alone)
        draft.why["net.width"] = best.why
        if best.steps < best.fitting:
            draft.why["net.width"] += (
                f"; {best.fitting:,} would fit, but overfit to {plural(facts.patients, 'patient')}"
            )
    _warn_of_short(draft, best.fitting, sizes.probe.limits.minutes)
    draft.budgets[name] = best.budget
    return best, draft


def _warn_of_short(draft: Draft, fitting: int, minutes: float) -> None:
    """State in a draft that its training is too short; fitting: steps that fit in the minutes of the whole plan."""
    passes = fitting * draft.size.batch / max(draft.facts.slices, 1)
    if fitting >= LEAST_STEPS and passes >= FEW:
        return
    # Images will be blurred and lack rare structures such as lesions.
    enough = minutes * max(2 * LEAST_STEPS / fitting, 2 * FEW / passes)
    steps = plural(fitting, "step")
    shown = f"{steps} in which each slice is shown {passes:.1f} times"
    if passes < 0.5:  # about half of the slices contain body
        shown = f"{steps} on about {2 * passes:.0%} of the slices, drawn at random, once each"
    draft.why["minutes"] = (
        f"{shown}: EXPECT BLUR, AND LESIONS THAT ARE MISSING; give {plural(ceil(enough), 'minute')}"
    )
