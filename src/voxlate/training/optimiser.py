"""Learning rates, and the running average of weights."""

import torch
from torch import Tensor, nn


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
