"""Settings of a training: its length, batches, precision and validation."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
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
VALIDATION_SHARE = 0.05  # of a training's network evaluations, which validations with the sampler of synthesis may cost
VALIDATION_STEPS = 32  # of ddim, where the sampler of synthesis costs more than that share
BACKWARD = 3  # evaluations that a forward and a backward pass cost


Decay = Annotated[float, Field(ge=0, lt=1)]


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
        tuple[Decay, Decay],
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


Precision = Literal["auto", "bfloat16", "float32"]


@settings
class Stop:
    """Ends a training early, once an epoch's loss is not below the mean of earlier epochs by the share `gain`.

    Source: Lyu & Wang 2022 (arXiv 2209.12104), sec. III: 100 epochs, window of 20, 1 %.
    """

    after_epochs: Annotated[
        int, setting("Number of epochs that are trained in any case.", ge=1)
    ] = 100
    window: Annotated[
        int,
        setting(
            "Number of epochs before the last one with whose mean loss the last one is compared.",
            ge=1,
        ),
    ] = 20
    gain: Annotated[
        float,
        setting(
            "Share by which the loss must be below this mean for the training to continue.",
            ge=0,
            lt=1,
        ),
    ] = 0.01

    def is_met(self, losses: Sequence[float]) -> bool:
        """Whether training ends after these epochs; a loss that is NaN never ends it."""
        if len(losses) < max(self.after_epochs, self.window + 1):
            return False
        before = sum(losses[-1 - self.window : -1]) / self.window
        return losses[-1] > (1 - self.gain) * before


@settings
class Best:
    """Keeps the weights of the least validation error, and ends the training once it has stopped falling."""

    patience: Annotated[
        int,
        setting(
            "Number of validations without a lower error after which training ends; 0: it never ends early.",
            ge=0,
        ),
    ] = 3


@settings
class Training:
    """The training of a stage: steps, batches, optimiser, precision, validation."""

    steps: Annotated[int, setting("Number of optimiser steps; 0: given by `epochs`.", ge=0)] = (
        10_000
    )
    epochs: Annotated[
        int | None,
        setting(
            "Length of the training in epochs, in place of `steps`. In an epoch the turn that makes images (of a GAN the generator's) takes as many items as there are; a critic's items are not counted.",
            ge=1,
        ),
    ] = None
    stop: Annotated[
        Stop | None,
        setting(
            "Rule that ends the training before `steps` once the loss stops falling; unset: none."
        ),
    ] = None
    best: Annotated[
        Best | None,
        setting(
            "Rule that keeps the weights of the least validation error, those before the first step among them; unset: the last weights are kept."
        ),
    ] = None
    batch: Annotated[
        int, setting("Number of items in a step, over all processes together.", ge=1)
    ] = 8
    optimiser: Annotated[Optimiser, setting("Optimiser and the schedule of its rate.")] = (
        Optimiser()
    )
    ema: Annotated[
        float,
        setting("Decay of the running average of weights; 0: no average.", ge=0, lt=1),
    ] = 0.999
    keep_start: Annotated[
        float,
        setting(
            "Share of the first weights, such as those of a starter, in the weights that are kept at the end. Where patients validate, one of 0, 1/8, 1/4, 1/2 and 1 is chosen by their error instead.",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    only: Annotated[
        str | None,
        setting(
            "Part of the dotted names of the weights that are trained; unset: all weights are trained."
        ),
    ] = None
    clip_norm: Annotated[
        float, setting("Largest norm of a step's gradient; 0: no limit.", ge=0)
    ] = 1.0
    precision: Annotated[
        Precision,
        setting(
            "Precision of convolutions and products; auto: bfloat16 where the machine that begins the run multiplies it, else float32; the run keeps it."
        ),
    ] = "auto"
    seed: Annotated[
        int, setting("Random seed of weights, batches, augmentation and noise.", ge=0)
    ] = 0
    workers: Annotated[
        int | None,
        setting("Number of processes that read data; unset: up to 12 with a GPU, 0 without.", ge=0),
    ] = None
    save_every: Annotated[
        int,
        setting(
            "Age in seconds that a saved state may reach; 0: one is saved after every step.", ge=0
        ),
    ] = 120
    validate_every: Annotated[
        int,
        setting("Number of steps between validations; 0: one validation at the end.", ge=0),
    ] = 1000
    validation_items: Annotated[int, setting("Number of items in each validation.", ge=1)] = 8
    log_every: Annotated[int, setting("Number of steps between lines of log.jsonl.", ge=1)] = 20

    def rate(self, place: float) -> float:
        """The learning rate at a place (see job.Clock)."""
        return self.optimiser.lr * self.optimiser.factor(place, self.steps)

    def decay(self, steps: float) -> float:
        """Decay of the running average in a training of so many steps, which covers the same share of each."""
        return max(1 - (1 - self.ema) * self.steps / steps, 0.0) if self.ema else 0.0

    def progress(self, place: float) -> float:
        """Share of `steps` that is done at a place."""
        return min(place / self.steps, 1.0)
