"""Samplers: from the state at times[0] to the state at times[-1], each a pure function that follows its paper's algorithm.

denoise(x, t) -> x0 wraps the network, its prediction type, the conditioning and the clipping; t: [B] float64, CPU.
times: [N + 1] falling. noise(x): fresh normal draws like x. With t now and s < t next, x = alpha·x0 + sigma·eps.
Coefficients are plain floats made before the loop, so a loop never waits for the device.

rk45 alone chooses its steps by the network.
Each sampler declares its `Traits` with a decorator, so that a new sampler is one function in one file.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from voxlate.base.errors import BadInput
from voxlate.science.diffusion.prediction import per_item, to_eps
from voxlate.science.diffusion.schedules import FIRST_TIME, LOG_SNR_LIMIT, Schedule, with_slope
from voxlate.science.diffusion.times import GridName

Denoise = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[Tensor], Tensor]
F = TypeVar("F", bound=Callable[..., Tensor])


class Node(NamedTuple):
    """A time with the coefficients of x = alpha·x0 + sigma·eps at this time."""

    t: float
    alpha: float
    sigma: float


class Sampler(Protocol):
    def __call__(
        self, denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw, /
    ) -> Tensor: ...


@dataclass(frozen=True)
class Traits:
    """The properties of a sampler that its settings depend on.

    Args:
        evaluations: network evaluations of a step, or a function of the options that returns them; infinite where the sampler
            chooses its own steps.
        grid: spacing of the times.
        end: the last time. "image": 0. "faint": little noise is left. "one_step_early": one step before the image, for
            explicit steps, which diverge where the closing step is shorter than the others.
        options: the keys of SamplerSettings that are arguments of the sampler; a sampler without "eta" refuses that key.

    Example:
        >>> from voxlate.science.diffusion.samplers import Traits, ddim, traits_of
        >>> traits_of(ddim) == Traits(end="image", options=("eta",))
        True
    """

    evaluations: float | Callable[[Mapping[str, float]], float] = 1
    grid: GridName = "t"
    end: Literal["image", "faint", "one_step_early"] = "faint"
    options: tuple[str, ...] = ()


def with_traits(traits: Traits) -> Callable[[F], F]:
    """A decorator that attaches traits to a sampler; a sampler without it has the default traits.

    Args:
        traits: of the sampler.

    Returns:
        Callable[[F], F]: The decorator, which returns the sampler itself.

    Raises:
        TypeError: from the decorator, where the sampler takes no attributes.

    Example:
        >>> from voxlate.science.diffusion.samplers import Traits, traits_of, with_traits
        >>> @with_traits(Traits(evaluations=2))
        ... def mine(denoise, schedule, x, times, noise):
        ...     return x
        >>> traits_of(mine).evaluations
        2
    """

    def _mark(sampler: F) -> F:
        vars(sampler)["traits"] = traits
        return sampler

    return _mark


def traits_of(sampler: Sampler) -> Traits:
    """The traits that `with_traits` gave a sampler."""
    traits: Traits = getattr(sampler, "traits", Traits())
    return traits


@with_traits(Traits(end="image", options=("eta",)))
def ddim(
    denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, noise: Draw, eta: float = 0.0
) -> Tensor:
    """DDIM (Song, Meng & Ermon 2021, eq. 12 and 16); eta = 1 is ancestral sampling with the posterior variance.

    The step that ends at time 0 adds no noise. First order for eta = 0, and then DPM-Solver-1 as well (Lu et al. 2022).

    Args:
        denoise: gives the clean image x0 [B, ...] of x [B, ...] at times t [B] float64.
        schedule: gives alpha and sigma of a time.
        x: [B, ...], the state at times[0].
        times: [N + 1], falling; the last may be 0.
        noise: gives normal draws of the shape of x.
        eta: noise that is put back, from 0 (deterministic) to 1.

    Returns:
        Tensor: [B, ...], the state at times[-1].

    Raises:
        ZeroDivisionError: where sigma of a time before the last is 0.

    Example:
        >>> import torch
        >>> from voxlate.science.diffusion.samplers import ddim
        >>> from voxlate.science.diffusion.schedules import Cosine
        >>> truth = torch.full((1, 1, 1, 2, 2), 0.5)
        >>> times = torch.linspace(1, 0, 5, dtype=torch.float64)
        >>> image = ddim(lambda x, t: truth, Cosine(), torch.randn_like(truth), times, torch.randn_like)
        >>> torch.allclose(image, truth, atol=0.01)
        True
    """
    for (t, alpha, sigma), (s, alpha_s, sigma_s) in steps_of(schedule, times):
        x0 = denoise(x, at(t, x))
        eps = (x - alpha * x0) / sigma
        ratio = alpha * sigma_s / (sigma * alpha_s)  # root of SNR_t / SNR_s
        std = eta * sigma_s * math.sqrt(max(0.0, 1 - ratio**2))
        x = alpha_s * x0 + math.sqrt(sigma_s**2 - std**2) * eps
        if std > 0 and s > 0:
            x = x + std * noise(x)
    return x


# Ancestral sampling (Ho et al. 2020, algorithm 2, with the posterior variance).
ddpm = with_traits(Traits(end="image"))(partial(ddim, eta=1.0))


@with_traits(Traits(end="one_step_early"))
def euler_maruyama(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    noise: Draw,
    correctors: int = 0,
    r: float = 0.32,
) -> Tensor:
    """Euler–Maruyama on the reverse SDE dx = (f·x − g²·score)·dt + g·dw (Song et al. 2021, eq. 6).

    The step that ends at time 0 adds no noise and no corrector follows it. correctors: Langevin steps after each step,
    with r for twice the drift of a Langevin step over its noise, as paper 002 has it; Song et al. call the ratio "snr".
    """
    drifts = schedule.log_alpha_drift(times).tolist()
    g2s = schedule.g2(times).tolist()
    for ((t, alpha, sigma), (s, alpha_s, sigma_s)), f, g2 in zip(
        steps_of(schedule, times), drifts, g2s
    ):
        score = (alpha * denoise(x, at(t, x)) - x) / sigma**2
        x = x + (t - s) * (g2 * score - f * x)
        if s == 0:
            return x
        x = x + math.sqrt(g2 * (t - s)) * noise(x)
        for _ in range(correctors):
            score = (alpha_s * denoise(x, at(s, x)) - x) / sigma_s**2
            x = langevin(
                x, score, noise(x), r * alpha / alpha_s
            )  # alpha/alpha_s: 1 for VE, sqrt(1 − beta) for VP
    return x


# Euler–Maruyama with Langevin steps after each of its own (Song et al. 2021, algorithms 4 and 5; paper 002).
predictor_corrector = with_traits(
    Traits(
        evaluations=lambda options: 1 + options["correctors"],
        end="one_step_early",
        options=("correctors", "r"),
    )
)(partial(euler_maruyama, correctors=1))


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


def langevin(x: Tensor, score: Tensor, z: Tensor, r: float) -> Tensor:
    """One Langevin step per item along its score, sized so that the drift is r/2 times the noise.

    z: standard normal. Source: paper 002, eq. 16 and 31, with the norms of that item alone.
    """
    gamma = r**2 * mean_square(z) / mean_square(score)
    return x + gamma / 2 * score + gamma.sqrt() * z


def mean_square(x: Tensor) -> Tensor:
    """Mean square of each item over its voxels that are not 0, shaped to multiply x: [B, 1, ...].

    What is exactly 0 is outside the mask.
    """
    square = x.square().flatten(1)
    mean = square.sum(1) / (square > 0).sum(1).clamp(min=1)
    return mean.clamp(min=1e-30).reshape(-1, *[1] * (x.ndim - 1))


def steps_of(schedule: Schedule, times: Tensor) -> Iterator[tuple[Node, Node]]:
    """Consecutive pairs of nodes, one per step."""
    return pairwise(nodes(schedule, times))


def nodes(schedule: Schedule, times: Tensor) -> Iterator[Node]:
    """The node of each time."""
    alpha, sigma = schedule(times)
    return map(Node, times.tolist(), alpha.tolist(), sigma.tolist())


def at(t: float, x: Tensor) -> Tensor:
    """The time t for every item of x."""
    return torch.full((len(x),), t, dtype=torch.float64)


# The probability-flow ODE, and its integrator with adaptive steps

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
