"""What a step costs on this machine: a few real ones are taken, of real batches, and forgotten."""

import math
import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from voxlate.data.prepared import Cohort
from voxlate.errors import BadInput
from voxlate.methods.method import Method
from voxlate.recipe import Recipe, from_dict
from voxlate.training.precision import settled
from voxlate.training.train import Job, begin_learner, take_step
from voxlate.training.validate import find_device

PROBED = 0.05  # most of the minutes that probing takes
STEPS, MOST_STEPS = 3, 30  # that are timed of a network that is tried, and of the one that is taken
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

    allow_code: try recipes that name code outside voxlate, which is then run.
    """

    cohort: Cohort
    limits: Limits
    device_name: str = "auto"
    allow_code: bool = False
    most: float = 0.0
    last: Measured | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> float:
        return time.monotonic() - self.begun

    @property
    def seconds(self) -> float:
        """What is left of the minutes."""
        return max(self.limits.minutes * 60 - self.passed, 0.0)

    @property
    def has_time(self) -> bool:
        """Whether another network can be tried within the share of the minutes that probing may take."""
        spent = self.passed + (2 * STEPS * self.last.seconds if self.last else 0)
        return spent <= PROBED * self.limits.minutes * 60

    def again(self, tables: Mapping[str, Any], seconds: float) -> float:
        """Seconds of a step that took `seconds` in a first try, from as many steps as there is time to take."""
        steps = min(int((PROBED * self.limits.minutes * 60 - self.passed) / seconds) - 1, MOST_STEPS)
        measured = self.measure(tables, 0, steps=steps) if steps > STEPS else None
        return measured.seconds if measured else seconds

    def measure(self, tables: Mapping[str, Any], stage: int, steps: int = STEPS) -> Measured | None:
        """Seconds and memory of a step of a recipe's stage (by place); None where it takes too much memory.

        steps: that are timed.
        """
        device = find_device(self.device_name)
        _forget_peak(device)
        try:
            recipe = settled(from_dict(dict(tables), "the plan", self.allow_code), device)
            seconds = _seconds(recipe, self.cohort, stage, device, steps)
        except torch.cuda.OutOfMemoryError:
            return None
        found = peak(device)
        if found > self.limits.memory_bytes:
            self.most = self.most or found
            return None
        self.most = max(self.most, found)
        self.last = Measured(seconds, found)
        return self.last


def _seconds(recipe: Recipe, cohort: Cohort, stage: int, device: torch.device, steps: int) -> float:
    """The median time of steps after a first one, which also allocates."""
    accelerator = Accelerator(cpu=device.type == "cpu")
    earlier: dict[str, Method] = {}
    for one in recipe.all_stages[: stage + 1]:
        earlier[one.name] = method = one.build(earlier).to(device)
    chosen = recipe.all_stages[stage]
    chosen = replace(chosen, train=replace(chosen.train, steps=max(chosen.train.steps, steps + 1)))
    job = Job(recipe, chosen, cohort, accelerator, device)
    options = job.stage.train
    learner = begin_learner(method, options, device, 0)
    batches, times = iter(job.batches()), []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        take_step(learner, method, options, 0, batches, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[steps // 2]


def free_memory(device: str) -> float:
    """Bytes that a training may take where nobody says: most of what is free on the device now."""
    if (where := find_device(device)).type == "cuda":
        return FREE * torch.cuda.mem_get_info(where)[0]
    return FREE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # proc(5): 5 resets the peak of the process
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> float:
    """Bytes at the peak since it was forgotten; of the process where that cannot be."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
