"""Optimisers, learning rates over time, and the running average of weights."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from voxlate.config import settings


@settings
class Optimiser:
    """How weights move."""

    kind: Annotated[Literal["adam", "adamw"], Field(description="Adam, or Adam with decoupled weight decay")] = "adamw"
    lr: Annotated[float, Field(gt=0, description="highest learning rate")] = 1e-3
    betas: Annotated[tuple[float, float], Field(description="decay of the gradient's first and second moments")] = (
        0.9,
        0.999,
    )
    weight_decay: Annotated[float, Field(ge=0, description="weight decay of matrices and kernels")] = 0.01
    warm_up: Annotated[int, Field(ge=0, description="steps over which the learning rate rises from 0")] = 100
    decay: Annotated[Literal["none", "cosine", "linear"], Field(description="how it falls after `hold`")] = "cosine"
    hold: Annotated[float, Field(ge=0, le=1, description="share of the steps before it starts to fall")] = 0.0
    last: Annotated[float, Field(ge=0, le=1, description="share of the learning rate left at the end")] = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Norms, biases and embeddings' vectors are not decayed: pulling them to 0 has no reason."""
        kernels: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for parameter in parameters:
            (kernels if parameter.ndim > 1 else vectors).append(parameter)
        groups = [{"params": kernels, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        cls = torch.optim.AdamW if self.kind == "adamw" else torch.optim.Adam
        return cls(groups, lr=self.lr, betas=self.betas, fused=True)

    def factor(self, step: int, steps: int) -> float:
        """Share of the highest learning rate at a step, 0-based, of `steps`."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        begin = max(self.warm_up, round(self.hold * steps))
        progress = min(max((step - begin) / max(steps - begin, 1), 0.0), 1.0)
        falling = {"none": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
        return self.last + (1 - self.last) * falling[self.decay]


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


@torch.no_grad()
def average(into: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the running average of weights one step; early steps count more, so that it forgets the start.

    Buffers are copied. Source of the ramp (1 + n) / (10 + n): Abadi et al., TensorFlow's ExponentialMovingAverage.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    averaged: list[Tensor] = [parameter.data for parameter in into.parameters()]
    torch._foreach_lerp_(averaged, [parameter.data for parameter in model.parameters()], share)
    for old, new in zip(into.buffers(), model.buffers()):
        old.copy_(new)
