"""Kinds of prediction: always c·out = a·x0 + b·eps, so one inverse serves every kind."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from voxlate.base.devices import move_like
from voxlate.science.diffusion.schedules import Schedule

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
