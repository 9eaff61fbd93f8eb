"""Data whose best denoiser is known, and the schedules to try it on."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rows import every_row
from voxlate.base.config import settings
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.prediction import Kind, per_item, target, to_eps, to_x0
from voxlate.science.diffusion.sample import SamplerSettings, sample
from voxlate.science.diffusion.samplers import Denoise
from voxlate.science.diffusion.schedules import (
    Cosine,
    ExponentialVE,
    FlowMatching,
    LinearBetas,
    LinearVP,
    Path,
    Schedule,
    ShiftedCosine,
    Sigmoid,
)


@settings
class LeavesNoise(Schedule):
    """sigma = 0.01 · 5000^t, which is not 0 at time 0 (Song et al. 2021, eq. 30): a schedule of one's own."""

    path: ClassVar[Path] = "exploding"

    def _log_snr(self, t: Tensor) -> Tensor:
        return -2 * (math.log(0.01) + t * math.log(5000))


SCHEDULES: dict[str, Schedule] = {
    "cosine": Cosine(),
    "shifted_cosine": ShiftedCosine(),
    "sigmoid": Sigmoid(),
    "sigmoid_from_0": Sigmoid(start=0.0, end=3.0, tau=0.7),
    "sigmoid_as_alpha": Sigmoid(start=0.0, end=3.0, tau=0.9, power="alpha"),
    "betas_of_002": LinearBetas(first=1e-4, last=0.02, count=1000),
    "betas_of_000": LinearBetas(first=1e-6, last=0.01, count=1000),
    "betas_of_004": LinearBetas(first=0.0015, last=0.0195, count=1000, spacing="sqrt"),
    "linear_vp": LinearVP(),
    "exponential_ve": ExponentialVE(),
    "leaves_noise": LeavesNoise(),
    "flow": FlowMatching(),
}


def for_every(**axes: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for the whole product of some lists, as one test."""
    lists = list(axes.values())
    return every_row(tuple(axes), lists[0] if len(lists) == 1 else itertools.product(*lists))


every_schedule = for_every(schedule=SCHEDULES.values())
KINDS: tuple[Kind, ...] = ("eps", "x0", "v", "x_plus_score")


@dataclass(frozen=True)
class Mixture:
    """Every voxel by itself: a Gaussian of one width around one of several means."""

    means: tuple[float, ...]
    shares: tuple[float, ...]
    width: float

    @property
    def mean(self) -> float:
        return sum(share * mean for share, mean in zip(self.shares, self.means))

    @property
    def std(self) -> float:
        square = sum(share * mean**2 for share, mean in zip(self.shares, self.means))
        return float((self.width**2 + square - self.mean**2) ** 0.5)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x_t = x]."""
        a, s = per_item(alpha, x), per_item(sigma, x)
        variance = (a * self.width) ** 2 + s**2
        gain = a * self.width**2 / variance
        means = x.new_tensor(self.means).reshape(-1, *[1] * x.ndim)
        rest = x - a * means
        logs = x.new_tensor(self.shares).log().reshape(means.shape) - rest**2 / (2 * variance)
        return (torch.softmax(logs, 0) * (means + gain * rest)).sum(0)

    def denoiser(self, schedule: Schedule) -> Denoise:
        return lambda x, t: self.denoise(x, *schedule(t))

    def through(self, schedule: Schedule, kind: Kind) -> Denoise:
        """The denoiser of a perfect network whose output is of the given kind."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = schedule(t)
            x0 = self.denoise(x, alpha, sigma)
            out = target(x0, to_eps(x0, x, alpha, sigma), alpha, sigma, kind)
            return to_x0(out, x, alpha, sigma, kind)

        return denoise


GAUSS = Mixture(means=(0.4,), shares=(1.0,), width=0.2)
TWO_TISSUES = Mixture(means=(-0.5, 0.4), shares=(0.3, 0.7), width=0.15)

# Three items with data N(0.4, width²), each with a width of its own, since the error of one may happen to pass
# through 0. Along the probability-flow ODE, x − alpha·0.4 grows as the standard deviation of x_t.

WIDTHS = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64).reshape(3, 1)


def denoise_widths(schedule: Schedule) -> Denoise:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (per_item(value, x) for value in schedule(t))
        return 0.4 + alpha * WIDTHS**2 / (alpha**2 * WIDTHS**2 + sigma**2) * (x - alpha * 0.4)

    return denoise


def flow_error(sampler: Callable[..., Tensor], schedule: Schedule, times: Tensor) -> float:
    """Largest distance from the exact map, over the three widths and starts at −2 … 2 standard deviations."""
    x = torch.linspace(-2, 2, 5, dtype=torch.float64) * schedule.start_std(times[0])
    x = x * torch.ones_like(WIDTHS)
    (alpha, alpha_s), (sigma, sigma_s) = schedule(times[[0, -1]])
    growth = torch.hypot(alpha_s * WIDTHS, sigma_s) / torch.hypot(alpha * WIDTHS, sigma)
    exact = alpha_s * 0.4 + (x - alpha * 0.4) * growth
    found = sampler(denoise_widths(schedule), schedule, x, times, refuse_noise)
    return float((found - exact).abs().max())


def refuse_noise(x: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


# Sampling

SHAPE = (2, 4, 1, 6, 5)


def run(
    sampling: SamplerSettings, denoise: Denoise, schedule: Schedule, side: int = 4, count: int = 1
) -> Tensor:
    """Samples of the items 1 … count, of one channel and slice, side × side."""
    like = torch.zeros(count, 1, 1, side, side)
    return sample(sampling, denoise, schedule, Noise(0, list(range(1, count + 1))), like)


def odd_network(x: Tensor, t: Tensor) -> Tensor:
    """Mixes channels and neighbours, so that anything wrong in one voxel would spread to all."""
    return torch.tanh(x.mean((1, 3, 4), keepdim=True) + x.roll(1, 1) - 0.3 * x.roll(1, 3))


def image() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))


def zeros(x: Tensor, t: Tensor | None = None) -> Tensor:
    """As a network or as noise: nothing."""
    return torch.zeros_like(x)
