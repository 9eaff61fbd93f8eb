"""Samplers of second and third order along the probability-flow ODE; see samplers.py for what they share.

The first step of each is DDIM's, alpha_s·x0 + sigma_s·eps, which solves the ODE exactly while x0 and eps stay what they
are; the rest corrects for how x0 (the "++" solvers) or eps (the others) changes within a step. DPM-Solver-1 is DDIM.
A step to sigma = 0 is DDIM's, since eps is undefined there and the step of the log-SNR infinite.
"""

import math

import torch
from torch import Tensor

from voxlate.science.diffusion.samplers import (
    Denoise,
    Draw,
    Node,
    Traits,
    at,
    nodes,
    steps_of,
    with_traits,
)
from voxlate.science.diffusion.schedules import Schedule


@with_traits(Traits(evaluations=2, grid="log_snr"))
def dpm2(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022a, algorithm 1): a step with the eps of its middle in log-SNR; second order.

    Two denoisings a step.
    """
    for (here, there), middle in zip(steps_of(schedule, times), _between(schedule, times, 1 / 2)):
        eps = _eps(denoise, x, here)
        if there.sigma == 0:
            return _move(x, eps, here, there)
        x = _move(x, _eps(denoise, _move(x, eps, here, middle), middle), here, there)
    return x


@with_traits(Traits(evaluations=3, grid="log_snr"))
def dpm3(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """DPM-Solver-3 (Lu et al. 2022a, algorithm 2, r1 = 1/3, r2 = 2/3); third order, three denoisings a step."""
    firsts, seconds = (_between(schedule, times, share) for share in (1 / 3, 2 / 3))
    for (here, there), first, second in zip(steps_of(schedule, times), firsts, seconds):
        eps = _eps(denoise, x, here)
        if there.sigma == 0:
            return _move(x, eps, here, there)
        change = _eps(denoise, _move(x, eps, here, first), first) - eps
        guess = _move(x, eps, here, second) - 2 * second.sigma * _bend(here, second) * change
        change = _eps(denoise, guess, second) - eps
        x = _move(x, eps, here, there) - 3 / 2 * there.sigma * _bend(here, there) * change
    return x


@with_traits(Traits(evaluations=2, grid="log_snr"))
def dpmpp_2s(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1), through the middle in t as paper 001 has it; second order.

    Two denoisings a step.
    """
    middles = nodes(schedule, (times[:-1] + times[1:]) / 2)
    for (here, there), middle in zip(steps_of(schedule, times), middles):
        (t, alpha, sigma), (_, alpha_s, sigma_s) = here, there
        x0 = denoise(x, at(t, x))
        if sigma_s == 0:
            return alpha_s * x0
        eps = (x - alpha * x0) / sigma
        guess = middle.alpha * x0 + middle.sigma * eps
        change = denoise(guess, at(middle.t, x)) - x0
        part = _h(here, middle)
        whole = _h(here, there)
        if part > 1e-6:  # else the schedule is held at its limit up to the middle
            x0 = x0 + whole / (2 * part) * change
        x = sigma_s / sigma * x + (alpha_s - alpha * sigma_s / sigma) * x0
    return x


@with_traits(Traits(grid="log_snr"))
def dpmpp_2m(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2), with first-order first and last steps; second order.

    Wants times even in log-SNR: two neighbouring steps of very unlike h extrapolate too far.
    """
    last_x0 = None
    last_h = math.inf
    end = float(times[-1])
    for (t, alpha, sigma), (s, alpha_s, sigma_s) in steps_of(schedule, times):
        x0 = denoise(x, at(t, x))
        ratio = alpha * sigma_s / (sigma * alpha_s)  # e^(−h), h the step of half the log-SNR
        h = -math.log(ratio) if ratio > 0 else math.inf
        d = (
            x0
            if last_x0 is None or last_h == 0 or s == end
            else x0 + h / (2 * last_h) * (x0 - last_x0)
        )
        x = sigma_s / sigma * x + alpha_s * (1 - ratio) * d
        last_x0 = x0
        last_h = h
    return x


def _between(schedule: Schedule, times: Tensor, share: float) -> list[Node]:
    """The node at a share of the way, in log-SNR, of each step."""
    log_snr = schedule.log_snr(times)
    return list(nodes(schedule, schedule.t(torch.lerp(log_snr[:-1], log_snr[1:], share))))


def _eps(denoise: Denoise, x: Tensor, here: Node) -> Tensor:
    t, alpha, sigma = here
    return (x - alpha * denoise(x, at(t, x))) / sigma


def _move(x: Tensor, eps: Tensor, here: Node, there: Node) -> Tensor:
    """The first-order step with this eps."""
    return there.alpha / here.alpha * (x - here.sigma * eps) + there.sigma * eps


def _h(here: Node, there: Node) -> float:
    """The step of half the log-SNR."""
    return math.log(there.alpha * here.sigma / (here.alpha * there.sigma))


def _bend(here: Node, there: Node) -> float:
    """(e^h − 1)/h − 1, what a linear change of eps over the step counts."""
    h = _h(here, there)
    return math.expm1(h) / h - 1 if h else 0.0  # a schedule held at its limit has no step
