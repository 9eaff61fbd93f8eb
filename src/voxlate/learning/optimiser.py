"""How weights move: Adam and AdamW, or Muon (Jordan et al. 2024), kernels along orthogonal matrices."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from voxlate.config import settings

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's polynomial: after five rounds, singular values are 0.7 to 1.2
ROUNDS = 5
MOMENTUM = 0.95
RMS = 0.2  # of an update over the learning rate, near Adam's, so that one rate serves both (Liu et al. 2025, eq. 4)
FEWEST = 16  # outputs of a kernel; heads that make an image of few channels are left to AdamW


@settings
class Optimiser:
    """How weights move."""

    kind: Annotated[
        Literal["adam", "adamw", "muon"],
        Field(description="Adam, Adam with decoupled weight decay, or kernels by Muon and the rest by adamw"),
    ] = "adamw"
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
        matrices, kernels, vectors = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
        for one in parameters:
            is_matrix = self.kind == "muon" and one.ndim > 1 and len(one) >= FEWEST
            (matrices if is_matrix else kernels if one.ndim > 1 else vectors).append(one)
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay, "orthogonal": True},
            {"params": kernels, "weight_decay": self.weight_decay, "orthogonal": False},
            {"params": vectors, "weight_decay": 0.0, "orthogonal": False},
        ]
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}[self.kind]
        return cls([group for group in groups if group["params"]], lr=self.lr, betas=self.betas, fused=True)

    def factor(self, step: int, steps: int) -> float:
        """Share of the highest learning rate at a step, 0-based, of `steps`."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        begin = max(self.warm_up, round(self.hold * steps))
        progress = min(max((step - begin) / max(steps - begin, 1), 0.0), 1.0)
        falling = {"none": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
        return self.last + (1 - self.last) * falling[self.decay]


class Muon(torch.optim.AdamW):
    """AdamW but for `orthogonal` groups: their kernels [outputs, inputs, …] are matrices.

    The singular values of a matrix's momentum are made equal before it moves.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"] if group["orthogonal"] else ():
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["weight_decay"])
                    parameter.grad = None  # AdamW moves those that are left
        super().step()

    def _move(self, parameter: nn.Parameter, grad: Tensor, lr: float, decay: float) -> None:
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
