"""How weights move: Adam and AdamW, or Muon (Jordan et al. 2024), kernels along orthogonal matrices."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.base.groups import grouped

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan's polynomial: after five rounds, singular values are 0.7 to 1.2
ROUNDS = 5
MOMENTUM = 0.95
RMS = 0.2  # of an update over the learning rate, near Adam's, so that one rate serves both (Liu et al. 2025, eq. 4)
FEWEST_OUTPUTS = (
    16  # outputs of a kernel; heads that make an image of few channels are left to AdamW
)


@settings
class Optimiser:
    """How weights move."""

    kind: Annotated[
        Literal["adam", "adamw", "muon"],
        setting(
            "Optimiser: Adam, Adam with decoupled weight decay (adamw), or Muon for kernels with adamw for all other weights."
        ),
    ] = "adamw"
    lr: Annotated[float, setting("Highest learning rate.", gt=0)] = 1e-3
    betas: Annotated[
        tuple[float, float],
        setting("Decay of the first and second moments of the gradient."),
    ] = (
        0.9,
        0.999,
    )
    weight_decay: Annotated[float, setting("Weight decay of matrices and kernels.", ge=0)] = 0.01
    warm_up: Annotated[
        int, setting("Number of steps over which the learning rate rises from 0.", ge=0)
    ] = 100
    decay: Annotated[
        Literal["none", "cosine", "linear"],
        setting("Decay of the learning rate after `hold`."),
    ] = "cosine"
    hold: Annotated[
        float,
        setting("Share of the steps after which the learning rate begins to decay.", ge=0, le=1),
    ] = 0.0
    last: Annotated[
        float,
        setting("Share of the highest learning rate that is reached at the end.", ge=0, le=1),
    ] = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Norms, biases and embeddings' vectors are not decayed: pulling them to 0 has no reason."""
        by_kind = grouped((self._kind_of(parameter), parameter) for parameter in parameters)
        groups = [
            {
                "params": by_kind[decays, orthogonal],
                "weight_decay": self.weight_decay if decays else 0.0,
                "orthogonal": orthogonal,
            }
            for decays, orthogonal in sorted(by_kind, reverse=True)
        ]
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}[self.kind]
        return cls(groups, lr=self.lr, betas=self.betas, fused=True)

    def _kind_of(self, parameter: nn.Parameter) -> tuple[bool, bool]:
        """Whether a parameter decays, and whether it moves along an orthogonal matrix."""
        decays = parameter.ndim > 1
        return decays, decays and self.kind == "muon" and len(parameter) >= FEWEST_OUTPUTS

    def factor(self, step: float, steps: int) -> float:
        """Share of the highest learning rate at a step, 0-based, of `steps`; a clock may be between two steps."""
        if step < self.warm_up:
            return min((step + 1) / self.warm_up, 1.0)
        begin = max(self.warm_up, round(self.hold * steps))
        progress = min(max((step - begin) / max(steps - begin, 1), 0.0), 1.0)
        falling = {
            "none": 1.0,
            "linear": 1 - progress,
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        }
        return self.last + (1 - self.last) * falling[self.decay]


class Muon(torch.optim.AdamW):
    """AdamW but for `orthogonal` groups: their kernels [outputs, inputs, …] are matrices.

    The singular values of a matrix's momentum are made equal before it moves.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move all weights along their gradients."""
        for group in self.param_groups:
            if not group["orthogonal"]:
                continue
            gradients = {
                parameter: parameter.grad
                for parameter in group["params"]
                if parameter.grad is not None
            }
            if gradients:
                self._move(gradients, group["lr"], group["weight_decay"])
            for kernel in gradients:
                kernel.grad = None  # AdamW moves those that are left
        super().step()

    def _move(self, found: Mapping[nn.Parameter, Tensor], lr: float, decay: float) -> None:
        """Move kernels along their gradients' directions."""
        kernels = list(found)
        grads = list(found.values())
        for kernel in kernels:
            state = self.state[kernel]
            if not state:
                state.update(
                    step=torch.tensor(0.0), momentum=torch.zeros_like(kernel)
                )  # AdamW looks for the step
        momenta = [self.state[kernel]["momentum"] for kernel in kernels]
        torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(momenta, grads, 1 - MOMENTUM)  # Nesterov's look ahead
        largest = torch._foreach_norm(
            ahead, ord=float("inf")
        )  # only directions count; squares then stay finite
        torch._foreach_clamp_min_(largest, torch.finfo(torch.float32).tiny)
        torch._foreach_div_(ahead, largest)
        matrices = [_as_matrix(direction, kernel) for direction, kernel in zip(ahead, kernels)]
        for kernel, matrix, factor in zip(kernels, matrices, factors(matrices)):
            rate = lr * RMS * max(matrix.shape) ** 0.5
            first, second = (factor, matrix) if len(factor) == len(matrix) else (matrix, factor)
            _as_matrix(kernel, kernel).addmm_(first, second, beta=1 - lr * decay, alpha=-rate)


def _as_matrix(kernel: Tensor, like: Tensor) -> Tensor:
    """[outputs, inputs, …] as [outputs, the rest]: its columns in the order of the memory of `like`, so a view."""
    order = sorted(range(1, like.ndim), key=like.stride, reverse=True)
    return kernel.permute(0, *order).view(len(kernel), -1)


def factors(matrices: Sequence[Tensor]) -> list[Tensor]:
    """What makes the singular values of each matrix [N, M] about 1: a symmetric factor [n, n] of its shorter side n.

    Newton and Schulz's iteration multiplies X by q(X Xᵀ) in each round. All these factors are polynomials of one Gram
    matrix, so the rounds need products of [n, n] alone, of all matrices with one n together: 70 n³ operations a matrix
    [n, 9 n], where products with X itself take 190 n³. In float32, since squaring halves the digits that are right.
    """
    sides = grouped((min(matrix.shape), place) for place, matrix in enumerate(matrices))
    polynomials: dict[int, Tensor] = {}
    for side, places in sides.items():
        grams = matrices[places[0]].new_empty(len(places), side, side)
        for gram, place in zip(grams, places):
            matrix = matrices[place]
            wide = matrix if len(matrix) == side else matrix.T
            torch.mm(wide, wide.T, out=gram)
        polynomials.update(zip(places, _polynomial(grams)))
    return [polynomials[place] for place in range(len(matrices))]


def _polynomial(grams: Tensor) -> Tensor:
    """The product of all rounds' factors q of the scaled matrix, times its scale, of Gram matrices [K, n, n]."""
    a, b, c = COEFFICIENTS
    squared_norm = grams.diagonal(dim1=1, dim2=2).sum(1)
    scale = 1 / (squared_norm.sqrt() + 1e-7).view(-1, 1, 1)
    gram = grams.mul_(scale.square())
    product = grams
    for number in range(1, ROUNDS + 1):
        q = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        q.diagonal(dim1=1, dim2=2).add_(a)
        product = torch.bmm(q, product) if number > 1 else q
        if number < ROUNDS:
            gram = torch.bmm(torch.bmm(q, gram), q)  # of X after this round
    return product * scale
