"""The size of a plan's network: that of the least predicted error, by steps that are timed and a law of their cost."""

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import ceil, log2
from statistics import fmean, median

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from voxlate.base import devices
from voxlate.base.devices import find_device
from voxlate.base.errors import plural
from voxlate.scans.cases.prepared import Cohort
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Method
from voxlate.training.job import Clock, Job, processes
from voxlate.training.learner import Learner
from voxlate.training.loop import begin_learner, errors_by_share, take_step
from voxlate.training.planning.rules import Size
from voxlate.training.precision import with_precision
from voxlate.training.recipe import Recipe
from voxlate.training.recipe.run_provenance import Budget
from voxlate.training.train import initial_method
from voxlate.training.validate import counted_voxels, validate, validation_items

STEPS = 3  # timed steps of each network that is tried
FREE = 0.8  # default share of the free memory
# The law's own error, by which a stem of twice the side must be better: of two stems that it told apart by 2 %, the coarser one
# had 31 % more error (vessels; 1,080 steps against 392).
DOUBT = 1.09
# The width from which the cost of a step grows with its cube, and below with itself. Steps of widths 16, 64, 96 and 128 cost 0.42, 3.4,
# 8.2 and 16 times as much as of 32 on a CPU (heads, brains and phantoms), and by the law 0.43, 3.1, 7.4 and 15 times.
WIDE = 68
# The width whose steps take as long for what is done to each feature (norms, activations) as for products, which grow with its square.
# Counted so, steps of widths 16, 32, 64 and 96 had 123, 134 to 156, 123 and 119 GFLOP/s on one core, and by products alone 41, 67, 82 and 89.
EVEN = 32
FILLED = 1.25  # largest factor of the useful steps up to which all of the time is used
ITEMS = 16  # of a race, spread over all validation cases
FEWEST_STEPS = 8  # steps of a trial, before which its error says nothing
SPARE = 0.04  # share of the time that is reserved for starting, validating, saving

# The law of the error, fitted to trainings of many widths, stems, batches and lengths.
GAIN = 0.074
LATE = 42.1 * 2**0.247  # of two items a step
DECAY = 0.643
COARSE = 1.69
NARROW = 0.409


@dataclass
class Probe:
    """Times steps of recipes on a cohort within limits: minutes in total, and bytes of memory (that of the GPU if there is one).

    memory_bytes: by default most of what is free on the device now; most: the largest memory that one of them needed.
    speed: stated GFLOP/s of steps, which are then counted in place of timed: nothing depends on the machine, its load or
    its memory; raced: the seconds of races by that speed.
    """

    cohort: Cohort
    minutes: float
    device_name: str = "auto"
    memory_bytes: float = 0.0
    most: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    speed: float | None = None
    raced: float = 0.0

    def __post_init__(self) -> None:
        if not self.memory_bytes:
            self.memory_bytes = FREE * devices.free_memory(find_device(self.device_name))

    @property
    def probe_seconds(self) -> float:
        """Seconds that probing has taken from the training's time."""
        return time.monotonic() - self.begun if self.speed is None else self.raced

    def seconds(self, share: float = 1.0) -> float:
        """A share of the seconds that are left for training steps."""
        return max(self.minutes * 60 - self.probe_seconds, 0.0) * (1 - SPARE) * share

    def measure(self, recipe: Recipe, stage: int) -> float | None:
        """Seconds of a step of the recipe's stage with this index; None if it needs too much memory."""
        if self.speed is not None:
            job, learner = _begin(recipe, stage, self.cohort, self.device_name)
            return work_of_step(job, learner) / (1e9 * self.speed)
        device = find_device(self.device_name)
        devices.forget_peak_memory(device)
        try:
            seconds = _seconds(*_begin(recipe, stage, self.cohort, self.device_name))
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            return None
        memory = devices.peak_memory(device)
        fits = memory <= self.memory_bytes
        if fits or not self.most:
            self.most = max(self.most, memory)
        return seconds if fits else None

    def trial(self, recipe: Recipe, seconds: float) -> tuple[float, int]:
        """The error of a recipe's first stage on held-out items after these seconds of training, and its steps.

        The mean absolute error is a share of the truth's mean absolute deviation from its median, because candidates may
        scale a target differently. Where a share of the first weights is kept, it is the least one over these shares, as
        at the end of a training. The cohort has validation patients.
        """
        begun = time.perf_counter()
        step_seconds = None if self.speed is None else self.measure(recipe, 0)
        job, learner = _begin(recipe, 0, self.cohort, self.device_name)
        first = [tensor.clone() for tensor in learner.moving[0]]
        steps = timed_steps(learner, job, iter(job.batches()))

        def passed() -> float:
            """The seconds since the start, by the clock or by the stated speed."""
            if step_seconds is None:
                return time.perf_counter() - begun
            return learner.step * step_seconds

        while learner.step < FEWEST_STEPS or (
            passed() < seconds and learner.step < job.stage.train.steps
        ):
            next(steps)
        self.raced += passed()
        measured = replace(job.stage, train=replace(job.stage.train, validation_items=ITEMS))
        items = validation_items(job.recipe, measured, self.cohort)

        def error() -> float:
            """The mean absolute error of the averaged method, in network units."""
            return validate(learner.averaged, items, job.recipe, measured, job.device)["mae"]

        least = error()
        if job.stage.train.keep_start:
            errors = errors_by_share(learner.moving[0], first, error)
            least = min(errors.values())
        return least / _mean_deviation(items), learner.step


def _mean_deviation(items: Iterable[Batch]) -> float:
    """The mean absolute deviation of the targets of items from their medians, in the voxels that count; 1 where it is 0."""
    deviations = []
    for batch in items:
        assert batch.target is not None
        counted = counted_voxels(batch)
        for item, target in counted.flatten(2).any(2).nonzero().tolist():
            shown = batch.target[item, target][counted[item, target]]
            deviations.append(float((shown - shown.median()).abs().mean()))
    return fmean(deviations) or 1.0


def _begin(recipe: Recipe, stage: int, cohort: Cohort, device_name: str) -> tuple[Job, Learner]:
    """The training of a stage of a recipe before its first step, of at least FEWEST_STEPS."""
    accelerator, device = processes(device_name)
    recipe = with_precision(recipe, device)
    chosen = recipe.all_stages[stage]
    train = replace(chosen.train, steps=max(chosen.train.steps, FEWEST_STEPS))
    job = Job(recipe, replace(chosen, train=train), cohort, accelerator, device)
    torch.manual_seed(job.seed)
    earlier: dict[str, Method] = {}
    for trained in recipe.all_stages[: stage + 1]:
        earlier[trained.name] = method = initial_method(trained, earlier).to(device)
    return job, begin_learner(method, job)


def _seconds(job: Job, learner: Learner) -> float:
    """The median of steps on real data after a first step, which also allocates memory."""
    steps = timed_steps(learner, job, _batches(job))
    next(steps)
    return median(itertools.islice(steps, STEPS))


def work_of_step(job: Job, learner: Learner) -> float:
    """The floating-point operations of a first step, as a network of width EVEN would have them in the same time.

    Products are counted, in both passes and in the optimiser; they take half of the time at width EVEN.
    """
    clock = Clock(job)
    # the products of other kernels of attention are not counted on a CPU
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        take_step(learner, learner.method, job, iter(job.batches()), clock)
    width: float = getattr(job.stage.net, "width", EVEN)
    return counter.get_total_flops() * (1 + EVEN / width) / 2


def timed_steps(learner: Learner, job: Job, batches: Iterator[Batch]) -> Iterator[float]:
    """The steps of a training without end: the seconds of each."""
    clock = Clock(job)
    while True:
        begun = time.perf_counter()
        take_step(learner, learner.method, job, batches, clock)
        devices.wait_for(job.device)
        yield time.perf_counter() - begun


def _batches(job: Job) -> Iterator[Batch]:
    """The batches of the timed steps; for a GPU they are read in advance, because readers take seconds to start."""
    if job.device.type == "cpu":
        return iter(job.batches())
    stage = replace(job.stage, train=replace(job.stage.train, workers=0))
    count = (STEPS + 1) * sum(stage.turns.values())
    return iter(list(itertools.islice(replace(job, stage=stage).batches(), count)))


@dataclass(frozen=True)
class Candidate:
    """A network in a training of some seconds.

    step_seconds: of a step; most_steps: the largest useful number of steps.
    """

    size: Size
    step_seconds: float
    seconds: float
    most_steps: float

    @property
    def fitting(self) -> int:
        """The number of steps that fit."""
        return max(int(self.seconds / self.step_seconds), 1)

    @property
    def steps(self) -> int:
        """All steps that fit, if these are hardly more than the largest useful number, else that number."""
        most = ceil(self.most_steps)
        return self.fitting if self.fitting <= FILLED * most else most

    @property
    def budget(self) -> Budget:
        """What a stage of its steps may take."""
        seconds = self.steps * self.step_seconds
        return Budget(seconds=seconds, most_steps=ceil(FILLED * self.most_steps))

    @property
    def why(self) -> str:
        """The reason for it."""
        why = f"the least error that is predicted: {self.size} gets {plural(self.steps, 'step')} of {self.step_seconds:.3f} s"
        if self.steps < self.fitting:
            why += f"; {self.fitting:,} would fit, but overfit to few patients"
        return why


def step_cost(size: Size) -> float:
    """The seconds of a step relative to those of another size."""
    return size.load * (1 + (size.width / WIDE) ** 2)


def relative_error(size: Size, pixel_mm: float, steps: float) -> float:
    """Predicted error relative to an unlimited training of width 1."""
    feature_mm = size.stem * pixel_mm
    late = LATE * (feature_mm / 2) ** COARSE * (32 / size.width) ** NARROW
    doubt = DOUBT ** log2(size.stem)
    return doubt * size.width**-GAIN * (1 + (late / steps) ** DECAY)
