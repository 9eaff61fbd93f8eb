"""Langevin steps and the predictor–corrector: step lengths, laws and the settings of paper 002."""

import math

import pytest
import torch
from exact import GAUSS, run

from rows import every_row
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.diffusion.samplers import euler_maruyama, langevin, predictor_corrector
from voxlate.science.diffusion.schedules import ExponentialVE, LinearBetas


def test_a_step_is_that_of_song_item_by_item():
    """snr·sqrt(2) of eps = 2·(snr·|z|/|s|)², with r = 2·snr (spec 002, section 4 and fact 6)."""
    draw = torch.Generator().manual_seed(0)
    x, score, z = torch.randn(3, 4, 1, 2, 8, 8, generator=draw, dtype=torch.float64)
    score *= torch.tensor([0.1, 1, 5, 30]).reshape(4, 1, 1, 1, 1)
    noise_norm, score_norm = (
        value.square().sum((1, 2, 3, 4), keepdim=True).sqrt() for value in (z, score)
    )
    eps = 2 * (0.16 * noise_norm / score_norm) ** 2
    song = x + eps * score + (2 * eps).sqrt() * z
    torch.testing.assert_close(langevin(x, score, z, 0.32), song, rtol=0, atol=1e-12)


@every_row("schedule, factor", [(ExponentialVE(), 1.0), (LinearBetas(), 1 - 0.02)])
def test_a_corrector_after_a_step_is_one_minus_beta_as_long_under_vp_and_whole_under_ve(
    schedule, factor
):
    """alpha_i of algorithm 5 of Song et al. 2021; the last of the betas is 0.02."""
    times, denoise = torch.tensor([1.0, 0.999], dtype=torch.float64), GAUSS.denoiser(schedule)
    x = torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(1, 1, 1, 4, 4)
    alpha, sigma = schedule(times[1:])
    noise, again = Noise(3, [1]), Noise(3, [1])
    corrected = predictor_corrector(denoise, schedule, x, times, noise, r=0.3)
    predicted = euler_maruyama(denoise, schedule, x, times, again)
    score = (alpha * denoise(predicted, times[1:]) - predicted) / sigma**2
    expected = langevin(predicted, score, again(x), 0.3 * math.sqrt(factor))
    torch.testing.assert_close(corrected, expected, rtol=0, atol=1e-9)


def test_the_settings_of_paper_002_reach_two_percent():
    """500 predictors and 499 correctors (spec 002, section 4 and fact 3: spread 0.1976)."""
    schedule = ExponentialVE()
    sampling = SamplerSettings(sampler="predictor_corrector", steps=500)
    x = run(sampling, GAUSS.denoiser(schedule), schedule, side=64)
    assert float(x.mean()) == pytest.approx(0.4, abs=0.002 + 4 * 0.2 / 64)
    assert float(x.std()) == pytest.approx(0.2, rel=0.02 + 4 / 64 / math.sqrt(2))
