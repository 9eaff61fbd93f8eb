"""Samplers and score models against published numbers.

Paper 001: numbers of its code, in float64; what that code gets wrong is not looked at, but its corrected forms are. Paper 002: data in
[0, 1], noise of 25^t dw, and the ODE's state at 1e-3 as the image."""

from dataclasses import replace

import torch
from calling import batch_of
from exact import Mixture, zeros
from torch import Tensor, nn
from torch.testing import assert_close

from rows import every_row
from voxlate.base.files import read_json
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.prediction import denoiser, target, to_eps
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.diffusion.samplers import ddim, ddpm
from voxlate.science.diffusion.schedules import (
    Cosine,
    ExponentialVE,
)
from voxlate.science.methods.diffusion import Diffusion
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput, Output
from voxlate.training import recipe as recipes


def tensor(values) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


# Samplers


def toy_denoiser(clip: bool):
    """E[x0 | x] of N(0.3, 0.5²) through the v that a network would give; clipped as `denoiser` clips, or not."""

    def predict(x: Tensor, log_snr: Tensor) -> Tensor:
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        x0 = Mixture((0.3,), (1.0,), 0.5).denoise(x, alpha, sigma)
        return target(x0, to_eps(x0, x, alpha, sigma), alpha, sigma, "v")

    return denoiser(predict, Cosine(), "v", clip=(-1.0, 1.0) if clip else None)


TRACES = [
    ("ddim", ddim, True),
    ("ddim__no_x0_clip", ddim, False),
    ("ddpm_mean_only_(noise=0)", ddpm, True),
]


@every_row("trace, sampler, clip", TRACES)
def test_samplers_agree_step_by_step(shared, trace, sampler, clip):
    """Whether x0 is clipped is the denoiser's affair, so the same sampler gives both traces."""
    toy = read_json(shared / "reference/xmodality/dev/diffusion.json")["toy_samplers"]
    x, times = tensor(toy["x_T"]).reshape(toy["shape"]), tensor(toy["time_grid"])
    default = SamplerSettings(sampler="ddim", steps=toy["steps"]).times(Cosine())
    assert_close(default, times, rtol=0, atol=1e-15)
    parts = toy["outputs"][trace]
    assert "final" in parts
    for part, expected in parts.items():
        count = {"after_step_1": 1, "after_step_4": 4}.get(part, 8)
        found = sampler(toy_denoiser(clip), Cosine(), x, times[: count + 1], zeros)
        found = found.clamp(-1, 1) if part == "final" else found
        assert_close(found, tensor(expected).reshape(x.shape), rtol=0, atol=1e-10)


MEAN, STD = 0.4, 0.2  # of the images, which are Gaussian in [0, 1]


class Exact(nn.Module):
    """eps of Gaussian images under 25^t dw, from the exact score -(x - m) / (v² + s²)."""

    def forward(self, inputs: NetworkInput) -> Output:
        variance = torch.exp(-inputs.log_snr.double()).view(-1, 1, 1, 1, 1)
        x = inputs.state.double()
        return Output((variance.sqrt() * (x - MEAN) / (STD**2 + variance)).float())


def method(name: str) -> Diffusion:
    made = recipes.read(name)
    return Diffusion(made.method, Exact(), made.task.build({}), 1)  # type: ignore[arg-type]


def batch(items: int = 2) -> Batch:
    source = torch.linspace(-1, 1, items * 64).reshape(items, 1, 1, 8, 8)
    return batch_of(source, -source)


def test_the_ode_row_gives_the_state_at_a_thousandth_of_the_published_equation():
    """x(t) - m = (x(1) - m) sqrt((v² + s(t)²) / (v² + s(1)²)) for data in [0, 1]; no closing denoising."""
    row, ours = recipes.read("mr_to_ct_ode"), method("mr_to_ct_ode")
    made, closed = (
        ours.synthesise(batch(), Noise(3, batch().item), replace(row.synth, close=close))
        for close in (False, True)
    )
    (_, first), (_, last) = (ExponentialVE(base=25)(torch.tensor(t)) for t in (1.0, 1e-3))
    start = first * Noise(3, batch().item).normal((1, 1, 8, 8)).double()
    shrink = ((STD**2 + last**2) / (STD**2 + first**2)).sqrt()
    expected = (MEAN + (start - MEAN) * shrink) * 2 - 1  # in network units
    assert_close(made.double(), expected, atol=2e-4, rtol=0)
    assert not row.synth.close
    assert (closed - made).abs().max() > 10 * 2e-4  # as it was before: denoised once more


def test_data_from_0_to_1_have_their_lower_end_outside_the_mask():
    half, task = batch(), Translate(range=(0, 1), inside=True, strip=True)
    half.mask[..., 4:] = 0
    problem = task.pose(half, Noise(0, [1, 2]))
    restored = task.restore(problem.x0, problem)
    for image, inside, end in (
        (problem.inputs.joined, (half.source + 1) / 2, 0),
        (problem.x0, (1 - half.source) / 2, 0),
        (restored, -half.source, -1),
    ):
        assert_close(image[..., :4], inside[..., :4])
        assert (image[..., 4:] == end).all()
