"""Training times against their laws, sampling grids against their formulas."""

import numpy as np
import torch
from exact import SCHEDULES, for_every
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion.schedules import Cosine, LinearBetas, Sigmoid
from voxlate.science.diffusion.times import (
    EarlyHeavyTimes,
    UniformLogSnrTimes,
    UniformTimes,
    grid,
)

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


@every_row("start, steps", [(1.0, steps) for steps in (2, 50, 200, 999, 1000)] + [(0.5, 5)])
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
