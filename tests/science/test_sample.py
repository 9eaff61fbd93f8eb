"""From noise to image: steps, masks, starts and batches."""

import itertools
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
from torch import Tensor
from torch.testing import assert_close

from refusals import refuses
from rows import every_row, slow
from stand_ins import recipe_of
from voxlate.base.config import fill
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SAMPLERS, SamplerSettings, sample
from voxlate.science.diffusion.samplers import Traits, at, with_traits
from voxlate.science.diffusion.schedules import (
    Cosine,
    ExponentialVE,
    FlowMatching,
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


def keep(sampling: SamplerSettings, schedule, states: list[Tensor] | None) -> Tensor:
    """A sample of Gaussian data, whose states go to the list."""
    like = torch.zeros(1, 1, 1, 4, 4)
    return sample(sampling, GAUSS.denoiser(schedule), schedule, Noise(0, [1]), like, states=states)


@slow
@for_every(name=SAMPLERS, schedule=[SCHEDULES[name] for name in ("cosine", "exponential_ve")])
def test_kept_states_change_no_image_and_end_with_it(name, schedule):
    plain, states = quick(name, steps=30), list[Tensor]()
    image = keep(replace(plain, keep_states=4), schedule, states)
    assert len(states) == 4
    assert torch.equal(states[-1], image)
    assert torch.equal(image, keep(plain, schedule, None))


def test_kept_states_of_an_ode_are_its_solution():
    """Of Gaussian data: x_t - alpha mean is to its start as the standard deviations of x_t are, at 1 and 1/2."""
    states, schedule = list[Tensor](), LinearVP()
    keep(SamplerSettings(steps=900, keep_states=3), schedule, states)
    alpha, sigma = schedule(torch.tensor([1, 1 / 2]))
    growth = torch.hypot(alpha * GAUSS.std, sigma)
    first, half = (state - now * GAUSS.mean for state, now in zip(states, alpha))
    assert torch.allclose(half / growth[1], first / growth[0], atol=0.005)


@slow
def test_the_tolerances_of_rk45_set_its_steps_and_not_the_number_asked_for():
    wide, tight, one, many = (
        len(
            times_asked(
                SamplerSettings(sampler="rk45", **options), Cosine(), GAUSS.denoiser(Cosine())
            )
        )
        for options in (
            {"rtol": 1e-3, "atol": 1e-3},
            {"rtol": 1e-6, "atol": 1e-6},
            {"steps": 1},
            {"steps": 1000},
        )
    )
    assert wide < 0.7 * tight
    assert abs(one - many) < 40


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
    schedules = (
        SCHEDULES["leaves_noise"],
        Cosine(),
        FlowMatching(),
        LinearBetas(),
        ExponentialVE(),
    )
    assert [*map(sampling.closes, schedules)] == [True] + [False] * 4


@for_every(name=[name for name in SAMPLERS if name != "ddim"])
def test_eta_is_refused_where_it_means_nothing(name):
    with refuses("eta"):
        quick(name, eta=0.5)


@every_row(
    "table",
    [
        {"r": 0},
        {"atol": -1e-5},
        {"correctors": 0},
    ],
)
def test_impossible_options_are_refused_in_one_sentence(table):
    with refuses(f"^synth: .*{next(iter(table))}.* found"):
        fill(SamplerSettings, table, "synth")


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


@every_sampler
def test_a_state_is_exactly_zero_outside_the_brain(name):
    """Spec 000, fact 2: for any network, and whatever it says outside."""
    mask = torch.zeros(2, 1, 1, 6, 5)
    mask[..., 1:4, 1:4] = 1
    outside, known = mask.expand(SHAPE) == 0, torch.zeros(SHAPE)
    made = []
    for said_outside in (0.0, 1e30):

        def denoise(x, t, said=said_outside):
            assert not x[outside].any()
            return odd_network(x, t).where(mask > 0, said)

        made.append(sample(quick(name, steps=4), denoise, Cosine(), Noise(0, [1, 2]), known, mask))
    assert not made[0][outside].any()
    assert torch.equal(*made)


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_row("name", [name for name in SAMPLERS if name != "rk45"])  # which must know its errors
def test_samplers_never_wait_for_the_gpu(name):
    known = torch.zeros(SHAPE, device="cuda")
    mask = torch.ones(2, 1, 1, 6, 5, device="cuda")
    try:
        for steps, mode in ((2, "default"), (4, "error")):
            torch.cuda.set_sync_debug_mode(mode)
            sample(quick(name, steps=steps), odd_network, Cosine(), Noise(0, [1, 2]), known, mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_sampler
def test_temperature_multiplies_the_spread_and_leaves_the_mean(name):
    """For Gaussian data every sampler is affine in its noise, so the deviation from the mean grows in proportion."""

    def draw(temperature):
        sampling = quick(name, steps=8, temperature=temperature)
        return run(sampling, GAUSS.denoiser(Cosine()), Cosine(), side=8)

    one, middle, two = draw(1.0), draw(1.5), draw(2.0)
    assert_close(one + two, 2 * middle, rtol=0, atol=1e-3 if name == "rk45" else 1e-5)
    assert float((two - one).std()) > 0.05


# A sampler of the user's own


def halving(denoise, schedule, x, times, noise):
    return x / 2


def test_a_recipe_may_name_a_function_of_the_users_own_as_sampler():
    own = f"{__name__}:halving"
    sampling = fill(SamplerSettings, {"sampler": own, "end": 0.0}, "recipe", code=[own])
    assert torch.equal(run(sampling, zeros, Cosine()), Noise(0, [1]).normal((1, 1, 4, 4)) / 2)


@with_traits(Traits(evaluations=2, grid="log_snr", end="one_step_early", options=("eta",)))
def twice(denoise, schedule, x, times, noise, eta):
    """Denoises twice in each step, and adds eta times the noise."""
    for s in times[1:].tolist():
        x0 = denoise(denoise(x, at(s, x)), at(s, x))
        x = x0 + eta * noise(x)
    return x


@with_traits(Traits(end="image"))
def still(denoise, schedule, x, times, noise):
    return x


def test_a_sampler_of_ones_own_states_its_evaluations_grid_end_and_options():
    def with_synth(**synth):
        return recipe_of(
            {"source": ["a"], "target": ["b"], "patch": [1, 8, 8]},
            {key: {"kind": "minmax"} for key in "ab"},
            method={"kind": "diffusion"},
            net={"kind": "unet", "width": 8, "groups": 4},
            synth={"sampler": f"{__name__}:twice", "eta": 0.5, **synth},
        )

    own = with_synth(steps=9)
    assert own.synth.evaluations == 18
    assert own.all_stages[-1].evaluations(own.synth) == 19
    schedule = ExponentialVE()
    assert torch.equal(own.synth.times(schedule), grid("log_snr", schedule, 8, end=1 / 9))
    open_end = replace(own.synth, close=False)
    assert len(times_asked(open_end, schedule)) == 18
    assert float(run(open_end, zeros, schedule).std()) > 0.2
    assert len(times_asked(own.synth, schedule)) == 17  # 8 steps and the closing evaluation
    with refuses("overshoot"):
        with_synth(steps=4, schedule={"kind": "exact:LeavesNoise"})
    plain = SamplerSettings(sampler=f"{__name__}:still", steps=5)
    assert (plain.evaluations, float(plain.times(Cosine())[-1])) == (5, 0.0)
    with refuses(r"synth\.eta: expected 0"):
        SamplerSettings(sampler=f"{__name__}:still", eta=0.5)


@every_row("name", ["no_such_module:f", "exact:no_such_function"])
def test_a_sampler_that_cannot_be_imported_is_refused_in_one_sentence(name):
    with refuses(r"^expected .* found none"):
        run(SamplerSettings(sampler=name), zeros, Cosine())
