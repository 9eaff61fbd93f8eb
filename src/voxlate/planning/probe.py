"""What a step costs on this machine: a few real ones are taken, of real batches, and forgotten.

For a machine that is not at hand one step is taken, whose operations are counted (planning.elsewhere).
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from voxlate import devices
from voxlate.batch import Batch
from voxlate.data.prepared import Cohort
from voxlate.devices import find_device
from voxlate.errors import BadInput
from voxlate.methods.method import Method
from voxlate.planning.other_machine import Cost, Elsewhere, count
from voxlate.recipe import Recipe, from_dict, with_trainings
from voxlate.training.job import Job
from voxlate.training.precision import settled
from voxlate.training.processes import processes
from voxlate.training.step import begin_learner, take_step

PROBED = 0.05  # most of the minutes that probing takes
STEPS, MOST_STEPS = 3, 30  # that are timed of a network that is tried, and of the one that is taken
COUNTED = 8  # networks whose operations are counted at most: one step of a large network takes a while here
COPIES = 5  # of the weights in float32: themselves, gradients, two moments, and the running average
FREE = 0.8  # of the memory that is free now, where nobody says


@dataclass(frozen=True)
class Limits:
    """What a training may take: minutes in all, and bytes of memory (of the GPU where there is one)."""

    minutes: float
    memory_bytes: float

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf:
            raise BadInput(f"--minutes: expected a number above 0, found {self.minutes:g}. Give 60, say.")


@dataclass(frozen=True)
class Measured:
    """Of a step: seconds, and bytes at the peak of the process (of the GPU)."""

    seconds: float
    memory: float


@dataclass
class Probe:
    """Takes steps of recipes on a cohort, the smallest first, until time or memory for it is used up.

    allow_code: try recipes that name code outside voxlate, which is then run; elsewhere: the machine that is planned
    for, if it is not this one; counted: networks whose operations were counted.
    """

    cohort: Cohort
    limits: Limits
    device_name: str = "auto"
    allow_code: bool = False
    elsewhere: Elsewhere | None = None
    counted: int = 0
    most: float = 0.0
    last: Measured | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> float:
        """Seconds that probing took of the training's minutes."""
        return 0.0 if self.elsewhere else time.monotonic() - self.begun

    @property
    def seconds(self) -> float:
        """What is left of the minutes."""
        return max(self.limits.minutes * 60 - self.passed, 0.0)

    @property
    def has_time(self) -> bool:
        """Whether another network can be tried within the share of the minutes that probing may take."""
        if self.elsewhere:
            return self.counted < COUNTED
        spent = self.passed + (2 * STEPS * self.last.seconds if self.last else 0)
        return spent <= PROBED * self.limits.minutes * 60

    def again(self, tables: Mapping[str, Any], seconds: float) -> float:
        """Seconds of a step that took `seconds` in a first try, from as many steps as there is time to take."""
        if self.elsewhere:
            return seconds
        steps = min(int((PROBED * self.limits.minutes * 60 - self.passed) / seconds) - 1, MOST_STEPS)
        measured = self.measure(tables, 0, steps=steps) if steps > STEPS else None
        return measured.seconds if measured else seconds

    def measure(self, tables: Mapping[str, Any], stage: int, steps: int = STEPS) -> Measured | None:
        """Seconds and memory of a step of a recipe's stage (by place); None where it takes too much memory.

        steps: that are timed.
        """
        recipe = from_dict(dict(tables), "the plan", self.allow_code)
        found = self._predict(recipe, stage) if self.elsewhere else self._time(recipe, stage, steps)
        if found is None:
            return None
        if found.memory > self.limits.memory_bytes:
            self.most = self.most or found.memory
            return None
        self.most = max(self.most, found.memory)
        self.last = found
        return found

    def _time(self, recipe: Recipe, stage: int, steps: int) -> Measured | None:
        """A step as it is measured here; None where memory did not suffice."""
        device = find_device(self.device_name)
        devices.forget_peak_memory(device)
        try:
            seconds = _seconds(settled(recipe, device), self.cohort, stage, device, steps)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            return None
        return Measured(seconds, devices.peak_memory(device))

    def _predict(self, recipe: Recipe, stage: int) -> Measured:
        """A step as it is predicted for the other machine."""
        assert self.elsewhere is not None
        self.counted += 1
        batch = recipe.all_stages[stage].train.batch
        cost = _cost(recipe, self.cohort, stage).of_batch(batch)
        return Measured(self.elsewhere.seconds(cost), self.elsewhere.memory(cost))


def _seconds(recipe: Recipe, cohort: Cohort, stage: int, device: torch.device, steps: int) -> float:
    """The median time of steps after a first one, which also allocates."""
    step, _ = _steps(recipe, cohort, stage, device, steps + 1)
    times = []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        step()
        devices.wait_for(device)
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[steps // 2]


def _cost(recipe: Recipe, cohort: Cohort, stage: int) -> Cost:
    """The cost of a step of one item, counted on the CPU in float32."""
    trainings = [replace(one.train, batch=1, accumulate=1, precision="float32") for one in recipe.all_stages]
    step, method = _steps(with_trainings(recipe, trainings), cohort, stage, torch.device("cpu"), 1)
    return count(step, sum(one.numel() for one in method.parameters()), COPIES)


def _steps(
    recipe: Recipe, cohort: Cohort, stage: int, device: torch.device, steps: int
) -> tuple[Callable[[], object], Method]:
    """A function that takes a training step of real data, for so many calls, and the method that is trained."""
    accelerator, _ = processes(str(device))
    earlier: dict[str, Method] = {}
    for one in recipe.all_stages[: stage + 1]:
        earlier[one.name] = method = one.build(earlier).to(device)
    chosen = recipe.all_stages[stage]
    chosen = replace(chosen, train=replace(chosen.train, steps=max(chosen.train.steps, steps)))
    job = Job(recipe, chosen, cohort, accelerator, device)
    options = job.stage.train
    learner = begin_learner(method, options, device, 0)
    batches = _batches(job, steps)
    return lambda: take_step(learner, method, options, 0, batches, device), method


def _batches(job: Job, steps: int) -> Iterator[Batch]:
    """The batches of so many steps; for a GPU read before them, as its readers would, which take seconds to start."""
    if job.device.type == "cpu":
        return iter(job.batches())
    stage = replace(job.stage, train=replace(job.stage.train, workers=0))
    count = steps * stage.train.accumulate * sum(stage.turns.values())
    return iter(list(itertools.islice(replace(job, stage=stage).batches(), count)))


def free_memory(device: str) -> float:
    """Bytes that a training may take where nobody says: most of what is free on the device now."""
    return FREE * devices.free_memory(find_device(device))
