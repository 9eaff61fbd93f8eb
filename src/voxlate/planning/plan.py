"""A plan: a whole recipe for a cohort, with the reason for each choice and the predicted cost."""

import html
import math
import re
import shlex
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from voxlate.cases.prepared import open_cohort
from voxlate.cohorts.choice import as_names
from voxlate.options.option import merge
from voxlate.options.train import Mode, PlanOptions
from voxlate.planning import rules
from voxlate.planning.facts import Facts, check_scales, facts_of
from voxlate.planning.other_machine import Elsewhere, machine_of
from voxlate.planning.pace import SPARE, PaceRecord
from voxlate.planning.probe import FREE, Limits, Probe, free_memory
from voxlate.planning.roles import Roles, refuse_maps, roles_of
from voxlate.planning.rules import Size, Tables, Why
from voxlate.planning.search import FILLED, Candidate, Search, reason
from voxlate.planning.stages import PREDICTOR, first_stage, mirror, with_samples
from voxlate.planning.starters import (
    VALIDATION_COST,
    Starter,
    begun_from,
    few_teach,
    fitting_starter,
    starter_error,
    windows_of,
    without_training,
)
from voxlate.recipe import Recipe, from_dict, header, read_with_head, to_dict
from voxlate.recipe import text as recipe_text
from voxlate.scoring.provenance import read_run
from voxlate.system.devices import find_device, peak_memory
from voxlate.system.errors import BadInput
from voxlate.system.files import lock, write_text
from voxlate.system.messages import Say
from voxlate.training.log_file import append_line
from voxlate.training.precision import Choice, choose
from voxlate.training.processes import by_main, processes
from voxlate.training.run import Run, check_free, check_recipe_file

LEAST = 300  # steps below which a training is too short
# With fewer steps of a diffusion, its samples are worse than a copy of the input.
DRAWN_LEAST = 300
FEW = 2  # passes over the slices below which a training is too short
SHARES = {
    "both": 0.55,
    "samples": 0.4,
    "mean": 1.0,
}  # share of the time for the regression
# After changes of these keys, steps were set by hand, or a recipe with corrected steps may give other weights.
DECIDES_LENGTH = r"train$|train\.(steps|epochs|more|stop|ema|optimiser)|opponent|task|method"


@dataclass(frozen=True)
class Plan:
    """A recipe as plain tables, the reason for each of its keys, and its predicted seconds and bytes of memory.

    step_seconds, most_steps: probed seconds of a step and largest useful number of steps by stage; probed_seconds: time
    that planning took; fixed: whether a length was set by hand; elsewhere: the machine that will train, if it is
    another one; at_once: the command by which a starter needs no training, "" without one; allow_code: import the code
    outside voxlate that changes of the recipe name.
    """

    tables: Tables
    why: Why
    seconds: float
    memory: float
    limits: Limits
    where: str
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    most_steps: Mapping[str, int] = field(default_factory=dict)
    probed_seconds: float = 0.0
    fixed: bool = False
    elsewhere: Elsewhere | None = None
    at_once: str = ""
    allow_code: bool = False

    def keep_pace(self, run: Path) -> None:
        """Write RUN/plan.json, by which the training corrects its steps (see pace.kept_pace); no file if fixed."""
        if self.fixed:
            Run(run).pace.unlink(missing_ok=True)
            return
        PaceRecord(
            minutes=self.limits.minutes,
            probed_seconds=self.probed_seconds,
            step_seconds=dict(self.step_seconds),
            most_steps=dict(self.most_steps),
        ).write(run)

    def write_run(self, run: Path) -> None:
        """Write the folder of a planned run, which `train auto` trains on any machine.

        Raises BadInput if the folder is not empty.
        """
        with lock(run):
            check_free(Run(run))
            if Run(run).recipe.exists():
                raise BadInput(
                    f"{run}: expected an empty folder, found a plan there. Choose another --out, or remove it."
                )
            self.keep_pace(run)
            write_text(Run(run).recipe, self.text)

    @property
    def recipe(self) -> Recipe:
        return from_dict(self.tables, "the plan", self.allow_code)

    @property
    def with_head(self) -> tuple[Recipe, str]:
        """The recipe and its reasons as comment lines."""
        return self.recipe, header(self.text)

    def changed(self, changes: Mapping[str, Any], allow_code: bool = False) -> "Plan":
        """The plan with changes of its recipe's keys, such as {"train.steps": "500"}.

        allow_code: import the code outside voxlate that they name.
        """
        why = dict(self.why)
        for key in why:
            if _touched(key, changes):
                why[key] = "set by hand"
        if changes:
            why["by hand"] = (
                f"{', '.join(changes)}; the other reasons and the predicted minutes and memory do not take this change into account"
            )
        fixed = self.fixed or any(re.search(DECIDES_LENGTH, key) for key in changes)
        tables = recipe_text.apply_changes(self.tables, changes)
        return replace(
            self, tables=tables, why=why, fixed=fixed, allow_code=allow_code or self.allow_code
        )

    def save(self, path: Path | str) -> None:
        """Write the recipe."""
        write_text(path, self.text)

    def outcome(self, run: Run, seconds: float, device: str = "auto") -> str:
        """A sentence that compares predicted with measured minutes and memory; both are also logged."""
        most = peak_memory(find_device(device))
        planned = {"seconds": self.seconds, "memory_bytes": self.memory}
        took = {"seconds": seconds, "memory_bytes": most}
        steps = self.tables["train"]["steps"]
        append_line(run.log, {"stage": "final", "step": steps, "planned": planned, "took": took})
        wanted = f"of {self.limits.minutes:g} and {self.limits.memory_bytes / 2**30:.1f}"
        return f"predicted {self.seconds / 60:.1f} minutes and {self.memory / 2**30:.2f} GiB, {wanted}; took {seconds / 60:.1f} minutes and {most / 2**30:.2f} GiB."

    def help(self, run: Run) -> str:
        """A sentence on what may help where the result is worse than a naive baseline."""
        longer = f"a longer training (voxlate train {shlex.quote(str(run.folder))} --minutes +{math.ceil(2 * self.limits.minutes)})"
        starter = f", or a starter, which needs no training ({self.at_once})"
        return f"What may help: {longer}{starter if self.at_once else ''}."

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><td><code>{key}</code></td><td>{html.escape(why)}</td></tr>"
            for key, why in self.why.items()
        )
        return f"<b>{html.escape(self.tables['title'])}</b><table>{''.join(rows)}</table>"

    @property
    def text(self) -> str:
        """The recipe as TOML, with its reasons as comments at its head."""
        head = [
            f"Planned by voxlate from {self.where}. This is an ordinary recipe, which may be edited."
        ]
        head += [f"{key}: {why}." for key, why in self.why.items()]
        source = (
            f"for a machine with {self.elsewhere}"
            if self.elsewhere
            else "by a probe on this machine"
        )
        head.append(
            f"Predicted {source}: {self.seconds / 60:.1f} of {self.limits.minutes:g} minutes, {self.memory / 2**30:.2f} of {self.limits.memory_bytes / 2**30:.1f} GiB."
        )
        comments: list[str] = []
        for line in head:
            comments += textwrap.wrap(line, 128, initial_indent="# ", subsequent_indent="#   ")
        lists = re.sub(r"\[\n((?: +[^\[\]\n]*,\n)+) *\]", _on_a_line, tomli_w.dumps(self.tables))
        return "\n".join(comments) + "\n" + lists


def _touched(key: str, changes: Mapping[str, Any]) -> bool:
    """Whether a change concerns this key, a part of it, or a table that contains it."""
    pairs = ((f"{key}.", f"{change}.") for change in changes)
    return any(a.startswith(b) or b.startswith(a) for a, b in pairs)


def _on_a_line(match: re.Match[str]) -> str:
    """A TOML list of plain values on one line."""
    values = [line.strip().removesuffix(",") for line in match.group(1).splitlines()]
    return f"[{', '.join(values)}]"


def begun(run: Path, allow_code: bool = False) -> tuple[Recipe, str] | None:
    """The recipe by which a run continues, and its head; None if there is no run yet.

    The recipe in the provenance decides, because the pace of a plan writes changed steps there first.
    """
    files = Run(run)
    if not files.recipe.exists():
        return None
    recipe, head = read_with_head(str(files.recipe), allow_code=allow_code)
    stated = read_run(files.provenance) if files.provenance.exists() else {}
    if not stated.get("paced") or not isinstance(stated.get("recipe"), dict):
        return recipe, head
    paced = from_dict(stated["recipe"], f"{files.provenance}", allow_code)
    check_recipe_file(files, paced, may_be_paced=True)
    if recipe != paced:  # the run was stopped between writing both files
        write_text(files.recipe, head + tomli_w.dumps(to_dict(paced)))
    return paced, head


def planned_once(
    run: Path, make: Callable[[], Plan], device: str = "auto", allow_code: bool = False
) -> tuple[Recipe, str, Plan | None]:
    """The recipe of a run that has begun, and its head; otherwise those of a new plan, and the plan.

    Only the main process plans, because probes of several processes would differ; the others receive its plan.
    """
    accelerator, _ = processes(device)

    def decide() -> tuple[Recipe, str, Plan | None]:
        earlier = begun(run, allow_code)
        if earlier is not None:
            return *earlier, None
        # This is checked before minutes are spent on a plan.
        check_free(Run(run))
        plan = make()
        with lock(run):
            plan.keep_pace(run)
        return *plan.with_head, plan

    return by_main(accelerator, decide)


def check_same(run: Path, recipe: Recipe, source: Sequence[str], target: Sequence[str]) -> None:
    """Raise BadInput if a run was planned with other sources or targets than those of this call."""
    for side, asked, own in (
        ("source", source, recipe.data.source),
        ("target", target, recipe.data.target),
    ):
        if asked and set(asked) != set(own):
            raise BadInput(
                f"{run}: expected a run with the {side} {', '.join(asked)}, found one that was planned with {', '.join(own)}. Choose another --out, or drop --{side}."
            )


def plan_training(
    data: Path | str,
    options: PlanOptions | None = None,
    *,
    fold: int | None = None,
    say: Say = lambda _: None,
    **changes: Any,
) -> Plan:
    """Plan a training on a prepared cohort within limits of time and memory, by default 60 minutes and most of what is free.

    fold: plan for the training cases of this fold (see Cohort.in_fold); changes: fields of the options. from_scratch:
    begin from random weights even where a starter fits; plan_for: the machine that will train, if it is another one.
    Raises BadInput if the cohort does not suffice for a training, or if the limits are too narrow for the smallest
    network.
    """
    asked = merge(PlanOptions, options, changes)
    mode = asked.mode or "both"
    source, target = as_names(asked.source), as_names(asked.target)
    elsewhere = None if asked.plan_for is None else machine_of(asked.plan_for)
    limits = _limits(asked, elsewhere)
    cohort = open_cohort(data) if fold is None else open_cohort(data).in_fold(fold)
    facts = facts_of(cohort)
    refuse_maps(facts, source, target)
    roles = roles_of(facts, source, target)
    _check_variation(facts, roles)
    if roles.pairing == "pairs":  # cases without a pair are not used
        facts = facts.having([*roles.source, *roles.target])
    check_scales(facts, [*roles.source, *roles.target], roles.target)
    probe = Probe(cohort, limits, asked.device, elsewhere=elsewhere)
    search = Search(facts, probe, lambda size: first_stage(facts, roles, size, LEAST)[0], say)
    about = ""
    if not asked.from_scratch:
        search.starter, about = fitting_starter(facts, roles, regression=_regresses(roles, mode))
    stages = _two_stages if roles.pairing == "pairs" and mode != "mean" else _one_stage
    at_once = without_training(facts, roles)
    draft = replace(stages(facts, roles, mode, search), at_once=at_once)
    if at_once and "minutes" in draft.why:
        draft.why["minutes"] += f", or synthesise without a training: {at_once}"
    if about:
        draft = replace(draft, why={"start_from": about, **draft.why})
    return draft if elsewhere else _with_precision(draft, choose(find_device(asked.device)))


def _limits(asked: PlanOptions, elsewhere: Elsewhere | None) -> Limits:
    """The minutes and the memory of a training; the memory by default most of what is free on the machine."""
    memory = asked.memory_bytes
    if memory is None:
        memory = elsewhere.memory_bytes * FREE if elsewhere else free_memory(asked.device)
    return Limits(60.0 if asked.minutes is None else float(asked.minutes), memory)


def _regresses(roles: Roles, mode: Mode) -> bool:
    """Whether the first stage of a plan is a regression, as the networks of starters are."""
    return roles.pairing == "pairs" or mode == "mean"


def _with_precision(draft: Plan, choice: Choice) -> Plan:
    """The plan with the precision of this machine, which was probed, in every stage."""

    def trained(table: Tables) -> Tables:
        return {**table, "train": {**table["train"], "precision": choice.precision}}

    tables = trained(draft.tables)
    if "stages" in tables:
        tables["stages"] = [trained(stage) for stage in tables["stages"]]
    return replace(draft, tables=tables, why=draft.why | {"train.precision": choice.why})


def _check_variation(facts: Facts, roles: Roles) -> None:
    for name in roles.target:
        inside = facts.scans[name].inside
        if inside.at(1) == inside.at(99):
            raise BadInput(
                f"{facts.cohort.folder}: expected {name} to vary inside the body, found {inside.at(1):g} from the 1st to the 99th percentile. Is it the right file?"
            )


def _ranked(search: Search, share: float, most_items: int) -> list[Candidate]:
    """Networks for a share of the time, the best first; its step is timed again. Raises BadInput if none fits."""
    probe = search.probe
    ranked = search.ranked(probe.seconds * (1 - SPARE) * share, most_items)
    if not ranked:
        raise BadInput(
            f"--memory: expected enough for the smallest network, found {probe.limits.memory_bytes / 2**30:.2f} GiB; it needs {probe.most / 2**30:.2f} GiB. Give more."
        )
    size = ranked[0].size
    search.tried[size] = probe.again(search.recipe(size), search.tried[size])
    best = search.retimed(ranked[0], probe.seconds * (1 - SPARE) * share, most_items)
    return [best, *ranked[1:]]


def _one_stage(facts: Facts, roles: Roles, mode: Mode, search: Search) -> Plan:
    """The plan of one stage: a regression, a completion, or cycles."""
    probe = search.probe
    most = rules.most_items(facts, samples=roles.pairing != "pairs")
    best, tables, why = _first(facts, roles, search, 1.0, most)
    if roles.pairing == "complete" and mode != "mean":
        train, of_train = rules.training(best.steps, best.size.width, best.size.batch, draws=True)
        tables |= {
            "method": rules.OF_IMAGE,
            "train": train,
            "synth": {**tables["synth"], **rules.SAMPLING},
        }
        why |= of_train
        why["method"] = (
            "a diffusion of missing images; --samples 8 gives their mean and standard deviation"
        )
    elif roles.pairing != "unpaired":
        tables["synth"] |= mirror(tables)
    seconds = {"final": best.seconds}
    return _completed(facts, probe, tables, why, seconds, {"final": most / best.size.batch})


def _two_stages(facts: Facts, roles: Roles, mode: Mode, search: Search) -> Plan:
    """The plan of a regression and a diffusion of its residual, or of the regression alone if time is short."""
    probe = search.probe
    share = SHARES[mode]
    most = rules.most_items(facts)
    most_drawn = math.ceil(rules.most_items(facts, samples=True) / rules.BATCH)
    best, tables, why = _first(facts, roles, search, share, most)
    of_both = with_samples(tables, best.size, LEAST)
    measured = probe.measure(of_both, 1)
    if measured is None:
        raise BadInput(
            f"--memory: expected enough for the second stage too, found {probe.limits.memory_bytes / 2**30:.2f} GiB. Give more."
        )
    left = probe.seconds * (1 - SPARE) - best.steps * best.seconds
    drawn = max(int(left / measured.seconds), 1)
    drawn = drawn if drawn <= FILLED * most_drawn else most_drawn
    if mode == "both" and drawn < min(DRAWN_LEAST, most_drawn):
        alone = _one_stage(facts, roles, "mean", search)
        minutes = math.ceil(probe.limits.minutes * DRAWN_LEAST / drawn)
        alone.why["stages"] = (
            f"the mean prediction alone, because only {drawn:,} steps of a diffusion would fit and samples need {DRAWN_LEAST}; samples need at least --minutes {minutes}"
        )
        return alone
    tables = with_samples(tables, best.size, drawn)
    sampled = rules.FROM_REGRESSION["steps"]
    why["stages.regression.method"] = why.pop("method")
    why["stages.regression.train.steps"] = f"{share:.0%} of the time: {why['net.width']}"
    why["train.steps"] = (
        f"the remaining time, for a diffusion of the residual: {drawn:,} steps of {measured.seconds:.3f} s"
    )
    why["synth.steps"] = (
        f"{sampled} steps from log-SNR -3, because the regression suffices at higher noise"
    )
    seconds = {PREDICTOR: best.seconds, "final": measured.seconds}
    most_steps = {PREDICTOR: most / best.size.batch, "final": most_drawn}
    return _completed(facts, probe, tables, why, seconds, most_steps)


def _first(
    facts: Facts, roles: Roles, search: Search, share: float, most_items: int
) -> tuple[Candidate, Tables, Why]:
    """The network of the first stage, with its tables and reasons."""
    ranked = _ranked(search, share, most_items)
    best = ranked[0]
    fitting = max(int(search.probe.seconds * (1 - SPARE) * share / best.seconds), 1)
    _check_epoch(facts, roles, best.size, fitting, best.seconds / share, search.probe)
    tables, why = first_stage(facts, roles, best.size, best.steps)
    why["net.width"] = reason(ranked)
    if best.steps < fitting:
        why["net.width"] += f"; {fitting:,} would fit, but overfit to {facts.patients} patients"
    if search.starter is not None:
        began = _from_starter(search.starter, search, roles, best, tables, share)
        if isinstance(began, str):
            why["start_from"] = began
        else:
            return began
    return best, tables, why | _too_short(facts, best.size, fitting, search.probe)


def _from_starter(
    starter: Starter, search: Search, roles: Roles, best: Candidate, tables: Tables, share: float
) -> tuple[Candidate, Tables, Why] | str:
    """The first stage from a starter's weights if patients are few or its predicted error is not larger than the best's.

    Otherwise the reason for random weights. best, tables: of the best network from these.
    """
    facts = search.facts
    probe = search.probe
    net = starter.tables["net"]
    size = Size(net["width"], net.get("patch", 1), best.size.batch)
    windows = windows_of(starter, tables, facts)
    measured = probe.measure(begun_from(starter, tables, facts, best.steps, windows)[0], 0)
    if measured is None:
        return "random weights, because the network of the starter needs too much memory"
    seconds = probe.seconds * (1 - SPARE) * (1 - VALIDATION_COST) * share
    steps = min(max(int(seconds / measured.seconds), 1), rules.most_items(facts) // size.batch)
    error = starter_error(starter, facts, size.batch, steps)
    few = few_teach(facts.patients)
    if error > best.error and not few:
        return f"random weights, because {best.size} has a predicted error {1 - best.error / error:.1%} below that of the starter's network after {steps:,} steps"
    planned, why = first_stage(facts, roles, size, steps)
    begun, of_starter = begun_from(starter, planned, facts, steps, windows)
    why |= of_starter
    why["net.width"] = (
        f"{size} of the starter gets {steps:,} steps of {measured.seconds:.3f} s: {few or _against_random(error, best)}"
    )
    return Candidate(size, measured.seconds, steps, error), begun, why


def _against_random(error: float, best: Candidate) -> str:
    """The predicted error of a starter relative to the best network from random weights, where both are predicted."""
    if not (math.isfinite(error) and math.isfinite(best.error)):
        return f"its error is not predicted, so it is not compared with {best.size} from random weights"
    return f"a predicted error {1 - error / best.error:.1%} below {best.size} from random weights"


def _completed(
    facts: Facts,
    probe: Probe,
    tables: Tables,
    why: Why,
    seconds: Mapping[str, float],
    most: Mapping[str, float],
) -> Plan:
    stages = {stage["name"]: stage["train"]["steps"] for stage in tables.get("stages", [])}
    steps = {**stages, "final": tables["train"]["steps"]}
    trained = sum(steps[name] * each for name, each in seconds.items())
    longest = {name: math.ceil(FILLED * count) for name, count in most.items()}
    if probe.elsewhere:
        text = f"{probe.elsewhere}: its steps are predicted from counted operations, and corrected there after a tenth of each stage"
        why = why | {"planned for": text}
    return Plan(
        tables=tables,
        why=why,
        seconds=trained + probe.passed,
        memory=probe.most,
        limits=probe.limits,
        where=str(facts.cohort.folder),
        step_seconds=seconds,
        most_steps=longest,
        probed_seconds=probe.passed,
        elsewhere=probe.elsewhere,
    )


def _too_short(facts: Facts, size: Size, steps: int, probe: Probe) -> Why:
    """A warning if so few steps fit that images will be blurred and lack rare structures such as lesions."""
    passes = steps * size.batch / max(facts.slices, 1)
    if steps >= LEAST and passes >= FEW:
        return {}
    minutes = probe.limits.minutes * max(2 * LEAST / steps, 2 * FEW / passes)
    text = f"{steps:,} steps show each slice {passes:.1f} times: EXPECT BLUR, AND LESIONS THAT ARE MISSING"
    return {"minutes": f"{text}; give {math.ceil(minutes)} minutes"}


def _check_epoch(
    facts: Facts, roles: Roles, size: Size, steps: int, step_seconds: float, probe: Probe
) -> None:
    """Raise BadInput if the time does not suffice for one pass over all slices."""
    wanted = facts.slices / size.batch
    if steps >= wanted * 0.5:  # about half of the slices contain body
        return
    minutes = (wanted * 0.5 * step_seconds * 1.1 / (1 - SPARE) + probe.passed) / 60
    at_once = without_training(facts, roles)
    starter = f", or synthesise without a training: {at_once}" if at_once else "."
    raise BadInput(
        f"--minutes: expected time for one pass over the {facts.slices:,} slices, found {probe.limits.minutes:g} minutes, which are {steps:,} steps of {size.batch} slices. Give {math.ceil(10 * minutes) / 10:.1f} minutes or more{starter}"
    )
