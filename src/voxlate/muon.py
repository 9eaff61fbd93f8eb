"""Muon: kernels move along orthogonal matrices (Jordan et al. 2024), everything else by AdamW."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's polynomial: after five rounds, singular values are 0.7 to 1.2
ROUNDS = 5
MOMENTUM = 0.95
RMS = 0.2  # of an update over the learning rate, near Adam's, so that one rate serves both (Liu et al. 2025, eq. 4)
FEWEST = 16  # outputs of a kernel; heads that make an image of few channels are left to AdamW


class Muon(torch.optim.AdamW):
    """A kernel [outputs, inputs, …] is one matrix; its momentum's singular values are made equal before it moves."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        turned, kernels, vectors = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
        for one in parameters:
            (vectors if one.ndim < 2 else turned if len(one) >= FEWEST else kernels).append(one)
        groups = [
            {"params": turned, "weight_decay": weight_decay, "orthogonal": True},
            {"params": kernels, "weight_decay": weight_decay, "orthogonal": False},
            {"params": vectors, "weight_decay": 0.0, "orthogonal": False},
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr, betas=betas, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"] if group["orthogonal"] else ():
                if parameter.grad is not None:
                    self._turn(parameter, parameter.grad, group["lr"], group["weight_decay"])
                    parameter.grad = None  # AdamW moves those that are left
        super().step()

    def _turn(self, parameter: nn.Parameter, grad: Tensor, lr: float, decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(parameter))  # AdamW looks for the step
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        update = orthogonal(grad.lerp(momentum, MOMENTUM).flatten(1))  # Nesterov's look ahead
        parameter.mul_(1 - lr * decay)
        parameter.add_(update.view_as(parameter), alpha=-lr * RMS * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix [N, M] with all singular values about 1, by Newton and Schulz's iteration in bfloat16."""
    a, b, c = COEFFICIENTS
    x = matrix.T if len(matrix) > matrix.shape[1] else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if len(matrix) > matrix.shape[1] else x).to(matrix.dtype)
