"""A plan: a whole recipe for a cohort, with the reason for each choice and what it will cost."""

import html
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tomli_w

from voxlate.data.prepared import open_cohort
from voxlate.devices import find_device, peak_memory
from voxlate.errors import BadInput
from voxlate.files import write_text
from voxlate.planning import rules
from voxlate.planning.facts import Facts, facts_of
from voxlate.planning.probe import Limits, Probe
from voxlate.planning.roles import Roles, roles_of
from voxlate.planning.rules import Size, Tables, Why
from voxlate.recipe import Recipe, from_dict, header, read_with_head
from voxlate.recipes import text as recipe_text
from voxlate.training.log import append_line
from voxlate.training.run import Run

Mode = Literal["both", "mean", "samples"]
Say = Callable[[str], None]

WIDTHS = (16, 24, 32, 48, 64, 96, 128)
ENOUGH = 1500  # steps that the wider of two networks must be given, to be worth it
SLACK = 1.1  # of time over what few patients are worth, beyond which a wider network is taken that gets fewer steps
LEAST = 300  # steps below which a coarser stem is taken
FEW = 2  # times that each slice is seen, below which a training is too short
SHARES = {"both": 0.55, "samples": 0.4, "mean": 1.0}  # of the time, for the regression
PREDICTOR = "regression"
SPARE = 0.04  # share of the time that is kept for starting, validating, saving


@dataclass(frozen=True)
class Plan:
    """A recipe as plain tables, why each of its keys is what it is, and what is predicted: seconds, bytes."""

    tables: Tables
    why: Why
    seconds: float
    memory: float
    limits: Limits
    where: str

    @property
    def recipe(self) -> Recipe:
        return from_dict(self.tables, "the plan")

    @property
    def with_head(self) -> tuple[Recipe, str]:
        """The recipe, and its reasons as comment lines."""
        return self.recipe, header(self.text)

    def changed(self, changes: Mapping[str, str]) -> "Plan":
        """The plan with changes of its recipe's keys, as {"train.steps": "500"}."""
        why = {key: "set by hand" if _touched(key, changes) else reason for key, reason in self.why.items()}
        if changes:
            why["by hand"] = f"{', '.join(changes)}; reasons that state other numbers are the plan's"
        return replace(self, tables=recipe_text.changed(self.tables, changes), why=why)

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
        head.append(
            f"Predicted by a probe on this machine: {self.seconds / 60:.1f} of {self.limits.minutes:g} minutes, "
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
    """The recipe that a run began with, and its head; None where there is no run yet."""
    path = Run(run).recipe
    return read_with_head(str(path)) if path.exists() else None


def plan(
    data: Path | str,
    *,
    source: tuple[str, ...] = (),
    target: tuple[str, ...] = (),
    limits: Limits,
    mode: Mode = "both",
    device: str = "auto",
    fold: int | None = None,
    say: Say = lambda _: None,
) -> Plan:
    """Plan a training on a prepared cohort that ends in the minutes given and stays below the memory given.

    fold: whose training cases count (see Cohort.in_fold). Raises BadInput where the cohort has nothing to learn, or the
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
    probe = Probe(cohort, limits, device)
    share = SHARES[mode] if roles.way == "pairs" else 1.0  # a completion has one stage
    size, step_seconds = _size(facts, roles, share, probe, say)
    return _assemble(facts, roles, mode, share, size, step_seconds, probe)


def _check_variation(facts: Facts, roles: Roles) -> None:
    for name in roles.target:
        inside = facts.scans[name].inside
        if inside.at(1) == inside.at(99):
            raise BadInput(
                f"{facts.cohort.folder}: expected {name} to vary inside the body, found {inside.at(1):g} from the 1st "
                "to the 99th percentile. Is it the right file?"
            )


def _size(facts: Facts, roles: Roles, share: float, probe: Probe, say: Say) -> tuple[Size, float]:
    """The largest network that is trained enough in its time and memory, and its seconds a step."""
    chosen: tuple[Size, float] | None = None
    longest = rules.most_steps(facts)
    enough = min(ENOUGH, longest)
    for stem in rules.stems(facts):
        sure = 0  # a width that surely fits: time and memory grow with its square at most
        for width in WIDTHS:
            size = Size(width, stem)
            if width < sure:
                continue
            measured = probe.measure(_first_stage(facts, roles, size, ENOUGH)[0], 0)
            if measured is None:  # too much memory, or no time left to probe
                break
            steps = int(probe.seconds * share / measured.seconds)
            say(f"probe: {size}: {measured.seconds:.3f} s a step, {steps:,} steps, {measured.memory / 2**30:.2f} GiB")
            if steps < (enough if chosen else LEAST):
                if chosen and probe.seconds * share > SLACK * longest * chosen[1] and steps >= enough / 2:
                    chosen = (size, measured.seconds)  # else the time would not be used
                break
            chosen = (size, measured.seconds)
            room = min(steps / enough, probe.limits.memory_bytes / measured.memory)
            sure = max(one for one in WIDTHS if one == width or (one / width) ** 2 <= room)
        if chosen:
            return chosen[0], probe.again(_first_stage(facts, roles, chosen[0], ENOUGH)[0], chosen[1])
    if not probe.last:
        raise BadInput(
            f"--memory: expected enough for the smallest network, found {probe.limits.memory_bytes / 2**30:.2f} GiB; "
            f"it takes {probe.most / 2**30:.2f}. Give more."
        )
    smallest = Size(WIDTHS[0], rules.stems(facts)[-1])
    measured = probe.measure(_first_stage(facts, roles, smallest, ENOUGH)[0], 0, always=True)
    return smallest, (measured or probe.last).seconds


def _first_stage(facts: Facts, roles: Roles, size: Size, steps: int) -> tuple[Tables, Why]:
    """The first stage of every plan, a whole recipe by itself: a regression; without pairs, cycles."""
    seen = steps * rules.BATCH / max(facts.slices, 1)
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
    train, of_train = rules.training(steps, size.width)
    method, of_method = rules.regression(facts)
    title = f"{_names(roles)}, planned: a regression"
    if roles.way == "complete":
        title = f"Any missing of {', '.join(roles.target)}, planned"
    why = {"net": of_net, **of_train, "method": of_method}
    return {"title": title, "method": method, "net": net, "train": train}, why


def _cycles(roles: Roles, size: Size, steps: int) -> tuple[Tables, Why]:
    """Title, method, network and training of a CycleGAN."""
    train, _ = rules.training(steps, size.width)
    tables = {"title": f"{_names(roles)}, planned: CycleGAN, without pairs", "method": rules.CYCLE}
    why = "no case has both sides: CycleGAN, which invents where a regression would be sure of the mean"
    return {**tables, "net": rules.cycle_net(size), "train": {**train, **rules.CYCLE_TRAINING}}, {"method": why}


def _names(roles: Roles) -> str:
    return f"{' + '.join(roles.source)} to {' + '.join(roles.target)}"


def _assemble(
    facts: Facts, roles: Roles, mode: Mode, share: float, size: Size, step_seconds: float, probe: Probe
) -> Plan:
    budget = probe.seconds * (1 - SPARE)
    fits = max(int(budget * share / step_seconds), 1)
    _check_epoch(facts, fits, step_seconds / share, probe)
    steps = min(fits, rules.most_steps(facts, samples=roles.way != "pairs"))
    tables, why = _first_stage(facts, roles, size, steps)
    why["net.width"] = f"{size} gets {steps:,} steps of {step_seconds:.3f} s"
    why |= _too_short(facts, fits, probe)
    if steps < fits:
        why["net.width"] += f"; {fits:,} would fit, but learn {facts.patients} patients by heart"
    seconds = steps * step_seconds
    if roles.way == "complete" and mode != "mean":
        train, of_train = rules.training(steps, size.width, draws=True)
        tables |= {"method": rules.OF_IMAGE, "train": train, "synth": {**tables["synth"], **rules.SAMPLING}}
        why |= of_train
        why["method"] = "a diffusion of what is missing; --samples 8 gives the mean answer and its spread"
    elif roles.way != "pairs" or mode == "mean":
        tables["synth"] |= _mirror(tables) if roles.way != "unpaired" else {}
    else:
        tables, of_samples, seconds = _with_samples(facts, tables, size, seconds, probe)
        why["stages.regression.method"] = why.pop("method")
        why |= {"stages.regression.train.steps": f"{share:.0%} of the time: {why['net.width']}"} | of_samples
    return Plan(tables, why, seconds + probe.passed, probe.most, probe.limits, str(facts.cohort.folder))


def _too_short(facts: Facts, steps: int, probe: Probe) -> Why:
    """A warning where so few steps fit that images will be blurred blocks without what is rare, such as a lesion."""
    seen = steps * rules.BATCH / max(facts.slices, 1)
    if steps >= LEAST and seen >= FEW:
        return {}
    minutes = probe.limits.minutes * max(2 * LEAST / steps, 2 * FEW / seen)
    text = f"{steps:,} steps show each slice {seen:.1f} times: EXPECT BLUR, AND LESIONS THAT ARE MISSING"
    return {"minutes": f"{text}; give {math.ceil(minutes)} minutes"}


def _with_samples(facts: Facts, tables: Tables, size: Size, seconds: float, probe: Probe) -> tuple[Tables, Why, float]:
    """The plan of a regression with a diffusion of what it leaves; why, and the seconds of both."""
    stage = {"name": PREDICTOR, **{key: tables[key] for key in ("method", "net", "train")}, **_mirror(tables)}
    tables = {
        **tables,
        "title": f"{tables['title']}, and samples of what it leaves",
        "task": {"kind": "residual", "predictor": PREDICTOR, "scale": rules.RESIDUAL},
        "method": rules.OF_RESIDUAL,
        "net": {**tables["net"], "modulation": "scale_shift"},
        "synth": {**tables["synth"], **rules.FROM_REGRESSION},
        "stages": [stage],
    }
    measured = probe.measure(tables, 1, always=True)
    if measured is None:
        raise BadInput(f"--memory: expected enough for the second stage too, found {probe.limits}. Give more.")
    drawn = max(int((probe.seconds * (1 - SPARE) - seconds) / measured.seconds), 1)
    drawn = min(drawn, rules.most_steps(facts, samples=True))
    tables["train"], _ = rules.training(drawn, size.width, draws=True)
    sampled = rules.FROM_REGRESSION["steps"]
    why = {
        "train.steps": f"the rest, for a diffusion of what is left: {drawn:,} steps of {measured.seconds:.3f} s",
        "synth.steps": f"{sampled} steps from log-SNR -3, where the regression begins to be wrong",
    }
    return tables, why, seconds + drawn * measured.seconds


def _mirror(tables: Tables) -> Tables:
    """Where heads may be flipped, a regression's answer is the mean of two: 1 % less error in twice the time."""
    return {"mirror": True} if "flip_lr" in tables["data"]["augment"] else {}


def _check_epoch(facts: Facts, steps: int, step_seconds: float, probe: Probe) -> None:
    """Raise BadInput where not every slice can be seen once."""
    wanted = facts.slices / rules.BATCH
    if steps >= wanted * 0.5:  # about half of the slices hold body
        return
    minutes = (wanted * 0.5 * step_seconds * 1.1 / (1 - SPARE) + probe.passed) / 60
    raise BadInput(
        f"--minutes: expected time to see the {facts.slices:,} slices once, found {probe.limits.minutes:g} minutes, "
        f"which are {steps:,} steps of {rules.BATCH} slices. Give {math.ceil(10 * minutes) / 10:.1f} minutes or more."
    )
