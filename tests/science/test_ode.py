"""The probability-flow ODE with steps of its own: against the exact map and its order."""

import math

import pytest
import torch
import torch.nn.functional as F
from exact import GAUSS, SCHEDULES, TWO_TISSUES, flow_error, run
from torch.testing import assert_close

from refusals import refuses
from rows import every_row, slow
from voxlate.science.diffusion.prediction import per_item
from voxlate.science.diffusion.sample import SamplerSettings, sample
from voxlate.science.diffusion.samplers import integrate, rk45, velocity
from voxlate.science.diffusion.schedules import Cosine, ExponentialVE, LinearVP

SMOOTH = ("cosine", "exponential_ve", "leaves_noise")
TIMES = torch.tensor([1.0, 31 / 32, 1e-3], dtype=torch.float64)


@slow
@every_row("name", [*SMOOTH, "flow", "betas_of_002"])
def test_rk45_follows_the_exact_map_within_its_tolerances(name):
    """From end to end; the kinks of a table and the steep end of a straight path cost two digits of the 1e-5 a step."""
    assert flow_error(rk45, SCHEDULES[name], TIMES) < (1e-4 if name in SMOOTH else 5e-3)


def test_the_velocity_is_that_of_the_sde():
    """f·x − g²/2·score (Song et al. 2021, eq. 13)."""
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for schedule in (Cosine(), LinearVP(), ExponentialVE()):
        alpha, sigma = (per_item(value, x) for value in schedule(t))
        score = (alpha * GAUSS.denoise(x, *schedule(t)) - x) / sigma**2
        f, g2 = per_item(schedule.log_alpha_drift(t), x), per_item(schedule.g2(t), x)
        found = velocity(GAUSS.denoiser(schedule), schedule)(x, t)
        assert_close(found, f * x - g2 / 2 * score, rtol=1e-9, atol=1e-9)


def test_the_integrator_has_fifth_order():
    """dx/dt = x·cos t, whose first steps of length h err by h⁶; tolerances so wide that every step is kept."""
    x = torch.ones(1, 1, dtype=torch.float64)
    coarse, fine = (
        abs(
            float(integrate(lambda x, t: x * t.cos(), x, 0.0, h, h, 1e6, 1e6))
            - math.exp(math.sin(h))
        )
        for h in (0.4, 0.2)
    )
    assert math.log2(coarse / fine) == pytest.approx(6, abs=0.5)
    assert fine < 1e-7


def test_the_error_is_of_what_the_mask_leaves_free():
    """A wide frame of known voxels must not let the error inside grow."""
    schedule, seen = LinearVP(), []

    def denoise(x, t):
        seen.append(1)
        return TWO_TISSUES.denoise(x, *schedule(t))

    start = torch.randn(1, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    sampling = SamplerSettings(sampler="rk45", rtol=1e-4, atol=1e-4)

    def frame(x):
        return F.pad(start, (0, x.shape[-1] - 2, 0, x.shape[-1] - 2))

    inside = frame(torch.zeros(16)) != 0
    wide = sample(sampling, denoise, schedule, frame, torch.zeros(1, 1, 1, 16, 16), inside.float())
    calls = len(seen)
    alone = sample(sampling, denoise, schedule, frame, torch.zeros(1, 1, 1, 2, 2))
    assert_close(wide[..., :2, :2], alone, rtol=0, atol=1e-6)
    assert len(seen) == 2 * calls


def test_a_network_that_gives_no_numbers_ends():
    x = run(SamplerSettings(sampler="rk45"), lambda x, t: x * float("nan"), Cosine())
    assert x.isnan().all()


def test_a_slope_that_no_step_can_follow_is_refused_in_one_sentence():
    stream = torch.Generator().manual_seed(0)

    def slope(x, t):
        return 1e9 * torch.randn(x.shape, generator=stream, dtype=x.dtype)

    with refuses(r"expected tolerances.*found rtol 1e-05.*choose another sampler"):
        integrate(slope, torch.ones(1, 4, dtype=torch.float64), 0.0, 1.0, 0.1, 1e-5, 1e-5)
