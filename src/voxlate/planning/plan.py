"""A plan: a whole recipe for a cohort, with the reason for each choice and what it will cost."""

import html
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import tomli_w

from voxlate.data.prepared import open_cohort
from voxlate.devices import find_device, peak_memory
from voxlate.errors import BadInput
from voxlate.files import locked, write_text
from voxlate.planning import rules
from voxlate.planning.facts import Facts, check_scales, facts_of
from voxlate.planning.other_machine import Elsewhere
from voxlate.planning.pace import SPARE, Kept
from voxlate.planning.probe import Limits, Probe
from voxlate.planning.roles import Roles, roles_of
from voxlate.planning.rules import Size, Tables, Why
from voxlate.planning.search import FILLED, Candidate, Search, reason
from voxlate.recipe import Recipe, from_dict, header, read_with_head, to_dict
from voxlate.recipe import text as recipe_text
from voxlate.scoring.provenance import read_run
from voxlate.training.lines import append_line
from voxlate.training.precision import Choice, choose
from voxlate.training.processes import agreed, by_main, processes
from voxlate.training.recorded import recorded
from voxlate.training.run import Run, check_free

Mode = Literal["both", "mean", "samples"]
Say = Callable[[str], None]

LEAST = 300  # steps below which a training is too short
DRAWN_LEAST = 300  # steps of a diffusion below which its samples lose to a copy of the input
FEW = 2  # times that each slice is seen, below which a training is too short
SHARES = {"both": 0.55, "samples": 0.4, "mean": 1.0}  # of the time, for the regression
PREDICTOR = "regression"
DECIDES_LENGTH = r"train$|train\.(steps|epochs|more|stop|ema|optimiser)|opponent|task|method"  # changes after which a
# corrected recipe, trained anew, need not give the same weights, or whose steps were set by hand


@dataclass(frozen=True)
class Plan:
    """A recipe as plain tables, why each of its keys is what it is, and what is predicted: seconds, bytes.

    step_seconds, most_steps: of each stage, the seconds of a step as probed, and the steps that its patients are worth;
    probed_seconds: that planning took of the minutes; fixed: whether a length was set by hand; elsewhere: the machine
    that it is planned for, where that is not this one.
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

    def keep_pace(self, run: Path) -> None:
        """Write what corrects the lengths of the run's training once its speed is known, unless they were set by hand.

        See pace.kept_pace.
        """
        if self.fixed:
            Run(run).plan.unlink(missing_ok=True)
            return
        Kept(
            minutes=self.limits.minutes,
            probed_seconds=self.probed_seconds,
            step_seconds=dict(self.step_seconds),
            most_steps=dict(self.most_steps),
        ).write(run)

    def write_run(self, run: Path) -> None:
        """Write the folder of a run that is planned and not begun; `train auto` trains it on any machine.

        Raises BadInput where the folder holds anything.
        """
        with locked(run):
            check_free(Run(run))
            if Run(run).recipe.exists():
                raise BadInput(
                    f"{run}: expected an empty folder, found a plan there. Choose another --out, or remove it."
                )
            self.keep_pace(run)
            write_text(Run(run).recipe, self.text)

    @property
    def recipe(self) -> Recipe:
        return from_dict(self.tables, "the plan", allow_code=True)  # that the user's own changes name

    @property
    def with_head(self) -> tuple[Recipe, str]:
        """The recipe, and its reasons as comment lines."""
        return self.recipe, header(self.text)

    def changed(self, changes: Mapping[str, str]) -> "Plan":
        """The plan with changes of its recipe's keys, as {"train.steps": "500"}."""
        why = {key: "set by hand" if _touched(key, changes) else reason for key, reason in self.why.items()}
        if changes:
            why["by hand"] = f"{', '.join(changes)}; reasons that state other numbers are the plan's"
        fixed = self.fixed or any(re.search(DECIDES_LENGTH, key) for key in changes)
        return replace(self, tables=recipe_text.changed(self.tables, changes), why=why, fixed=fixed)

    def save(self, path: Path | str) -> None:
        """Write the recipe."""
        write_text(path, self.text)

    def outcome(self, run: Run, seconds: float, device: str = "auto") -> str:
        """What was predicted and what a training took, minutes and memory, as a sentence; it is logged, too."""
        most = peak_memory(find_device(device))
        planned = {"seconds": self.seconds, "memory_bytes": self.memory}
        took = {"seconds": seconds, "memory_bytes": most}
        append_line(
            run.log, {"stage": "final", "step": self.tables["train"]["steps"], "planned": planned, "took": took}
        )
        wanted = f"of {self.limits.minutes:g} and {self.limits.memory_bytes / 2**30:.1f}"
        return (
            f"predicted {self.seconds / 60:.1f} minutes and {self.memory / 2**30:.2f} GiB, {wanted}; took "
            f"{seconds / 60:.1f} minutes and {most / 2**30:.2f} GiB."
        )

    def _repr_html_(self) -> str:
        rows = (f"<tr><td><code>{key}</code></td><td>{html.escape(why)}</td></tr>" for key, why in self.why.items())
        return f"<b>{html.escape(self.tables['title'])}</b><table>{''.join(rows)}</table>"

    @property
    def text(self) -> str:
        """The recipe as TOML, with its reasons as comments at its head."""
        head = [f"Planned by voxlate from {self.where}; an ordinary recipe: edit what you know better."]
        head += [f"{key}: {why}." for key, why in self.why.items()]
        source = f"for a machine with {self.elsewhere}" if self.elsewhere else "by a probe on this machine"
        head.append(
            f"Predicted {source}: {self.seconds / 60:.1f} of {self.limits.minutes:g} minutes, "
            f"{self.memory / 2**30:.2f} of {self.limits.memory_bytes / 2**30:.1f} GiB."
        )
        wrapped = (textwrap.wrap(line, 128, initial_indent="# ", subsequent_indent="#   ") for line in head)
        lists = re.sub(r"\[\n((?: +[^\[\]\n]*,\n)+) *\]", _on_a_line, tomli_w.dumps(self.tables))
        return "\n".join(line for lines in wrapped for line in lines) + "\n" + lists


def _touched(key: str, changes: Mapping[str, str]) -> bool:
    """Whether a change is of this key, of a part of it, or of a table that holds it."""
    return any(f"{one}.".startswith(f"{key}.") or f"{key}.".startswith(f"{one}.") for one in changes)


def _on_a_line(found: re.Match[str]) -> str:
    """A TOML list of plain values, for people to read."""
    return f"[{', '.join(line.strip().removesuffix(',') for line in found.group(1).splitlines())}]"


def begun(run: Path) -> tuple[Recipe, str] | None:
    """The recipe that a run goes on by, and its head; None where there is no run yet.

    The provenance holds it: the steps of a plan are written there first where its pace changes them.
    """
    files = Run(run)
    if not files.recipe.exists():
        return None
    recipe, head = read_with_head(str(files.recipe))
    stated = read_run(files.provenance) if files.provenance.exists() else {}
    if not stated.get("paced") or not isinstance(stated.get("recipe"), dict):
        return recipe, head
    paced = from_dict(stated["recipe"], f"{files.provenance}", allow_code=True)
    recorded(files, paced, paced=True)
    if recipe != paced:  # stopped between the two files
        write_text(files.recipe, head + tomli_w.dumps(to_dict(paced)))
    return paced, head


def planned_once(run: Path, make: Callable[[], Plan], device: str = "auto") -> tuple[Recipe, str, Plan | None]:
    """The recipe of a run that was begun, and its head, else those of the plan that is made, with it.

    Of several processes the main one plans, because probes of several would differ, and the others receive its plan.
    """
    accelerator, _ = processes(device)
    found: list[tuple[Recipe, str, Plan | None]] = []

    def decide() -> None:
        if (earlier := begun(run)) is not None:
            found.append((*earlier, None))
            return
        check_free(Run(run))  # before minutes are spent on a plan
        made = make()
        with locked(run):
            made.keep_pace(run)
        found.append((*made.with_head, made))

    by_main(accelerator, decide)
    return agreed(accelerator, found[0] if found else cast(Any, None))


def check_same(run: Path, recipe: Recipe, source: Sequence[str], target: Sequence[str]) -> None:
    """Raise BadInput where a run that was planned before has other sources or targets than are asked for now."""
    for side, asked, own in (("source", source, recipe.data.source), ("target", target, recipe.data.target)):
        if asked and set(asked) != set(own):
            raise BadInput(
                f"{run}: expected a run with the {side} {', '.join(asked)}, found one that was planned with "
                f"{', '.join(own)}. Choose another --out, or drop --{side}."
            )


def plan(
    data: Path | str,
    *,
    source: tuple[str, ...] = (),
    target: tuple[str, ...] = (),
    limits: Limits,
    mode: Mode = "both",
    device: str = "auto",
    fold: int | None = None,
    elsewhere: Elsewhere | None = None,
    say: Say = lambda _: None,
) -> Plan:
    """Plan a training on a prepared cohort that ends in the minutes given and stays below the memory given.

    fold: whose training cases count (see Cohort.in_fold); elsewhere: the machine that will train, if it is not this
    one. Raises BadInput where the cohort has nothing to learn, or the
    limits are too narrow for the smallest network.
    """
    if mode not in SHARES:
        raise BadInput(f"mode: expected {', '.join(SHARES)}, found {mode!r}. Choose one of these.")
    cohort = open_cohort(data) if fold is None else open_cohort(data).in_fold(fold)
    facts = facts_of(cohort)
    roles = roles_of(facts, source, target)
    _check_variation(facts, roles)
    if roles.way == "pairs":  # the others teach nothing
        facts = facts.having([*roles.source, *roles.target])
    check_scales(facts, [*roles.source, *roles.target])
    probe = Probe(cohort, limits, device, elsewhere=elsewhere)
    search = Search(facts, probe, lambda size: _first_stage(facts, roles, size, LEAST)[0], say)
    alone = roles.way != "pairs" or mode == "mean"
    made = _alone(facts, roles, mode, search) if alone else _both(facts, roles, mode, search)
    return made if elsewhere else _with_precision(made, choose(find_device(device)))


def _with_precision(made: Plan, choice: Choice) -> Plan:
    """The plan with this machine's precision in every stage, as it was probed."""

    def trained(table: Tables) -> Tables:
        return {**table, "train": {**table["train"], "precision": choice.precision}}

    stages = [trained(stage) for stage in made.tables.get("stages", [])]
    tables = {**trained(made.tables), **({"stages": stages} if stages else {})}
    return replace(made, tables=tables, why=made.why | {"train.precision": choice.why})


def _check_variation(facts: Facts, roles: Roles) -> None:
    for name in roles.target:
        inside = facts.scans[name].inside
        if inside.at(1) == inside.at(99):
            raise BadInput(
                f"{facts.cohort.folder}: expected {name} to vary inside the body, found {inside.at(1):g} from the 1st "
                "to the 99th percentile. Is it the right file?"
            )


def _ranked(search: Search, share: float, most_items: int) -> list[Candidate]:
    """Networks for a share of the time, the best first, whose step is timed again; raises BadInput where none fits."""
    probe = search.probe
    ranked = search.ranked(probe.seconds * (1 - SPARE) * share, most_items)
    if not ranked:
        raise BadInput(
            f"--memory: expected enough for the smallest network, found {probe.limits.memory_bytes / 2**30:.2f} GiB; "
            f"it takes {probe.most / 2**30:.2f}. Give more."
        )
    size = ranked[0].size
    search.tried[size] = probe.again(search.recipe(size), search.tried[size])
    return [search.retimed(ranked[0], probe.seconds * (1 - SPARE) * share, most_items), *ranked[1:]]


def _first_stage(facts: Facts, roles: Roles, size: Size, steps: int) -> tuple[Tables, Why]:
    """The first stage of every plan, a whole recipe by itself: a regression; without pairs, cycles."""
    seen = steps * size.batch / max(facts.slices, 1)
    data, why = rules.data(facts, roles, size.stem, seen)
    names = dict.fromkeys([*roles.source, *roles.target])
    maps = {name: rules.intensity(facts.scans[name], name in roles.target) for name in names}
    learned, of_learned = (
        _cycles(roles, size, steps) if roles.way == "unpaired" else _regression(facts, roles, size, steps, data)
    )
    task: Tables = {"kind": "translate"}
    if roles.way == "complete":
        task = {"kind": "complete", **({"incomplete": True} if "allow_missing" in data else {})}
    intensity: Tables = {name: one for name, (one, _) in maps.items()}
    peaks, of_peaks = rules.peaks(intensity, roles)
    synth = {"batch": rules.BATCH, **peaks}
    tables = {"task": task, **learned, "data": data, "intensity": intensity, "synth": synth}
    why |= {f"intensity.{name}": reason for name, (_, reason) in maps.items()} | of_learned | of_peaks
    patch, slices = data["patch"], facts.shape
    if patch[1] < slices[1] or patch[2] < slices[2]:
        tables["synth"] |= {"slices": {"kind": "tiled"}, "overlap": 0.2}
        why["synth.slices"] = "patches as in training: whole slices hold more air, which changes the norms"
    return tables, why


def _regression(facts: Facts, roles: Roles, size: Size, steps: int, data: Tables) -> tuple[Tables, Why]:
    """Title, method, network and training of a regression, of images that are made or that are missing."""
    net, of_net = rules.net(facts, size, data["patch"][1:])
    train, of_train = rules.training(steps, size.width, size.batch)
    method, of_method = rules.regression(facts)
    title = f"{_names(roles)}, planned: a regression"
    if roles.way == "complete":
        title = f"Any missing of {', '.join(roles.target)}, planned"
    why = {"net": of_net, **of_train, "method": of_method}
    return {"title": title, "method": method, "net": net, "train": train}, why


def _cycles(roles: Roles, size: Size, steps: int) -> tuple[Tables, Why]:
    """Title, method, network and training of a CycleGAN."""
    train, _ = rules.training(steps, size.width, size.batch)
    tables = {"title": f"{_names(roles)}, planned: CycleGAN, without pairs", "method": rules.CYCLE}
    why = "no case has both sides: CycleGAN, which invents where a regression would be sure of the mean"
    return {**tables, "net": rules.cycle_net(size), "train": {**train, **rules.CYCLE_TRAINING}}, {"method": why}


def _names(roles: Roles) -> str:
    return f"{' + '.join(roles.source)} to {' + '.join(roles.target)}"


def _alone(facts: Facts, roles: Roles, mode: Mode, search: Search) -> Plan:
    """The plan of one stage: a regression, a completion, or cycles."""
    probe, most = search.probe, rules.most_items(facts, samples=roles.way != "pairs")
    best, tables, why = _first(facts, roles, search, 1.0, most)
    if roles.way == "complete" and mode != "mean":
        train, of_train = rules.training(best.steps, best.size.width, best.size.batch, draws=True)
        tables |= {"method": rules.OF_IMAGE, "train": train, "synth": {**tables["synth"], **rules.SAMPLING}}
        why |= of_train
        why["method"] = "a diffusion of what is missing; --samples 8 gives the mean answer and its spread"
    elif roles.way != "unpaired":
        tables["synth"] |= _mirror(tables)
    return _plan(facts, probe, tables, why, {"final": best.seconds}, {"final": most / best.size.batch})


def _both(facts: Facts, roles: Roles, mode: Mode, search: Search) -> Plan:
    """The plan of a regression and a diffusion of its residual; of the regression alone where time is too short."""
    probe, share = search.probe, SHARES[mode]
    most, most_drawn = rules.most_items(facts), math.ceil(rules.most_items(facts, samples=True) / rules.BATCH)
    best, tables, why = _first(facts, roles, search, share, most)
    of_both = _with_samples(tables, best.size, LEAST)
    measured = probe.measure(of_both, 1)
    if measured is None:
        raise BadInput(
            f"--memory: expected enough for the second stage too, found {probe.limits.memory_bytes / 2**30:.2f} GiB. "
            "Give more."
        )
    left = probe.seconds * (1 - SPARE) - best.steps * best.seconds
    drawn = max(int(left / measured.seconds), 1)
    drawn = drawn if drawn <= FILLED * most_drawn else most_drawn
    if mode == "both" and drawn < min(DRAWN_LEAST, most_drawn):
        alone = _alone(facts, roles, "mean", search)
        minutes = math.ceil(probe.limits.minutes * DRAWN_LEAST / drawn)
        alone.why["stages"] = (
            f"the mean answer alone, because {drawn:,} steps of a diffusion would fit beside it and samples need "
            f"{DRAWN_LEAST}; they pay from about {minutes} minutes on (--minutes {minutes})"
        )
        return alone
    tables = _with_samples(tables, best.size, drawn)
    sampled = rules.FROM_REGRESSION["steps"]
    why["stages.regression.method"] = why.pop("method")
    why["stages.regression.train.steps"] = f"{share:.0%} of the time: {why['net.width']}"
    why["train.steps"] = f"the rest, for a diffusion of what is left: {drawn:,} steps of {measured.seconds:.3f} s"
    why["synth.steps"] = f"{sampled} steps from log-SNR -3, where the regression begins to be wrong"
    seconds = {PREDICTOR: best.seconds, "final": measured.seconds}
    return _plan(facts, probe, tables, why, seconds, {PREDICTOR: most / best.size.batch, "final": most_drawn})


def _first(facts: Facts, roles: Roles, search: Search, share: float, most_items: int) -> tuple[Candidate, Tables, Why]:
    """The network of the first stage, its tables and reasons."""
    ranked = _ranked(search, share, most_items)
    best = ranked[0]
    fitting = max(int(search.probe.seconds * (1 - SPARE) * share / best.seconds), 1)
    _check_epoch(facts, best.size, fitting, best.seconds / share, search.probe)
    tables, why = _first_stage(facts, roles, best.size, best.steps)
    why["net.width"] = reason(ranked)
    if best.steps < fitting:
        why["net.width"] += f"; {fitting:,} would fit, but learn {facts.patients} patients by heart"
    return best, tables, why | _too_short(facts, best.size, fitting, search.probe)


def _plan(
    facts: Facts, probe: Probe, tables: Tables, why: Why, seconds: Mapping[str, float], most: Mapping[str, float]
) -> Plan:
    stages = {one["name"]: one["train"]["steps"] for one in tables.get("stages", [])}
    steps = {**stages, "final": tables["train"]["steps"]}
    trained = sum(steps[name] * each for name, each in seconds.items())
    where = str(facts.cohort.folder)
    longest = {name: math.ceil(FILLED * one) for name, one in most.items()}
    if probe.elsewhere:
        why = why | {
            "planned for": f"{probe.elsewhere}: its steps are predicted from counted operations, and corrected there "
            "after a tenth of each stage"
        }
    return Plan(
        tables=tables,
        why=why,
        seconds=trained + probe.passed,
        memory=probe.most,
        limits=probe.limits,
        where=where,
        step_seconds=seconds,
        most_steps=longest,
        probed_seconds=probe.passed,
        elsewhere=probe.elsewhere,
    )


def _too_short(facts: Facts, size: Size, steps: int, probe: Probe) -> Why:
    """A warning where so few steps fit that images will be blurred blocks without what is rare, such as a lesion."""
    seen = steps * size.batch / max(facts.slices, 1)
    if steps >= LEAST and seen >= FEW:
        return {}
    minutes = probe.limits.minutes * max(2 * LEAST / steps, 2 * FEW / seen)
    text = f"{steps:,} steps show each slice {seen:.1f} times: EXPECT BLUR, AND LESIONS THAT ARE MISSING"
    return {"minutes": f"{text}; give {math.ceil(minutes)} minutes"}


def _with_samples(tables: Tables, size: Size, steps: int) -> Tables:
    """The recipe of a regression, given as one of its own, with a diffusion of its residual of so many steps."""
    stage = {"name": PREDICTOR, **{key: tables[key] for key in ("method", "net", "train")}, **_mirror(tables)}
    return {
        **tables,
        "title": f"{tables['title']}, and samples of what it leaves",
        "task": {"kind": "residual", "predictor": PREDICTOR, "scale": rules.RESIDUAL},
        "method": rules.OF_RESIDUAL,
        "net": {**tables["net"], "modulation": "scale_shift"},
        "synth": {**tables["synth"], **rules.FROM_REGRESSION},
        "train": rules.training(steps, size.width, rules.BATCH, draws=True)[0],
        "stages": [stage],
    }


def _mirror(tables: Tables) -> Tables:
    """Where heads may be flipped, a regression's answer is the mean of two: 1 % less error in twice the time."""
    return {"mirror": True} if "flip_lr" in tables["data"]["augment"] else {}


def _check_epoch(facts: Facts, size: Size, steps: int, step_seconds: float, probe: Probe) -> None:
    """Raise BadInput where not every slice can be seen once."""
    wanted = facts.slices / size.batch
    if steps >= wanted * 0.5:  # about half of the slices hold body
        return
    minutes = (wanted * 0.5 * step_seconds * 1.1 / (1 - SPARE) + probe.passed) / 60
    raise BadInput(
        f"--minutes: expected time to see the {facts.slices:,} slices once, found {probe.limits.minutes:g} minutes, "
        f"which are {steps:,} steps of {size.batch} slices. Give {math.ceil(10 * minutes) / 10:.1f} minutes or more."
    )
