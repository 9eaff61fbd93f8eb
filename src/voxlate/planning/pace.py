"""The pace of a planned training: its steps are corrected once in each stage when the real speed is known.

A planned recipe keeps its learning rate constant over the first fifth of the steps and ends warm-up before; its running
average does not reach its decay there, and its batches depend on the step alone. A recipe whose steps are changed after
a tenth therefore gives the same weights bit for bit when it is trained again, unless the steps fall below half (LEAST).
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from voxlate.recipe import Recipe, to_dict, with_tables
from voxlate.recipe import text as recipe_text
from voxlate.system.files import read_json, write_json
from voxlate.system.messages import Say, message
from voxlate.system.records import Name, NotNegative, Positive, Record, Several
from voxlate.training.log_file import seconds_of
from voxlate.training.run import LEAST, MOST, Run

TOLERANCE = 0.04  # share of the remaining steps; smaller changes are not made
SPARE = 0.04  # share of the time that is reserved for starting, validating, saving


@dataclass(frozen=True, kw_only=True)
class PaceRecord:
    """RUN/plan.json: the numbers by which a run, also a resumed one, corrects the steps of its plan.

    minutes: time of the whole training; probed_seconds: part of it that planning took; step_seconds, most_steps: see
    Paced.
    """

    minutes: Positive
    probed_seconds: NotNegative
    step_seconds: dict[Name, Positive]
    most_steps: dict[Name, Several]

    def write(self, run: Path) -> None:
        """Write the record into the folder of a run."""
        write_json(Run(run).pace, asdict(self))


@dataclass(frozen=True)
class Paced:
    """Chooses the steps that still fit before a deadline; see training.stage.Pace.

    deadline: value of time.monotonic() by which the last step should end; step_seconds: probed seconds of a step by
    stage; most: largest useful number of steps by stage.
    """

    deadline: float
    step_seconds: Mapping[str, float]
    most: Mapping[str, int]
    say: Say = lambda _: None
    now: Callable[[], float] = field(default=time.monotonic)

    def __call__(self, recipe: Recipe, stage: str, step: int, seconds: float) -> Recipe | None:
        """The recipe with steps of this and later stages that fit; None if they stay as planned."""
        names = [planned.name for planned in recipe.all_stages]
        remaining = recipe.all_stages[names.index(stage) :]
        ahead = {planned.name: planned.train.steps for planned in remaining}
        slower = seconds / self.step_seconds[stage]
        each = {name: slower * self.step_seconds[name] for name in ahead}
        each[stage] = seconds
        cost = sum(steps * each[name] for name, steps in ahead.items()) - step * seconds
        left = max(self.deadline - self.now(), 0.0)
        factor = left / max(cost, 1e-9)
        lengths = {
            name: self._length(name, step if name == stage else 0, steps, factor)
            for name, steps in ahead.items()
        }
        if all(abs(lengths[name] - steps) <= TOLERANCE * steps for name, steps in ahead.items()):
            return None
        needed = sum(steps * each[name] for name, steps in lengths.items()) - step * seconds
        changed = ", ".join(f"{name} {ahead[name]:,} → {lengths[name]:,}" for name in lengths)
        text = f"a step of stage '{stage}' takes {seconds:.3f} s, the probe measured {self.step_seconds[stage]:.3f} s; steps are changed once so that the training ends in its minutes: {changed}."
        self.say(message("paced", text))
        if needed > (1 + TOLERANCE) * left + 1:  # with the smallest allowed number of steps
            minutes = math.ceil(needed / 60)
            text = f"THIS MACHINE IS TOO SLOW FOR THE PLAN: half of its steps, the fewest, take {minutes:,} more minutes, and {left / 60:.1f} are left."
            self.say(message("too-slow", text, minutes=minutes))
        keys = {name: "" if name == "final" else f"stages.{name}." for name in lengths}
        changes = {f"{keys[name]}train.steps": str(steps) for name, steps in lengths.items()}
        return with_tables(recipe, recipe_text.apply_changes(to_dict(recipe), changes), "the plan")

    def _length(self, name: str, done: int, steps: int, factor: float) -> int:
        wanted = done + factor * (steps - done)
        least = max(LEAST * steps, 1)
        most = min(MOST * steps, max(self.most[name], least))
        return math.floor(min(max(wanted, least), most))


def read_pace(run: Path, recipe: Recipe, say: Say = lambda _: None) -> Paced | None:
    """The pace of a planned run when it starts or resumes; None if its lengths were set by hand.

    recipe: that of the run. Raises BadInput if RUN/plan.json has another form or names other stages.
    """
    path = Run(run).pace
    if not path.exists():
        return None
    record = Record(
        path,
        "the speed and steps of a plan",
        "Remove it: the run then keeps the steps of its recipe.",
    )
    kept: PaceRecord = record.fill(PaceRecord, read_json(path))
    stages = {stage.name for stage in recipe.all_stages}
    same = kept.step_seconds.keys() == kept.most_steps.keys() == stages
    named = sorted(kept.step_seconds.keys() | kept.most_steps.keys())
    record.check(same, f"steps of {', '.join(named) or 'no stage'}")
    left = kept.minutes * 60 * (1 - SPARE / 2) - kept.probed_seconds - seconds_of(Run(run).log)
    return Paced(time.monotonic() + left, kept.step_seconds, kept.most_steps, say)
