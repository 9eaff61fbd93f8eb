"""From noise to image: steps, masks, starts, batches and windows of slices."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from exact import (
    GAUSS,
    SCHEDULES,
    SHAPE,
    TWO_TISSUES,
    for_every,
    image,
    odd_network,
    run,
    zeros,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.prediction import denoiser
from voxlate.science.diffusion.sample import (
    SAMPLERS,
    SamplerSettings,
    Windows,
    denoise_windows,
    sample,
)
from voxlate.science.diffusion.samplers import Traits, at, with_traits
from voxlate.science.diffusion.schedules import (
    Cosine,
    ExponentialVE,
    LinearBetas,
    LinearVP,
)
from voxlate.science.diffusion.times import grid

every_sampler = for_every(name=SAMPLERS)
STARTED_LATE = [name for name in SAMPLERS if name != "rk45"]
CALLS_A_STEP = {"predictor_corrector": 2}


def quick(name: str, **options) -> SamplerSettings:
    """Tolerances that keep rk45 short, where its accuracy is not asked for."""
    return SamplerSettings(sampler=name, rtol=0.1, atol=0.1, **options)


# Steps


def times_asked(sampling: SamplerSettings, schedule, denoise=zeros) -> list[float]:
    seen = []

    def listen(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return denoise(x, t)

    run(sampling, listen, schedule)
    return seen


@for_every(
    name=[name for name in SAMPLERS if name != "rk45"],
    schedule=[SCHEDULES[name] for name in ("cosine", "leaves_noise")],
    steps=[1, 2, 5],
)
def test_steps_are_the_times_at_which_the_network_denoises(name, schedule, steps):
    sampling = quick(name, steps=steps)
    if steps == 2 and name in ("euler_maruyama", "predictor_corrector"):
        sampling = replace(sampling, steps=9)  # two steps overshoot, which is refused
    seen = times_asked(sampling, schedule)
    assert len(seen) == 1 + (sampling.steps - 1) * CALLS_A_STEP.get(name, 1)
    assert seen[0] == 1
    assert min(seen) > 0 or schedule == SCHEDULES["leaves_noise"]


def test_kept_states_of_an_ode_are_its_solution_and_end_with_the_image_that_is_drawn_without_them():
    """Of Gaussian data: x_t - alpha mean is to its start as the standard deviations of x_t are, at 1 and 1/2."""
    states, schedule = list[Tensor](), LinearVP()
    given = (GAUSS.denoiser(schedule), schedule, Noise(0, [1]), torch.zeros(1, 1, 1, 4, 4))
    plain = SamplerSettings(steps=900)
    image = sample(replace(plain, keep_states=3), *given, states=states)
    again = (*given[:2], Noise(0, [1]), given[3])
    assert torch.equal(states[-1], image)
    assert torch.equal(image, sample(plain, *again))
    alpha, sigma = schedule(torch.tensor([1, 1 / 2]))
    growth = torch.hypot(alpha * GAUSS.std, sigma)
    first, half = (state - now * GAUSS.mean for state, now in zip(states, alpha))
    assert torch.allclose(half / growth[1], first / growth[0], atol=0.005)


@every_row(
    "name, steps, end",
    [("ddim", 32, 0), ("euler_maruyama", 1000, 1e-3), ("euler_maruyama", 50, 0.02)],
)
def test_euler_maruyama_stops_one_step_before_the_image_and_denoises_once_more(name, steps, end):
    """So that g²·dt/sigma² stays near 1 at the end, however few the steps (spec 002, section 4b)."""
    sampling = SamplerSettings(sampler=name, steps=steps)
    times = torch.linspace(1, end, steps + (end == 0), dtype=torch.float64)
    assert_close(sampling.times(ExponentialVE()), times)
    assert sampling.closes(ExponentialVE()) == (end > 0)


def test_noise_that_a_schedule_leaves_at_time_zero_is_denoised_once_more():
    sampling = SamplerSettings(sampler="ddim", steps=10)
    names = ("leaves_noise", "cosine", "flow", "betas_of_002", "exponential_ve")
    assert [sampling.closes(SCHEDULES[name]) for name in names] == [True] + [False] * 4


@every_row("name", ["euler_maruyama", "predictor_corrector"])
def test_a_sampler_whose_steps_overshoot_under_a_schedule_is_refused(name):
    """g²·dt/sigma² = 2·log(5000)/4 = 4.3: each step would leave 3.3 times the noise that it finds."""
    for schedule, kind in (
        (SCHEDULES["leaves_noise"], "LeavesNoise"),
        (LinearBetas(), "linear_betas"),
    ):
        with refuses(rf"fits the {kind} schedule.*overshoot"):
            run(quick(name, steps=4), zeros, schedule)
        run(quick(name, steps=9), zeros, schedule)


@for_every(name=STARTED_LATE, windows=[None, Windows(size=2, overlap=1)])
def test_samplers_never_wait_for_the_device(name, windows):
    """A number cannot be read from a tensor on the meta device; rk45 alone chooses its steps by the network."""
    schedule = Cosine()
    like = torch.zeros(2, 1, 3, 4, 4, device="meta")
    denoise = denoiser(lambda x, log_snr: x, schedule, "v", clip=(-1.0, 1.0))
    if windows is not None:
        whole = denoise
        denoise = denoise_windows(lambda part: whole, 3, windows)
    sampling = quick(name, steps=9, schedule=LinearVP())
    assert sample(sampling, denoise, schedule, torch.randn_like, like, like).is_meta
    with pytest.raises((RuntimeError, NotImplementedError)):
        sample(quick("rk45"), denoise, schedule, torch.randn_like, like, like)


# Masks

CONFIGURATIONS = [code for code in itertools.product((0.0, 1.0), repeat=4) if 0 < sum(code) < 4]


@for_every(
    case=[
        (name, code) for name in SAMPLERS for code in CONFIGURATIONS[:: 1 if name == "ddim" else 7]
    ]
)
def test_known_channels_are_bit_identical_at_every_step_and_in_the_result_and_others_have_no_influence(
    case,
):
    """All 14 configurations of four modalities (spec 003, facts 1 and 8): what is missing may be NaN in `known`."""
    name, code = case
    known, mask = image(), torch.tensor(code).reshape(1, 4, 1, 1, 1)
    scanned = mask.expand(SHAPE) == 0

    def denoise(x, t):
        assert torch.equal(x[scanned], known[scanned])
        return odd_network(x, t)

    out, same = (
        sample(quick(name, steps=4), denoise, Cosine(), Noise(0, [1, 2]), given, mask)
        for given in (known, known.masked_fill(mask > 0, torch.nan))
    )
    assert torch.equal(out, same)
    assert torch.equal(out[scanned], known[scanned])
    assert not torch.equal(out[~scanned], known[~scanned])


# Batches, seeds and starts


@every_sampler
def test_an_item_is_the_same_alone_and_among_others(name):
    sampling, denoise = quick(name, steps=6), TWO_TISSUES.denoiser(Cosine())

    def draw(*items):
        like = torch.zeros(len(items), 1, 1, 8, 8)
        return sample(sampling, denoise, Cosine(), Noise(5, list(items)), like)

    apart = torch.cat([draw(11), draw(22)])
    assert_close(draw(11, 22), apart, rtol=0, atol=1e-6)


@every_row("name, schedule", [*itertools.product(STARTED_LATE, SCHEDULES.values())][::5])
def test_sampling_from_a_noised_initial_image_keeps_the_law_of_the_data(name, schedule):
    """Where the initial image is drawn from the data, noising and denoising it gives the data again.

    Mean 0.4 and spread 0.2, within 4 standard errors and 6 % of the spread for 50 steps.
    """
    count = 4096
    draw = torch.Generator().manual_seed(3)
    initial = 0.4 + 0.2 * torch.randn(1, 1, 1, 64, 64, generator=draw)
    sampling = SamplerSettings(sampler=name, steps=50, start=0.5, grid="log_snr", end=1e-4)
    like = torch.zeros_like(initial)
    denoise = GAUSS.denoiser(schedule)
    x = sample(sampling, denoise, schedule, Noise(0, [1]), like, initial=initial)
    assert abs(float(x.mean()) - 0.4) < 4 * 0.2 / count**0.5 + 0.005
    assert float(x.std()) == pytest.approx(0.2, rel=4 / (2 * count) ** 0.5 + 0.06)


# A sampler of the user's own


@with_traits(Traits(evaluations=2, grid="log_snr", end="one_step_early", options=("eta",)))
def twice(denoise, schedule, x, times, noise, eta):
    """Denoises twice in each step, and adds eta times the noise."""
    for s in times[1:].tolist():
        x0 = denoise(denoise(x, at(s, x)), at(s, x))
        x = x0 + eta * noise(x)
    return x


def test_a_sampler_of_ones_own_states_its_evaluations_grid_end_and_options():
    own = SamplerSettings(sampler=f"{__name__}:twice", steps=9, eta=0.5)
    schedule = ExponentialVE()
    assert own.evaluations == 18
    assert torch.equal(own.times(schedule), grid("log_snr", schedule, 8, end=1 / 9))
    assert len(times_asked(own, schedule)) == 17  # 8 steps and the closing evaluation
    assert float(run(replace(own, close=False), zeros, schedule).std()) > 0.2
    with refuses("overshoot"):
        run(replace(own, steps=4), zeros, SCHEDULES["leaves_noise"])


DEPTH = 11
ITEMS = torch.arange(2 * DEPTH).reshape(2, DEPTH)


def slice_wise(part: slice):
    """Of each slice by itself."""
    return GAUSS.denoiser(Cosine())


@given(size=st.integers(1, 20), overlap=st.integers(0, 19), depth=st.integers(1, 60))
def test_windows_cover_a_volume_evenly_overlap_as_asked_and_are_as_few_as_that_allows(
    size, overlap, depth
):
    if overlap >= size:
        return
    parts = Windows(size=size, overlap=overlap).slices(depth)
    assert parts[0].start == 0
    assert parts[-1].stop == depth
    assert all(part.stop - part.start == min(size, depth) for part in parts)
    steps = [later.start - earlier.start for earlier, later in itertools.pairwise(parts)]
    assert all(step <= size - overlap for step in steps)
    assert not steps or max(steps) - min(steps) <= 1
    assert len(parts) == max(1, math.ceil((depth - overlap) / (size - overlap)))


@every_row(
    "name, windows",
    [(name, Windows(size=4, overlap=3)) for name in SAMPLERS]
    + [("ddpm", Windows(size=5, overlap=1)), ("ddpm", Windows(size=30))],
)
def test_a_denoiser_of_single_slices_gives_the_same_bits_in_windows_with_every_sampler(
    name, windows
):
    sampling = SamplerSettings(sampler=name, steps=5, rtol=0.1, atol=0.1)
    mask = (torch.arange(4) > 0).float().reshape(1, 1, 1, 1, 4)
    whole, parts = (
        sample(sampling, denoise, Cosine(), Noise(0, ITEMS), torch.zeros(2, 1, DEPTH, 3, 4), mask)
        for denoise in (slice_wise(slice(None)), denoise_windows(slice_wise, DEPTH, windows))
    )
    assert torch.equal(parts, whole)


def test_windows_that_disagree_are_averaged_where_they_overlap():
    windows = Windows(size=4, overlap=2)
    denoise = denoise_windows(
        lambda part: lambda x, t: torch.full_like(x, float(part.start)), 8, windows
    )
    found = denoise(torch.zeros(1, 1, 8, 1, 1), torch.zeros(1))
    assert found.flatten().tolist() == [0, 0, 1, 1, 3, 3, 4, 4]  # windows from 0, 2 and 4
