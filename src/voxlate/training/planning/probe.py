"""The cost of a training step on this machine, measured by a few steps on real batches whose results are dropped."""

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

from voxlate.base import devices
from voxlate.base.devices import find_device
from voxlate.base.errors import BadInput
from voxlate.base.machine import keep_freed_memory
from voxlate.scans.cases.prepared import Cohort
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Method
from voxlate.training.clock import Clock
from voxlate.training.job import Job
from voxlate.training.loop import begin_learner, take_step
from voxlate.training.precision import with_precision
from voxlate.training.processes import processes
from voxlate.training.recipe import Recipe, from_dict

STEPS = 3  # timed steps of each network that is tried
FREE = 0.8  # default share of the free memory


@dataclass(frozen=True)
class Limits:
    """The limits of a training: minutes in total, and bytes of memory (that of the GPU if there is one)."""

    minutes: float
    memory_bytes: float

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf:
            raise BadInput(
                f"--minutes: expected a number above 0, found {self.minutes:g}. Give a number such as 60."
            )


@dataclass(frozen=True)
class Measured:
    """The seconds of a step, and the peak memory of the process or GPU in bytes."""

    seconds: float
    memory: float


@dataclass
class Probe:
    """Times steps of recipes on a cohort; most: the largest memory that one of them needed."""

    cohort: Cohort
    limits: Limits
    device_name: str = "auto"
    most: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    @property
    def probe_seconds(self) -> float:
        """Seconds that probing has taken from the training's time."""
        return time.monotonic() - self.begun

    @property
    def seconds(self) -> float:
        """Seconds that remain for the training."""
        return max(self.limits.minutes * 60 - self.probe_seconds, 0.0)

    def measure(self, planned: Mapping[str, Any] | Recipe, stage: int) -> Measured | None:
        """Seconds and memory of a step of the recipe's stage with this index; None if it needs too much memory."""
        recipe = planned if isinstance(planned, Recipe) else from_dict(dict(planned), "the plan")
        device = find_device(self.device_name)
        devices.forget_peak_memory(device)
        try:
            seconds = _seconds(with_precision(recipe, device), self.cohort, stage, device)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            return None
        measured = Measured(seconds, devices.peak_memory(device))
        if measured.memory > self.limits.memory_bytes:
            self.most = self.most or measured.memory
            return None
        self.most = max(self.most, measured.memory)
        return measured


class TimedSteps:
    """The steps of a training, each of which is timed; spent: the seconds of all."""

    def __init__(self, job: Job, method: Method, batches: Iterator[Batch]) -> None:
        self.job = job
        self.learner = begin_learner(method, job)
        self.clock = Clock(job.stage.train)
        self.batches = batches
        self.spent = 0.0

    def step(self) -> float:
        """Train one step; returns its seconds."""
        begun = time.perf_counter()
        take_step(self.learner, self.learner.method, self.job, self.batches, self.clock)
        devices.wait_for(self.job.device)
        seconds = time.perf_counter() - begun
        self.spent += seconds
        return seconds


def _seconds(recipe: Recipe, cohort: Cohort, stage: int, device: torch.device) -> float:
    """The median of steps on real data after a first step, which also allocates memory."""
    keep_freed_memory()  # as a training does, which is faster
    accelerator, _ = processes(str(device))
    earlier: dict[str, Method] = {}
    for trained in recipe.all_stages[: stage + 1]:
        earlier[trained.name] = method = trained.build(earlier).to(device)
    chosen = recipe.all_stages[stage]
    train = replace(chosen.train, steps=max(chosen.train.steps, STEPS + 1))
    job = Job(recipe, replace(chosen, train=train), cohort, accelerator, device)
    steps = TimedSteps(job, method, _batches(job))
    steps.step()
    return median(steps.step() for _ in range(STEPS))


def _batches(job: Job) -> Iterator[Batch]:
    """The batches of the timed steps; for a GPU they are read in advance, because readers take seconds to start."""
    if job.device.type == "cpu":
        return iter(job.batches())
    stage = replace(job.stage, train=replace(job.stage.train, workers=0))
    count = (STEPS + 1) * stage.train.accumulate * sum(stage.turns.values())
    return iter(list(itertools.islice(replace(job, stage=stage).batches(), count)))


def default_memory_limit(device: str) -> float:
    """The default limit of a training's memory in bytes: most of the memory that is free on the device now."""
    return FREE * devices.free_memory(find_device(device))
