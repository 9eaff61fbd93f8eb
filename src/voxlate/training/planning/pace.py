"""The pace of a planned training: its steps are corrected several times in each stage by the real speed.

The recipe keeps each earlier length and the step up to which it held (`train.paced`), and batches depend on the step
alone. A corrected recipe therefore gives the same weights bit for bit when it is trained again.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from voxlate.base.files import read_json, write_json
from voxlate.base.messages import Say, message
from voxlate.base.records import Name, NotNegative, Positive, Record, Several
from voxlate.training.log_file import seconds_of
from voxlate.training.recipe import Recipe, with_trainings
from voxlate.training.run import Run

TOLERANCE = 0.04  # share of the steps; smaller changes are not made
LEAST_SHARE = 0.25  # of the remaining steps are kept in one correction
SPARE = 0.04  # share of the time that is reserved for starting, validating, saving


@dataclass(frozen=True, kw_only=True)
class PaceRecord:
    """RUN/plan.json: the numbers by which a run, also a resumed one, corrects the steps of its plan.

    minutes: time of the whole training; probed_seconds: part of it that planning took; step_seconds, most_steps,
    fewest_steps: see Paced.
    """

    minutes: Positive
    probed_seconds: NotNegative
    step_seconds: dict[Name, Positive]
    most_steps: dict[Name, Several]
    fewest_steps: dict[Name, Several] = field(default_factory=dict)

    def write(self, run: Path) -> None:
        """Write the record into the folder of a run."""
        write_json(Run(run).pace, asdict(self))


@dataclass(frozen=True)
class Paced:
    """Chooses the steps that still fit before a deadline; see training.job.Pace.

    deadline: value of time.monotonic() by which the last step should end; step_seconds: probed seconds of a step by
    stage; most: largest useful number of steps by stage; fewest: with fewer, the result suffers; smoothed: the seconds by
    stage with which its steps were last corrected.
    """

    deadline: float
    step_seconds: Mapping[str, float]
    most: Mapping[str, int]
    fewest: Mapping[str, int]
    say: Say
    now: Callable[[], float] = time.monotonic
    smoothed: dict[str, float] = field(default_factory=dict)

    def __call__(self, recipe: Recipe, stage: str, step: int, seconds: float) -> Recipe | None:
        """The recipe with steps of this and later stages that fit; None if they stay as planned."""
        names = [planned.name for planned in recipe.all_stages]
        place = names.index(stage)
        ahead = {planned.name: planned.train.steps for planned in recipe.all_stages[place:]}
        # Other work comes and goes, so a pace counts half, as those before it do together.
        seconds = (seconds + self.smoothed.get(stage, seconds)) / 2
        self.smoothed[stage] = seconds
        slower = seconds / self.step_seconds[stage]
        each = {name: slower * self.step_seconds[name] for name in ahead}
        done = {name: step if name == stage else 0 for name in ahead}
        left = max(self.deadline - self.now(), 0.0)

        def cost(lengths: Mapping[str, int]) -> float:
            """The seconds of these stages up to their lengths."""
            return sum((steps - done[name]) * each[name] for name, steps in lengths.items())

        def fit(kept: Mapping[str, int]) -> dict[str, int]:
            """The lengths by which the stages fit in the time; kept: lengths that stay."""
            free = {name: steps for name, steps in ahead.items() if name not in kept}
            factor = (left - cost(kept)) / max(cost(free), 1e-9)
            return {
                name: kept.get(name) or self._length(name, done[name], steps, factor)
                for name, steps in ahead.items()
            }

        lengths = fit({})
        # A stage that has time gives it to one whose result would suffer.
        kept = fit(self._short(lengths))
        if not self._short(kept) and cost(kept) <= (1 + TOLERANCE) * left:
            lengths = kept
        if all(abs(lengths[name] - steps) <= TOLERANCE * steps for name, steps in ahead.items()):
            return None
        changed = ", ".join(f"{name} {ahead[name]:,} → {lengths[name]:,}" for name in ahead)
        text = f"a step of stage '{stage}' takes {seconds:.3f} s, the probe measured {self.step_seconds[stage]:.3f} s; steps are corrected: {changed}, for the {left / 60:.1f} minutes that are left."
        self.say(message("paced", text))
        short = self._short(lengths)
        if short and not self._short(ahead):
            named = ", ".join(f"{fewest:,} of stage '{name}'" for name, fewest in short.items())
            text = f"THIS MACHINE IS TOO SLOW FOR THE PLAN, or other work slows it: fewer steps fit than a good result needs ({named})."
            self.say(message("too-slow", text))
        trainings = [
            replace(planned.train, steps=lengths.get(planned.name, planned.train.steps))
            for planned in recipe.all_stages
        ]
        own = trainings[place]
        trainings[place] = replace(own, paced=(*own.paced, (step, ahead[stage])))
        return with_trainings(recipe, trainings)

    def _short(self, lengths: Mapping[str, int]) -> dict[str, int]:
        """The fewest steps of each of these stages that has fewer."""
        return {
            name: fewest
            for name, fewest in self.fewest.items()
            if lengths.get(name, fewest) < fewest
        }

    def _length(self, name: str, done: int, steps: int, factor: float) -> int:
        """The length of a stage whose remaining steps are multiplied by a factor of LEAST_SHARE or more, up to the most steps."""
        least, wanted = (done + share * (steps - done) for share in (LEAST_SHARE, factor))
        return max(math.floor(max(least, min(wanted, self.most[name]))), done + 1)


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
    deadline = time.monotonic() + left
    return Paced(deadline, kept.step_seconds, kept.most_steps, kept.fewest_steps, say)
