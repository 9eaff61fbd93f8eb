"""Samplers: from the state at times[0] to the state at times[-1], each a pure function of its paper's few lines.

denoise(x, t) -> x0 hides the network, the kind of its output, the condition and the clipping; t: [B] float64, CPU.
times: [N + 1] falling. noise(x): fresh normal draws like x. With t now and s < t next, x = alpha·x0 + sigma·eps.
Coefficients are plain floats made before the loop, so a loop never waits for the device.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from voxlate.diffusion.paths import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[Tensor], Tensor]
Node = tuple[float, float, float]  # t, alpha, sigma


class Sampler(Protocol):
    def __call__(self, denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw, /) -> Tensor: ...


def ddim(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw, eta: float = 0.0) -> Tensor:
    """DDIM (Song, Meng & Ermon 2021, eq. 12 and 16); eta = 1 is ancestral sampling with the posterior variance.

    The step that ends at time 0 adds no noise. First order for eta = 0.
    """
    for (t, alpha, sigma), (s, alpha_s, sigma_s) in _steps(schedule, times):
        x0 = denoise(x, _at(t, x))
        eps = (x - alpha * x0) / sigma
        ratio = alpha * sigma_s / (sigma * alpha_s)  # root of SNR_t / SNR_s
        std = eta * sigma_s * math.sqrt(max(0.0, 1 - ratio**2))
        x = alpha_s * x0 + math.sqrt(sigma_s**2 - std**2) * eps
        if std > 0 and s > 0:
            x = x + std * noise(x)
    return x


def ddpm(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2, with the posterior variance): DDIM with eta = 1."""
    return ddim(denoise, schedule, x, times, noise, eta=1.0)


def heun(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """Heun's method along dx = x0·d alpha + eps·d sigma, the probability-flow ODE of every schedule; second order.

    For alpha = 1 this is algorithm 1 of Karras et al. 2022, for 1 − t, t the trapezoidal rule on the velocity.
    Two denoisings a step; a step to sigma = 0 is DDIM's, since eps is undefined there.
    """
    for (t, alpha, sigma), (s, alpha_s, sigma_s) in _steps(schedule, times):
        x0 = denoise(x, _at(t, x))
        eps = (x - alpha * x0) / sigma
        guess = alpha_s * x0 + sigma_s * eps
        if sigma_s == 0:
            return guess
        x0_s = denoise(guess, _at(s, x))
        eps_s = (guess - alpha_s * x0_s) / sigma_s
        x = x + (alpha_s - alpha) / 2 * (x0 + x0_s) + (sigma_s - sigma) / 2 * (eps + eps_s)
    return x


def dpmpp_2m(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2), with first-order first and last steps; second order.

    Wants times even in log-SNR: two neighbouring steps of very unlike h extrapolate too far.
    """
    last_x0, last_h, end = None, math.inf, float(times[-1])
    for (t, alpha, sigma), (s, alpha_s, sigma_s) in _steps(schedule, times):
        x0 = denoise(x, _at(t, x))
        ratio = alpha * sigma_s / (sigma * alpha_s)  # e^(−h), h the step of half the log-SNR
        h = -math.log(ratio) if ratio > 0 else math.inf
        d = x0 if last_x0 is None or s == end else x0 + h / (2 * last_h) * (x0 - last_x0)
        x = sigma_s / sigma * x + alpha_s * (1 - ratio) * d
        last_x0, last_h = x0, h
    return x


def euler_maruyama(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """Euler–Maruyama on the reverse SDE dx = (f·x − g²·score)·dt + g·dw (Song et al. 2021, eq. 6).

    The step that ends at time 0 adds no noise.
    """
    drifts, g2s = schedule.log_alpha_drift(times).tolist(), schedule.g2(times).tolist()
    for ((t, alpha, sigma), (s, _, _)), f, g2 in zip(_steps(schedule, times), drifts, g2s):
        score = (alpha * denoise(x, _at(t, x)) - x) / sigma**2
        x = x + (t - s) * (g2 * score - f * x)
        if s > 0:
            x = x + math.sqrt(g2 * (t - s)) * noise(x)
    return x


SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "euler_maruyama": euler_maruyama,
}


def _steps(schedule: Schedule, times: Tensor) -> Iterator[tuple[Node, Node]]:
    alpha, sigma = schedule(times)
    return pairwise(zip(times.tolist(), alpha.tolist(), sigma.tolist()))


def _at(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.float64)
