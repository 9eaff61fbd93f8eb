"""A plan: a whole recipe for a cohort, with the reason for each choice and what it will cost."""

import html
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tomli_w

from voxlate import recipe_text
from voxlate.data.prepared import open_cohort
from voxlate.errors import BadInput
from voxlate.files import write_text
from voxlate.planning import rules
from voxlate.planning.facts import Facts, facts_of
from voxlate.planning.probe import Limits, Probe
from voxlate.planning.roles import Roles, roles_of
from voxlate.planning.rules import Size, Tables, Why
from voxlate.recipe import Recipe, from_dict

Mode = Literal["both", "mean", "samples"]
Say = Callable[[str], None]

WIDTHS = (16, 24, 32, 48, 64, 96, 128)
ENOUGH = 1500  # steps that the wider of two networks must be given, to be worth it
LEAST = 400  # steps below which a coarser stem is taken
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

    def changed(self, changes: Mapping[str, str]) -> "Plan":
        """The plan with changes of its recipe's keys, as {"train.steps": "500"}."""
        return replace(self, tables=recipe_text.changed(self.tables, changes))

    def save(self, path: Path | str) -> Path:
        """Write the recipe; gives its path."""
        write_text(Path(path), self.text)
        return Path(path)

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


def _on_a_line(found: re.Match[str]) -> str:
    """A TOML list of plain values, for people to read."""
    return f"[{', '.join(line.strip().removesuffix(',') for line in found.group(1).splitlines())}]"


def plan(
    data: Path | str,
    *,
    source: tuple[str, ...] = (),
    target: tuple[str, ...] = (),
    limits: Limits,
    mode: Mode = "both",
    device: str = "auto",
    say: Say = lambda _: None,
) -> Plan:
    """Plan a training on a prepared cohort that ends in the minutes given and stays below the memory given.

    Raises BadInput where the cohort has nothing to learn, or the limits are too narrow for the smallest network.
    """
    cohort = open_cohort(data)
    facts = facts_of(cohort)
    roles = roles_of(facts, source, target)
    _check_variation(facts, roles)
    probe = Probe(cohort, limits, device)
    share = SHARES[mode] if roles.way == "pairs" else 1.0  # a completion has one stage
    size, each = _size(facts, roles, share, probe, say)
    return _assemble(facts, roles, mode, share, size, each, probe)


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
    for stem in rules.stems(facts):
        for width in WIDTHS:
            size = Size(width, stem)
            measured = probe.measure(_regression(facts, roles, size, ENOUGH), 0)
            if measured is None:  # too much memory, or no time left to probe
                break
            steps = int(probe.seconds * share / measured.seconds)
            say(f"probe: {size}: {measured.seconds:.3f} s a step, {steps:,} steps, {measured.memory / 2**30:.2f} GiB")
            if steps < (ENOUGH if chosen else LEAST):
                break
            chosen = (size, measured.seconds)
        if chosen:
            return chosen
    if not probe.last:
        raise BadInput(
            f"--memory: expected enough for the smallest network, found {probe.limits.memory_bytes / 2**30:.2f} GiB; "
            f"it takes {probe.most / 2**30:.2f}. Give more."
        )
    return Size(WIDTHS[0], rules.stems(facts)[-1]), probe.last.seconds


def _regression(facts: Facts, roles: Roles, size: Size, steps: int) -> Tables:
    """A regression alone, of this size."""
    tables, _ = _common(facts, roles, size, steps)
    train, _ = rules.training(steps, size.width)
    return {**tables, "title": "probe", "method": rules.REGRESSION, "train": train}


def _common(facts: Facts, roles: Roles, size: Size, steps: int) -> tuple[Tables, Why]:
    """What all stages share: data, intensities, the task, the network."""
    data, why = rules.data(facts, roles, size.stem, steps * rules.BATCH / max(facts.slices, 1))
    maps = {name: rules.intensity(facts.scans[name]) for name in dict.fromkeys([*roles.source, *roles.target])}
    net, of_net = rules.net(facts, size, data["patch"][1:])
    task: Tables = {"kind": "translate"}
    if roles.way == "complete":
        task = {"kind": "complete", **({"incomplete": True} if "allow_missing" in data else {})}
    tables = {"data": data, "task": task, "net": net, "intensity": {name: one for name, (one, _) in maps.items()}}
    return tables, {**why, **{f"intensity.{name}": reason for name, (_, reason) in maps.items()}, "net": of_net}


def _assemble(facts: Facts, roles: Roles, mode: Mode, share: float, size: Size, each: float, probe: Probe) -> Plan:
    budget = probe.seconds * (1 - SPARE)
    steps = max(int(budget * share / each), 1)
    _check_epoch(facts, steps, each / share, probe)
    tables, why = _common(facts, roles, size, steps)
    train, of_train = rules.training(steps, size.width)
    patch, slices = tables["data"]["patch"], facts.shape
    synth: Tables = {"batch": rules.BATCH}
    if patch[1] < slices[1] or patch[2] < slices[2]:
        synth |= {"slices": {"kind": "tiled"}, "overlap": 0.2}
        why["synth.slices"] = "patches as in training: whole slices hold more air, which changes the norms"
    names = f"{' + '.join(roles.source)} to {' + '.join(roles.target)}"
    title = f"any missing of {', '.join(roles.target)}" if roles.way == "complete" else names
    why |= of_train | {"net.width": f"{size} gets {steps:,} steps of {each:.3f} s"}
    flips = "flip_lr" in tables["data"]["augment"]
    if mode == "mean":
        synth |= {"mirror": True} if flips else {}
        tables |= {"title": f"{title}, planned: one answer", "method": rules.REGRESSION, "train": train, "synth": synth}
        return Plan(tables, why, steps * each + probe.passed, probe.most, probe.limits, str(facts.cohort.folder))
    if roles.way == "complete":
        method, sampling = {**rules.OF_IMAGE}, rules.SAMPLING
        tables |= {
            "title": f"{title}, planned: samples",
            "method": method,
            "train": train,
            "synth": {**synth, **sampling},
        }
        why["method"] = "a diffusion of what is missing; --samples 8 gives the mean answer and its spread"
        return Plan(tables, why, steps * each + probe.passed, probe.most, probe.limits, str(facts.cohort.folder))
    stage = {"name": PREDICTOR, "method": rules.REGRESSION, "net": tables["net"], "train": train}
    tables = {
        **tables,
        "title": f"{title}, planned: a regression, and samples of what it leaves",
        "task": {"kind": "residual", "predictor": PREDICTOR, "scale": rules.RESIDUAL},
        "method": rules.OF_RESIDUAL,
        "net": {**tables["net"], "modulation": "scale_shift"},
        "train": train,
        "synth": {**synth, **rules.FROM_REGRESSION},
        "stages": [stage],
    }
    measured = probe.measure(tables, 1, always=True)
    assert measured is not None
    drawn = max(int(budget * (1 - share) / measured.seconds), 1)
    tables["train"], _ = rules.training(drawn, size.width)
    why["stages.regression.train.steps"] = f"{share:.0%} of the time: {steps:,} steps of {each:.3f} s"
    why["train.steps"] = (
        f"the rest, for a diffusion of what the regression leaves: {drawn:,} of {measured.seconds:.3f} s"
    )
    why["synth.steps"] = (
        f"{rules.FROM_REGRESSION['steps']} steps from log-SNR -3, where the regression begins to be wrong"
    )
    seconds = steps * each + drawn * measured.seconds + probe.passed
    return Plan(tables, why, seconds, probe.most, probe.limits, str(facts.cohort.folder))


def _check_epoch(facts: Facts, steps: int, each: float, probe: Probe) -> None:
    """Raise BadInput where not every slice can be seen once."""
    wanted = facts.slices / rules.BATCH
    if steps >= wanted * 0.5:  # about half of the slices hold body
        return
    minutes = wanted * 0.5 * each / 60 * 1.1
    raise BadInput(
        f"--minutes: expected time to see the {facts.slices:,} slices once, found {probe.limits.minutes:g} minutes, "
        f"which are {steps:,} steps of {rules.BATCH} slices. Give {max(minutes, 0.1):.1f} minutes or more."
    )
