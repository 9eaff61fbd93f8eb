"""Schedules against closed forms, published numbers and their own laws."""

import math

import numpy as np
import pytest
import torch
from exact import SCHEDULES, every_schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from torch.testing import assert_close

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


def tangent(t: torch.Tensor) -> torch.Tensor:
    """The log-SNR of the cosine schedule from 15 to -15."""
    first, last = math.atan(math.exp(-7.5)), math.atan(math.exp(7.5))
    return -2 * torch.tan(first + t * (last - first)).log()


@every_row(
    "schedule, log_snr",
    [
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
    "schedule, t, alpha, sigma",
    [
        (Cosine(), 0.5, 0.5**0.5, 0.5**0.5),
        (ExponentialVE(), 0.0, 1, 0),
        (ExponentialVE(), 1e-5, 1, 0.0031623),
        (ExponentialVE(), 0.5, 1, 1.930805),
        (ExponentialVE(), 1.0, 1, 9.845215),
        (LinearVP(), 0.5, 0.2811829, 0.9596542),
        (LinearVP(), 1.0, 0.0065716, 0.9999784),
        (FlowMatching(), 0.25, 0.75, 0.25),
    ],
)
def test_schedules_have_the_published_numbers(schedule, t, alpha, sigma):
    found = [float(one) for one in schedule(times(t))]
    assert found == pytest.approx([alpha, sigma], rel=2e-5, abs=5e-8)


@given(
    start=st.floats(-6, 6),
    span=st.floats(0.1, 8),
    backwards=st.booleans(),
    tau=st.floats(0.05, 2),
    t=st.floats(0.001, 0.999),
    power=st.sampled_from(["alpha2", "alpha"]),
)
def test_the_sigmoid_schedule_is_right_for_every_start_and_end(
    start, span, backwards, tau, t, power
):
    end = start - span if backwards else start + span
    with mp.workdps(400):

        def sigmoid(x):
            return 1 / (1 + mp.exp(-mpf(x) / mpf(tau)))

        now = mpf(start) + mpf(t) * (mpf(end) - mpf(start))
        g = (sigmoid(end) - sigmoid(now)) / (sigmoid(end) - sigmoid(start))
        alpha2 = g if power == "alpha2" else g**2
        expected = float(mp.log(alpha2 / (1 - alpha2)))
    found = float(Sigmoid(start=start, end=end, tau=tau, power=power).log_snr(times(t)))
    assert found == pytest.approx(min(max(expected, -LOG_SNR_LIMIT), LOG_SNR_LIMIT), abs=1e-8)


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
