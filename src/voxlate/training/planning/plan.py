"""A plan: a whole recipe for a cohort, with the reason for each choice and the predicted cost."""

import html
import math
import re
import shlex
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from voxlate.base.devices import find_device, peak_memory
from voxlate.base.errors import BadInput
from voxlate.base.files import lock, write_text
from voxlate.base.messages import Say
from voxlate.base.options.option import merge
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.scans.cohorts.choice import as_names
from voxlate.training.batches.any_source import with_any_source
from voxlate.training.log_file import append_line
from voxlate.training.options import PlanOptions
from voxlate.training.planning import rules
from voxlate.training.planning.facts import Facts, check_scales, facts_of
from voxlate.training.planning.pace import SPARE, TOLERANCE, PaceRecord
from voxlate.training.planning.probe import Limits, Probe, free_memory
from voxlate.training.planning.race import SHARE as RACED
from voxlate.training.planning.race import Entrant, Result, hold_out, run_race
from voxlate.training.planning.roles import ANY_SOURCE, Roles, refuse_maps, roles_of, roles_of_any
from voxlate.training.planning.rules import LEAST_STEPS, PREDICTOR, Draft, Size, Tables
from voxlate.training.planning.search import FILLED, WIDTHS, Candidate, Search, reason, useful_steps
from voxlate.training.planning.starters import Starter, entrant_from, find_starter, without_training
from voxlate.training.precision import choose
from voxlate.training.processes import by_main, processes
from voxlate.training.recipe import Recipe, from_dict, head_of, header, read
from voxlate.training.recipe import text as recipe_text
from voxlate.training.recipe.provenance import read_run
from voxlate.training.run import Run, check_free, repair_recipe_file
from voxlate.training.state_file import keep_race
from voxlate.training.train import owner_of

# With fewer steps of a second stage, its samples are noise.
FEWEST_OF_SAMPLES = 200
ROOM = 1.5  # on the minutes that are advised for them
FEW = 2  # passes over the slices below which a training is too short
# A completion draws which images are missing, so that a part of the slices suffices to begin with.
FEWEST_OF_COMPLETION = 100
# Share of the time for the regression: by the law, an image of both costs it 2 % of its error after 20 minutes.
SHARES = {"both": 0.75, "samples": 0.4}
# After changes of these keys, steps were set by hand, or a step takes another time than the probed one.
DECIDES_LENGTH = r"train$|train\.(steps|epochs|more|stop|ema|optimiser)|opponent|task|method"


@dataclass(frozen=True)
class Plan:
    """A recipe as plain tables, the reason for each of its keys, and its predicted seconds and bytes of memory.

    pace: the speed by which the training corrects its steps, None if a length was set by hand; at_once: the command
    by which a starter needs no training, "" without one; allow_code: import the code outside voxlate that changes of the
    recipe name; state: of the first stage's training after a race, from which it goes on; cohort: on which it was planned.
    """

    tables: Tables
    why: Mapping[str, str]
    seconds: float
    memory: float
    limits: Limits
    where: str
    pace: PaceRecord | None = None
    at_once: str = ""
    allow_code: bool = False
    state: Mapping[str, Any] | None = None
    cohort: Cohort | None = None

    def keep_pace(self, run: Path) -> None:
        """Write what the training continues from: RUN/plan.json with the speed by which it corrects its steps (see
        pace.read_pace), and the state after a race; no file where there is none."""
        if self.pace is None:
            Run(run).pace.unlink(missing_ok=True)
        else:
            self.pace.write(run)
        if self.state is None:
            Run(run).race.unlink(missing_ok=True)
        else:
            keep_race(Run(run), owner_of(self.recipe, self.cohort), self.state)

    def write_run(self, run: Path) -> None:
        """Write the folder of a planned run, which `train auto` trains."""
        with lock(run):
            self.keep_pace(run)
            write_text(Run(run).recipe, self.text)

    @property
    def recipe(self) -> Recipe:
        """The recipe; raises BadInput where a change makes it invalid."""
        return from_dict(self.tables, "the plan", self.allow_code)

    @property
    def with_head(self) -> tuple[Recipe, str]:
        """The recipe and its reasons as comment lines."""
        return self.recipe, header(self.text)

    def change(self, changes: Mapping[str, Any], allow_code: bool = False) -> "Plan":
        """The plan with changes of its recipe's keys, such as {"train.steps": "500"}.

        allow_code: import the code outside voxlate that they name.
        """
        if not changes:
            return replace(self, allow_code=allow_code or self.allow_code)
        why = {
            key: "set by hand" if _concerns(key, changes) else text
            for key, text in self.why.items()
        }
        why["by hand"] = (
            f"{', '.join(changes)}; the other reasons and the predicted minutes and memory do not take this change into account"
        )
        fixes_length = any(re.search(DECIDES_LENGTH, key) for key in changes)
        return replace(
            self,
            tables=recipe_text.apply_changes(self.tables, changes),
            why=why,
            pace=None if fixes_length else self.pace,
            state=None,
            allow_code=allow_code or self.allow_code,
        )

    def save(self, path: Path | str) -> None:
        """Write the recipe."""
        write_text(path, self.text)

    def outcome(self, run: Run, seconds: float, device: str = "auto") -> str:
        """A sentence that compares predicted with measured minutes and memory; both are also logged."""
        most = peak_memory(find_device(device))
        planned = {"seconds": self.seconds, "memory_bytes": self.memory}
        took = {"seconds": seconds, "memory_bytes": most}
        steps = read_run(run.provenance)["recipe"]["train"]["steps"]
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
    def prediction(self) -> str:
        """A sentence on the predicted minutes and memory, with their limits."""
        return f"Predicted by a probe on this machine: {self.seconds / 60:.1f} of {self.limits.minutes:g} minutes, {self.memory / 2**30:.2f} of {self.limits.memory_bytes / 2**30:.1f} GiB."

    @property
    def text(self) -> str:
        """The recipe as TOML, with its reasons as comments at its head."""
        head = [
            f"Planned by voxlate from {self.where}. This is an ordinary recipe, which may be edited."
        ]
        head += [f"{key}: {why}." for key, why in self.why.items()]
        head.append(self.prediction)
        comments: list[str] = []
        for line in head:
            comments += textwrap.wrap(line, 128, initial_indent="# ", subsequent_indent="#   ")
        lists = re.sub(r"\[\n((?: +[^\[\]\n]*,\n)+) *\]", _on_a_line, tomli_w.dumps(self.tables))
        return "\n".join(comments) + "\n" + lists


def _concerns(key: str, changes: Mapping[str, Any]) -> bool:
    """Whether a change concerns this key, a part of it, or a table that contains it."""
    pairs = ((f"{key}.", f"{change}.") for change in changes)
    return any(a.startswith(b) or b.startswith(a) for a, b in pairs)


def _on_a_line(match: re.Match[str]) -> str:
    """A TOML list of plain values on one line."""
    values = [line.strip().removesuffix(",") for line in match.group(1).splitlines()]
    return f"[{', '.join(values)}]"


def begun_recipe(run: Path, allow_code: bool = False) -> tuple[Recipe, str] | None:
    """The recipe by which a run continues, and its head; None if there is no run yet.

    The recipe in the provenance decides, because the pace of a plan writes changed steps there first.
    """
    files = Run(run)
    if not files.recipe.exists():
        return None
    recipe = read(str(files.recipe), allow_code=allow_code)
    head = head_of(str(files.recipe))
    stated = read_run(files.provenance) if files.provenance.exists() else {}
    if not stated.get("corrections") or not isinstance(stated.get("recipe"), dict):
        return recipe, head
    paced = from_dict(stated["recipe"], f"{files.provenance}", allow_code)
    repair_recipe_file(files, paced)
    return paced, head


def plan_once(
    run: Path, make: Callable[[], Plan], device: str = "auto", allow_code: bool = False
) -> tuple[Recipe, str, Plan | None]:
    """The recipe of a run that has begun, and its head; otherwise those of a new plan, and the plan.

    Only the main process plans, because probes of several processes would differ; the others receive its plan.
    """
    accelerator, _ = processes(device)

    def decide() -> tuple[Recipe, str, Plan | None]:
        """The recipe of the run or of a new plan."""
        earlier = begun_recipe(run, allow_code)
        if earlier is not None:
            return *earlier, None
        # This is checked before minutes are spent on a plan.
        check_free(Run(run))
        plan = make()
        with lock(run):
            plan.keep_pace(run)
        return *plan.with_head, plan

    return by_main(accelerator, decide)


def check_same(run: Path, recipe: Recipe, options: PlanOptions) -> None:
    """Raise BadInput if a run was planned with other sources or targets than those of this call."""
    for side in ("source", "target", "any_source"):
        asked, own = as_names(getattr(options, side)), getattr(recipe.data, side)
        if asked and set(asked) != set(own):
            name = side.replace("_", "-")
            raise BadInput(
                f"{run}: expected a run with the {name} {', '.join(asked)}, found one that was planned with {', '.join(own) or 'none'}. Choose another --out, or drop --{name}."
            )


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
    Raises BadInput if the cohort does not suffice for a training, or if the limits are too narrow for the smallest
    network.
    """
    asked = merge(PlanOptions, options, changes)
    mode = asked.mode or "both"
    source, target = as_names(asked.source), as_names(asked.target)
    limits = _limits(asked)
    cohort = open_cohort(data) if fold is None else open_cohort(data).in_fold(fold)
    facts = facts_of(cohort)
    if any_source := as_names(asked.any_source):
        _refuse_source(source)
        roles = roles_of_any(facts, any_source, target)
        cohort = with_any_source(cohort, any_source, ANY_SOURCE)
        facts = facts_of(cohort)
    else:
        refuse_maps(facts, source, target)
        roles = roles_of(facts, source, target)
    _check_variation(facts, roles)
    if roles.pairing == "pairs":  # cases without a pair are not used
        facts = facts.of_cases_with([*roles.source, *roles.target])
    check_scales(facts, [*roles.source, *roles.target], roles.target)
    if settings:
        _check_settings(facts, roles, asked.mode, settings, allow_code)
    probe = Probe(cohort, limits, asked.device)
    starter, about = None, ""
    if not asked.from_scratch:
        starter, about = find_starter(facts, roles, mode)
    search = Search(facts, roles, probe, say)
    if roles.pairing == "pairs" and mode != "mean":
        draft = _plan_samples(search, starter, mode, asked.mode is not None)
    else:
        draft = _plan_stage(search, starter, mode)
    at_once = without_training(facts, roles, cohort.scans)
    for key in draft.why.keys() & {"minutes"} if at_once else ():
        draft.why[key] += f", or synthesise without a training: {at_once}"
    why = {"starter": about, **draft.why} if about else draft.why
    precision = choose(find_device(asked.device))
    for stage in (*draft.tables.get("stages", ()), draft.tables):
        stage["train"]["precision"] = precision.precision
    why["train.precision"] = precision.why
    state = draft.state
    if state is not None:
        first = "final" if not draft.tables.get("stages") else draft.tables["stages"][0]["name"]
        state = {**state, "stage": first}
    planned = replace(_predict(draft, probe), why=why, at_once=at_once, state=state, cohort=cohort)
    return planned.change(settings or {}, allow_code)


def _predict(draft: Draft, probe: Probe) -> Plan:
    """The plan of a draft, with its predicted cost."""
    each = draft.step_seconds
    stages = [*draft.tables.get("stages", ()), {**draft.tables, "name": "final"}]
    seconds = sum(stage["train"]["steps"] * each[stage["name"]] for stage in stages)
    seconds -= draft.done * each[stages[0]["name"]]
    pace = PaceRecord(
        minutes=probe.limits.minutes,
        probed_seconds=probe.probe_seconds,
        step_seconds=each,
        most_steps={name: math.ceil(FILLED * most) for name, most in draft.most_steps.items()},
    )
    return Plan(
        tables=draft.tables,
        why=draft.why,
        seconds=seconds + probe.probe_seconds,
        memory=probe.most,
        limits=probe.limits,
        where=str(probe.cohort.folder),
        pace=pace,
    )


def _limits(asked: PlanOptions) -> Limits:
    """The minutes and the memory of a training; the memory by default most of what is free on the machine."""
    memory = free_memory(asked.device) if asked.memory_bytes is None else asked.memory_bytes
    return Limits(60.0 if asked.minutes is None else float(asked.minutes), memory)


def _refuse_source(source: Sequence[str]) -> None:
    """Raise BadInput where sources are named that a model of any source would not have."""
    if source:
        raise BadInput(
            f"--source: expected --any-source or --source, found both ({', '.join(source)}). Drop one."
        )


def _check_settings(
    facts: Facts, roles: Roles, mode: str | None, settings: Mapping[str, Any], allow_code: bool
) -> None:
    """Raise BadInput for settings that fit none of the recipes that may be planned, before a step is timed."""
    # Widths that are divisible by most numbers, and patches of the most features.
    size = Size(WIDTHS[-1], rules.stems(facts)[0], rules.BATCH)
    alone, first = (
        rules.first_stage(facts, roles, size, LEAST_STEPS, mean_alone).tables
        for mean_alone in (True, False)
    )
    possible = [alone]
    if mode != "mean" and roles.pairing == "complete":
        possible = [rules.with_drawing(first, size, LEAST_STEPS)]
    elif mode != "mean" and roles.pairing == "pairs":
        two = rules.with_samples(first, size, LEAST_STEPS, mode or "both")
        possible = [two] if mode else [alone, two]
    for tables in possible:
        try:
            from_dict(recipe_text.apply_changes(tables, settings), "the plan", allow_code)
            return
        except BadInput as error:
            refused = error
    raise refused


def _check_variation(facts: Facts, roles: Roles) -> None:
    for name in roles.target:
        inside = facts.scans[name].inside
        if inside.at(1) == inside.at(99):
            raise BadInput(
                f"{facts.cohort.folder}: expected {name} to vary inside the body, found {inside.at(1):g} from the 1st to the 99th percentile. Is it the right file?"
            )


def _plan_stage(search: Search, starter: Starter | None, mode: str) -> Draft:
    """The plan of one stage: a regression, a completion, or cycles."""
    facts, pairing = search.facts, search.roles.pairing
    most = rules.most_items(facts, times=1 if pairing == "pairs" else 2)
    best, draft = _plan_first(search, starter, 1.0, most, mean_alone=True)
    tables = draft.tables
    if draft.completes and mode != "mean":
        draft.tables = rules.with_drawing(tables, best.size, best.steps)
        draft.why |= rules.reasons_for_training(draft.tables["train"], best.size.width)
        draft.why["method"] = (
            "a diffusion of missing images; --samples 8 gives their mean and standard deviation"
        )
    elif pairing != "unpaired":
        tables["synth"] |= rules.mirror(tables)
    draft.step_seconds = {"final": best.seconds}
    draft.most_steps = {"final": most / best.size.batch}
    return draft


def _plan_samples(search: Search, starter: Starter | None, mode: str, asked: bool) -> Draft:
    """The plan of a regression and a diffusion of its residual, or of the regression alone if time is short and nobody asked."""
    probe = search.probe
    share = SHARES[mode]
    most = rules.most_items(search.facts)
    most_drawn = math.ceil(rules.most_items(search.facts, times=2) / rules.BATCH)
    if not asked and rules.takes_planes(search.facts):
        draft = _plan_stage(search, starter, "mean")
        draft.why["stages"] = (
            "the mean prediction alone, because a second stage takes slices of one plane, which would cost the mean 5 to 8 % of its error; --mode both gives a sharp image too"
        )
        return draft
    # The second stage begins from random weights, so its network is the best one for its own share of the time.
    size = search.rank(1 - share, most)[0].size
    plain = rules.first_stage(search.facts, search.roles, size, LEAST_STEPS).tables
    measured = probe.measure(rules.with_samples(plain, size, LEAST_STEPS, mode), 1)
    if measured is None:
        raise BadInput(
            f"--memory: expected enough for the second stage too, found {probe.limits.memory_bytes / 2**30:.2f} GiB. Give more."
        )

    def drawn_in(seconds: float) -> int:
        """The steps of the second stage that fit in these seconds and are useful."""
        return useful_steps(max(int(seconds / measured.seconds), 1), most_drawn)

    drawn = drawn_in(search.seconds(1 - share))
    if mode == "both" and drawn < min(FEWEST_OF_SAMPLES, most_drawn):
        minutes = math.ceil(ROOM * probe.limits.minutes * FEWEST_OF_SAMPLES / drawn)
        if asked:
            raise BadInput(
                f"--mode both: expected minutes for {FEWEST_OF_SAMPLES} steps of a diffusion after the mean prediction, found room for {drawn:,}. Give about --minutes {minutes}, or --mode mean."
            )
        draft = _plan_stage(search, starter, "mean")
        draft.why["stages"] = (
            f"the mean prediction alone, because only {drawn:,} steps of a diffusion to sharp images would fit, which needs {FEWEST_OF_SAMPLES}: give about --minutes {minutes}"
        )
        return draft
    best, draft = _plan_first(search, starter, share, most)
    drawn = drawn_in(search.seconds() - (best.steps - draft.done) * best.seconds)
    draft.tables = rules.with_samples(draft.tables, size, drawn, mode, plain["net"])
    why = draft.why
    why["stages.regression.method"] = why.pop("method")
    why["stages.regression.train.steps"] = f"{share:.0%} of the time: {why['net.width']}"
    why["train.steps"] = (
        f"the remaining time, for a diffusion of its residual: {drawn:,} steps of {measured.seconds:.3f} s"
    )
    synth = draft.tables["synth"]
    why["synth.steps"] = (
        f"{synth['steps']} steps from log-SNR -3, because the regression suffices at higher noise"
    )
    if "gradient_ratio" in synth:
        why["synth.gradient_ratio"] = (
            f"one image between the mean and a sample, at a gradient ratio of {synth['gradient_ratio']:g} on validation cases; --mode samples shows what is uncertain"
        )
    draft.step_seconds = {PREDICTOR: best.seconds, "final": measured.seconds}
    draft.most_steps = {PREDICTOR: most / best.size.batch, "final": most_drawn}
    return draft


def _plan_first(
    search: Search,
    starter: Starter | None,
    share: float,
    most_items: int,
    mean_alone: bool = False,
) -> tuple[Candidate, Draft]:
    """The network of the first stage, with its draft; mean_alone: whether no second stage follows."""
    facts = search.facts
    ranked = search.rank(share, most_items)
    best = ranked[0]
    _check_epoch(search, best, share)
    if starter is not None:
        return _choose_start(search, starter, best, share, most_items, mean_alone)
    draft = rules.first_stage(facts, search.roles, best.size, best.steps, mean_alone)
    draft.why["net.width"] = reason(ranked)
    if best.steps < best.fitting:
        draft.why["net.width"] += (
            f"; {best.fitting:,} would fit, but overfit to {facts.patients} patients"
        )
    _warn_of_short(draft, best.fitting, search.probe.limits.minutes)
    return best, draft


def _choose_start(
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
    raced = RACED * seconds if held_out else 0.0
    seconds -= raced / 2 if goes_on else raced  # a winner that goes on keeps its own half
    batch = best.size.batch

    def length(step_seconds: float) -> int:
        """The steps of a training whose step takes these seconds."""
        return useful_steps(max(int(seconds / step_seconds), 1), math.ceil(most_items / batch))

    started = entrant_from(starter, search, batch, length, mean_alone)
    draft = rules.first_stage(facts, search.roles, best.size, length(best.seconds), mean_alone)
    random = Entrant(f"{best.size} from random weights", best.size, best.seconds, draft)
    if started is None or held_out is None:
        chosen = started or random
        result = Result(chosen, 0, math.nan, chosen.step_seconds, None)
        why = "there is no patient who could be held out for a race with random weights"
        if not started:
            why = "the network of the starter needs too much memory"
        why = f"{chosen.name}: {why}"
    else:
        race = run_race([started, random], held_out, raced, probe.device_name)
        result, why = race.best, race.reason
    draft = result.entrant.draft
    draft.state = result.state
    _correct_length(draft, length(result.step_seconds))
    draft.why["net.width"] = (
        f"{result.entrant.size} gets {draft.steps:,} steps of {result.step_seconds:.3f} s"
    )
    draft.why["start_from"] = why
    _warn_of_short(draft, max(int(seconds / result.step_seconds), 1), probe.limits.minutes)
    return Candidate(result.entrant.size, result.step_seconds, draft.steps, math.nan), draft


def _correct_length(draft: Draft, steps: int) -> None:
    """Give a raced draft the steps that fit by the speed of the race; the steps that it has trained keep theirs."""
    train = draft.tables["train"]
    if abs(steps - draft.steps) <= TOLERANCE * draft.steps or steps <= draft.done:
        return
    if draft.done:
        train["paced"] = [[draft.done, draft.steps]]
    train["steps"] = draft.steps = steps


def _warn_of_short(draft: Draft, fitting: int, minutes: float) -> None:
    """State in a draft that its training is too short; fitting: steps that fit in the minutes of the whole plan."""
    passes = fitting * draft.size.batch / max(draft.facts.slices, 1)
    if fitting >= LEAST_STEPS and passes >= FEW:
        return
    # Images will be blurred and lack rare structures such as lesions.
    enough = minutes * max(2 * LEAST_STEPS / fitting, 2 * FEW / passes)
    shown = f"{fitting:,} steps show each slice {passes:.1f} times"
    if passes < 0.5:  # about half of the slices contain body
        shown = f"{fitting:,} steps train on about {2 * passes:.0%} of the slices, drawn at random, once each"
    draft.why["minutes"] = (
        f"{shown}: EXPECT BLUR, AND LESIONS THAT ARE MISSING; give {math.ceil(enough)} minutes"
    )


def _check_epoch(search: Search, best: Candidate, share: float) -> None:
    """Raise BadInput if a share of the time does not suffice for one pass over all slices.

    A completion trains on a part of them, which the order of the batches draws at random.
    """
    facts, probe = search.facts, search.probe
    wanted = facts.slices / best.size.batch
    wanted *= 0.5  # about half of the slices contain body
    if search.roles.pairing == "complete":
        wanted = min(wanted, FEWEST_OF_COMPLETION)
    if best.fitting >= wanted:
        return
    seconds = best.seconds / share
    minutes = (wanted * seconds * 1.1 / (1 - SPARE) + probe.probe_seconds) / 60
    at_once = without_training(facts, search.roles, probe.cohort.scans)
    starter = f", or synthesise without a training: {at_once}" if at_once else "."
    raise BadInput(
        f"--minutes: expected time for one pass over the {facts.slices:,} slices, found {probe.limits.minutes:g} minutes, which are {best.fitting:,} steps of {best.size.batch} slices. Give {math.ceil(10 * minutes) / 10:.1f} minutes or more{starter}"
    )
