"""How much of the data's spread a sampler's settings keep, apart from any network."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from voxlate.science.diffusion.prediction import per_item
from voxlate.science.diffusion.sample import SamplerSettings, sample
from voxlate.science.diffusion.schedules import Schedule

STDS = (
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
)  # of what a source leaves open, in network units: 6 to 128 of 255 grey levels


def kept_shares(
    sampling: SamplerSettings,
    schedule: Schedule,
    stds: Sequence[float] = STDS,
    voxels: int = 20_000,
) -> list[float]:
    """Standard deviation of one sample over that of normal data, for each standard deviation, by the exact denoiser.

    For x0 of N(0, std²) the mean of x0 given x is alpha·std² / (alpha²·std² + sigma²)·x, so all that is lost is lost by
    the steps and by the closing denoising. The result is known to 0.5 % with 20,000 voxels.
    """
    generator = Generator().manual_seed(0)
    variance = torch.tensor(list(stds), dtype=torch.float64) ** 2
    space = torch.zeros(len(stds), 1, 1, 1, voxels, dtype=torch.float64)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return per_item(alpha * variance / (alpha**2 * variance + sigma**2), x) * x

    def draw(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    made = sample(dataclasses.replace(sampling, windows=None), denoise, schedule, draw, space)
    return (made.flatten(1).std(1) / variance.sqrt()).tolist()
