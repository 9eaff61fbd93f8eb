"""The lengths of a planned training, corrected once in each stage when its real speed is known.

A planned recipe holds its learning rate over the first fifth of the steps and ends warm-up before; its running average
does not reach its decay there, and its batches depend on the step alone. So a recipe whose steps are changed after a
tenth gives, trained anew, the same weights bit for bit, as long as the steps are at least halved (LEAST).
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from voxlate.files import read_json, write_json
from voxlate.recipe import Recipe, from_dict, to_dict
from voxlate.recipe import text as recipe_text
from voxlate.records import Name, NotNegative, Positive, Record, Several
from voxlate.training.lines import logged_seconds
from voxlate.training.recorded import LEAST, MOST
from voxlate.training.run import Run

TOLERANCE = 0.04  # share of the remaining steps below which a change is not worth a sentence
SPARE = 0.04  # share of the time that is kept for starting, validating, saving


@dataclass(frozen=True, kw_only=True)
class Kept:
    """RUN/plan.json: what a later start needs to correct the steps of a planned training.

    minutes: that were given; probed_seconds: of them, taken by the plan; step_seconds, most_steps: as of Paced.
    """

    minutes: Positive
    probed_seconds: NotNegative
    step_seconds: dict[Name, Positive]
    most_steps: dict[Name, Several]

    def write(self, run: Path) -> None:
        write_json(Run(run).plan, asdict(self))


@dataclass(frozen=True)
class Paced:
    """Chooses the steps that still fit before a deadline; see training.train.Pace.

    deadline: of time.monotonic(), when the last step is to end; step_seconds: as probed, by stage; most: steps of each
    stage beyond which more teach nothing.
    """

    deadline: float
    step_seconds: Mapping[str, float]
    most: Mapping[str, int]
    say: Callable[[str], None] = lambda _: None
    now: Callable[[], float] = field(default=time.monotonic)

    def __call__(self, recipe: Recipe, stage: str, step: int, seconds: float) -> Recipe | None:
        """The recipe with the steps of this stage and of those after it that fit; None where they are as planned."""
        names = [one.name for one in recipe.all_stages]
        ahead = {one.name: one.train.steps for one in recipe.all_stages[names.index(stage) :]}
        slower = seconds / self.step_seconds[stage]
        each = {name: slower * self.step_seconds[name] for name in ahead} | {stage: seconds}
        cost = sum(steps * each[name] for name, steps in ahead.items()) - step * seconds
        left = max(self.deadline - self.now(), 0.0)
        factor = left / max(cost, 1e-9)
        lengths = {
            name: self._length(name, step if name == stage else 0, steps, factor) for name, steps in ahead.items()
        }
        if all(abs(lengths[name] - steps) <= TOLERANCE * steps for name, steps in ahead.items()):
            return None
        needed = sum(steps * each[name] for name, steps in lengths.items()) - step * seconds
        self.say(self._sentence(stage, seconds, ahead, lengths) + _late(needed, left))
        changes = {_key(name): str(steps) for name, steps in lengths.items()}
        return from_dict(recipe_text.changed(to_dict(recipe), changes), "the plan", allow_code=True)

    def _length(self, name: str, done: int, steps: int, factor: float) -> int:
        wanted = done + factor * (steps - done)
        return math.floor(min(max(wanted, LEAST * steps), MOST * steps, max(self.most[name], LEAST * steps)))

    def _sentence(self, stage: str, seconds: float, before: Mapping[str, int], after: Mapping[str, int]) -> str:
        changed = ", ".join(f"{name} {before[name]:,} → {after[name]:,}" for name in after)
        return (
            f"a step of stage '{stage}' takes {seconds:.3f} s, the probe measured {self.step_seconds[stage]:.3f} s; "
            f"steps are changed once so that the training ends in its minutes: {changed}."
        )


def _late(needed: float, left: float) -> str:
    """The end of a sentence where even the fewest steps that a plan may be cut to take longer than there is time."""
    if needed <= (1 + TOLERANCE) * left + 1:
        return ""
    minutes = math.ceil(needed / 60)
    return (
        f" THIS MACHINE IS TOO SLOW FOR THE PLAN: half of its steps, the fewest, take {minutes:,} more minutes, and "
        f"{left / 60:.1f} are left. To keep the minutes, stop and plan anew on this machine, into another --out."
    )


def kept_pace(run: Path, recipe: Recipe, say: Callable[[str], None] = lambda _: None) -> Paced | None:
    """The pace of a planned run, first started or resumed; None where its lengths were set by hand.

    recipe: the run's. Raises BadInput where RUN/plan.json has another form, or is of other stages.
    """
    path = Run(run).plan
    if not path.exists():
        return None
    record = Record(path, "what a plan knows of its steps", "Remove it: the run then keeps the steps of its recipe.")
    kept: Kept = record.fill(Kept, read_json(path))
    stages = {stage.name for stage in recipe.all_stages}
    same = kept.step_seconds.keys() == kept.most_steps.keys() == stages
    record.check(same, f"steps of {', '.join(sorted(kept.step_seconds.keys() | kept.most_steps.keys())) or 'no stage'}")
    left = kept.minutes * 60 * (1 - SPARE / 2) - kept.probed_seconds - logged_seconds(Run(run).log)
    return Paced(time.monotonic() + left, kept.step_seconds, kept.most_steps, say)


def _key(stage: str) -> str:
    return "train.steps" if stage == "final" else f"stages.{stage}.train.steps"
