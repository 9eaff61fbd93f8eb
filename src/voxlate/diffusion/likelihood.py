"""The likelihood of images under a model, by the probability-flow ODE from the image to noise."""

import math

import torch
from torch import Tensor

from voxlate.diffusion.ode import Slope, integrate, velocity
from voxlate.diffusion.sample import denoiser_in_mask
from voxlate.diffusion.samplers import Denoise, Draw
from voxlate.diffusion.schedules import Schedule

START = (
    1e-5  # the time that an image is taken for, since the density of a clean one may be infinite
)
FIRST_STEP = 1e-3  # the first step to try, in units of t


def bits_per_dim(
    denoise: Denoise,
    schedule: Schedule,
    x0: Tensor,
    noise: Draw,
    mask: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Tensor:
    """−log2 of the density of each image over its number of voxels, [B]; of the voxels in the mask given the others.

    x0: [B, ...] in network units; each factor k on its values adds log2 k, so 256 grey levels that fill [−1, 1] have
    7 bits more. denoise must be differentiable and must not clip. noise: normal draws; their signs are the direction
    along which the divergence is taken (Hutchinson), which is right on average, and exact where voxels are independent.
    tolerance: relative and absolute error of a step.
    Source: Song et al. 2021, eq. 39 (the instantaneous change of variables of Chen et al. 2018).
    """
    mask = torch.ones_like(x0) if mask is None else mask.to(x0).expand_as(x0)
    slope = velocity(denoiser_in_mask(denoise, x0, mask), schedule)
    probe = noise(x0).sign() * mask
    state = torch.cat([(x0 * mask).flatten(1), x0.new_zeros(len(x0), 1)], dim=1)
    end = integrate(
        _with_divergence(slope, probe), state, START, 1.0, FIRST_STEP, tolerance, tolerance
    )
    x = end[:, :-1]
    log_change = end[:, -1]
    voxels = mask.flatten(1).sum(1)
    std = float(schedule.start_std(torch.tensor(1.0)))
    log_prior = -voxels * (math.log(std) + math.log(2 * math.pi) / 2) - x.square().sum(1) / (
        2 * std**2
    )
    return -(log_prior + log_change) / (voxels * math.log(2))


def _with_divergence(slope: Slope, probe: Tensor) -> Slope:
    """The slope of [B, voxels + 1] states whose last entry grows by the divergence of the others' slope."""

    def _both(state: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = state[:, :-1].reshape(probe.shape).detach().requires_grad_()
            v = slope(x, t)
            growth = torch.autograd.grad((v * probe).sum(), x)[0] * probe
        return torch.cat([v.detach().flatten(1), growth.flatten(1).sum(1, keepdim=True)], dim=1)

    return _both
