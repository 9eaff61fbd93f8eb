"""The state of a training: weights, their running average, optimisers, losses of epochs; its file, and its log."""

import json
import math
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlate.base.errors import BadInput
from voxlate.base.files import whole_file, write_text
from voxlate.base.items import stable_id
from voxlate.base.optional import optional_package
from voxlate.scans.cases.prepared import Cohort
from voxlate.science.methods.method import Method
from voxlate.training.job import Clock, Job
from voxlate.training.log_file import lines_of
from voxlate.training.recipe import Recipe, to_dict
from voxlate.training.recipe.training_settings import Training

Losses = Mapping[str, Mapping[str, Tensor]]
"""The losses of each turn by their names."""


@dataclass
class BestWeights:
    """The averaged weights of the least validation error so far: its step, the error, and later validations."""

    step: int
    error: float
    weights: dict[str, Tensor]
    since: int = 0


@dataclass
class Learner:
    """All that a training changes, and the whole of state.pt.

    epoch, epochs: the losses of the current epoch, and the mean of each before it, where `train.stop` asks for them;
    best: where `train.best` asks for it.
    """

    method: Method
    averaged: Method
    optimisers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    epoch: list[Tensor] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    best: BestWeights | None = None

    @cached_property
    def moving(self) -> tuple[list[Tensor], list[Tensor]]:
        """The averaged weights and the weights; they are listed once, because listing is slower than a step."""
        models = (self.averaged, self.method)
        averaged, own = ([weight.data for weight in model.parameters()] for model in models)
        return averaged, own

    @cached_property
    def buffers(self) -> list[tuple[Tensor, Tensor]]:
        """The other tensors of the averaged model, each with that of the model."""
        return list(zip(self.averaged.buffers(), self.method.buffers()))

    @torch.no_grad()
    def move_average(self, decay: float, place: float) -> None:
        """Update the average at a place of the training; early steps have more weight, so that the start is forgotten.

        Buffers are copied. Source of the ramp (1 + n) / (10 + n): Abadi et al., TensorFlow's ExponentialMovingAverage.
        """
        ramp = (1 + place) / (10 + place)
        torch._foreach_lerp_(*self.moving, 1 - min(decay, ramp))
        for old, new in self.buffers:
            old.copy_(new)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, from which `load_state` continues."""
        turns = self.optimisers.items()
        return {
            "method": self.method.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimisers": {turn: optimiser.state_dict() for turn, optimiser in turns},
            "memory": self.method.training_state(),
            "step": self.step,
            "seconds": self.seconds,
            "epoch": list(self.epoch),
            "epochs": list(self.epochs),
            "best": self.best and vars(self.best),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.method.load_state_dict(state["method"])
        device = next(self.method.parameters()).device
        memory = {name: tensor.to(device) for name, tensor in state["memory"].items()}
        self.method.load_training_state(memory)
        self.averaged.load_state_dict(state["averaged"])
        for turn, optimiser in self.optimisers.items():
            # The recipe states the settings; only the moments are those of the state.
            moments = {"state": state["optimisers"][turn]["state"]}
            optimiser.load_state_dict(optimiser.state_dict() | moments)
        self.step, self.seconds = state["step"], state["seconds"]
        self.epoch = [loss.to(device) for loss in state["epoch"]]
        self.epochs = list(state["epochs"])
        self.best = state["best"] and BestWeights(**state["best"])

    def compare(self, error: float) -> None:
        """Keep the averaged weights if this validation error is the least so far; NaN is the largest."""
        error = math.inf if math.isnan(error) else error
        if self.best is not None and error >= self.best.error:
            self.best.since += 1
            return
        weights = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
        self.best = BestWeights(self.step, error, weights)

    def is_done(self, options: Training, place: float) -> bool:
        """Whether the training has its length, or ends early by losses and errors, which are saved for restarts."""
        if place >= options.steps:
            return True
        patience, since = (options.best and options.best.patience), (self.best and self.best.since)
        if patience and since and since >= patience:
            return True
        return options.stop is not None and options.stop.is_met(self.epochs)


class Log:
    """Writes losses, validations and sentences of a stage to log.jsonl, and their numbers to trackers.

    It sets the seconds of the learner, and measures those of the last step. Only the main process writes.
    """

    def __init__(self, job: Job, learner: Learner, clock: Clock) -> None:
        self.job = job
        self.learner = learner
        self.clock = clock
        self.stage = job.stage.name
        self.begun = time.monotonic() - learner.seconds
        self.step_seconds = 0.0  # of the last step, with what followed the one before it
        self.latest: dict[str, float] = {}
        self.trackers: list[Any] = []
        if job.is_main:
            self._drop_later_lines()
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # reports do without

            board, folder = LOGGER_TYPE_TO_CLASS["tensorboard"], job.run.folder
            places = {"logging_dir": folder / "tensorboard", "purge_step": learner.step}
            self.trackers.append(board(self.stage, **places))
            if (name := job.track) is not None:
                optional_package(name, "track", "--track", f"the package {name}")
                self.trackers.append(LOGGER_TYPE_TO_CLASS[name](folder.name))
            for tracker in self.trackers:
                tracker.start()

    @property
    def seconds(self) -> float:
        """The seconds of training so far."""
        return time.monotonic() - self.begun

    def add_step(self, losses: Losses, writes: bool) -> None:
        """Count the seconds of a step, and report it; writes: also log its losses."""
        step, seconds, options = self.learner.step, self.seconds, self.job.stage.train
        self.step_seconds = seconds - self.learner.seconds
        self.learner.seconds = seconds
        if writes and self.job.is_main:
            rate = step * options.batch / max(seconds, 1e-9)
            common = {"lr": options.rate(self.clock.place(step - 1)), "items_per_s": rate}
            for turn, parts in losses.items():
                values = {name: float(value) for name, value in parts.items()}
                self.add(turn=turn, loss=values, **common, seconds=seconds)
                self._plot({f"{turn}/{name}": value for name, value in values.items()} | common)
                self.latest |= {"loss": values["total"], "items_per_s": rate}
        self.report(round(self.clock.steps(step)))

    def add_validation(self, scores: Mapping[str, float]) -> None:
        """Log a validation."""
        self.add(validation=dict(scores), seconds=self.seconds)
        self._plot({f"validation/{name}": value for name, value in scores.items()})
        self.latest |= scores

    def report(self, steps: int) -> None:
        """Report the step, of so many."""
        if self.job.is_main:
            self.job.progress(self.stage, self.learner.step, steps, dict(self.latest))

    def add(self, **content: object) -> None:
        """Write a line."""
        line = {"stage": self.stage, "step": self.learner.step, **content}
        with self.job.run.log.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(line) + "\n")

    def _plot(self, values: Mapping[str, float]) -> None:
        named = {f"{self.stage}/{name}": value for name, value in values.items()}
        for tracker in self.trackers:
            tracker.log(named, self.learner.step)

    def close(self) -> None:
        """End the trackers' runs: each stage has one of its own, because its steps begin at 0."""
        for tracker in self.trackers:
            tracker.finish()

    def _drop_later_lines(self) -> None:
        """Remove lines of steps that a killed run logged but did not save, because it repeats those steps."""
        log, step = self.job.run.log, self.learner.step
        kept = [
            f"{text}\n"
            for text, line in lines_of(log)
            if line["stage"] != self.stage or 0 < step >= line["step"]
        ]
        write_text(log, "".join(kept))


def owner_of(recipe: Recipe, cohort: Cohort) -> str:
    """The digest of what a state depends on: recipe, cohort and splits."""
    splits = {name: sorted(cases) for name, cases in cohort.splits.items()}
    whole = [to_dict(recipe), cohort.digest, splits]
    return f"{stable_id(json.dumps(whole, sort_keys=True)):016x}"


def save_state(path: Path, state: Mapping[str, Any], owner: str) -> None:
    """Write a state of the training with this digest, which replaces the one before."""
    with whole_file(path) as temporary:
        torch.save({**state, "owner": owner}, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a stopped training onto the CPU, wherever it was trained.

    Only tensors and plain values are accepted from the file. Raises BadInput for a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:  # torch compares no checksums
                raise ValueError("a checksum differs")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises many types for a damaged or foreign file
        raise BadInput(
            f"{path}: expected a training state, found an unreadable file. Delete it to start again."
        ) from error
    return state


def resume(learner: Learner, job: Job) -> None:
    """Continue from the saved state of a stage, if there is one; raises BadInput if it is of another training."""
    path = job.run.state
    if not path.exists():
        return
    state = load_state(path)
    if state.get("owner") != owner_of(job.recipe, job.cohort):
        raise BadInput(
            f"{path}: expected the state of this run's training, found one of another recipe, cohort or split, or of an earlier version. Delete it to start again."
        )
    if state["stage"] != job.stage.name:
        return
    try:
        learner.load_state(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path}: expected a state of this version's networks, found another ({str(error).splitlines()[0]:.200}). Delete it to start again."
        ) from error
