"""Samplers: from the state at times[0] to the state at times[-1], each a pure function that follows its paper's algorithm.

denoise(x, t) -> x0 wraps the network, its prediction type, the conditioning and the clipping; t: [B] float64, CPU.
times: [N + 1] falling. noise(x): fresh normal draws like x. With t now and s < t next, x = alpha·x0 + sigma·eps.
Coefficients are plain floats made before the loop, so a loop never waits for the device.

ode.py has the sampler whose steps adapt to the network.
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

from voxlate.science.diffusion.schedules import Schedule
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
