"""Samplers against exact maps: Gaussian data make every sampler an affine map whose law is known without chance."""

import math

import pytest
import torch
import torch.nn.functional as F
from exact import (
    GAUSS,
    KINDS,
    SCHEDULES,
    TWO_TISSUES,
    flow_error,
    for_every,
    run,
    zeros,
)
from torch.testing import assert_close

from refusals import refuses
from rows import every_row, slow
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SAMPLERS, SamplerSettings, sample
from voxlate.science.diffusion.samplers import (
    ddim,
    ddpm,
    dpmpp_2m,
    euler_maruyama,
    integrate,
    langevin,
    predictor_corrector,
    rk45,
)
from voxlate.science.diffusion.schedules import (
    Cosine,
    ExponentialVE,
    LinearBetas,
    LinearVP,
    Sigmoid,
)
from voxlate.science.diffusion.times import grid

# one of each path; a table has kinks, which cost order
PATHS = {name: SCHEDULES[name] for name in ("cosine", "exponential_ve", "flow")}
# and, of a table and of noise that is left at time 0
ENDS = [*PATHS.values(), SCHEDULES["betas_of_002"], SCHEDULES["leaves_noise"]]


@every_row(
    "sampler, spacing, order",
    [
        (ddim, "t", 1),
        (ddim, "log_snr", 1),
        (dpmpp_2m, "log_snr", 2),
    ],
)
def test_deterministic_samplers_converge_at_their_order(sampler, spacing, order):
    for name, schedule in PATHS.items():
        coarse, fine = (
            flow_error(sampler, schedule, grid(spacing, schedule, n, 0.95, 0.05)) for n in (40, 80)
        )
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.12), (name, coarse, fine)
        assert fine < {1: 0.04, 2: 1e-3, 3: 1e-6}[order], name


# Ancestral sampling


def added_std(sampler, schedule, t: float, s: float) -> float:
    """The noise that one step adds: its result with noise 1 less its result with noise 0."""
    x, times = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([t, s], dtype=torch.float64)
    noised, plain = (sampler(zeros, schedule, x, times, draw) for draw in (torch.ones_like, zeros))
    return float(noised - plain)


@every_row(
    "first, last, i, published",
    [
        (1e-4, 0.02, 1, 5.4532e-5),
        (1e-4, 0.02, 999, 0.0199999),
        (1e-6, 0.01, 999, 0.0099993),
        (1e-6, 0.01, 500, None),
    ],
)
def test_ddim_with_eta_one_has_the_ddpm_posterior_variance(first, last, i, published):
    schedule = LinearBetas(first=first, last=last, count=1000)
    abar, behind = schedule(torch.tensor([i + 1, i], dtype=torch.float64) / 1000)[0] ** 2
    expected = float((1 - abar / behind) * (1 - behind) / (1 - abar))
    found = added_std(ddpm, schedule, (i + 1) / 1000, i / 1000) ** 2
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert published is None or found == pytest.approx(published, rel=1e-5)


@every_row("sampler", [ddpm, euler_maruyama])
def test_the_step_to_time_zero_adds_no_noise_even_where_sigma_is_not_zero(sampler):
    assert added_std(sampler, Cosine(), 0.1, 0.05) > 0.01
    assert added_std(sampler, Cosine(), 0.1, 0.0) == 0


@for_every(schedule=SCHEDULES.values(), eta=[0.0, 0.3, 1.0])
def test_a_ddim_step_keeps_the_law_of_x_t_given_x0(schedule, eta):
    """With the true x0 known, a state N(alpha·x0, sigma²) becomes N(alpha_s·x0, sigma_s²) for every eta."""
    times = torch.tensor([0.7, 0.4], dtype=torch.float64)
    (alpha, alpha_s), (sigma, sigma_s) = (pair.tolist() for pair in schedule(times))
    x0 = torch.full((2, 1), 0.6, dtype=torch.float64)
    x = alpha * x0 + sigma * torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    mean, shifted = ddim(lambda x, t: x0, schedule, x, times, zeros, eta=eta).flatten().tolist()
    noised = ddim(lambda x, t: x0, schedule, x, times, torch.ones_like, eta=eta)[0].item()
    assert mean == pytest.approx(alpha_s * 0.6, rel=1e-9)
    assert math.hypot(shifted - mean, noised - mean) == pytest.approx(sigma_s, rel=1e-9)


# Two tissues: a mixture, whose denoiser is not linear


@every_row(
    "sampler, schedule, kind",
    [
        (sampler, name, KINDS[(row + column) % len(KINDS)])  # the predictions in turn
        for row, sampler in enumerate(SAMPLERS)
        for column, name in enumerate(SCHEDULES)
        if sampler != "rk45" or name in ("cosine", "linear_vp", "exponential_ve", "flow")  # seconds
    ][::5],
)
def test_samples_of_a_mixture_have_its_mean_and_spread(sampler, schedule, kind):
    """Within 4 standard errors and the error of 40 steps stated here."""
    count, schedule = 4096, SCHEDULES[schedule]
    sampling = SamplerSettings(
        sampler=sampler, steps=40, grid="log_snr", end=1e-4, rtol=1e-3, atol=1e-3
    )
    x = run(sampling, TWO_TISSUES.through(schedule, kind), schedule, side=64)
    # the spread of a mixture's sample variance is below that of a Gaussian's
    chance = 4 * TWO_TISSUES.std / math.sqrt(count)
    step_error = {"ddpm": 0.04, "rk45": 0.01, "dpmpp_2m": 0.01}
    step_error = step_error.get(sampler, 0.02)
    assert x.isfinite().all()
    assert abs(float(x.mean()) - TWO_TISSUES.mean) < chance + step_error / 2
    assert abs(float(x.std()) - TWO_TISSUES.std) < chance / math.sqrt(2) + step_error


# Perfect networks


@for_every(schedule=ENDS, name=[name for name in SAMPLERS if name != "rk45"])
def test_a_network_that_knows_the_image_returns_it(name, schedule):
    x0 = torch.linspace(-1, 1, 16).reshape(1, 1, 1, 4, 4)
    sampling = SamplerSettings(sampler=name, steps=10)
    found = run(sampling, lambda x, t: x0.expand_as(x), schedule, count=2)
    sigma = float(schedule(torch.tensor(0.0))[1]) if not sampling.closes(schedule) else 0.0
    assert_close(found, x0.expand(2, -1, -1, -1, -1), rtol=0, atol=5 * sigma + 1e-6)


@for_every(
    name=[name for name in SAMPLERS if name != "rk45"],
    times=[("t", 0.0), ("log_snr", 0.0), ("t", 1e-3)],
)
def test_a_schedule_that_is_nearly_all_noise_gives_no_nan(name, times):
    """A sigmoid so steep that most of its times are held at the limit of the log-SNR: steps between them are empty."""
    sampling = SamplerSettings(sampler=name, steps=8, grid=times[0], end=times[1])
    schedule = Sigmoid(start=0.0, end=3.0, tau=0.008, power="alpha")
    assert run(sampling, GAUSS.denoiser(schedule), schedule).isfinite().all()


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


SMOOTH = ("cosine", "exponential_ve", "leaves_noise")
TIMES = torch.tensor([1.0, 31 / 32, 1e-3], dtype=torch.float64)


@slow
@every_row("name", [*SMOOTH, "flow", "betas_of_002"])
def test_rk45_follows_the_exact_map_within_its_tolerances(name):
    """From end to end; the kinks of a table and the steep end of a straight path cost two digits of the 1e-5 a step."""
    assert flow_error(rk45, SCHEDULES[name], TIMES) < (1e-4 if name in SMOOTH else 5e-3)


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
