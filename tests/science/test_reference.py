"""Schedules and samplers against numbers of the published code of paper 001, in float64.

What that code gets wrong is not looked at, but its corrected forms are.
"""

import pytest
import torch
from exact import Mixture, zeros
from torch import Tensor
from torch.testing import assert_close

from rows import every_row
from voxlate.base.files import read_json
from voxlate.science.diffusion.prediction import denoiser, target, to_eps
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.diffusion.samplers import ddim, ddpm
from voxlate.science.diffusion.schedules import (
    LOG_SNR_LIMIT,
    Cosine,
    ShiftedCosine,
    Sigmoid,
)


@pytest.fixture(scope="module")
def reference(shared):
    return read_json(shared / "reference/xmodality/dev/diffusion.json")


def tensor(values) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


# Schedules

PUBLISHED = {
    "cosine": Cosine(),
    "cosine_shifted_32_of_256": ShiftedCosine(size=256, reference=32),
    "sigmoid_start0_end3_tau0.1": Sigmoid(start=0, end=3, tau=0.1, power="alpha"),
    "sigmoid_start0_end3_tau0.008": Sigmoid(start=0, end=3, tau=0.008, power="alpha"),
    "sigmoid_start-3_end3_tau1.0_corrected_argument_alpha2=g_(Jabri)": Sigmoid(),
}


@every_row("name", PUBLISHED)
def test_schedules_agree_and_are_finite_where_the_reference_is_not(reference, name):
    schedule, t = PUBLISHED[name], tensor(reference["t"])
    expected = tensor(reference["schedules"][name]["logsnr"]).clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT)
    assert_close(schedule.log_snr(t), expected, rtol=1e-9, atol=1e-9)


# Samplers


def toy_denoiser(clip: bool):
    """E[x0 | x] of N(0.3, 0.5²) through the v that a network would give; clipped as `denoiser` clips, or not."""

    def predict(x: Tensor, log_snr: Tensor) -> Tensor:
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        x0 = Mixture((0.3,), (1.0,), 0.5).denoise(x, alpha, sigma)
        return target(x0, to_eps(x0, x, alpha, sigma), alpha, sigma, "v")

    return denoiser(predict, Cosine(), "v", clip=(-1.0, 1.0) if clip else None)


TRACES = [
    ("ddim", ddim, True),
    ("ddim__no_x0_clip", ddim, False),
    ("dpm1", ddim, False),
    ("dpm1__no_x0_clip", ddim, False),
    ("ddpm_mean_only_(noise=0)", ddpm, True),
]


@every_row("trace, sampler, clip", TRACES)
def test_samplers_agree_step_by_step(reference, trace, sampler, clip):
    """Whether x0 is clipped is the denoiser's affair, so the same sampler gives both traces."""
    toy = reference["toy_samplers"]
    x, times = tensor(toy["x_T"]).reshape(toy["shape"]), tensor(toy["time_grid"])
    default = SamplerSettings(sampler="ddim", steps=toy["steps"]).times(Cosine())
    assert_close(default, times, rtol=0, atol=1e-15)
    parts = toy["outputs"][trace]
    assert "final" in parts
    for part, expected in parts.items():
        count = {"after_step_1": 1, "after_step_4": 4}.get(part, 8)
        found = sampler(toy_denoiser(clip), Cosine(), x, times[: count + 1], zeros)
        found = found.clamp(-1, 1) if part == "final" else found
        assert_close(found, tensor(expected).reshape(x.shape), rtol=0, atol=1e-10)
