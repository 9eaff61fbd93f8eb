"""One loop for every method: batches in, weights out, and the same command goes on where it stopped."""

import contextlib
import copy
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from voxlate.batch import Batch, stable_id
from voxlate.data import naive
from voxlate.data.batches import Batches
from voxlate.data.prepared import Cohort, open_cohort
from voxlate.diffusion.noise import Noise
from voxlate.errors import BadInput, Stopped
from voxlate.methods.autoencoding import Autoencoding
from voxlate.methods.cycle import CycleSettings
from voxlate.methods.method import Method
from voxlate.nets.memory import keep_freed_memory
from voxlate.recipe import Recipe, Stage, Training, up_to, windows
from voxlate.training.build import build
from voxlate.training.journal import Journal, Progress
from voxlate.training.optimiser import average, set_rate
from voxlate.training.run import (
    Run,
    begin,
    describe,
    file_hash,
    load_state,
    load_weights,
    save_state,
    save_weights,
    take_over,
)
from voxlate.training.stopping import Epochs
from voxlate.training.validate import autocast, examples, find_device, validate


@dataclass
class Learner:
    """What a training changes, and nothing else: all of it is in state.pt."""

    method: Method
    averaged: Method
    optimisers: dict[str, torch.optim.Optimizer]
    epochs: Epochs
    step: int = 0
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        optimisers = {turn: optimiser.state_dict() for turn, optimiser in self.optimisers.items()}
        weights = {"method": self.method.state_dict(), "averaged": self.averaged.state_dict()}
        own = {"optimisers": optimisers, "epochs": self.epochs.state(), "memory": self.method.memory()}
        return {**weights, **own, "step": self.step, "seconds": self.seconds}

    def take_up(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.method.remember(state.get("memory", {}))
        self.averaged.load_state_dict(state["averaged"])
        for turn, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][turn])
        if "epochs" in state:
            self.epochs.take_up(state["epochs"])
        self.step, self.seconds = state["step"], state["seconds"]


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    head: str = "",
    start: Path | None = None,
    reuse: Sequence[Path] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Train every stage of a recipe on a prepared cohort into a run folder; a stopped run goes on bit by bit the same.

    head: comment lines for the run's recipe.toml; start: weights that the last stage begins from instead of random
    ones; reuse: other runs, from which earlier stages are taken that are the same, data and seed included.
    Raises BadInput (recipe and cohort do not fit, folder of another run), Stopped at SIGINT or SIGTERM once the state
    is saved.
    """
    keep_freed_memory()
    cohort = open_cohort(data)
    _refuse_blind(recipe, cohort)
    accelerator = Accelerator(cpu=find_device(device).type == "cpu")
    for stage in recipe.all_stages:  # what cannot work is said before the first hour, not after it
        _batches(recipe, stage, cohort, accelerator)
    about = {"cohort": file_hash(Path(data) / "cohort.json"), "start": file_hash(start) if start else None}
    run = begin(out, recipe, head, {**about, "splits": cohort.splits})
    if accelerator.is_main_process and not run.trivial.exists():
        naive.fit_cohort(cohort, recipe.data.source, recipe.data.target, windows(recipe)).save(run.trivial)
    accelerator.wait_for_everyone()
    earlier: dict[str, Method] = {}
    for stage in recipe.all_stages:
        torch.manual_seed(stage_seed(recipe, stage))
        method = build(recipe, stage, earlier)
        if stage.name != "final" and not run.weights(stage.name).exists():
            take_over(run, [Run(Path(other)) for other in reuse], up_to(recipe, stage), stage.name)
        if run.weights(stage.name).exists():
            load_weights(method, run.weights(stage.name))
        else:
            if start and stage.name == "final":
                load_weights(method, start)
            method = _train_stage(recipe, stage, cohort, run, method, accelerator, progress)
        earlier[stage.name] = method.eval().requires_grad_(False)
    return run


def _train_stage(
    recipe: Recipe,
    stage: Stage,
    cohort: Cohort,
    run: Run,
    method: Method,
    accelerator: Accelerator,
    progress: Progress | None,
) -> Method:
    options, device, main = stage.train, accelerator.device, accelerator.is_main_process
    learner = _learner(method, options, device, _epoch_steps(recipe, stage, cohort) if options.stop else 0)
    if run.state.exists() and (state := load_state(run.state, device))["stage"] == stage.name:
        learner.take_up(state)
    parallel = accelerator.prepare(method) if accelerator.num_processes > 1 else method
    batches = iter(_batches(recipe, stage, cohort, accelerator, learner.step))
    exam, seed = examples(recipe, stage, cohort), stage_seed(recipe, stage)
    journal = Journal(run.log, stage.name, options, learner.step, learner.seconds, main, progress)
    with _stop_signal() as stop:
        while learner.step < options.steps and not _enough(learner, options):
            losses = _step(learner, parallel, stage, seed, batches, device)
            average(learner.averaged, method, options.ema, learner.step)
            learner.step += 1
            learner.seconds = journal.note(learner.step, losses)
            _count(learner, losses, accelerator)
            last = learner.step == options.steps or _enough(learner, options)
            if main and (last or (options.validate_every and learner.step % options.validate_every == 0)):
                scores = validate(
                    learner.averaged, exam, recipe, stage, device, run.folder / "validation", learner.step
                )
                learner.seconds = journal.validated(learner.step, scores)
            if main and last and learner.step < options.steps and options.stop:
                journal.ended(learner.step, options.stop.sentence(learner.epochs.losses, learner.step))
            if main and (stop or last or learner.step % options.save_every == 0):
                save_state(run.state, {**learner.state(), "stage": stage.name})
            if stop and not last:
                raise Stopped(f"stopped at step {learner.step} of {options.steps} ({stage.name})")
    return _finish(recipe, stage, cohort, run, learner, accelerator)


def _refuse_blind(recipe: Recipe, cohort: Cohort) -> None:
    """Raise BadInput where the cohort's brain masks come from a scan that the model will not be given."""
    name = cohort.made.get("mask_from")
    if recipe.masked and name is not None and name not in recipe.data.source:
        raise BadInput(
            f"{cohort.folder}: expected a mask found in {' or '.join(recipe.data.source)}, which a model is given to "
            f"synthesise, found the brain of {name}. Prepare it with --mask-from {recipe.data.source[0]}."
        )


def _step(
    learner: Learner, parallel: Method, stage: Stage, seed: int, batches: Iterator[Batch], device: torch.device
) -> dict[str, dict[str, torch.Tensor]]:
    """Every turn once (or as often as its method says); returns each turn's last losses, still on the device."""
    options, losses = stage.train, {}
    rate = options.optimiser.lr * options.optimiser.factor(learner.step, options.steps)
    calls = 0
    for turn, repeats in learner.method.turns.items():
        optimiser = learner.optimisers[turn]
        set_rate(optimiser, rate)
        for _ in range(repeats):
            optimiser.zero_grad(set_to_none=True)
            for _ in range(options.accumulate):
                batch = next(batches)
                noise = Noise(stable_id(seed, learner.step, calls), batch.item)
                torch.manual_seed(stable_id(noise.seed, int(batch.item[0, 0])))  # for dropout, the same after a restart
                with autocast(device, options.precision):
                    parts = parallel(turn, batch.to(device), noise)
                (parts["total"] / options.accumulate).backward()
                calls += 1
            if options.clip_norm:
                nn.utils.clip_grad_norm_(list(learner.method.trained(turn)), options.clip_norm)
            optimiser.step()
        losses[turn] = {name: value.detach() for name, value in parts.items()}
    return losses


def _count(learner: Learner, losses: Mapping[str, Mapping[str, torch.Tensor]], accelerator: Accelerator) -> None:
    """Add a step's loss, of the turn that makes images, to its epoch; all processes then know the same loss."""
    *_, made = losses.values()
    if learner.epochs.note(made["total"]) and accelerator.num_processes > 1:
        loss = torch.tensor(learner.epochs.losses[-1], device=accelerator.device)
        learner.epochs.losses[-1] = accelerator.reduce(loss, "mean").item()


def _enough(learner: Learner, options: Training) -> bool:
    """Whether the recipe's rule ends the training; the losses alone decide, so a restart decides the same."""
    return options.stop is not None and options.stop.reached(learner.epochs.losses)


def _epoch_steps(recipe: Recipe, stage: Stage, cohort: Cohort) -> int:
    """Steps that see every item once; every turn has batches of its own."""
    items = len(Batches(cohort, stage.data or recipe.data, recipe.intensity).items)
    return math.ceil(items / (stage.train.batch * sum(stage.method.turns.values())))


def stage_seed(recipe: Recipe, stage: Stage) -> int:
    """A stage's own seed, by its place: a first stage trained alone ends with the same weights."""
    place = [one.name for one in recipe.all_stages].index(stage.name)
    return stable_id(stage.train.seed, "stage", place)


def _learner(method: Method, options: Training, device: torch.device, epoch_steps: int) -> Learner:
    method.to(device).train()
    averaged = copy.deepcopy(method).requires_grad_(False).eval()
    optimisers = {turn: options.optimiser.build(method.trained(turn)) for turn in method.turns}
    long = device.type == "cuda" or options.steps > 20_000  # compiling takes half a minute on a CPU, and gains 4-20 %
    if long if options.compile is None else options.compile:
        method.net.compile()
    return Learner(method, averaged, optimisers, Epochs(epoch_steps))


def _batches(
    recipe: Recipe, stage: Stage, cohort: Cohort, accelerator: Accelerator, step: int = 0
) -> DataLoader[Batch]:
    """Batches from a step on; batch k is a function of the seed and k alone, so resuming skips without reading."""
    options, world = stage.train, accelerator.num_processes
    if options.batch % (options.accumulate * world):
        raise BadInput(
            f"train.batch: expected a multiple of train.accumulate × processes ({options.accumulate} × {world}), "
            f"found {options.batch}. Change one of them."
        )
    calls = options.accumulate * sum(stage.method.turns.values())
    batches = Batches(
        cohort,
        stage.data or recipe.data,
        recipe.intensity,
        seed=stage_seed(recipe, stage),
        batch=options.batch // options.accumulate // world,
        steps=options.steps * calls,
        rank=accelerator.process_index,
        world=world,
        unpaired=isinstance(stage.method, CycleSettings),
    )
    order = range(step * calls, options.steps * calls)
    # on a CPU a reader would only take cores from the step, and a late thread stalls all others
    workers = (4 if accelerator.device.type == "cuda" else 0) if options.workers is None else options.workers
    ahead = 4 if workers else None
    return DataLoader(batches, batch_size=None, sampler=order, num_workers=workers, prefetch_factor=ahead)


def _finish(
    recipe: Recipe, stage: Stage, cohort: Cohort, run: Run, learner: Learner, accelerator: Accelerator
) -> Method:
    """Write the averaged weights as a whole model; the state stays until the next stage writes its own."""
    method = learner.averaged if stage.train.ema else learner.method
    if isinstance(method, Autoencoding):
        method.finish(examples(recipe, stage, cohort))
    if accelerator.is_main_process:
        header = describe(up_to(recipe, stage), method, cohort, learner.step, learner.seconds)
        save_weights(run.weights(stage.name), method, header)
    accelerator.wait_for_everyone()
    return method


@contextlib.contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM arrives; outside the main thread it stays empty."""
    received: list[int] = []
    try:
        before = {name: signal.signal(name, lambda number, _: received.append(number)) for name in _SIGNALS}
    except ValueError:  # only the main thread may listen
        before = {}
    try:
        yield received
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
