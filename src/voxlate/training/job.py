"""The training of one stage on a cohort (its seed, epochs, batches), what all stages share, and where a training stands.

A training stands by its steps, or, in a planned stage, by the share of its planned seconds that has passed. Learning rate,
running average and curricula depend on the place of a step alone: the number of the recipe's steps that are done before it.
A planned stage ends when its seconds have passed, whatever the speed of its steps. The place of each of its steps is written
to the run, so that a run that was killed repeats them bit for bit before it goes on by the clock.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from voxlate.base.errors import BadInput, Stopped
from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.files import write_text
from voxlate.base.items import stable_id
from voxlate.base.machine import begin_reader, cores
from voxlate.base.messages import Say
from voxlate.base.records import Record
from voxlate.scans.cases.prepared import Cohort
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Method
from voxlate.training.batches.batches import training_batches
from voxlate.training.batches.latents import cache_moments, uncacheable
from voxlate.training.precision import autocast
from voxlate.training.processes import by_main
from voxlate.training.recipe import FullStage, Recipe
from voxlate.training.recipe.run_provenance import Budget, Budgets
from voxlate.training.recipe.training_settings import Training
from voxlate.training.run import Run

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
        """The number of all steps, at the mean speed of the steps up to this one."""
        done = min(step, len(self.places) - 1)
        if self.budget is None or not self.places[done]:
            return self.options.steps
        return self.options.steps * done / self.places[done]

    @property
    def has_ended(self) -> bool:
        """Whether the last place that is known is the end of a planned stage."""
        return bool(self.places) and self.places[-1] >= self.options.steps

    def place(self, step: int) -> float:
        """The place of a step, 0-based: steps of the recipe that are done before it."""
        return step if self.budget is None else self.places[step]

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
        """Give the steps up to this one their places by the recipe, at least the first."""
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


# Most readers of a process. A reader draws 14 slices of a synthetic head a second, and an H200 trains on over 80. With MPS,
# each has its own torch in the memory that the GPU shares.
READERS = {"cuda": 12, "xpu": 12, "mps": 2}


@dataclass(frozen=True)
class Job:
    """The training of one stage on a cohort.

    budgets: of the stages of a plan; out: the run that
    is written, none of timed steps; stop: received signals; track: the service that also gets the log's numbers.
    """

    recipe: Recipe
    stage: FullStage
    cohort: Cohort
    accelerator: Accelerator
    device: torch.device
    budgets: Budgets = field(default_factory=dict)
    out: Run | None = None
    stop: Sequence[int] = ()
    progress: StepCallback = no_report
    say: Say = lambda _: None
    track: str | None = None

    @property
    def run(self) -> Run:
        """The run that is written."""
        assert self.out is not None
        return self.out

    @property
    def seed(self) -> int:
        """The seed by the stage's place, so that a first stage that is trained alone has the same weights."""
        place = [stage.name for stage in self.recipe.all_stages].index(self.stage.name)
        return stable_id(self.stage.train.seed, "stage", place)

    def of_stages(self, recipe: Recipe) -> list["Job"]:
        """The trainings of all stages of a recipe on the same data and devices."""
        return [replace(self, recipe=recipe, stage=stage) for stage in recipe.all_stages]

    @property
    def epoch_steps(self) -> int:
        """Steps in which the turn that synthesises images uses as many items as there are."""
        *_, batches = self.stage.turns.values()
        items = len(training_batches(self.cohort, self.stage.data, self.recipe.intensity).items)
        return math.ceil(items / (self.stage.train.batch * batches))

    @property
    def alone(self) -> bool:
        """Whether this is the only process of the training."""
        return self.accelerator.num_processes == 1

    @property
    def budget(self) -> Budget | None:
        """What a plan gives the stage."""
        return self.budgets.get(self.stage.name)

    @property
    def most_steps(self) -> int:
        """The largest number of steps of the stage."""
        return self.stage.train.steps if self.budget is None else self.budget.most_steps

    def batches(self, step: int = 0, moments: Path | None = None) -> DataLoader[Batch]:
        """Batches from a step on; batch k depends on the seed and k alone, so resuming skips batches without reading.

        moments: folder with the moments of their latents.
        """
        options = self.stage.train
        world = self.accelerator.num_processes
        if options.batch % world:
            raise BadInput(
                f"train.batch: expected a multiple of the number of processes ({world}), found {options.batch}. Change it."
            )
        calls = sum(self.stage.turns.values())
        batches = training_batches(
            self.cohort,
            self.stage.data,
            self.recipe.intensity,
            seed=self.seed,
            batch=options.batch // world,
            rank=self.accelerator.process_index,
            world=world,
            steps=self.most_steps * calls,
            unpaired=not self.stage.method.needs_pairs,
            moments=moments,
        )
        workers = _readers(self.device, world) if options.workers is None else options.workers
        return DataLoader(
            batches,
            batch_size=None,
            sampler=range(step * calls, self.most_steps * calls),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=begin_reader,
        )


def _readers(device: torch.device, processes: int = 1) -> int:
    """Number of processes that read batches for each of a training's processes, one core of which computes its steps.

    None on a CPU, because they would take cores from the step.
    """
    if device.type == "cpu":
        return 0
    return min(READERS[device.type], max(cores() // processes - 1, 1))


def keep_moments(job: Job, method: Method) -> Path | None:
    """The folder with the moments of the training cases' latents, encoded anew; None if there are none to keep."""
    autoencoder = method.autoencoder
    stage, cohort = job.stage, job.cohort
    if autoencoder is None or uncacheable(cohort, stage.data):
        return None
    folder, maps = job.run.latents, job.recipe.intensity

    def _report(done: int, total: int) -> None:
        job.progress(f"{stage.name} (latents)", done, total, {})
        if job.stop and done < total:
            raise Stopped(
                f"stopped at case {done} of {total} whose latents are encoded ({stage.name})"
            )

    def _encode(images: Tensor) -> Tensor:
        with autocast(job.device, stage.train.precision):
            return torch.cat(autoencoder.encode(images.to(job.device)), dim=1)

    def _encode_cases() -> None:
        cache_moments(cohort, stage.data, maps, _encode, folder, _report)

    by_main(job.accelerator, _encode_cases)
    return folder
