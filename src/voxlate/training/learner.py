"""The state of a training: weights, their running average, the optimisers, and the losses of its epochs."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from voxlate.devices import has_doubles
from voxlate.errors import BadInput
from voxlate.methods.method import Method


@dataclass
class Epochs:
    """Mean loss of each epoch so far, and the sum of the one that runs.

    steps: of an epoch; 0 where its loss is not needed.
    """

    steps: int
    losses: list[float] = field(default_factory=list)
    running: Tensor | None = None
    count: int = 0

    def add(self, loss: Tensor) -> bool:
        """Add a step's loss; returns whether that ended an epoch. Only then does it wait for the device."""
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
        return {
            "steps": self.steps,
            "losses": list(self.losses),
            "running": self.running,
            "count": self.count,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on as the run began; a state of version 0.6 may lack the steps of an epoch, which are then this one's."""
        self.steps = state.get("steps", self.steps)
        self.losses = list(state["losses"])
        self.count = state["count"]
        self.running = state["running"]


class Average:
    """The running average of a model's weights; its tensors are listed once, which takes longer than a step of it."""

    def __init__(self, averaged: nn.Module, model: nn.Module) -> None:
        self.averaged, self.weights = ([one.data for one in each.parameters()] for each in (averaged, model))
        self.buffers = list(zip(averaged.buffers(), model.buffers()))

    @torch.no_grad()
    def move(self, decay: float, step: int) -> None:
        """One step; early steps count more, so that the average forgets the start.

        Buffers are copied. Source of the ramp (1 + n) / (10 + n): Abadi et al., TensorFlow's ExponentialMovingAverage.
        """
        torch._foreach_lerp_(self.averaged, self.weights, 1 - min(decay, (1 + step) / (10 + step)))
        for old, new in self.buffers:
            old.copy_(new)


@dataclass
class Learner:
    """All that a training changes, and the whole of state.pt."""

    method: Method
    averaged: Method
    optimisers: dict[str, torch.optim.Optimizer]
    epochs: Epochs
    step: int = 0
    seconds: float = 0.0

    @cached_property
    def average(self) -> Average:
        """What moves `averaged` towards `method`."""
        return Average(self.averaged, self.method)

    def state(self) -> dict[str, Any]:
        optimisers = {turn: optimiser.state_dict() for turn, optimiser in self.optimisers.items()}
        weights = {
            "method": self.method.state_dict(),
            "averaged": self.averaged.state_dict(),
        }
        own = {
            "optimisers": optimisers,
            "epochs": self.epochs.state(),
            "memory": self.method.training_state(),
        }
        return {**weights, **own, "step": self.step, "seconds": self.seconds}

    def load_state(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        device = next(self.method.parameters()).device
        self.method.load_training_state({name: one.to(device) for name, one in state["memory"].items()})
        self.averaged.load_state_dict(state["averaged"])
        for turn, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][turn])
        self.epochs.load_state(state["epochs"])
        self.step = state["step"]
        self.seconds = state["seconds"]


def start_from(method: Method, earlier: Method, name: str) -> str:
    """Copy the weights of an earlier stage's method, whatever their opponents; returns a sentence for the log.

    Raises BadInput where a weight has no place of its name and shape.
    """
    here = method.without_opponent.state_dict()
    there = earlier.without_opponent.state_dict()
    for key, tensor in there.items():
        if key not in here or here[key].shape != tensor.shape:
            found = tuple(here[key].shape) if key in here else "none"
            raise BadInput(
                f"start_from = '{name}': expected a place for each of its weights, found {found} for '{key}' of shape {tuple(tensor.shape)}. Make the networks alike except for new parts."
            )
    method.without_opponent.load_state_dict({**here, **there})
    fresh = len(here) - len(there)
    return f"started from the weights of stage '{name}': {len(there)} tensors copied, {fresh} fresh"


def train_only(method: Method, part: str) -> None:
    """Freeze the weights whose dotted name lacks a part, critics apart; raises BadInput where none is left to train."""
    moving = 0
    for name, parameter in method.without_opponent.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and f".{part}." in f".{name}.")
        moving += parameter.requires_grad
    for module in method.without_opponent.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if frozen and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # its statistics are no parameters, but would move
    if not moving:
        names = sorted({one for name, _ in method.without_opponent.named_parameters() for one in name.split(".")[:-1]})
        raise BadInput(
            f"train.only: expected a part of the weights' names ({', '.join(names[:12])}, …), found '{part}', which is in none that may move. Change it."
        )
