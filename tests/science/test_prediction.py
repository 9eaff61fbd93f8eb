"""Every kind of output against its own definition, and back to the image."""

import torch
from exact import KINDS, SCHEDULES, for_every
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from voxlate.science.diffusion.prediction import denoiser, diffuse, per_item, target, to_eps, to_x0
from voxlate.science.diffusion.schedules import Cosine, LinearBetas

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


@for_every(kind=["x0", "v"])
def test_pure_noise_gives_the_image_where_the_algebra_allows(kind):
    x0, eps = pair()
    alpha, sigma = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    out = target(x0, eps, alpha, sigma, kind)
    assert_close(to_x0(out, eps, alpha, sigma, kind), x0)


@every_kind
def test_a_denoiser_of_a_perfect_network_returns_the_image(kind):
    x0, eps = pair()
    schedule, t = LinearBetas(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alpha, sigma = schedule(t)
    seen = []

    def predict(x_t, log_snr):
        seen.append(log_snr)
        return target(x0, eps, alpha, sigma, kind)

    denoise = denoiser(predict, schedule, kind)
    assert_close(denoise(diffuse(x0, eps, alpha, sigma), t), x0)
    assert_close(seen[0], schedule.log_snr(t))


def test_a_denoiser_clips_the_image_and_keeps_the_type_of_the_state():
    x_t = torch.full((1, 1, 1, 2, 2), 7.0)
    denoise = denoiser(lambda x, log_snr: torch.zeros_like(x), Cosine(), "eps", clip=(-1.0, 0.5))
    x0 = denoise(x_t, torch.tensor([0.5], dtype=torch.float64))
    assert torch.equal(x0, torch.full_like(x_t, 0.5))
    assert x0.dtype == torch.float32
