"""Where a training stands: by its steps, or, in a planned stage, by the share of its planned seconds that has passed.

Learning rate, running average and curricula depend on the place of a step alone: the number of the recipe's steps that
are done before it. A planned stage ends when its seconds have passed, whatever the speed of its steps. The place of each
of its steps is written to the run, so that a run that was killed repeats them bit for bit before it goes on by the clock.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from voxlate.base.files import write_text
from voxlate.base.records import Record
from voxlate.training.processes import by_main
from voxlate.training.recipe.run_provenance import Budget
from voxlate.training.recipe.training_settings import Training

# A step moves on by this share of a stage at most, or by the place of so many of its planned steps, so that a pause of the
# machine does not end a training.
MOST_SHARE = 0.05
MOST_PLANNED = 4


@dataclass
class Clock:
    """The place of each step of a stage.

    places: of the steps so far of a stage with a budget, and of the step after them; record: the file that keeps them.
    """

    options: Training
    stage: str = "final"
    budget: Budget | None = None
    record: Path | None = None
    accelerator: Accelerator | None = None
    places: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Go on from the last place that is known."""
        if self.budget is not None:
            share = self.places[-1] / self.options.steps if self.places else 0.0
            self.begun = time.monotonic() - share * self.budget.seconds

    def steps(self, step: int) -> float:
        """The number of steps before `train.more`, at the mean speed of the steps up to this one."""
        done = min(step, len(self.places) - 1)
        if self.budget is None or not self.places[done]:
            return self.options.steps
        return self.options.steps * done / self.places[done]

    def length(self, step: int) -> int:
        """The number of all steps, at the mean speed of the steps up to this one."""
        return round(self.steps(step)) + sum(self.options.more or ())

    @property
    def most_steps(self) -> int:
        """The largest number of all steps."""
        if self.budget is None:
            return self.options.length
        return self.budget.most_steps + sum(self.options.more or ())

    @property
    def has_ended(self) -> bool:
        """Whether the last place that is known is the end of a planned stage."""
        return bool(self.places) and self.places[-1] >= self.options.steps

    def place(self, step: int) -> float:
        """The place of a step, 0-based: steps of the recipe that are done before it, and those of `train.more`."""
        if self.budget is None:
            return step
        further = step - (len(self.places) - 1)
        return self.places[step] if further <= 0 else self.options.steps + further

    def move_on(self, step: int) -> None:
        """Give the next step its place by the clock, unless it has one, because a run repeats its steps."""
        if self.budget is None or self.has_ended:
            return
        if step < len(self.places):
            self.restart()
            return
        budget = self.budget

        def next_place() -> float:
            """The place by the seconds that have passed, which never falls."""
            passed = (time.monotonic() - self.begun) / budget.seconds
            before = self.places[-1] / self.options.steps
            most = before + max(MOST_SHARE, MOST_PLANNED / self.options.steps)
            share = max(min(passed, most), before, step / budget.most_steps)
            return min(share * self.options.steps, self.options.steps)

        assert self.accelerator is not None
        self._add([by_main(self.accelerator, next_place)])

    def fill(self, step: int) -> None:
        """Give the steps up to this one, which a race has trained by its recipe, their places."""
        if self.budget is not None and not self.has_ended:
            self._add([float(done) for done in range(len(self.places), step + 1)])
            self.restart()

    def _add(self, places: list[float]) -> None:
        """Keep places, also in the record, which the main process writes."""
        self.places += places
        assert self.record is not None
        assert self.accelerator is not None
        if self.accelerator.is_main_process:
            with self.record.open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{self.stage} {place!r}\n" for place in places)


def read_places(path: Path, stage: str, steps: int) -> list[float]:
    """The places of a stage's steps in the record of a run, without a line that a kill cut short.

    Raises BadInput if another program changed the file.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    advice = "Restore it, or train into another --out."
    record = Record(path, "the places of a training's steps", advice)
    whole = text[: text.rfind("\n") + 1]
    places: list[float] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        name, _, value = line.partition(" ")
        try:
            place = float(value)
        except ValueError:
            place = math.nan
        record.check(place >= 0, f"'{line:.80}' in line {number}")
        if name == stage:
            rises = place <= steps and (not places or place >= places[-1])
            record.check(
                rises, f"the place {place:g} in line {number}, in a stage of {steps} steps"
            )
            places.append(place)
    if whole != text:
        write_text(path, whole)
    return places
