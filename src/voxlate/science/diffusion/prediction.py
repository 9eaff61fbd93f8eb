"""Kinds of prediction, and the weights of their losses.

A prediction is always c·out = a·x0 + b·eps, so one inverse serves every kind.

A weight stated for the x0 loss becomes that of any other output by division by (a − b·alpha/sigma)²: an error d in x0
is an error −d·alpha/sigma in eps, hence (a − b·alpha/sigma)·d in a·x0 + b·eps. A weight takes alpha and sigma, [B], and
the kind of output, and gives the weight of its squared error, [B] float64.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxlate.base.config import setting, settings
from voxlate.base.devices import move_like
from voxlate.base.errors import BadInput
from voxlate.science.diffusion.schedules import LOG_SNR_LIMIT, Schedule

Kind = Literal["eps", "x0", "v", "x_plus_score"]


def coefficients(alpha: Tensor, sigma: Tensor, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """(a, b, c) of c·out = a·x0 + b·eps; c = sigma clears the division by sigma from the score.

    v: Salimans & Ho 2022; x_plus_score: paper 003, eq. 5.
    """
    zero = torch.zeros_like(sigma)
    ones = torch.ones_like(sigma)
    match kind:
        case "eps":
            return zero, ones, ones
        case "x0":
            return ones, zero, ones
        case "v":  # alpha·eps − sigma·x0
            return -sigma, alpha, ones
        case "x_plus_score":  # x_t − eps / sigma
            return alpha * sigma, sigma**2 - 1, sigma


def per_item(values: Tensor, x: Tensor) -> Tensor:
    """[B] values shaped, cast and moved so that they multiply x: [B, ...]."""
    return move_like(values, x).reshape(-1, *[1] * (x.ndim - 1))


def diffuse(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x_t = alpha·x0 + sigma·eps; alpha, sigma: [B]."""
    return per_item(alpha, x0) * x0 + per_item(sigma, x0) * eps


def target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
    """The target of the network's output: (a·x0 + b·eps) / c; alpha, sigma: [B]."""
    a, b, c = coefficients(alpha, sigma, kind)
    return per_item(a / c, x0) * x0 + per_item(b / c, x0) * eps


def to_x0(out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
    """The image that a network's output stands for: x0 = (b·x_t − sigma·c·out) / (alpha·b − sigma·a).

    alpha, sigma: [B]. Finite at sigma = 0 for every kind, and wherever alpha > 0; "v" and "x0" also at 0.
    """
    if kind == "x0":  # sigma cancels; dividing by it would fail at sigma = 0
        return out
    a, b, c = coefficients(alpha, sigma, kind)
    scale = alpha * b - sigma * a
    return per_item(b / scale, x_t) * x_t - per_item(sigma * c / scale, x_t) * out


def to_eps(x0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise in x_t if x0 is the image; alpha, sigma: [B], sigma > 0."""
    return (x_t - per_item(alpha, x_t) * x0) / per_item(sigma, x_t)


def denoiser(
    predict: Callable[[Tensor, Tensor], Tensor],
    schedule: Schedule,
    kind: Kind,
    clip: tuple[float, float] | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Make denoise(x_t, t) -> x0 of a network predict(x_t, log_snr) -> out; `clip` bounds x0, as DDPM does.

    t: [B] float64, best on the CPU (see schedules); log_snr: [B] in the type and on the device of x_t.
    """

    def _denoise(x_t: Tensor, t: Tensor) -> Tensor:
        log_snr = move_like(schedule.log_snr(t), x_t)
        x0 = to_x0(predict(x_t, log_snr), x_t, *schedule(t), kind)
        return x0 if clip is None else x0.clamp(*clip)

    return _denoise


def reschedule(
    denoise: Callable[[Tensor, Tensor], Tensor], trained: Schedule, schedule: Schedule
) -> Callable[[Tensor, Tensor], Tensor]:
    """The denoiser under another schedule: it goes by the log-SNR, and the state is scaled to the trained path.

    Log-SNRs beyond those of `trained` are held at its limits, with a state of the size that the network has seen there.
    """

    def _other(x_t: Tensor, t: Tensor) -> Tensor:
        t_trained = trained.t(schedule.log_snr(t)).clamp(0, 1)
        return denoise(
            per_item(_size(trained, t_trained) / _size(schedule, t), x_t) * x_t, t_trained
        )

    return _other


def _size(schedule: Schedule, t: Tensor) -> Tensor:
    return torch.hypot(*schedule(t))


def from_x0_weight(weight: Tensor, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
    """The weight of an output's loss that equals `weight` times the x0 loss."""
    sigma = _above_zero(alpha, sigma)
    a, b, c = coefficients(alpha, sigma, kind)
    return weight * (c / (a - b * alpha / sigma)) ** 2


def snr(alpha: Tensor, sigma: Tensor) -> Tensor:
    """The signal-to-noise ratio (alpha / sigma)²."""
    return (alpha / _above_zero(alpha, sigma)) ** 2


def _above_zero(alpha: Tensor, sigma: Tensor) -> Tensor:
    return torch.maximum(sigma, alpha * math.exp(-LOG_SNR_LIMIT / 2))


@settings
class Uniform:
    """The plain squared error of whatever the network predicts."""

    kind: Literal["uniform"] = "uniform"

    def __call__(self, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
        return torch.ones_like(sigma)


@settings
class MinSnr:
    """The x0 loss times min(SNR, gamma) (Hang et al. 2023): eps min/SNR, v min/(SNR + 1), x0 min."""

    kind: Literal["min_snr"] = "min_snr"
    gamma: Annotated[
        float, setting("Value at which the signal-to-noise ratio is capped.", gt=0)
    ] = 5.0

    def __call__(self, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
        return from_x0_weight(snr(alpha, sigma).clamp(max=self.gamma), alpha, sigma, kind)


@settings
class WeightTable:
    """Weights given at some log-SNRs, linear between them and constant beyond."""

    kind: Literal["table"] = "table"
    log_snr: Annotated[
        tuple[float, ...],
        setting("Log-SNRs at which weights are given, rising.", min_length=2),
    ]
    weight: Annotated[tuple[float, ...], setting("Weight at each of the log-SNRs.", min_length=2)]
    of: Annotated[
        Literal["output", "x0"],
        setting("Loss that the weights belong to: that of the network's output, or that of x0."),
    ] = "output"

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip(self.log_snr, self.log_snr[1:]))
        if not rising or len(self.weight) != len(self.log_snr):
            raise BadInput(
                f"weight table: expected rising log_snr and as many weights, found {list(self.log_snr)} and {list(self.weight)}. Sort them in pairs."
            )

    def __call__(self, alpha: Tensor, sigma: Tensor, kind: Kind) -> Tensor:
        knots, values = (
            torch.tensor(v, dtype=sigma.dtype, device=sigma.device)
            for v in (self.log_snr, self.weight)
        )
        place = torch.log(snr(alpha, sigma)).clamp(knots[0], knots[-1])
        right = torch.searchsorted(knots, place).clamp(min=1)
        share = (place - knots[right - 1]) / (knots[right] - knots[right - 1])
        weight = torch.lerp(values[right - 1], values[right], share)
        return weight if self.of == "output" else from_x0_weight(weight, alpha, sigma, kind)


Reduction = Annotated[
    Literal["mask", "all"],
    setting("Voxels over which the loss is averaged: the mask, or all voxels (Cai et al. 2024)."),
]
AnyWeight = Annotated[Uniform | MinSnr | WeightTable, Field(discriminator="kind")]


def mean_in_mask(error: Tensor, mask: Tensor, reduction: Reduction = "mask") -> Tensor:
    """Mean of an error inside the mask, per item: [B, C, ...] -> [B].

    mask: 0 or 1, broadcasts to error. "mask" divides by the number of voxels in the mask (an empty mask gives 0),
    "all" by the number of all voxels, as paper 000 does, so small brains count less.
    """
    mask = mask.to(error.dtype).expand_as(error).flatten(1)
    total = (error.flatten(1) * mask).sum(1)
    return total / (mask.sum(1).clamp(min=1) if reduction == "mask" else mask.shape[1])


def means_in_mask(
    errors: Mapping[str, Tensor], mask: Tensor, reduction: Reduction
) -> dict[str, Tensor]:
    """The mean over items of each error inside the mask (see mean_in_mask)."""
    return {name: mean_in_mask(error, mask, reduction).mean() for name, error in errors.items()}
