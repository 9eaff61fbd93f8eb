"""Schedules against closed forms, published numbers and their own laws; times against their laws and formulas."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact import SCHEDULES, every_schedule, for_every
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion import schedules
from voxlate.science.diffusion.schedules import (
    LOG_SNR_LIMIT,
    Cosine,
    ExponentialVE,
    FlowMatching,
    LinearBetas,
    LinearVP,
    ShiftedCosine,
    Sigmoid,
)
from voxlate.science.diffusion.times import (
    EarlyHeavyTimes,
    UniformLogSnrTimes,
    UniformTimes,
    grid,
)

INSIDE = (
    torch.arange(13, 987, 16, dtype=torch.float64) / 1000 + 0.0005
)  # between the nodes of a table of 1000
FINE = torch.linspace(0, 1, 4001, dtype=torch.float64)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Laws of every schedule


@every_schedule
def test_each_path_keeps_its_sum_and_its_log_snr_falls_within_the_limit(schedule):
    log_snr, (alpha, sigma) = schedule.log_snr(FINE), schedule(FINE)
    assert (log_snr.diff() <= 0).all()
    assert log_snr.abs().max() <= LOG_SNR_LIMIT
    limited = (2 * torch.log(alpha / sigma)).clamp(max=LOG_SNR_LIMIT)
    assert_close(log_snr[1:], limited[1:], rtol=0, atol=1e-9)
    sums = {"preserving": alpha**2 + sigma**2, "exploding": alpha, "straight": alpha + sigma}
    total = sums[schedule.path]
    assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)
    # the start is the image, and the end can still be divided by alpha
    assert alpha[0] == pytest.approx(1, abs=5e-5)
    assert sigma[0] < 0.0101
    assert alpha[-1] >= 4.5e-5


@settings(max_examples=60)
@given(schedule=st.sampled_from(list(SCHEDULES.values())), share=st.floats(0, 1))
def test_the_inverse_finds_the_log_snr_again(schedule, share):
    high, low = schedule.log_snr(times(0, 1)).tolist()
    log_snr = times(low + share * (high - low))
    t = schedule.t(log_snr)
    assert 0 <= t <= 1
    # 1e-7: near t = 1 the log-SNR is as steep as 1/(1 − t), and t has 16 digits
    assert_close(schedule.log_snr(t), log_snr, rtol=0, atol=1e-7)


@every_schedule
def test_drift_and_g2_are_finite_and_those_of_the_equation_of_alpha_and_sigma(schedule):
    """d sigma² = 2·f·sigma²·dt + g²·dt, the variance of dx = f·x·dt + g·dw, where f is the slope of log alpha."""
    h = 1e-6
    (alpha_behind, behind), (alpha_ahead, ahead) = (schedule(INSIDE + step) for step in (-h, h))
    drift, slope = schedule.log_alpha_drift(INSIDE), (alpha_ahead.log() - alpha_behind.log())
    assert_close(drift, slope / (2 * h), rtol=1e-6, atol=1e-7)
    growth = (ahead**2 - behind**2) / (2 * h) - 2 * drift * schedule(INSIDE)[1] ** 2
    assert_close(schedule.g2(INSIDE), growth, rtol=1e-6, atol=1e-7)
    drift, g2 = schedule.log_alpha_drift(FINE), schedule.g2(FINE)
    assert (drift.isfinite() & g2.isfinite() & (g2 >= 0)).all()


@every_schedule
def test_schedules_work_in_inference_mode_on_float32_times(schedule):
    t = torch.tensor([0.25, 0.5])
    expected = schedule.g2(t)
    with torch.inference_mode():
        assert torch.equal(schedule.g2(t), expected)
    assert schedule(t)[0].dtype == torch.float64


# Closed forms


def tangent(t: Tensor) -> Tensor:
    """The log-SNR of the cosine schedule from 15 to -15."""
    first, last = math.atan(math.exp(-7.5)), math.atan(math.exp(7.5))
    return -2 * torch.tan(first + t * (last - first)).log()


def sigmoid(start: float, end: float, tau: float, power: int) -> Callable[[Tensor], Tensor]:
    """The log-SNR of a sigmoid from `start` to `end`, rescaled to fall from 1 to 0."""

    def _log_snr(t: Tensor) -> Tensor:
        ends = torch.tensor([start, end], dtype=torch.float64)
        first, last = torch.sigmoid(ends / tau)
        now = torch.sigmoid((start + t * (end - start)) / tau)
        alpha2 = ((last - now) / (last - first)) ** power
        return (alpha2 / (1 - alpha2)).log()

    return _log_snr


@every_row(
    "schedule, log_snr",
    [
        (Sigmoid(), sigmoid(-3, 3, 1, 1)),
        (Sigmoid(start=0, end=3, tau=0.5, power="alpha"), sigmoid(0, 3, 0.5, 2)),
        (Sigmoid(start=2, end=-1, tau=0.7), sigmoid(2, -1, 0.7, 1)),
        (Cosine(), tangent),
        (ShiftedCosine(size=256, reference=32), lambda t: tangent(t) + 2 * math.log(32 / 256)),
        (LinearVP(), lambda t: -torch.expm1(0.1 * t + 19.9 / 2 * t**2).log()),
        (ExponentialVE(), lambda t: -(torch.expm1(2 * t * math.log(25)) / math.log(625)).log()),
        (FlowMatching(), lambda t: 2 * ((1 - t) / t).log()),
    ],
)
def test_schedules_are_the_formulas_of_their_papers(schedule, log_snr):
    assert_close(schedule.log_snr(INSIDE), log_snr(INSIDE), rtol=0, atol=1e-9)


@every_row(
    "schedule, std, apart",
    [
        (SCHEDULES["betas_of_000"], 1, 1e-15),
        (ExponentialVE(), 9.845215, 1e-5),
        (FlowMatching(), 1, 1e-4),
    ],
)
def test_variance_preserving_sampling_starts_from_unit_noise_and_exploding_from_sigma(
    schedule, std, apart
):
    assert float(schedule.start_std(times(1))) == pytest.approx(std, abs=apart)


# Tables of betas


TABLES = [
    (LinearBetas(first=1e-6, last=1e-2, count=1000), 0.00662264, 372),
    (LinearBetas(first=1e-4, last=0.02, count=1000), 4.0358e-5, 259),
    (LinearBetas(first=0.0015, last=0.0195, count=1000, spacing="sqrt"), 1.4230e-4, None),
    (LinearBetas(first=0.00085, last=0.012, count=1000, spacing="sqrt"), 4.6601e-3, None),
]


@every_row("schedule, last, half", TABLES)
def test_tables_hit_every_index_and_the_published_products_from_exactly_the_image(
    schedule, last, half
):
    power = 2 if schedule.spacing == "sqrt" else 1
    betas = np.linspace(schedule.first ** (1 / power), schedule.last ** (1 / power), 1000) ** power
    abar = np.cumprod(1 - betas)
    alpha, sigma = schedule(torch.arange(1001, dtype=torch.float64) / 1000)
    assert (float(alpha[0]), float(sigma[0])) == (1, 0)
    np.testing.assert_allclose(alpha[1:].numpy() ** 2, abar, rtol=1e-10)
    np.testing.assert_allclose(sigma[1:].numpy() ** 2, 1 - abar, rtol=1e-9)
    assert abar[-1] == pytest.approx(last, rel=5e-5)
    assert half is None or np.flatnonzero(abar < 0.5)[0] == half


# In a recipe


def test_a_table_of_betas_has_values_where_a_network_is_built_without_its_own():
    schedule = LinearBetas(count=7)
    expected = schedules._table(schedule)
    schedules._table.cache_clear()
    with torch.device("meta"):
        assert torch.equal(schedules._table(schedule), expected)


EVEN = (
    torch.arange(200_000, dtype=torch.float64) + 0.5
) / 200_000  # u at even quantiles: means are integrals
TABLE = LinearBetas(first=1e-6, last=1e-2, count=1000)


# Training


def test_uniform_times_of_a_table_are_its_indices():
    values, counts = torch.unique(UniformTimes(count=1000)(EVEN, TABLE) * 1000, return_counts=True)
    expected = torch.arange(1, 1001, dtype=torch.float64)
    assert_close(values, expected, rtol=0, atol=1e-12)
    assert counts.unique().tolist() == [200]


def test_early_heavy_indices_have_the_published_probabilities():
    """p(i) = (2T − i) / (T·(3T + 1)/2): p(0) = 0.00133289, p(999) = 0.00066711, mean 443.963, P(i < 500) = 0.583306."""
    index = EarlyHeavyTimes(count=1000)(EVEN, TABLE).mul(1000).round().long() - 1
    share = torch.bincount(index, minlength=1000).double() / len(EVEN)
    expected = (2000 - torch.arange(1000, dtype=torch.float64)) / 1_500_500
    assert_close(share, expected, rtol=0, atol=1.01 / len(EVEN))


@for_every(name=SCHEDULES)
def test_log_snr_laws_hold_under_every_schedule(name):
    schedule, u = SCHEDULES[name], EVEN[50::100]
    uniform = schedule.log_snr(UniformLogSnrTimes(low=-2.0, high=3.0)(u, schedule))
    assert stats.kstest(uniform.numpy(), stats.uniform(-2.0, 5.0).cdf).statistic < 2e-3


def test_log_snr_laws_stay_within_the_schedule():
    t = UniformLogSnrTimes()(EVEN, SCHEDULES["leaves_noise"])
    assert 0 <= t.min() < t.max() <= 1


# Sampling

GRIDS = ["t", "log_snr"]


@settings(max_examples=60)
@given(
    st.sampled_from(GRIDS),
    st.sampled_from(list(SCHEDULES.values())),
    st.integers(1, 70),
    st.floats(0.5, 1),
    st.sampled_from([0, 1e-3, 0.1]),
)
def test_grids_fall_from_start_to_end(name, schedule, steps, start, end):
    times = grid(name, schedule, steps, start, end)
    assert len(times) == steps + 1
    assert times[0] == start
    assert times[-1] == end
    assert (times.diff() < 0).all()
    assert times.dtype == torch.float64


@every_row("start, steps", [(1.0, steps) for steps in (2, 200, 1000)] + [(0.5, 5)])
def test_the_index_grid_visits_the_published_indices_and_ends_at_the_image(start, steps):
    index = np.round(np.linspace(1000 * start - 1, 0, steps)) + 1
    times = grid("index", TABLE, steps, start=start)
    np.testing.assert_allclose(times.numpy() * 1000, [*index, 0], atol=1e-9)


@every_row("name, turned", [("t", torch.clone), ("log_snr", Cosine().log_snr)])
def test_even_grids_are_even_in_t_or_log_snr(name, turned):
    steps = turned(grid(name, Cosine(), 10, 0.95, 0.02)).diff()
    assert_close(steps, steps[:1].expand(10), rtol=0, atol=1e-9)


@every_row(
    "arguments, sentence",
    [
        (("index", Cosine(), 10), "linear_betas"),
        (("index", TABLE, 1001), "2 to 1000 steps"),
        (("t", Cosine(), 10, 0.2, 0.3), "end < start"),
        (
            ("log_snr", Sigmoid(start=0, end=3, tau=0.008, power="alpha"), 10, 1.0, 0.5),
            "held at its limit",
        ),
    ],
)
def test_impossible_grids_are_refused_in_one_sentence(arguments, sentence):
    with refuses(sentence):
        grid(*arguments)
