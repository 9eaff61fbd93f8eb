"""The state of a training: weights, their running average, optimisers, and losses of epochs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from voxlate.base.devices import has_doubles
from voxlate.science.methods.method import Method
from voxlate.training.recipe.training_settings import Training


@dataclass
class Epochs:
    """Mean loss of each epoch so far, and the sum of losses in the current epoch.

    steps: number of steps of an epoch; 0 if its loss is not needed.
    """

    steps: int
    losses: list[float] = field(default_factory=list)
    running: Tensor | None = None
    count: int = 0

    def add(self, loss: Tensor) -> bool:
        """Add a step's loss; returns whether an epoch ended. Only then it waits for the device."""
        if not self.steps:
            return False
        loss = loss.detach().to(torch.float64 if has_doubles(loss.device) else torch.float32)
        self.running = loss if self.running is None else self.running.to(loss) + loss
        self.count += 1
        if self.count < self.steps:
            return False
        self.losses.append(float(self.running) / self.count)
        self.running = None
        self.count = 0
        return True

    def state(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {**vars(self), "losses": list(self.losses)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        vars(self).update(state, losses=list(state["losses"]))


@dataclass
class BestWeights:
    """The averaged weights of the least validation error so far: its step, the error, and later validations."""

    step: int
    error: float
    weights: dict[str, Tensor]
    since: int = 0


@dataclass
class Learner:
    """All that a training changes, and the whole of state.pt; best: only where `train.best` asks for it."""

    method: Method
    averaged: Method
    optimisers: dict[str, torch.optim.Optimizer]
    epochs: Epochs
    step: int = 0
    seconds: float = 0.0
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
        state = {
            "method": self.method.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimisers": {turn: optimiser.state_dict() for turn, optimiser in turns},
            "epochs": self.epochs.state(),
            "memory": self.method.training_state(),
        }
        if self.best is not None:
            state["best"] = vars(self.best)
        return {**state, "step": self.step, "seconds": self.seconds}

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
        self.epochs.load_state(state["epochs"])
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.best = BestWeights(**state["best"]) if "best" in state else None

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
        if place >= options.length:
            return True
        if options.best is not None and self.best is not None:
            return 0 < options.best.patience <= self.best.since
        return options.stop is not None and options.stop.is_met(self.epochs.losses)
