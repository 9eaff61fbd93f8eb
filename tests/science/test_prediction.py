"""What a network predicts, against its definition, under another schedule, scaled, and weighted in a loss."""

import pytest
import torch
from calling import batch_of
from exact import KINDS, SCHEDULES, for_every
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from rows import every_row
from voxlate.science.diffusion.prediction import (
    MinSnr,
    Uniform,
    WeightTable,
    denoiser,
    diffuse,
    from_x0_weight,
    mean_in_mask,
    per_item,
    reschedule,
    snr,
    target,
    to_eps,
    to_x0,
)
from voxlate.science.diffusion.schedules import Cosine, ExponentialVE
from voxlate.science.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput, Output

every_kind = for_every(kind=KINDS)


def pair(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, count, 2, 1, 4, 4, generator=stream, dtype=torch.float64)
    return x0.clamp(-1, 1), eps


@settings(max_examples=100)
@given(
    st.sampled_from(list(SCHEDULES)),
    st.sampled_from(KINDS),
    st.lists(st.floats(1e-4, 1), min_size=3, max_size=3),
)
def test_the_image_comes_back_from_every_kind_of_output(name, kind, t):
    x0, eps = pair()
    alpha, sigma = SCHEDULES[name](torch.tensor(t, dtype=torch.float64))
    x_t = diffuse(x0, eps, alpha, sigma)
    out = target(x0, eps, alpha, sigma, kind)
    assert_close(to_x0(out, x_t, alpha, sigma, kind), x0, rtol=0, atol=1e-6)


@for_every(name=SCHEDULES)
def test_targets_are_those_of_their_papers_and_the_noise_comes_back_from_the_image(name):
    """The score is the gradient by x_t of -(x_t - alpha·x0)² / (2·sigma²)."""
    x0, eps = pair()
    alpha, sigma = SCHEDULES[name](torch.tensor([0.01, 0.4, 1.0]))
    a, s = per_item(alpha, x0), per_item(sigma, x0)
    x_t = a * x0 + s * eps
    assert_close(diffuse(x0, eps, alpha, sigma), x_t)
    score = -(x_t - a * x0) / s**2
    expected = {"eps": eps, "x0": x0, "v": a * eps - s * x0, "x_plus_score": x_t + score}
    for kind, wanted in expected.items():
        found = target(x0, eps, alpha, sigma, kind)
        assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert_close(to_eps(x0, x_t, alpha, sigma), eps, rtol=0, atol=1e-6)


@every_kind
def test_a_clean_state_gives_itself(kind):
    """At sigma = 0 nothing divides by 0: x0 = x_t, whatever the network says."""
    x0, out = pair()
    alpha, sigma = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found = to_x0(x0 if kind == "x0" else out, x0, alpha, sigma, kind)
    assert torch.equal(found, x0)


def test_a_denoiser_clips_the_image_and_keeps_the_type_of_the_state():
    x_t = torch.full((1, 1, 1, 2, 2), 7.0)
    denoise = denoiser(lambda x, log_snr: torch.zeros_like(x), Cosine(), "eps", clip=(-1.0, 0.5))
    x0 = denoise(x_t, torch.tensor([0.5], dtype=torch.float64))
    assert torch.equal(x0, torch.full_like(x_t, 0.5))
    assert x0.dtype == torch.float32


SWAPPED = ("cosine", "sigmoid", "betas_of_002", "exponential_ve", "flow")


@for_every(trained=["betas_of_000", "flow", "exponential_ve"], schedule=SWAPPED)
def test_a_network_sees_states_as_in_training_under_another_schedule(trained, schedule):
    """alpha·x0 + sigma·eps at the same log-SNR, where training reached it; else a state of the size at the end."""
    trained, schedule = SCHEDULES[trained], SCHEDULES[schedule]
    t, end = torch.linspace(0.02, 1, 30, dtype=torch.float64), torch.tensor(1.0)
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 30, 1, 1, 2, 2, generator=draw, dtype=torch.float64)
    seen = []
    reschedule(lambda *given: seen.extend(given), trained, schedule)(
        diffuse(x0, eps, *schedule(t)), t
    )
    x, seen_t = seen
    reached = schedule.log_snr(t) >= trained.log_snr(end)
    assert reached.any()
    for found, expected in (
        (trained.log_snr(seen_t), schedule.log_snr(t)),
        (x, diffuse(x0, eps, *trained(seen_t))),
    ):
        torch.testing.assert_close(found[reached], expected[reached], rtol=0, atol=1e-8)
    if not reached.all():
        size = x[~reached].square().mean() / eps[~reached].square().mean()
        assert 0.8 < float(size / trained.start_std(end) ** 2) < 1.25


# The whole method, with a network that knows two tissues by the log-SNR alone


T = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)


@for_every(name=SCHEDULES, kind=KINDS)
def test_a_weighted_output_error_is_the_weighted_error_of_the_image(name, kind):
    """Whatever the output, its squared error times its weight is 3 times the squared error of its x0."""
    alpha, sigma = SCHEDULES[name](T)
    stream = torch.Generator().manual_seed(0)
    x0, eps, error = torch.randn(3, len(T), 5, generator=stream, dtype=torch.float64)
    x_t, right = diffuse(x0, eps, alpha, sigma), target(x0, eps, alpha, sigma, kind)
    image_error = to_x0(right + error, x_t, alpha, sigma, kind) - to_x0(
        right, x_t, alpha, sigma, kind
    )
    weight = from_x0_weight(torch.full_like(T, 3.0), alpha, sigma, kind)
    assert_close(weight[:, None] * error**2, 3 * image_error**2, rtol=1e-4, atol=1e-9)


def test_min_snr_has_the_published_form_of_each_prediction():
    alpha, sigma = Cosine()(T)
    ratio = alpha**2 / sigma**2
    capped = ratio.clamp(max=5)
    weight = MinSnr(gamma=5.0)
    for kind, factor in (
        ("x0", 1),
        ("eps", 1 / ratio),
        ("v", 1 / (ratio + 1)),
    ):
        assert_close(weight(alpha, sigma, kind), capped * factor)


@for_every(weight=[Uniform(), MinSnr()], kind=KINDS)
def test_weights_are_finite_at_both_ends(weight, kind):
    for schedule in SCHEDULES.values():
        found = weight(*schedule(torch.tensor([0.0, 1.0])), kind)
        assert found.isfinite().all()
        assert (found >= 0).all()


def test_a_table_is_linear_between_its_entries_and_constant_beyond():
    table = WeightTable(log_snr=(-2.0, 0.0, 4.0), weight=(1.0, 3.0, 1.0))
    log_snr = torch.tensor([-9.0, -2.0, -1.0, 0.0, 1.0, 4.0, 9.0], dtype=torch.float64)
    alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    assert table(alpha, sigma, "v").tolist() == pytest.approx([1, 1, 2, 3, 2.5, 1, 1])


def test_a_table_of_x0_weights_is_turned_into_those_of_the_output():
    table = WeightTable(log_snr=(-2.0, 2.0), weight=(1.0, 1.0), of="x0")
    alpha, sigma = Cosine()(T)
    assert_close(table(alpha, sigma, "eps"), 1 / snr(alpha, sigma))


def brain() -> torch.Tensor:
    """Of half of the voxels, of one, and of none."""
    mask = torch.zeros(3, 1, 1, 4, 4)
    mask[0, ..., :2, :] = 1
    mask[1, ..., 0, 0] = 1
    return mask


@every_row("reduction, voxels", [("mask", (16, 2)), ("all", (32, 32))])
def test_errors_in_the_mask_alone_are_summed_over_as_many_voxels_as_the_reduction_says(
    reduction, voxels
):
    error = torch.arange(96.0).reshape(3, 2, 1, 4, 4)
    sums = error[0, :, :, :2].sum(), error[1, :, :, 0, 0].sum()
    expected = [float(one) / count for one, count in zip(sums, voxels)]
    assert mean_in_mask(error, brain(), reduction).tolist() == pytest.approx([*expected, 0])


class Curve(nn.Module):
    """A network with an answer for every state, source and noise level."""

    def forward(self, inputs: NetworkInput) -> Output:
        (image,) = inputs.images.values()
        level = inputs.log_snr.view(-1, 1, 1, 1, 1) / 10
        return Output(torch.tanh(0.7 * inputs.state + image + level))


def test_the_same_noise_in_either_schedule_is_the_same_question():
    log_snr = torch.tensor([-4.0, 0.0, 3.0])
    source, x0, eps = torch.randn(3, 3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    answers = []
    for schedule, scaled in ((ExponentialVE(), True), (Cosine(), False)):
        options = DiffusionSettings(schedule=schedule, prediction="x0", scaled_input=scaled)
        method, t = Diffusion(options, Curve(), Translate(), 1), schedule.t(log_snr)
        denoise = method._denoiser(method.task.pose(batch_of(source)))
        answers.append(denoise(diffuse(x0, eps, *schedule(t)), t))
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)
