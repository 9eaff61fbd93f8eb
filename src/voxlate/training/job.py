"""The training of one stage on a cohort (its seed, epochs, batches), its processes, and where a training stands.

A training stands by its steps, or, in a planned stage, by the share of its planned seconds that has passed. Learning rate,
running average and curricula depend on the place of a step alone: the number of the recipe's steps that are done before it.
A planned stage ends when its seconds have passed, whatever the speed of its steps. The place of each of its steps is written
to the run, so that a run that was killed repeats them bit for bit before it goes on by the clock.
"""

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader

from voxlate.base.devices import find_device
from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.files import write_text
from voxlate.base.items import stable_id
from voxlate.base.machine import begin_reader, cores
from voxlate.base.messages import Say
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.formats.format import errors_as
from voxlate.science.batch import Batch
from voxlate.training.batches.batches import training_batches
from voxlate.training.recipe import FullStage, Recipe
from voxlate.training.recipe.run_provenance import Budget, Budgets
from voxlate.training.run import Run

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A step moves on by this share of a stage at most, or by the place of so many of its planned steps, so that a pause of the
# machine does not end a training.
MOST_SHARE = 0.05
MOST_PLANNED = 4
# Most readers of a process. A reader draws 14 slices of a synthetic head a second, and an H200 trains on over 80. With MPS,
# each has its own torch in the memory that the GPU shares. A CPU has none, because they would take cores from the step.
READERS = {"cuda": 12, "xpu": 12, "mps": 2}


@dataclass(frozen=True)
class Job:
    """The training of one stage on a cohort.

    budgets: of the stages of a plan; out: the run that is written, none of timed steps; stop: received signals; track:
    the service that also gets the log's numbers.
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
    def is_main(self) -> bool:
        """Whether this process writes the run."""
        return self.accelerator.is_main_process

    def batches(self, step: int = 0, moments: Path | None = None) -> DataLoader[Batch]:
        """Batches from a step on; batch k depends on the seed and k alone, so resuming skips batches without reading.

        moments: folder with the moments of their latents.
        """
        options, budget = self.stage.train, self.budgets.get(self.stage.name)
        world = self.accelerator.num_processes
        if options.batch % world:
            raise BadInput(
                f"train.batch: expected a multiple of the number of processes ({world}), found {options.batch}. Change it."
            )
        calls = sum(self.stage.turns.values())
        end = calls * (options.steps if budget is None else budget.most_steps)
        batches = training_batches(
            self.cohort,
            self.stage.data,
            self.recipe.intensity,
            seed=self.seed,
            batch=options.batch // world,
            rank=self.accelerator.process_index,
            world=world,
            unpaired=not self.stage.method.needs_pairs,
            moments=moments,
        )
        workers = options.workers
        if workers is None:  # one core of a process computes its steps
            workers = min(READERS.get(self.device.type, 0), max(cores() // world - 1, 1))
        return DataLoader(
            batches,
            batch_size=None,
            sampler=range(step * calls, end),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=begin_reader,
        )


class Clock:
    """The place of each step of a stage: its number, but for a stage with a budget.

    places: of the steps so far of a stage with a budget, and of the step after them.
    """

    def __init__(self, job: Job, step: int = 0) -> None:
        """Go on before a step; steps that a race has trained have the places of its recipe."""
        self.job = job
        self.length = job.stage.train.steps
        self.budget: Budget | None = job.budgets.get(job.stage.name)
        self.places: list[float] = []
        if self.budget is not None:
            self.places = read_places(job.run.clock, job.stage.name)
            self._add([float(done) for done in range(len(self.places), step + 1)])
            self._restart(self.budget)

    @property
    def has_ended(self) -> bool:
        """Whether the last place that is known is the end of a planned stage."""
        return self.places[-1] >= self.length

    def steps(self, step: int) -> float:
        """The number of all steps, at the mean speed of the steps up to this one."""
        done = min(step, len(self.places) - 1)
        if self.budget is None or not self.places[done]:
            return self.length
        return self.length * done / self.places[done]

    def place(self, step: int) -> float:
        """The place of a step, 0-based: steps of the recipe that are done before it."""
        return step if self.budget is None else self.places[step]

    def move_on(self, step: int) -> None:
        """Give the next step its place by the clock, unless it has one, because a run repeats its steps."""
        budget = self.budget
        if budget is None or self.has_ended:
            return
        if step < len(self.places):
            self._restart(budget)
            return

        def next_place() -> float:
            """The place by the seconds that have passed, which never falls."""
            passed = (time.monotonic() - self.begun) / budget.seconds
            before = self.places[-1] / self.length
            most = before + max(MOST_SHARE, MOST_PLANNED / self.length)
            share = max(min(passed, most), before, step / budget.most_steps)
            return min(share * self.length, self.length)

        self._add([by_main(self.job.accelerator, next_place)])

    def _restart(self, budget: Budget) -> None:
        """Go on from the last place that is known."""
        self.begun = time.monotonic() - self.places[-1] / self.length * budget.seconds

    def _add(self, places: list[float]) -> None:
        """Keep places, also in the record of the run, which the main process writes."""
        self.places += places
        if self.job.is_main:
            with self.job.run.clock.open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{self.job.stage.name} {place!r}\n" for place in places)


def read_places(record: Path, stage: str) -> list[float]:
    """The places of a stage's steps in the record of a run, without a line that a kill cut short."""
    if not record.is_file():
        return []
    text = record.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(record, whole)
    sentence = f"{record}: expected the places of a training's steps, found others"
    with errors_as(sentence, "Restore it, or train into another --out."):
        lines = [line.split() for line in whole.splitlines()]
        return [float(place) for name, place in lines if name == stage]


def processes(device: str) -> tuple[Accelerator, torch.device]:
    """The processes that train together, and the device of this process.

    A single process trains on the device of this name; each of several has the GPU of its launcher, or a CPU. Raises
    BadInput if there is no such device, and for several processes on MPS.
    """
    chosen = find_device(device)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and chosen.type == "mps":
        raise BadInput(
            "--device: expected GPUs or a CPU that several processes can share a training on, found mps. Start one process, or give --device cpu."
        )
    # accelerate does not choose the device of a single process, because it would take any, and later refuse another one.
    accelerator = Accelerator(cpu=chosen.type == "cpu" or not several)
    return accelerator, accelerator.device if accelerator.num_processes > 1 else chosen


def by_main(accelerator: Accelerator, do: Callable[[], T]) -> T:
    """The result of a function that the main process alone calls; all processes get it, or raise its BadInput."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = do()
        except BadInput as error:
            outcome[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextlib.contextmanager
def stop_signal() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM arrives; outside the main thread it stays empty."""
    received: list[int] = []
    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may listen
        for name in STOP_SIGNALS:
            before[name] = signal.signal(name, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
