"""The probability-flow ODE, and its integrator with adaptive steps."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from voxlate.base.errors import BadInput
from voxlate.science.diffusion.prediction import per_item, to_eps
from voxlate.science.diffusion.samplers import Denoise, Draw, Traits, mean_square, with_traits
from voxlate.science.diffusion.schedules import FIRST_TIME, LOG_SNR_LIMIT, Schedule, with_slope

Slope = Callable[
    [Tensor, Tensor], Tensor
]  # x: [B, ...], t: [B] float64 on the CPU -> dx/dt, [B, ...]

# Dormand & Prince 1980, 5(4): the last row of _STAGES is the solution of fifth order, _ERROR what separates it from
# that of fourth.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SMALLEST = 1e-10  # of a step, in units of t


def velocity(denoise: Denoise, schedule: Schedule) -> Slope:
    """dx/dt = x0·alpha' + eps·sigma', the probability-flow ODE (Song et al. 2021, eq. 13).

    f·x − g²/2·score is the same, but two large terms of it cancel near t = 1.
    """
    # eps is undefined at sigma = 0, and where the log-SNR is held at its limit nothing would move
    latest = min(1.0, float(schedule.t(torch.tensor(0.001 - LOG_SNR_LIMIT))))

    def _slope(x: Tensor, t: Tensor) -> Tensor:
        t = t.clamp(FIRST_TIME, latest)
        x0 = denoise(x, t)
        (alpha, sigma), (alpha_rate, sigma_rate) = with_slope(schedule, t)
        return per_item(alpha_rate, x) * x0 + per_item(sigma_rate, x) * to_eps(x0, x, alpha, sigma)

    return _slope


@with_traits(Traits(evaluations=math.inf, options=("rtol", "atol")))
def rk45(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    noise: Draw,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """The probability-flow ODE from times[0] to times[-1] within tolerances (Song et al. 2021; paper 002, eq. 33).

    Fifth order, six denoisings a step; of the times between, only the first serves: as the first step to try.
    """
    start, second = times[:2].tolist()
    end = times[-1].item()
    return integrate(velocity(denoise, schedule), x, start, end, start - second, rtol, atol)


def integrate(
    slope: Slope, x: Tensor, start: float, end: float, step: float, rtol: float, atol: float
) -> Tensor:
    """Runge–Kutta 5(4) from `start` to `end`, up or down, where each item has an error and steps of its own.

    step: the first to try. An item's error is the root mean square, over its voxels that are not held at 0, of the
    error of a step over atol + rtol·|x|. Raises BadInput where no step is short enough for it.
    """
    t, last = (torch.full((len(x),), value, dtype=torch.float64) for value in (start, end))
    h = torch.full_like(t, step)
    towards = 1 if end > start else -1
    rate = slope(x, t)
    while (running := t != last).any():
        h = torch.minimum(h, (last - t).abs())
        guess, rates = _stages(slope, x, t, towards * h, rate)
        off = per_item(h, x) * sum(weight * each for weight, each in zip(_ERROR, rates))
        error = (
            mean_square(off / (atol + rtol * torch.maximum(x.abs(), guess.abs())))
            .sqrt()
            .flatten()
            .cpu()
            .double()
        )
        kept = ~(error > 1)  # NaN is kept and shows in the image, as with every sampler
        if (~kept & (h < _SMALLEST)).any():
            raise BadInput(
                f"rk45: expected tolerances that steps of {_SMALLEST:g} keep, found rtol {rtol:g} and atol {atol:g}. Raise them, or choose another sampler for this schedule."
            )
        t = torch.where(kept, torch.where(h < (last - t).abs(), t + towards * h, last), t)
        moved = per_item(kept & running, x) > 0
        x = torch.where(moved, guess, x)
        rate = torch.where(moved, rates[-1], rate)
        h = h * (0.9 * error**-0.2).nan_to_num(nan=1.0).clamp(0.2, 5.0)
    return x


def _stages(
    slope: Slope, x: Tensor, t: Tensor, h: Tensor, rate: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Where a step leads, and the slopes at its seven stages: the first is given, the last begins the next step."""
    rates = [rate]
    guess = x
    for node, row in zip(_NODES, _STAGES):
        guess = x + per_item(h, x) * sum(weight * each for weight, each in zip(row, rates))
        rates.append(slope(guess, t + node * h))
    return guess, rates
