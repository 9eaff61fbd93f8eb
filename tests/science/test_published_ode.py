"""Paper 002's score model as published: data in [0, 1], noise of 25^t dw, and the ODE's state at 1e-3 as the image."""

from dataclasses import replace

import torch
from calling import batch_of
from torch import nn
from torch.testing import assert_close

from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.schedules import ExponentialVE
from voxlate.science.methods.diffusion import Diffusion
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput, Output
from voxlate.training import recipe as recipes

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
